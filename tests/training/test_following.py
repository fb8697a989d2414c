"""What one sees while it trains: best and trend in words, progress.png, TensorBoard, trackers, time by the clock."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from manymask.errors import MissingExtraError
from manymask.evaluation.evaluator import EvalConfig, evaluate, quick_score
from manymask.hub.model_folder import load_model
from manymask.training import clock as clocks
from manymask.training.clock import Clock
from manymask.training.course import Course, Validation
from manymask.training.progress_picture import draw_progress
from manymask.training.trainer import Trainer, fit
from tests.factories import job, tiny_recipe


def course(*scores: float, metric: str = "dice") -> Course:
    return Course(metric, tuple(Validation(10 * k, score) for k, score in enumerate(scores, 1)))


def test_trend_is_said_with_the_best():
    assert course(0.5, 0.6, 0.713).words == "best dice 0.713 at step 30, still rising: more minutes will help"
    assert course(0.5, 0.7, 0.69, 0.7).words == "best dice 0.700 at step 20, flat: more minutes will hardly help"
    assert course(0.5, 0.7).rising is None and "too few validations" in course(0.5, 0.7).words
    assert course().words == "never validated"


def test_flat_needs_as_many_validations_without_a_gain_as_patience():
    assert not course(0.7, 0.5, 0.5).flat(3), "only two are left after the best"
    assert course(0.7, 0.5, 0.5, 0.701).flat(3), "a thousandth is no gain"
    assert not course(0.7, 0.5, 0.5, 0.71).flat(3)
    assert course(30.0, 30.05, 30.09, metric="psnr").flat(2)
    assert not course(30.0, 30.05, 30.2, metric="psnr").flat(2)


def test_clock_validates_ten_times_and_less_often_where_that_is_slow(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(clocks.time, "monotonic", lambda: now[0])
    clock = Clock(10)
    assert (clock.left, clock.validation_due, clock.used) == ("10:00", False, False)
    now[0] += 60
    assert clock.validation_due and clock.left == "9:00"
    now[0] += 30
    clock.validation(30.0)
    now[0] += 149
    assert not clock.validation_due, "thirty seconds of validation want 150 seconds of training"
    now[0] += 1
    assert clock.validation_due
    now[0] = 100 + 570
    assert clock.used, "the last validation still has its thirty seconds"
    assert not Clock(None).validation_due and not Clock(None).used


def test_budget_decides_when_to_validate_and_steps_do_not(store, tmp_path):
    training = replace(tiny_recipe().codec_training, validate_every=1)
    fit(job(store, tmp_path, steps=4, codec_training=training), max_minutes=100)
    lines = [json.loads(line) for line in (tmp_path / "mask-codec/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "score" in line] == [4]


def test_flat_run_stops_and_stays_stopped(store, tmp_path):
    training = replace(tiny_recipe().codec_training, validate_every=1, learning_rate=0.0)
    asked = replace(job(store, tmp_path, steps=50, codec_training=training), patience=2)
    fit(asked)
    stopped = Trainer.start(asked)
    assert stopped.progress.step == 3 and stopped.flat
    stopped.close()
    fit(asked)
    again = Trainer.start(asked)
    assert again.progress.step == 3
    again.close()


def test_training_cases_are_scored_like_validation_cases(store, trained_run):
    ids = store.part(None, "val")
    for stage, metric in (("image-codec", "psnr"), ("mask-codec", "dice"), ("segmenter", "dice")):
        model = load_model(trained_run / stage / "model").model
        protocol = EvalConfig(ged_samples=5, native=False)
        whole = evaluate(model, store, ids, protocol, "cpu", progress=False).metrics[metric]["mean"]
        assert quick_score(model, store, ids, protocol, "cpu") == pytest.approx(whole, abs=1e-6)


def test_validation_leaves_picture_and_scores_of_both_parts(trained_run):
    folder = trained_run / "segmenter"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {"score", "train/score", "val/dice"} <= lines[-1].keys()
    with Image.open(folder / "progress.png") as picture:
        assert picture.size == (770, 825)


def test_progress_shows_what_was_logged(tmp_path):
    """A second curve changes the picture; no curve at all is drawn too."""
    lines = [{"step": 20 * k, "loss": 1 / k, "lr": 1e-3} for k in range(1, 12)]
    scored = [{"step": 100, "score": 0.4, "val/dice": 0.4, "train/score": 0.6}]
    for name, given in (("empty", []), ("loss", lines), ("both", lines + scored)):
        draw_progress(given, 16, "dice", "run · stage", tmp_path / f"{name}.png")
    pixels = [np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("empty", "loss", "both")]
    assert (pixels[0] != pixels[1]).any() and (pixels[1] != pixels[2]).any()


def test_tensorboard_has_pictures_and_settings(trained_run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = trained_run / "segmenter" / "tensorboard" / "manymask"
    found = EventAccumulator(str(folder))
    found.Reload()
    assert "samples" in found.Tags()["images"] and "val/dice" in found.Tags()["scalars"]
    (settings,) = folder.glob("*/hparams.yml")
    assert "recipe.training.batch_size: 4" in settings.read_text()


def test_bar_tells_best_and_time_left_at_every_step(store, tmp_path):
    started = Trainer.start(job(store, tmp_path))
    started.clock = Clock(5)
    started.course = course(0.5, 0.7, 0.6)
    started.loss = 0.25
    shown = started._shown()
    assert shown["best"] == "0.700 at 20" and shown["left"] in ("5:00", "4:59") and shown["loss"] == "0.25"
    started.close()


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_tracker_that_is_not_installed_is_named(store, tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=rf"--track {name} needs the extra `track`"):
        fit(replace(job(store, tmp_path, steps=1), track=(name,)))
    assert not any(tmp_path.iterdir())


@pytest.mark.filterwarnings("default")
def test_mlflow_run_goes_on_under_its_id(store, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="the extra `track` is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    before = mlflow.get_tracking_uri()
    try:
        for _ in range(2):
            fit(replace(job(store, tmp_path, steps=2), track=("mlflow",)), max_minutes=0.0)
        runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
        (found,) = runs
        assert found.info.run_id == json.loads((tmp_path / "mask-codec/trackers.json").read_text())["mlflow"]
        assert found.data.params["recipe.codec_training.batch_size"] == "4"
        scores = mlflow.MlflowClient().get_metric_history(found.info.run_id, "val/dice")
        assert [each.step for each in scores] == [1, 2]
    finally:
        mlflow.set_tracking_uri(before)


@pytest.mark.filterwarnings("default")
def test_wandb_runs_offline(store, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="the extra `track` is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    fit(replace(job(store, tmp_path, steps=1), track=("wandb",)))
    number = json.loads((tmp_path / "mask-codec/trackers.json").read_text())["wandb"]
    assert list((tmp_path / "mask-codec/wandb").glob(f"offline-run-*-{number}/run-{number}.wandb"))
