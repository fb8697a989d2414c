"""Other engines behind the segmenter: the same masks, the same promises, whatever is requested."""

from dataclasses import asdict

import numpy as np
import pytest
import torch

from manymask import Segmenter
from manymask.diffusion.samplers import DDPM
from manymask.diffusion.sampling import SamplingConfig
from manymask.errors import ConfigError
from manymask.hub.model_folder import load_model
from tests.export.test_export import saved
from tests.factories import SIZE, batch, build, run, save_calibrated

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
from manymask.export.compiled import compiled


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
@pytest.mark.parametrize(
    "name", ["concat-v", "presence", "auxiliary", "head-share", "orientations", "flow-heun", "both-on-flow"]
)
def test_networks_compiled_once_draw_the_masks_of_torch(name, engine):
    model = build(name)
    other = compiled(model, engine, 1, SIZE)
    for images, samples in ((1, 2), (3, 4)):
        given = batch(images)
        difference = other.sample_all(given, samples, 3) - model.sample_all(given, samples, 3)
        assert difference.abs().max() < 1e-3
    first = next(iter(other.iter_samples(given, 4, 3)))
    assert torch.allclose(first, model.sample_all(given, 4, 3)[:, :1], atol=1e-3)


def test_another_sampler_needs_no_other_graphs():
    model = build("ddpm")
    other = compiled(model, "onnx", 1, SIZE)
    for steps in (2, 7):
        sampling = SamplingConfig(DDPM(steps))
        assert torch.allclose(
            other.sample_all(batch(), 2, 0, sampling), model.sample_all(batch(), 2, 0, sampling), atol=1e-3
        )


def test_result_of_another_engine_promises_the_same(tmp_path):
    folder = save_calibrated(saved("presence", tmp_path / "model"), tmp_path / "calibrated")
    image = np.random.default_rng(0).integers(0, 255, (90, 130), dtype=np.uint8)
    ours, theirs = (Segmenter(load_model(folder), "cpu", engine).segment(image) for engine in ("torch", "onnx"))
    assert (ours.masks - theirs.masks).abs().max() < 1e-3
    expected = ours.promises()["worst"]
    assert expected["presence"] is not None and theirs.warnings == ours.warnings
    for name, value in expected.items():
        assert theirs.promises()["worst"][name] == pytest.approx(value, abs=1e-3), name
    assert asdict(ours.record.model) == asdict(theirs.record.model)


def test_command_line_takes_an_engine(tmp_path, monkeypatch, drawing_model, capsys):
    from PIL import Image

    image = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 70), dtype=np.uint8)).save(image)
    assert (
        run(monkeypatch, "segment", image, "--model", drawing_model, "--out", tmp_path / "out", "--engine", "onnx") == 0
    )
    assert (tmp_path / "out/a/consensus.png").exists()


def test_engine_that_cannot_run_a_model_says_so(tmp_path):
    with pytest.raises(ConfigError, match="diffusion segmenters") as raised:
        compiled(build("unet"), "onnx", 1, SIZE)
    assert raised.value.parameter == "engine"
    with pytest.raises(ConfigError, match="on the CPU"):
        Segmenter(load_model(saved("ddpm", tmp_path / "model")), "cuda:0", "onnx")
