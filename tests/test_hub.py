"""Model folders: whole, readable by others, never unpickled."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from manymask import Segmenter
from manymask.data import phantom
from manymask.datasets import DATASETS, Intended
from manymask.errors import UserError
from manymask.hub import load_model, save_model

IMAGE = phantom.draw(1).image[:, :, 0]


def test_saved_model_segments_like_the_one_in_memory(trained_run, tmp_path):
    segmenter = Segmenter.from_pretrained(str(trained_run))
    segmenter.save_pretrained(tmp_path / "copy")
    again = Segmenter.from_pretrained(str(tmp_path / "copy"))
    assert torch.equal(again.segment(IMAGE).masks, segmenter.segment(IMAGE).masks)


def test_model_folder_holds_config_weights_and_card(trained_run):
    folder = trained_run / "segmenter" / "model"
    names = {p.name for p in folder.iterdir()}
    assert {"config.json", "README.md", "training_ids.txt", "image_codec.safetensors", "mask_codec.safetensors",
            "denoiser.safetensors", "LICENSE"} == names  # fmt: skip
    card = (folder / "README.md").read_text()
    for said in ("license:", "Intended use", "Limits", "split", "Not"):
        assert said in card


def test_half_precision_folder_is_half_as_large_and_loads(trained_run, tmp_path):
    trained = load_model(trained_run)
    save_model(trained, tmp_path / "half", half=True)
    save_model(trained, tmp_path / "full")
    half, full = ((tmp_path / n / "denoiser.safetensors").stat().st_size for n in ("half", "full"))
    assert half < 0.62 * full
    assert next(load_model(tmp_path / "half").model.parameters()).dtype == torch.float32


@pytest.mark.parametrize(
    "missing", ["config.json", "denoiser.safetensors", "mask_codec.safetensors", "training_ids.txt"]
)
def test_missing_part_is_named(trained_run, tmp_path, missing):
    save_model(load_model(trained_run), tmp_path / "model")
    (tmp_path / "model" / missing).unlink()
    with pytest.raises(UserError, match=missing.replace(".", r"\.")):
        load_model(tmp_path / "model")


def test_other_weights_and_damaged_files_are_refused(trained_run, tmp_path):
    save_model(load_model(trained_run), tmp_path / "model")
    part = tmp_path / "model" / "denoiser.safetensors"
    part.write_bytes(part.read_bytes()[:500])
    with pytest.raises(UserError, match=r"denoiser\.safetensors does not hold"):
        load_model(tmp_path / "model")
    part.write_bytes((tmp_path / "model" / "mask_codec.safetensors").read_bytes())
    with pytest.raises(UserError, match=r"denoiser\.safetensors does not hold"):
        load_model(tmp_path / "model")


def test_newer_format_is_refused(trained_run, tmp_path):
    save_model(load_model(trained_run), tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"format": 99}))
    with pytest.raises(UserError, match="format 99"):
        load_model(tmp_path / "model")


def test_codec_is_no_segmenter(trained_run):
    with pytest.raises(UserError, match="is a codec"):
        Segmenter.from_pretrained(str(trained_run / "mask-codec" / "model"))


def test_result_has_the_size_of_the_image_and_depends_on_the_seed(trained_run):
    segmenter = Segmenter.from_pretrained(str(trained_run))
    large = np.asarray(Image.fromarray(IMAGE).resize((150, 90)))
    result = segmenter.segment(large, samples=3, seed=0)
    assert result.masks.shape == (3, 90, 150) and result.consensus.shape == result.confidence.shape == (90, 150)
    assert torch.equal(result.masks, segmenter.segment(large, samples=3, seed=0).masks)
    assert not torch.equal(result.masks, segmenter.segment(large, samples=3, seed=1).masks)
    assert torch.allclose(segmenter.segment(large, samples=2).masks, result.masks[:2], atol=1e-4)


def test_colour_grey_array_and_file_are_all_taken(trained_run, tmp_path):
    segmenter = Segmenter.from_pretrained(str(trained_run))
    Image.fromarray(IMAGE).save(tmp_path / "grey.png")
    grey = segmenter.segment(IMAGE).masks
    for form in (str(tmp_path / "grey.png"), tmp_path / "grey.png", Image.fromarray(IMAGE), IMAGE[:, :, None]):
        assert torch.equal(segmenter.segment(form).masks, grey)
    colour = np.repeat(IMAGE[:, :, None], 3, axis=2)
    assert torch.allclose(segmenter.segment(colour).masks, grey, atol=0.05)


NAN = np.full((9, 9), np.nan, np.float32)


@pytest.mark.parametrize(
    ("image", "message"),
    [(np.zeros((64, 64), np.uint8), "flat"), (NAN, "not numbers"), (np.zeros((2, 2, 2, 2), np.uint8), "not one grey")],
)
def test_nothing_to_see_is_said(trained_run, image, message):
    with pytest.raises(UserError, match=message):
        Segmenter.from_pretrained(str(trained_run)).segment(image)


def test_fingerprint_is_of_the_weights_as_used_and_of_every_one_of_them(trained_run, tmp_path):
    trained = load_model(trained_run)
    save_model(trained, tmp_path / "half", half=True)
    half = load_model(tmp_path / "half")
    save_model(half, tmp_path / "again")
    assert len(trained.fingerprint) == 64 and trained.fingerprint != half.fingerprint  # halving rounds the weights
    assert load_model(tmp_path / "again").fingerprint == half.fingerprint == load_model(tmp_path / "half").fingerprint
    changed = load_model(tmp_path / "half")
    *_, last = changed.model.state_dict().values()
    last.reshape(-1)[-1] += 1
    assert changed.fingerprint != half.fingerprint


def test_config_tells_what_a_model_is_for_and_an_older_one_without_it_loads(trained_run, tmp_path):
    save_model(
        replace(load_model(trained_run), use=Intended("Finds what.", ("MR",), "ours", (0.5, 1.0))), tmp_path / "m"
    )
    path = tmp_path / "m" / "config.json"
    config = json.loads(path.read_text())
    assert (config["purpose"], config["modality"], config["trained_on"]) == ("Finds what.", ["MR"], "ours")
    record = load_model(tmp_path / "m").record
    assert (record.name, record.recipe, record.dataset) == ("m", "phantom", "phantom")
    assert (record.purpose, record.modality, record.trained_on) == ("Finds what.", ("MR",), "ours")
    for name in ("purpose", "modality", "trained_on", "spacing_mm"):
        del config[name]
    path.write_text(json.dumps(config))
    assert load_model(tmp_path / "m").intended == DATASETS["phantom"]
    path.write_text(json.dumps(config | {"modality": "MR"}))
    with pytest.raises(UserError, match=r"config\.json: purpose and trained_on must be texts, modality a list"):
        load_model(tmp_path / "m")


def test_every_shipped_model_tells_its_purpose_and_modality():
    folders = sorted(Path(__file__).parents[1].glob("models/*/config.json"))
    assert len(folders) >= 4
    for path in folders:
        config = json.loads(path.read_text())
        assert config["purpose"].endswith(".") and config["modality"] and config["trained_on"], path
