"""Monotone maps of confidence: recovered by value, chosen on cases that were left out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manymask.calibration.confidence import (
    Isotonic,
    PixelCounts,
    Temperature,
    fit_confidence,
    fit_isotonic,
    fit_temperature,
    log_loss,
)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def pixels(rng, n, truth):
    """Confidences and marks with p(marked | confidence) = truth(confidence)."""
    confidence = sigmoid(rng.normal(0, 3, n))
    return PixelCounts.of(confidence, (rng.random(n) < truth(confidence)).astype(float))


def softened(p, temperature=2.5, shift=-0.7):
    return sigmoid(np.log(p / (1 - p)) / temperature + shift)


def test_temperature_is_recovered():
    found = fit_temperature(pixels(np.random.default_rng(0), 400_000, softened))
    assert found.temperature == pytest.approx(2.5, rel=0.03) and found.shift == pytest.approx(-0.7, abs=0.03)


def test_isotonic_follows_any_monotone_curve():
    found = fit_isotonic(pixels(np.random.default_rng(0), 400_000, np.square))
    x = np.linspace(0.05, 0.95, 19)
    assert np.abs(found(x) - x**2).max() < 0.03


def test_counting_loses_no_pixel_and_no_mark():
    rng = np.random.default_rng(1)
    confidence = np.concatenate([rng.random(1000), [0.0, 1.0]])
    frequency = rng.random(1002)
    found = PixelCounts.of(confidence, frequency)
    assert found.count.sum() == 1002
    assert found.confidence.sum() == pytest.approx(confidence.sum()) and found.frequency.sum() == pytest.approx(
        frequency.sum()
    )
    twice = PixelCounts.total([found, found])
    assert np.array_equal(twice.count, 2 * found.count) and np.array_equal(twice.frequency, 2 * found.frequency)


@pytest.mark.parametrize(
    ("truth", "kind"), [(softened, Temperature), (lambda p: np.where(p < 0.5, 0.1, 0.6), Isotonic)]
)
def test_the_better_map_on_cases_left_out_is_chosen(truth, kind):
    rng = np.random.default_rng(2)
    counts = [pixels(rng, 20_000, truth) for _ in range(10)]
    found = fit_confidence(counts, np.arange(10) % 5)
    assert isinstance(found, kind)
    assert log_loss(found, PixelCounts.total(counts)) < log_loss(Temperature(1.0, 0.0), PixelCounts.total(counts))


@given(st.integers(0, 10**6))
def test_maps_are_monotone_probabilities(seed):
    rng = np.random.default_rng(seed)
    counts = PixelCounts.of(rng.random(200), rng.random(200))
    x = np.linspace(0, 1, 101)
    for found in (fit_temperature(counts), fit_isotonic(counts)):
        y = found(x)
        assert (np.diff(y) >= -1e-12).all() and (y >= 0).all() and (y <= 1).all()


def test_log_loss_by_value():
    counts = PixelCounts.of(np.array([0.25, 0.25]), np.array([1.0, 0.0]))
    assert log_loss(Temperature(1.0, 0.0), counts) == pytest.approx(-(np.log(0.25) + np.log(0.75)) / 2)
