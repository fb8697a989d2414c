"""How a model's answers depend on their use, drawn from the model alone."""

import pytest

from manymask.errors import ManymaskError
from manymask.evaluation.evaluator import EvalConfig, evaluate
from manymask.experiments.report.curves import STEPS, curves
from manymask.hub.model_folder import load_model
from manymask.io.atomic import read_json


def test_curve_holds_what_the_evaluator_finds(drawing_model, store, tmp_path):
    found = curves(drawing_model, store.folder, tmp_path, cases=2)
    assert [row["n"] for row in found["curve"]] == list(range(1, 31))
    assert [row["steps"] for row in found["steps"]] == list(STEPS)
    assert found["curve"][4]["dice"]["mean"] == pytest.approx(found["metrics"]["dice"]["mean"])
    assert found["curve"][0]["dice"]["n"] == found["metrics"]["dice"]["n"] == 2
    ids = store.part(None, "test")
    one = evaluate(load_model(drawing_model).model, store, [ids[0], ids[len(ids) // 2]], EvalConfig(1), progress=False)
    assert found["curve"][0]["dice"]["mean"] == pytest.approx(one.metrics["dice"]["mean"])
    assert read_json(tmp_path / "curves.json")["steps"][0]["sampler"] == "DDIM"
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_codec_has_no_curves(trained_run, store, tmp_path):
    with pytest.raises(ManymaskError, match="no sampler"):
        curves(trained_run / "mask-codec", store.folder, tmp_path)
    assert not list(tmp_path.iterdir())
