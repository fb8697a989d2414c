"""`evaluate` on another engine: the scores of torch, and a result that names what ran the networks."""

import json

import pytest

import manymask
from manymask.errors import ConfigError
from tests.factories import run

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from manymask.export import kept
from manymask.hub.model_folder import load_model


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MANYMASK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def scored(model, store, **how):
    return manymask.evaluate(model, store, split="val", samples=2, progress=False, **how)


def test_onnx_gives_the_scores_of_torch_and_is_named(store, drawing_model):
    ours, theirs = scored(drawing_model, store), scored(drawing_model, store, engine="onnx")
    assert (ours.engine, theirs.engine) == ("torch", "onnx")
    assert theirs.to_dict()["engine"] == theirs.brief()["engine"] == "onnx"
    assert [case["id"] for case in ours.cases] == [case["id"] for case in theirs.cases]
    for name in ("dice", "brier", "mean_dice_256"):
        assert 0 <= ours.metrics[name]["mean"] != 1
        assert theirs.metrics[name]["mean"] == pytest.approx(ours.metrics[name]["mean"], abs=1e-4), name


def test_scores_are_those_of_torch_unless_another_engine_is_asked_for(store, drawing_model, cache):
    kept.build_kept(load_model(drawing_model))
    (facts,) = cache.glob("graphs/*/graphs.json")
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"ratio": 0.1}))
    assert scored(drawing_model, store).engine == "torch"
    assert scored(drawing_model, store, engine="auto").engine == "onnx"
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"ratio": 2.0}))
    assert scored(drawing_model, store, engine="auto").engine == "torch"


def test_only_torch_runs_codecs(store, trained_run):
    codec = trained_run / "image-codec" / "model"
    assert manymask.evaluate(codec, store, split="val", progress=False, engine="auto").engine == "torch"
    with pytest.raises(ConfigError, match="codec"):
        manymask.evaluate(codec, store, split="val", progress=False, engine="onnx")


def test_command_line_writes_the_engine_into_results_json(store, drawing_model, tmp_path, monkeypatch):
    flags = ("--split", "val", "--samples", 1, "--engine", "onnx", "--out", tmp_path / "out")
    assert run(monkeypatch, "evaluate", "--model", drawing_model, "--data", store.folder, *flags) == 0
    assert json.loads((tmp_path / "out/results.json").read_text())["engine"] == "onnx"
