"""Calibrating a model: which cases it takes, what it refuses, and what is kept with the model."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from manymask import api
from manymask.calibration.evidence import NAMES
from manymask.data.store import Store
from manymask.errors import ConfigError, DataLeakError, InputError
from manymask.evaluation import calibrate
from manymask.evaluation.calibrate import LEAST, CalibrationConfig, folds_of
from manymask.evaluation.observations import Observations, draw, embeddings, empty_window
from manymask.hub.model_folder import load_model, save_calibration, save_model
from manymask.inference.segmenter import Segmenter
from manymask.metrics import auroc
from tests.factories import run


def test_folds_keep_groups_together_and_are_even():
    groups = [f"g{i // 3}" for i in range(90)]
    folds = folds_of(groups, 0)
    assert all(len({f for f, g in zip(folds, groups, strict=True) if g == name}) == 1 for name in set(groups))
    assert np.bincount(folds).tolist() == [9] * 10


@pytest.mark.parametrize(("count", "expected"), [(3, 3), (50, 10)])
def test_there_are_as_many_folds_as_groups_allow(count, expected):
    assert len(set(folds_of([str(i) for i in range(count)], 0))) == expected


def test_the_largest_window_without_a_lesion_is_found():
    marked = np.zeros((64, 64), dtype=bool)
    marked[:, 40:] = True
    rows, columns = empty_window(marked)
    assert columns.stop <= 40 and rows.stop - rows.start == columns.stop - columns.start >= 38
    assert empty_window(np.ones((64, 64), dtype=bool)) is None


def test_auroc_by_value():
    score, positive = np.array([0.9, 0.4, 0.4, 0.1]), np.array([True, True, False, False])
    assert auroc(score, positive) == pytest.approx(3.5 / 4)
    assert auroc(score, np.ones(4, dtype=bool)) is None


@pytest.fixture(scope="module")
def calibrated(drawing_model, store, tmp_path_factory):
    """A model folder with a calibration on all 24 phantoms, which the model has not seen."""
    folder = tmp_path_factory.mktemp("calibrated") / "model"
    trained = load_model(drawing_model)
    save_model(trained, folder)
    save_calibration(
        trained, folder, api.calibrate(trained, store, split="all", samples=3, alphas=(0.2,), progress=False)
    )
    return folder


@pytest.mark.parametrize("room", [LEAST - 4, LEAST - 3])
def test_windows_are_added_to_cases_without_a_lesion_until_there_are_enough(store, monkeypatch, room):
    rows = list(np.random.default_rng(0).random((33, len(NAMES))))
    seen = Observations(cases=[f"{i}" for i in range(33)], held=[0.0] * 3 + [1.0] * 30, evidence=rows)
    windows = {f"{10 + i}": rows[i] for i in range(room)}
    monkeypatch.setattr(calibrate, "without_lesion", lambda *args: windows)
    notes = []
    found, scores = calibrate._presence(None, store, seen, np.arange(33) % 5, CalibrationConfig(), notes, False)
    if room + 3 < LEAST:
        assert found is None and "3 cases hold no lesion, and 16 have room for a window" in notes[0]
    else:
        assert not notes and scores["n_without"] == LEAST and scores["n"] == 33 + room
        assert scores["without"].startswith("windows without a lesion and 3 cases")


def image_of(store, i=0):
    return np.ascontiguousarray(store.images[i].transpose(1, 2, 0))


def test_a_calibration_is_kept_with_the_model_and_its_card(calibrated, store):
    found = load_model(calibrated).calibration
    assert found.origin.cases == tuple(store.ids) and found.origin.split == "all"
    assert found.origin.sampling["samples"] == 3 and found.alphas == (0.2,)
    card = (calibrated / "README.md").read_text()
    assert card.count("## Calibrated") == 1 and "On 24 cases of 24 groups" in card


def test_calibrating_again_replaces_the_section_of_the_card(calibrated, store):
    trained = load_model(calibrated)
    before = (calibrated / "README.md").read_text()
    save_calibration(trained, calibrated, trained.calibration)
    assert (calibrated / "README.md").read_text() == before


def test_a_calibration_survives_saving_the_model(calibrated, tmp_path):
    save_model(load_model(calibrated), tmp_path / "copy")
    assert load_model(tmp_path / "copy").calibration.origin == load_model(calibrated).calibration.origin
    assert "## Calibrated" in (tmp_path / "copy" / "README.md").read_text()


def test_a_calibration_of_other_weights_is_refused(calibrated, recipe, tmp_path):
    trained = load_model(calibrated)
    save_model(trained, tmp_path / "other")
    with torch.no_grad():
        next(trained.model.denoiser.parameters()).add_(0.1)
    trained.__dict__.pop("fingerprint", None)
    trained.calibration, kept = None, (tmp_path / "other" / "calibration.json").read_text()
    save_model(trained, tmp_path / "other")
    (tmp_path / "other" / "calibration.json").write_text(kept)
    with pytest.raises(InputError, match="made for other weights"):
        load_model(tmp_path / "other")


def test_a_calibration_of_other_settings_is_refused(calibrated, tmp_path):
    save_model(load_model(calibrated), tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    config["recipe"]["window"] = "lung"
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"made for other settings in config\.json: remove it, then calibrate again"):
        load_model(tmp_path / "other")


def test_results_promise_what_was_calibrated(calibrated, store):
    segmenter = Segmenter(load_model(calibrated), "cpu")
    found = segmenter.segment(image_of(store), samples=3)
    (each,) = found.assessments
    assert 0 <= each.dice_low <= each.dice <= each.dice_high <= 1 and found.uncalibrated == ""
    assert (found.outer(0.2) | ~found.consensus).all() and (found.consensus | ~found.inner(0.2)).all()
    risk = found.calibration.risk(0.2)
    assert torch.equal(found.outer(0.2), found.confidence >= risk.outer)
    told = found.promises()
    assert told["calibrated"] and told["regions"][0]["dice"] == each.dice
    assert told["outlines"][0]["outer_area"] == int(found.outer(0.2).sum())
    order = found.confidence.flatten().argsort()
    assert (found.probability.flatten()[order].diff() >= -1e-6).all()


def test_the_assessment_is_that_of_the_calibration_itself(calibrated, store):
    """One way leads from an image to its numbers: `segment` and `calibrate` draw the same evidence."""
    trained = load_model(calibrated)
    batch = store.batch([store.ids[0]])
    drawn = next(iter(draw(trained.segmenter, batch, 3, 0, trained.segmenter.resolve())))
    expected = trained.calibration.assess(drawn.masks, drawn.presence, drawn.embedding)
    found = Segmenter(trained, "cpu").segment(image_of(store), samples=3).assessments[0]
    assert found.dice == pytest.approx(expected.dice, abs=1e-5)
    assert (found.failure, found.presence) == pytest.approx((expected.failure, expected.presence), abs=1e-5)


def test_foreignness_is_measured_against_the_training_images(drawing_model, store, monkeypatch):
    trained = load_model(drawing_model)
    trained.training_ids = store.ids[:4]
    trained.provenance = replace(trained.provenance, data=store.name, data_hash=store.hash)
    monkeypatch.setattr("manymask.evaluation.calibrate.calibration_cases", lambda *_: store.ids[4:])
    found = api.calibrate(trained, store, samples=2, alphas=(0.2,), progress=False)
    expected = embeddings(trained.segmenter, store, store.ids[:4]).mean(axis=0)
    assert np.allclose(found.foreign.mean, expected, rtol=1e-5) and len(found.foreign.distances) == 20
    segmenter = Segmenter(trained, "cpu")
    own = segmenter.segment(image_of(store, 5), samples=2).assessments[0]
    assert own.distance == pytest.approx(
        float(found.foreign.distances[np.abs(found.foreign.distances - own.distance).argmin()]), rel=1e-3
    )
    strange = segmenter.segment(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8), samples=2)
    assert strange.assessments[0].distance > own.distance


def test_a_result_drawn_otherwise_is_off_the_calibration_and_says_so(calibrated, store):
    found = Segmenter(load_model(calibrated), "cpu").segment(image_of(store), samples=4)
    assert found.assessments == () and "holds for 3 masks" in found.uncalibrated
    assert found.uncalibrated in found.warnings and found.promises() == {
        "calibrated": False,
        "why_not": found.uncalibrated,
    }
    with pytest.raises(InputError, match="off the calibration"):
        found.outer(0.2)


def test_a_model_without_calibration_promises_nothing(drawing_model, store):
    found = Segmenter(load_model(drawing_model), "cpu").segment(image_of(store), samples=2)
    assert "not calibrated" in found.uncalibrated and not any("calibrat" in w for w in found.warnings)
    with pytest.raises(InputError, match="not calibrated"):
        _ = found.probability


def test_training_cases_are_refused(trained_run, store):
    trained = load_model(trained_run)
    with pytest.raises(DataLeakError):
        api.calibrate(trained, store, split="all", progress=False)


def test_too_few_cases_are_refused_with_the_number(trained_run, drawing_model, store):
    with pytest.raises(InputError, match=r"\d+ cases are too few to calibrate: it takes 20"):
        api.calibrate(trained_run, store, split="val", progress=False)
    with pytest.raises(InputError, match=r"24 cases are too few to calibrate: it takes 99"):
        api.calibrate(drawing_model, store, split="all", alphas=(0.01,), progress=False)


def test_a_set_without_a_lesion_is_refused(drawing_model, store, monkeypatch):
    monkeypatch.setattr(Store, "native_masks", lambda self, case: np.zeros((4, 64, 64), dtype=bool))
    with pytest.raises(InputError, match="none of the 24 cases holds a lesion"):
        api.calibrate(drawing_model, store, split="all", samples=2, progress=False)


@pytest.mark.parametrize("alphas", [(), (0.0,), (1.0,), (1,)])
def test_shares_lie_between_zero_and_one(drawing_model, store, alphas):
    with pytest.raises(ConfigError, match="alphas must be shares"):
        api.calibrate(drawing_model, store, alphas=alphas, progress=False)


def test_another_sites_images_keep_the_training_images_as_reference(calibrated, store):
    """Foreignness is relative to the training images, which a local folder does not hold."""
    trained = load_model(calibrated)
    assert trained.calibration.foreign is None
    assert any("training images are not in this store" in note for note in trained.calibration.notes)


def test_the_command_calibrates_a_model_in_place(monkeypatch, drawing_model, store, tmp_path, capsys):
    save_model(load_model(drawing_model), tmp_path / "model")
    status = run(monkeypatch, "calibrate", "--model", tmp_path / "model", "--data", store.folder, "--split", "all",
                 "--samples", 2, "--alphas", 0.2)  # fmt: skip
    assert status == 0 and "calibration.json →" in capsys.readouterr().out
    assert load_model(tmp_path / "model").calibration.origin.sampling["samples"] == 2


def test_the_command_refuses_training_cases_in_one_line(monkeypatch, trained_run, store, capsys):
    assert run(monkeypatch, "calibrate", "--model", trained_run, "--data", store.folder, "--split", "all") == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert "were trained on" in said[-1]


def test_cases_of_one_group_are_refused_before_anything_is_drawn(trained_run, store, monkeypatch):
    trained = load_model(trained_run)
    monkeypatch.setattr(store, "groups", dict.fromkeys(store.ids, "one patient"))
    monkeypatch.setattr("manymask.evaluation.calibrate._observe", None)
    monkeypatch.setattr("manymask.evaluation.calibrate._check_enough", lambda *_: None)
    with pytest.raises(InputError, match=r"are of one group .* at least two groups are needed"):
        calibrate.calibrate(trained, store, split="val", progress=False)
