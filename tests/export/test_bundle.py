"""`manymask export --to bundle`: MONAI runs the bundle, and what it writes is what manymask writes."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from manymask import Segmenter, runtime
from manymask.errors import ConfigError, InputError
from manymask.export.bundle import export_bundle
from manymask.hub.model_folder import load_model, save_model
from tests.factories import run

pytest.importorskip("fire", reason="the extra `bundle` is not installed")
from monai.bundle import ConfigWorkflow, verify_metadata, verify_net_in_out

REQUIRED = {  # by MONAI's schema of 2024-07-25
    "top": ("schema", "version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version", "task",
            "description", "authors", "copyright", "network_data_format"),
    "tensor": ("type", "format", "num_channels", "spatial_shape", "dtype", "value_range"),
}  # fmt: skip


@pytest.fixture(scope="module")
def bundle(drawing_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    export_bundle(drawing_model, folder, samples=3)
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (2, 90, 130), dtype=np.uint8)
    for k, each in enumerate(pixels):
        Image.fromarray(each).save(folder / f"scan-{k}.png")
    return folder


def run_bundle(bundle: Path, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json", *arguments]
    return subprocess.run([str(part) for part in command], cwd=bundle, capture_output=True, text=True)


def test_monai_runs_the_bundle_and_writes_the_masks_of_manymask(bundle, drawing_model, images, tmp_path):
    out = tmp_path / "out"
    done = run_bundle(bundle, "--dataset_dir", images, "--output_dir", out, "--seed", 7, "--threshold", 0.4)
    assert not done.returncode, done.stderr
    segmenter = Segmenter.from_pretrained(drawing_model, device="cpu")
    for image in images.iterdir():
        expected = segmenter.segment(image, samples=3, seed=7, threshold=0.4)
        written = np.asarray(Image.open(out / image.stem / "consensus.png")) > 0
        assert np.array_equal(written, expected.consensus.numpy()) and 0 < written.mean() < 1
        assert len(list((out / image.stem).glob("mask-*.png"))) == 3


def test_a_run_that_leaves_an_image_out_fails_and_keeps_the_others(bundle, images, tmp_path):
    (images / "broken.png").write_bytes(b"no picture")
    done = run_bundle(bundle, "--dataset_dir", images, "--output_dir", tmp_path / "out")
    assert done.returncode and "1 image(s) or series" in done.stderr and "broken.png" in done.stderr
    assert (tmp_path / "out/scan-1/consensus.png").exists()


def test_network_gives_the_masks_that_segment_draws_of_an_image_of_the_models_size(bundle, drawing_model):
    size = load_model(drawing_model).recipe.size
    pixels = np.random.default_rng(1).integers(0, 255, (size, size), dtype=np.uint8)
    workflow = ConfigWorkflow(config_file=str(bundle / "configs/inference.json"), workflow_type="infer",
                              bundle_root=str(bundle), device="cpu", dataset_dir=str(bundle), seed=4)  # fmt: skip
    workflow.initialize()
    masks = workflow.network_def(torch.from_numpy(pixels)[None, None].float() / 255)
    expected = Segmenter.from_pretrained(drawing_model, device="cpu").segment(pixels, samples=3, seed=4)
    assert torch.allclose(masks[0], expected.masks, atol=1e-5) and masks.std() > 1e-3


def test_metadata_is_what_monai_requires(bundle, tmp_path):
    files = {name: str(bundle / f"configs/{name}.json") for name in ("metadata", "inference")}
    tensors = {"type": "object", "additionalProperties": {"type": "object", "required": REQUIRED["tensor"]}}
    both = {"properties": {"inputs": tensors, "outputs": tensors}, "required": ["inputs", "outputs"]}
    schema = tmp_path / "schema.json"  # MONAI downloads its own only where there is none
    schema.write_text(json.dumps({"required": REQUIRED["top"], "properties": {"network_data_format": both}}))
    digest = hashlib.md5(schema.read_bytes()).hexdigest()
    verify_metadata(meta_file=files["metadata"], filepath=str(schema), hash_val=digest)
    verify_net_in_out("network", files["metadata"], files["inference"], device="cpu", bundle_root=str(bundle))


def test_bundle_holds_the_model_as_it_is_and_its_licence(bundle, drawing_model):
    assert load_model(bundle / "models").fingerprint == load_model(drawing_model).fingerprint
    assert {path.name for path in (bundle / "models").iterdir()} == {path.name for path in drawing_model.iterdir()}
    assert (bundle / "LICENSE").read_text() == (drawing_model / "LICENSE").read_text()
    assert "monai.bundle run" in (bundle / "docs/README.md").read_text()


def test_command_line_writes_settings_into_the_bundle(drawing_model, tmp_path, monkeypatch):
    flags = ("--samples", 2, "--sampler", "ddim", "--steps", 4, "--out", tmp_path / "made")
    monkeypatch.setattr(runtime, "_chosen", [])
    monkeypatch.setenv("ACCELERATE_USE_CPU", "false")  # is set, and restored
    assert run(monkeypatch, "export", drawing_model, "--to", "bundle", *flags) == 0
    config = json.loads((tmp_path / "made/configs/inference.json").read_text())
    assert (config["samples"], config["sampler"], config["steps"]) == (2, "ddim", 4)
    assert "cuda.is_available" in config["device"]
    assert run(monkeypatch, "export", drawing_model, "--to", "bundle", *flags, "--device", "cpu") == 0
    config = json.loads((tmp_path / "made/configs/inference.json").read_text())
    assert config["device"] == "$torch.device('cpu')"
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("mine")
    assert run(monkeypatch, "export", drawing_model, "--to", "bundle", "--out", tmp_path / "other") != 0
    assert (tmp_path / "other/notes.txt").read_text() == "mine"


def test_codecs_are_no_bundle(trained_run, tmp_path):
    with pytest.raises(ConfigError, match="codec"):
        export_bundle(trained_run / "image-codec/model", tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_only_a_bundle_of_ours_is_replaced(drawing_model, tmp_path):
    theirs = tmp_path / "project"
    (theirs / "configs").mkdir(parents=True)
    (theirs / "configs/metadata.json").write_text("{}")
    (theirs / "notes.txt").write_text("years of work")
    with pytest.raises(InputError, match="exists already"):
        export_bundle(drawing_model, theirs, samples=3)
    (theirs / "config.json").write_text('{"project": "another"}')
    with pytest.raises(InputError, match="exists already"):
        save_model(load_model(drawing_model), theirs)
    assert (theirs / "notes.txt").read_text() == "years of work"
    for samples in (2, 3):
        export_bundle(drawing_model, tmp_path / "ours", samples=samples)
    save_model(load_model(drawing_model), tmp_path / "model")
    save_model(load_model(drawing_model), tmp_path / "model")
