"""Model folders: whole, readable by others, never unpickled."""

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from manymask import Segmenter
from manymask.data.datasets import phantom
from manymask.errors import ConfigError, InputError, ManymaskError
from manymask.hub.intended_use import Intended, intended
from manymask.hub.model_folder import load_model, save_model
from manymask.recipes import RECIPES, get_recipe, name_of

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
            "denoiser.safetensors", "training_hashes.txt", "LICENSE"} == names  # fmt: skip
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
    with pytest.raises(ConfigError, match=missing.replace(".", r"\.")):
        load_model(tmp_path / "model")


def test_other_weights_and_damaged_files_are_refused(trained_run, tmp_path):
    save_model(load_model(trained_run), tmp_path / "model")
    part = tmp_path / "model" / "denoiser.safetensors"
    part.write_bytes(part.read_bytes()[:500])
    with pytest.raises(InputError, match=r"denoiser\.safetensors is damaged"):
        load_model(tmp_path / "model")
    part.write_bytes((tmp_path / "model" / "mask_codec.safetensors").read_bytes())
    with pytest.raises(ConfigError, match=r"denoiser\.safetensors lacks the weights"):
        load_model(tmp_path / "model")


def test_newer_format_is_refused(trained_run, tmp_path):
    save_model(load_model(trained_run), tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"format": 99}))
    with pytest.raises(ConfigError, match="format 99"):
        load_model(tmp_path / "model")


def test_codec_is_no_segmenter(trained_run):
    with pytest.raises(ConfigError, match="is a codec"):
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
    with pytest.raises(InputError, match=message):
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
    assert load_model(tmp_path / "m").intended == intended(get_recipe("phantom"))
    path.write_text(json.dumps(config | {"modality": "MR"}))
    with pytest.raises(ConfigError, match=r"config\.json: purpose and trained_on must be texts, modality a list"):
        load_model(tmp_path / "m")


def test_model_that_learns_single_raters_says_so_in_its_purpose():
    whole, single = (intended(get_recipe(name)).purpose for name in ("lidc_idri", "lidc_idri_readers"))
    assert single == whole.removesuffix(".") + ", as single raters would."
    assert intended(replace(get_recipe("folder"), dataset="unknown")).purpose == ""


def test_every_shipped_model_tells_its_purpose_and_modality():
    folders = sorted(Path(__file__).parents[2].glob("models/*/config.json"))
    assert len(folders) >= 4
    for path in folders:
        config = json.loads(path.read_text())
        assert config["purpose"].endswith(".") and config["modality"] and config["trained_on"], path


@pytest.fixture
def hub(monkeypatch):
    """The names that were sent to the Hugging Face Hub, which cannot be reached."""
    sent = []

    def fetch(name, **options):
        sent.append((name, options.get("revision")))
        raise OSError("the network cannot be reached")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    return sent


@pytest.mark.parametrize("load", [load_model, Segmenter.from_pretrained])
@pytest.mark.parametrize(
    "name",
    [
        "models/isic2018x",
        "isic20l8",
        "org/isic2018",
        "./a",
        "../a",
        "~/a/b",
        "/patients/meier",
        "hf:a",
        "hf://a",
        "hf://a/b/c",
        "",
    ],
)
def test_no_local_name_is_sent_to_a_hub(monkeypatch, tmp_path, hub, load, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError):
        load(name)
    assert hub == []


@pytest.mark.parametrize("name", ["hf://org/a-model", Path("hf://org/a-model")])
def test_model_of_the_hub_is_fetched_by_its_full_address_alone(hub, name):
    with pytest.raises(ConfigError, match=r"hf://org/a-model cannot be fetched .*network cannot be reached"):
        load_model(name)
    with pytest.raises(ConfigError):
        Segmenter.from_pretrained("hf://org/a-model@v1.2")
    assert hub == [("org/a-model", None), ("org/a-model", "v1.2")]


def altered(config, place, value):
    """The config with another value under the keys `place`."""
    inner = config
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return config


HOSTILE = [
    (("recipe", "segmenter", "process", "steps"), 2 * 10**9, "must lie in"),
    (("recipe", "segmenter", "sampler", "steps"), 10**7, "must lie in"),
    (("recipe", "segmenter", "sampler", "steps"), 1001, "takes 1001 steps"),
    (("recipe", "size"), 10**5, "must lie in"),
    (("recipe", "mask_codec", "blocks_per_level"), 10**8, "must lie in"),
    (("recipe", "mask_codec", "channels"), [30000, 30000], "must lie in"),
    (
        ("recipe", "mask_codec", "channels"),
        [4096, 4096],
        "mask_codec.safetensors: .* is 8 × .*, this model takes 4096 ×",
    ),
    (("recipe", "mask_codec", "channels"), [], "config.json"),
    (("recipe", "mask_codec", "channels"), 8, "expected a list"),
    (("recipe", "mask_codec", "blocks_per_level"), True, "is not of type int"),
    (("recipe", "mask_codec", "loss", "weight"), float("nan"), "not a finite number"),
    (("recipe", "mask_codec", "loss", "weight"), 10**400, "must lie in"),
    (("recipe",), {"kind": "Recipe"}, "lacks the setting dataset"),
    (("recipe",), [], "expected the settings of Recipe"),
    (("stage",), ["segmenter"], "is none of"),
]


@pytest.mark.parametrize(("place", "value", "message"), HOSTILE)
def test_config_that_would_exhaust_the_machine_is_refused_at_once(drawing_model, tmp_path, place, value, message):
    trained = load_model(drawing_model)
    save_model(trained, tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(altered(json.loads(path.read_text()), place, value)))
    before = time.monotonic()
    with pytest.raises(ConfigError, match=message) as refused:
        load_model(tmp_path / "model")
    assert str(tmp_path / "model") in str(refused.value) and "\n" not in str(refused.value)
    assert time.monotonic() - before < 5


@pytest.mark.parametrize("content", ["[]", "null", "[" * 10**5, '{"format": 1, "stage"', "1" * 5000, " " * 10**7])
def test_config_that_is_no_object_is_refused(drawing_model, tmp_path, content):
    save_model(load_model(drawing_model), tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"config\.json"):
        load_model(tmp_path / "model")


@pytest.mark.parametrize("name", ["training_ids.txt", "config.json", "denoiser.safetensors"])
@pytest.mark.parametrize("target", ["/dev/zero", "/etc/passwd", "a folder"])
def test_links_out_of_the_model_folder_are_refused(drawing_model, tmp_path, name, target):
    save_model(load_model(drawing_model), tmp_path / "model")
    path = tmp_path / "model" / name
    path.unlink()
    if target == "a folder":
        path.mkdir()
    else:
        path.symlink_to(target)
    with pytest.raises(ManymaskError, match=name):
        load_model(tmp_path / "model")


def test_links_into_the_blobs_of_a_hub_cache_are_followed(drawing_model, tmp_path):
    save_model(load_model(drawing_model), tmp_path / "snapshots" / "abc")
    (tmp_path / "blobs").mkdir()
    for k, path in enumerate(sorted((tmp_path / "snapshots" / "abc").iterdir())):
        path.rename(tmp_path / "blobs" / str(k))
        path.symlink_to(Path("../../blobs") / str(k))
    assert load_model(tmp_path / "snapshots" / "abc").stage == "segmenter"


def test_weights_that_are_not_finite_are_refused(drawing_model, tmp_path):
    save_model(load_model(drawing_model), tmp_path / "model")
    part = tmp_path / "model" / "denoiser.safetensors"
    weights = load_file(part)
    name = sorted(weights)[0]
    weights[name].view(-1)[0] = float("inf")
    save_file(weights, part)
    with pytest.raises(InputError, match=f"{name} holds values that are not finite"):
        load_model(tmp_path / "model")


@pytest.mark.parametrize(
    ("change", "name"),
    [({}, "isic2018-256"), ({"size": 512}, "isic2018-256"), ({"size": 128}, "isic2018-imagenet"),
     ({"dataset": "ours"}, "ours")],
)  # fmt: skip
def test_recipe_is_named_by_the_row_that_trains_the_same(change, name):
    row = RECIPES["isic2018-256"]
    assert name_of(replace(row, segmenter=replace(row.segmenter, orientations=3), **change)) == name
