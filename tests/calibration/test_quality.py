"""Predicted Dice: what it learns, how wide it is unsure, and how often its interval holds."""

import numpy as np
import pytest

from manymask.calibration.evidence import NAMES, evidence
from manymask.calibration.quality import FAILURE, fit_quality


def cases(rng, n, noise=0.05):
    """Evidence whose first number tells the Dice, up to noise that grows as it falls."""
    rows = rng.random((n, len(NAMES)))
    dice = (0.3 + 0.65 * rows[:, 0] + noise * (1.5 - rows[:, 0]) * rng.normal(size=n)).clip(0, 1)
    return rows, dice


def folds(n, k=10):
    return np.arange(n) % k


def test_it_finds_what_tells_the_dice():
    rng = np.random.default_rng(0)
    rows, dice = cases(rng, 200)
    found = fit_quality(rows, dice, folds(200))
    fresh, truth = cases(rng, 300)
    errors = np.array([abs(found(row)[0] - y) for row, y in zip(fresh, truth, strict=True)])
    assert errors.mean() < 0.06 < np.abs(truth - dice.mean()).mean()


def test_its_interval_covers_nine_of_ten():
    rng = np.random.default_rng(1)
    held = []
    for _ in range(20):
        rows, dice = cases(rng, 60)
        found = fit_quality(rows, dice, folds(60))
        for row, y in zip(*cases(rng, 50), strict=True):
            _, low, high, _ = found(row)
            held.append(low <= y <= high)
    assert 0.88 <= np.mean(held) <= 0.95


def test_its_interval_is_wider_where_it_errs_more():
    rng = np.random.default_rng(2)
    rows, dice = cases(rng, 400, noise=0.1)
    found = fit_quality(rows, dice, folds(400))
    sure, unsure = np.full(len(NAMES), 0.5), np.full(len(NAMES), 0.5)
    sure[0], unsure[0] = 0.9, 0.1
    width = [found(row)[2] - found(row)[1] for row in (sure, unsure)]
    assert width[1] > 1.3 * width[0]


def test_the_probability_of_failure_is_the_share_of_failures():
    rng = np.random.default_rng(3)
    rows, dice = cases(rng, 300)
    found = fit_quality(rows, dice, folds(300))
    fresh, truth = cases(rng, 500)
    failure = np.array([found(row)[3] for row in fresh])
    failed = truth < FAILURE
    assert failure.mean() == pytest.approx(failed.mean(), abs=0.04)
    assert failure[failed].mean() > 0.8 and failure[~failed].mean() < 0.2


def test_ends_enclose_the_prediction_and_lie_in_the_unit_interval():
    rng = np.random.default_rng(4)
    rows, dice = cases(rng, 40)
    found = fit_quality(rows, dice, folds(40))
    for row in 10 * rng.normal(size=(100, len(NAMES))):
        value, low, high, failure = found(row)
        assert 0 <= low <= value <= high <= 1 and 0 < failure < 1


def test_evidence_by_value():
    one = np.zeros((4, 4), dtype=np.float32)
    one[:2, :2] = 1
    two = np.zeros((4, 4), dtype=np.float32)
    two[:2] = 1
    found = dict(zip(NAMES, evidence(np.stack([one, two]), 0.3), strict=True))
    assert found["agreement"] == pytest.approx(0.5)
    assert found["consensus_dice"] == pytest.approx((2 * 4 / 12 + 1) / 2)  # the consensus at ½ is the larger one
    assert found["expected_dice"] == pytest.approx(2 * 6 / (8 + 6))
    assert found["entropy"] == pytest.approx(4 / 6, abs=1e-4) and found["spread"] == pytest.approx(2 / 6)
    assert found["log_area"] == pytest.approx(np.log(7 / 16))
    assert (found["peak"], found["marked"], found["presence"]) == (1, 1, 0.3)


def test_evidence_of_empty_masks_is_finite():
    found = dict(zip(NAMES, evidence(np.zeros((3, 8, 8), dtype=np.float32)), strict=True))
    assert all(np.isfinite(value) for value in found.values())
    assert found["agreement"] == 1 and found["marked"] == 0 and found["expected_dice"] == 0
