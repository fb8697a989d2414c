"""Conformal risk control: losses by value, and the promise kept on exchangeable images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manymask.calibration.risk import THRESHOLDS, control, losses, needed
from manymask.errors import InputError


def at(loss: np.ndarray, threshold: float) -> float:
    """The loss at the first threshold of at least this value."""
    return float(loss[np.searchsorted(THRESHOLDS, np.float32(threshold))])


def test_losses_by_value():
    confidence = np.array([[0.9, 0.6], [0.2, 0.0]])
    truth = np.array([[[True, False], [True, False]]])
    missed, false = losses(confidence, truth)
    assert [at(missed, t) for t in (0.0, 0.1, 0.4, 0.8, 2.0)] == [0.0, 0.0, 0.5, 0.5, 1.0]
    assert at(false, 0.0) == 0.5 and at(false, 0.1) == pytest.approx(1 / 3) and at(false, 0.5) == 0.5
    assert at(false, 0.8) == 0.0 and at(false, 2.0) == 0.0


def test_losses_of_several_raters_are_means_over_them():
    confidence = np.random.default_rng(0).random((8, 8))
    truths = np.random.default_rng(1).random((3, 8, 8)) > 0.5
    single = [losses(confidence, truth[None]) for truth in truths]
    missed, false = losses(confidence, truths)
    assert np.allclose(missed, np.mean([m for m, _ in single], axis=0))
    assert np.allclose(false, np.mean([f for _, f in single], axis=0))


def test_without_a_lesion_nothing_is_missed_and_everything_marked_is_false():
    missed, false = losses(np.full((4, 4), 0.7), np.zeros((1, 4, 4), dtype=bool))
    assert not missed.any() and at(false, 0.5) == 1 and at(false, 0.8) == 0


@pytest.mark.parametrize(("alpha", "count"), [(0.05, 19), (0.1, 9), (0.2, 4)])
def test_too_few_cases_are_refused_with_the_number_it_takes(alpha, count):
    nothing = np.zeros((count, len(THRESHOLDS)))
    assert needed(alpha) == count
    assert control(nothing, nothing, alpha).alpha == alpha
    with pytest.raises(InputError, match=f"{count - 1} cases are too few.*takes {count}"):
        control(nothing[1:], nothing[1:], alpha)


def test_thresholds_by_value():
    """19 images miss nothing below 0.3 and all above: (0 + 1) / 20 ≤ 0.05 up to there, beyond it is 1."""
    above = (THRESHOLDS > 0.3).astype(float)
    found = control(np.tile(above, (19, 1)), np.tile((THRESHOLDS < 0.8).astype(float), (19, 1)), 0.05)
    assert found.outer == THRESHOLDS[THRESHOLDS <= 0.3][-1]
    assert found.inner == THRESHOLDS[THRESHOLDS >= 0.8][0]


def test_the_outlines_lie_on_both_sides_of_the_consensus():
    nothing = np.zeros((30, len(THRESHOLDS)))
    found = control(nothing, nothing, 0.1)
    assert found.outer == found.inner == 0.5


def test_a_share_that_rises_again_counts_at_its_largest():
    """False pixels at a high threshold must not be hidden by fewer of them at a lower one."""
    false = np.zeros((30, len(THRESHOLDS)))
    false[:, -10] = 1.0
    assert control(np.zeros_like(false), false, 0.1).inner == THRESHOLDS[-9]


def images(rng: np.random.Generator, n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Square lesions and confidences that are off by a random amount in the logit."""
    found = []
    for _ in range(n):
        truth = np.zeros((16, 16), dtype=bool)
        side = rng.integers(3, 12)
        truth[:side, :side] = True
        logit = np.where(truth, 1.5, -1.5) + rng.normal(0, 1.5, truth.shape) + rng.normal(0, 1.0)
        found.append((1 / (1 + np.exp(-logit)), truth))
    return found


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_the_promise_holds_on_average_over_calibrations(alpha):
    rng = np.random.default_rng(0)
    missed, false = [], []
    for _ in range(60):
        rows = [losses(c, t[None]) for c, t in images(rng, 24)]
        found = control(np.array([m for m, _ in rows]), np.array([f for _, f in rows]), alpha)
        for confidence, truth in images(rng, 10):
            outer, inner = confidence >= found.outer, confidence >= found.inner
            missed.append((truth & ~outer).sum() / truth.sum())
            false.append((inner & ~truth).sum() / max(inner.sum(), 1))
    assert np.mean(missed) <= alpha + 0.01 and np.mean(false) <= alpha + 0.01


@given(st.integers(0, 10**6))
def test_losses_are_shares_and_the_missed_one_rises(seed):
    rng = np.random.default_rng(seed)
    missed, false = losses(rng.random((6, 6)), rng.random((2, 6, 6)) > rng.random())
    assert (np.diff(missed) >= -1e-12).all()
    assert all((loss >= 0).all() and (loss <= 1).all() for loss in (missed, false))
