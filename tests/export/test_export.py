"""`manymask export`: the graph draws torch's masks, and the runner beside it those of manymask, without torch."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from manymask import Segmenter, runtime
from manymask.diffusion.samplers import DDIM, DDPM
from manymask.diffusion.sampling import SamplingConfig
from manymask.errors import ConfigError, InputError, MissingExtraError
from manymask.hub.model_folder import TrainedModel, load_model, save_model
from manymask.hub.provenance import Provenance
from manymask.recipes import Stage
from manymask.rng import SampleNoise, strata
from tests.factories import SIZE, build, perturb, recipe_of, run, tiny_recipe

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
from manymask.export import folder as exports
from manymask.export.convert import write_onnx
from manymask.export.graph import MaskGraph, example
from manymask.export.sessions import session_of

SAMPLES = 4
DRAWN_WITH = {
    "concat-epsilon": None,
    "concat-v": None,  # PLMS
    "pyramid-x0": DDIM(3, eta=0.7),
    "pyramid-rater": None,  # DPM-Solver++
    "ddpm": None,
    "presence": DDPM(4),
    "auxiliary": None,
    "head-share": None,
    "orientations": None,
    "imagenet": None,
    "flow-euler": None,
    "flow-heun": None,
    "classifier-free": None,
    "ensemblediff": None,  # in pixels
}


def graph_of(name: str) -> MaskGraph:
    model = build(name)
    return MaskGraph(model, model.resolve(SamplingConfig(DRAWN_WITH[name])), SAMPLES)


def arrays(inputs):
    return {name: x.numpy() for name, x in inputs.items()}


@pytest.mark.parametrize("name", DRAWN_WITH)
def test_graph_draws_what_the_model_draws_with_every_sampler(name):
    graph = graph_of(name)
    inputs = example(graph, 1, SIZE)
    from manymask.data.case import Batch

    batch = Batch(["a", "b"], inputs["image"])
    noise = SampleNoise(5, batch.noise_names, SAMPLES)
    draws = [noise.normal(*inputs["noise"].shape[3:]) for _ in range(graph.draws)]
    given = torch.stack(draws, dim=1).reshape(inputs["noise"].shape)
    uniform = strata(5, batch.noise_names, range(SAMPLES))
    with torch.inference_mode():
        masks, confidence, consensus, *rest = graph(batch.image, given, uniform)
    expected = graph.model.sample_all(batch, SAMPLES, 5, graph.sampling)
    assert torch.allclose(masks, expected, atol=1e-5)
    assert torch.allclose(confidence, expected.mean(dim=1), atol=1e-5)
    assert torch.equal(consensus.bool(), confidence >= 0.5)
    traits = graph.model.traits(graph.model.prepare(batch, SAMPLES, graph.sampling), 2)
    known = [x for x in (traits.presence, traits.embedding) if x is not None]
    assert len(rest) == len(known) == len(graph.outputs) - 3
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(rest, known, strict=True))
    assert masks.std() > 1e-3


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
@pytest.mark.parametrize("name", DRAWN_WITH)
def test_engine_draws_the_masks_of_torch_from_the_same_noise_at_any_batch(name, engine, tmp_path):
    graph = graph_of(name)
    path = tmp_path / "model.onnx"
    write_onnx(graph, example(graph, 1, SIZE), graph.outputs, path)
    session = session_of(exports._as_openvino(path) if engine == "openvino" else path)
    for images in (1, 3):
        inputs = example(graph, 1, SIZE, images, seed=images)
        with torch.inference_mode():
            expected = [x.numpy() for x in graph(*inputs.values())]
        found = session(arrays(inputs))
        assert [x.shape for x in found] == [x.shape for x in expected]
        assert np.abs(found[0] - expected[0]).max() < 1e-3
        assert all(np.allclose(a, b, atol=1e-3) for a, b in zip(found[3:], expected[3:], strict=True))


def saved(name: str, folder: Path, **changes) -> Path:
    """A model folder of a tiny model of 64² whose masks are neither empty nor full."""
    recipe = replace(tiny_recipe(), segmenter=recipe_of(name).segmenter, **changes)
    torch.manual_seed(0)
    model = perturb(recipe.build(Stage.SEGMENTER), scale=0.2).eval()
    save_model(TrainedModel(model, recipe, Stage.SEGMENTER, Provenance(), []), folder)
    return folder


BLOCKED = """
import runpy, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "manymask"):
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Blocked())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_runner(folder: Path, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", BLOCKED, folder / "runner.py", *arguments]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True)


def grey(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.mark.parametrize(
    ("engine", "name", "samples"), [("onnx", "ddpm", 10), ("openvino", "presence", 5), ("onnx", "orientations", 5)]
)
def test_runner_draws_the_masks_of_manymask_where_torch_cannot_be_imported(
    engine, name, samples, tmp_path, monkeypatch
):
    """Also those beyond the eighth, which are drawn from the opposite noise of the first."""
    model = saved(name, tmp_path / "model")
    asked = ("--to", engine, "--samples", samples, "--out", tmp_path / "made")
    assert run(monkeypatch, "export", model, *asked) == 0
    image = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 130), dtype=np.uint8)).save(image)
    done = run_runner(tmp_path / "made", image, "--out", tmp_path / "out", "--seed", 7)
    assert not done.returncode, done.stderr
    expected = Segmenter(load_model(model), "cpu").segment(image, samples=samples, seed=7)
    assert 0 < expected.votes.mean() < 1 and len(list((tmp_path / "out").glob("mask-*.png"))) == samples
    confidence = grey(tmp_path / "out/confidence.png") / 65535
    assert np.abs(confidence - expected.confidence.numpy()).max() < 1e-3
    for k, mask in enumerate(expected.masks, 1):
        assert ((grey(tmp_path / f"out/mask-{k:02}.png") > 0) != (mask.numpy() >= 0.5)).mean() < 1e-3


def test_runner_cuts_and_stretches_the_region_that_a_model_of_crops_takes(tmp_path, monkeypatch):
    model = saved("orientations", tmp_path / "model", crop=True, stretch=True)
    assert run(monkeypatch, "export", model, "--to", "onnx", "--out", tmp_path / "made", "--samples", 2) == 0
    image = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(40, 180, (90, 130), dtype=np.uint8)).save(image)
    refused = run_runner(tmp_path / "made", image, "--out", tmp_path / "out")
    assert refused.returncode and "--roi" in refused.stderr
    for place in ((500, 10), (10, 90), (-1, 5)):
        refused = run_runner(tmp_path / "made", image, "--out", tmp_path / "out", "--roi", *place)
        assert refused.returncode == 1 and "lies outside of the image of 130×90" in refused.stderr
    done = run_runner(tmp_path / "made", image, "--out", tmp_path / "out", "--roi", 110, 20)
    assert not done.returncode, done.stderr
    expected = Segmenter(load_model(model), "cpu").segment(image, samples=2, rois=[(110, 20)])
    assert np.abs(grey(tmp_path / "out/confidence.png") / 65535 - expected.confidence.numpy()).max() < 1e-3
    assert expected.confidence[:, :60].max() == 0 < expected.confidence.max()


def test_runner_refuses_what_only_manymask_reads(tmp_path, monkeypatch):
    model = saved("orientations", tmp_path / "model")
    assert run(monkeypatch, "export", model, "--to", "onnx", "--out", tmp_path / "made") == 0
    Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)).save(tmp_path / "deep.png")
    refused = run_runner(tmp_path / "made", tmp_path / "deep.png", "--out", tmp_path / "out")
    assert refused.returncode == 1 and "8 bits" in refused.stderr and not (tmp_path / "out").exists()
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "clear.png", transparency=(1, 2, 3))
    Image.fromarray(pixels[:, :, 0]).save(
        tmp_path / "pages.tif", save_all=True, append_images=[Image.fromarray(pixels[:, :, 1])]
    )
    tifffile.imwrite(tmp_path / "deep.tif", pixels.astype(np.uint16) * 8, photometric="rgb")
    (tmp_path / "deep.png").rename(tmp_path / "deep")
    for name in ("clear.png", "pages.tif", "deep.tif", "deep"):
        refused = run_runner(tmp_path / "made", tmp_path / name, "--out", tmp_path / "out")
        assert refused.returncode == 1 and "8 bits" in refused.stderr and not (tmp_path / "out").exists(), name
    Image.fromarray(np.full((64, 64), 7, np.uint8)).save(tmp_path / "flat.png")
    refused = run_runner(tmp_path / "made", tmp_path / "flat.png", "--out", tmp_path / "out")
    assert refused.returncode == 1 and "is flat" in refused.stderr
    Image.fromarray(pixels[:, :, 0]).save(tmp_path / "a.png")
    refused = run_runner(tmp_path / "made", tmp_path / "a.png", "--out", tmp_path / "out", "--roi", 9, 9)
    assert refused.stderr == "this model segments whole images: give it no --roi\n"
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:2000])
    (tmp_path / "text.png").write_text("no image")
    for name in ("missing.png", "cut.png", "text.png"):
        refused = run_runner(tmp_path / "made", tmp_path / name, "--out", tmp_path / "out")
        assert f"{name} cannot be read: " in refused.stderr and refused.stderr.count("\n") == 1, name


def test_runner_says_in_a_line_what_is_wrong_with_the_folder_or_the_call(tmp_path, monkeypatch):
    model, made, image = saved("orientations", tmp_path / "model"), tmp_path / "made", tmp_path / "a.png"
    assert run(monkeypatch, "export", model, "--to", "onnx", "--samples", 2, "--out", made) == 0
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(image)

    def said(out=tmp_path / "out", *more):
        done = run_runner(made, image, "--out", out, *more)
        assert done.returncode and "Traceback" not in done.stderr
        return done.stderr

    assert f"draws nothing: [Errno 17] File exists: '{image}'" in said(image)
    assert "--threads must be at least 1, not -3" in said(tmp_path / "out", "--threads", -3)
    facts, graph = (made / "export.json").read_text(), (made / "model.onnx").read_bytes()
    (made / "export.json").write_text(facts.replace('"samples": 2', '"samples": 3'))
    assert f"{made} draws nothing: " in said()
    for damaged in ("{", "{}"):
        (made / "export.json").write_text(damaged)
        assert "export.json cannot be read" in said()
    (made / "export.json").unlink()
    assert "export.json cannot be read" in said()
    (made / "export.json").write_text(facts)
    (made / "model.onnx").write_bytes(graph[:-1000])
    assert f"{made} draws nothing: " in said()
    (made / "model.onnx").unlink()
    assert f"{made} draws nothing: " in said()


def test_an_export_replaces_an_earlier_one_and_nothing_else(tmp_path, monkeypatch, capsys):
    model, out = saved("orientations", tmp_path / "model"), tmp_path / "out"
    out.mkdir()
    (out / "export.json").write_text('{"project": "mine"}')
    assert run(monkeypatch, "export", model, "--to", "onnx", "--out", out) == 2
    assert "exists already" in capsys.readouterr().err and [path.name for path in out.iterdir()] == ["export.json"]
    (out / "export.json").unlink()
    for _ in range(2):
        assert run(monkeypatch, "export", model, "--to", "onnx", "--out", out) == 0
    (out / "notes.txt").write_text("mine")
    assert run(monkeypatch, "export", model, "--to", "onnx", "--out", out) == 2
    assert "notes.txt in it lost" in capsys.readouterr().err and (out / "notes.txt").exists()


def test_folder_states_shapes_sampling_weights_and_parity(tmp_path, monkeypatch, capsys):
    model = saved("ddpm", tmp_path / "model")
    flags = ("--steps", 3, "--samples", 2, "--out", tmp_path / "made")
    assert run(monkeypatch, "export", model, "--to", "onnx", *flags) == 0
    facts = json.loads((tmp_path / "made/export.json").read_text())
    assert facts["inputs"] == {"image": ["batch", 1, 64, 64], "noise": ["batch", 2, 3, 2, 16, 16]}
    assert facts["outputs"]["masks"] == ["batch", 2, 64, 64] and facts["opset"] == 17
    assert facts["sampling"]["sampler"] == {"kind": "DDPM", "steps": 3}
    assert facts["model"]["weights_sha256"] == load_model(model).fingerprint
    assert 0 <= facts["parity"]["max_abs_difference"] <= 1e-3 and facts["parity"]["dice_difference"] <= 1e-4
    assert (tmp_path / "made/LICENSE").read_text() == (model / "LICENSE").read_text()
    code = [line for line in (tmp_path / "made/runner.py").read_text().splitlines() if line.strip()]
    assert len(code) <= 120
    assert "torch's" in capsys.readouterr().out


def test_engine_is_compared_on_the_device_that_was_chosen(tmp_path, monkeypatch, capsys):
    model, places = saved("ddpm", tmp_path / "model"), []
    monkeypatch.setattr(runtime, "_chosen", [])
    monkeypatch.setenv("ACCELERATE_USE_CPU", "false")  # is set, and restored
    monkeypatch.setattr(exports, "session_of", lambda path, device: (places.append(device), session_of(path))[1])
    exports.export_model(load_model(model), tmp_path / "made", "onnx", device="cuda")
    call = ("export", model, "--to", "onnx", "--out", tmp_path / "made", "--device", "cpu")
    assert run(monkeypatch, *call) == 0 and "probabilities on cpu differ" in capsys.readouterr().out
    assert places == ["cuda", "cpu"]
    assert json.loads((tmp_path / "made/export.json").read_text())["parity"]["device"] == "cpu"


def test_device_that_the_engine_lacks_is_one_line_and_nothing_is_written(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(ConfigError, match="no provider for cuda"):
        exports.export_model(load_model(saved("ddpm", tmp_path / "model")), tmp_path / "made", "onnx", device="cuda")
    assert not (tmp_path / "made").exists()


def test_export_that_draws_other_masks_is_not_kept(tmp_path, monkeypatch):
    trained = load_model(saved("ddpm", tmp_path / "model"))
    monkeypatch.setattr(
        exports, "session_of", lambda path, **_: lambda inputs: [1 - x for x in session_of(path)(inputs)]
    )
    with pytest.raises(InputError, match="other masks than torch"):
        exports.export_model(trained, tmp_path / "made", "onnx")
    assert not (tmp_path / "made").exists()


def test_models_that_cannot_be_exported_are_refused(tmp_path):
    recipe = recipe_of("unet")
    once = TrainedModel(build("unet"), recipe, Stage.SEGMENTER, Provenance(), [])
    with pytest.raises(ConfigError, match="only diffusion"):
        exports.export_model(once, tmp_path / "made", "onnx")
    guided = TrainedModel(build("classifier"), recipe_of("classifier"), Stage.SEGMENTER, Provenance(), [])
    with pytest.raises(InputError, match="gradient"):
        exports.export_model(guided, tmp_path / "made", "onnx")
    long = TrainedModel(build("ddpm"), recipe_of("ddpm"), Stage.SEGMENTER, Provenance(), [])
    with pytest.raises(ConfigError, match="more than 200") as raised:
        exports.export_model(long, tmp_path / "made", "onnx", SamplingConfig(steps=500))
    assert raised.value.parameter == "steps"


def test_missing_engine_is_named_with_its_extra(tmp_path, monkeypatch):
    trained = load_model(saved("ddpm", tmp_path / "model"))
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"manymask\[openvino\]"):
        exports.export_model(trained, tmp_path / "made", "openvino")


def test_openvino_sends_nothing(tmp_path):
    """Its telemetry is never loaded, so that its own stub stands in; even its converter opens no connection."""
    graph, path = graph_of("ddpm"), tmp_path / "model.onnx"
    write_onnx(graph, example(graph, 1, SIZE), graph.outputs, path)
    script = f"""
import socket, sys
def refuse(*_): raise AssertionError("a connection was opened")
socket.socket.connect = socket.getaddrinfo = refuse
from pathlib import Path
from manymask.extras import load_openvino, require
from manymask.export.folder import _as_openvino
from manymask.export.sessions import session_of
require("openvino", "this test", "openvino")
session_of(_as_openvino(Path({str(path)!r})))
from openvino.tools.ovc import convert_impl
from openvino import convert_model
import torch
convert_model(torch.nn.Linear(2, 2), example_input=torch.zeros(1, 2))
assert convert_impl.tm.__name__ == "openvino.tools.ovc.telemetry_stub", convert_impl.tm
assert not any(name.startswith("openvino_telemetry.") for name in sys.modules)
"""
    home = {**os.environ, "HOME": str(tmp_path), "CI": ""}
    subprocess.run([sys.executable, "-c", script], env=home, check=True, timeout=200)
    assert not (tmp_path / "intel").exists(), "nothing is kept of who it is"
