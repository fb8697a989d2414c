"""Graphs in the cache: of exactly one model, right, and taken only where they are faster."""

import json

import numpy as np
import pytest
import torch

from manymask import Segmenter
from manymask.errors import ConfigError
from manymask.hub.model_folder import load_model, save_model

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from manymask.export import kept

IMAGE = np.random.default_rng(0).integers(0, 255, (70, 90), dtype=np.uint8)


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MANYMASK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def faster(cache, ratio=0.5, **changed):
    """Changes what the only graphs in the cache say of themselves."""
    (path,) = cache.glob("graphs/*/graphs.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ratio": ratio} | changed))
    return path


def test_one_image_builds_nothing_and_many_do(cache, drawing_model):
    assert Segmenter(load_model(drawing_model), "cpu").engine == "torch" and not cache.exists()
    Segmenter(load_model(drawing_model), "cpu", images=kept.MANY)
    found = json.loads(faster(cache).read_text())
    assert found["max_abs_difference"] < 1e-3 and found["weights_sha256"] == load_model(drawing_model).fingerprint


def test_graphs_are_taken_where_they_are_faster_and_draw_the_same(cache, drawing_model):
    kept.build_kept(load_model(drawing_model))
    faster(cache, ratio=1.2)
    torch_one = Segmenter(load_model(drawing_model), "cpu")
    faster(cache, ratio=0.5)
    onnx_one = Segmenter(load_model(drawing_model), "cpu")
    assert (torch_one.engine, onnx_one.engine) == ("torch", "onnx")
    ours, theirs = (each.segment(IMAGE, 3) for each in (torch_one, onnx_one))
    assert 0 < (ours.masks - theirs.masks).abs().max() < 1e-3
    assert Segmenter(load_model(drawing_model), "cpu", "torch").engine == "torch"


@pytest.mark.parametrize("what", ["weights", "graph", "parity", "facts"])
def test_graphs_of_anything_else_are_never_taken(cache, drawing_model, tmp_path, what):
    trained = load_model(drawing_model)
    folder = kept.build_kept(trained).folder
    faster(cache)
    taken = Segmenter(trained, "cpu")
    assert taken.engine == "onnx"
    with pytest.raises(
        ConfigError, match="'gpu' is no device"
    ):  # not that the engine runs on the CPU: nobody asked for it
        taken.to("gpu")
    assert taken.to("cpu").engine == "onnx"
    model = drawing_model
    if what == "weights":
        with torch.no_grad():
            next(trained.model.denoiser.parameters()).add_(0.1)
        model = tmp_path / "other"
        save_model(trained, model)
    elif what == "graph":
        (folder / "decode.onnx").write_bytes((folder / "encode.onnx").read_bytes())
    elif what == "parity":
        faster(cache, max_abs_difference=0.01)
    else:
        (folder / "graphs.json").write_text("[]")
    assert Segmenter(load_model(model), "cpu").engine == "torch"


def test_engine_by_name_keeps_its_graphs_and_refuses_wrong_ones(cache, drawing_model):
    asked = Segmenter(load_model(drawing_model), engine="onnx")
    assert asked.engine == "onnx"
    with pytest.raises(ConfigError, match="the engine onnx runs on the CPU alone"):
        asked.to("cuda")
    path = faster(cache, ratio=2.0)
    before = path.stat().st_mtime_ns
    assert Segmenter(load_model(drawing_model), engine="onnx").engine == "onnx"
    assert path.stat().st_mtime_ns == before
    faster(cache, max_abs_difference=0.01)
    with pytest.raises(ConfigError, match=r"off by 0\.01"):
        Segmenter(load_model(drawing_model), engine="onnx")


def test_cache_that_cannot_be_written_leaves_torch(monkeypatch, drawing_model, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MANYMASK_CACHE", str(tmp_path / "file"))
    assert Segmenter(load_model(drawing_model), "cpu", images=100).engine == "torch"
    assert Segmenter(load_model(drawing_model), engine="onnx").engine == "onnx"
