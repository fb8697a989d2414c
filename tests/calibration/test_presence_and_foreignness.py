"""Whether there is a lesion at all, and whether the image is like the training images."""

import numpy as np
import pytest

from manymask.calibration.evidence import NAMES
from manymask.calibration.foreignness import fit_foreignness
from manymask.calibration.presence import USED, fit_presence
from manymask.errors import InputError


def test_presence_is_a_probability_that_holds():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4000, len(NAMES)))
    truth = 1 / (1 + np.exp(-2 * rows[:, NAMES.index("peak")] + 0.5))
    held = (rng.random(4000) < truth).astype(float)
    found = fit_presence(rows, held, np.ones(4000))(rows)
    assert np.abs(found - truth).mean() < 0.03


def test_presence_learns_shares_of_raters():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(2000, len(NAMES)))
    share = np.where(rows[:, NAMES.index("marked")] > 0, 0.75, 0.25)
    found = fit_presence(rows, share, np.ones(2000))(rows)
    assert found.mean() == pytest.approx(0.5, abs=0.02) and found[share > 0.5].mean() > 0.62


def test_presence_looks_at_some_of_the_evidence_only():
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(100, len(NAMES)))
    found = fit_presence(rows, (rows[:, 0] > 0).astype(float), np.ones(100))
    other = rows.copy()
    for i, name in enumerate(NAMES):
        if name not in USED:
            other[:, i] += 5
    assert np.array_equal(found(rows), found(other))


def test_distance_is_one_on_average_and_grows_off_the_training_images():
    rng = np.random.default_rng(3)
    basis = rng.normal(size=(5, 40))
    inside = rng.normal(size=(400, 5)) @ basis + 0.1 * rng.normal(size=(400, 40))
    found = fit_foreignness(inside[:300], inside[300:])
    assert found.distance(inside[:300]).mean() == pytest.approx(1, abs=0.05)
    beside = inside[300:] + rng.normal(size=(100, 40))
    assert np.median(found.distance(beside)) > 5 * np.median(found.distance(inside[300:]))


def test_false_alarms_are_as_many_as_stated():
    rng = np.random.default_rng(4)
    alarms = []
    for _ in range(100):
        held = rng.normal(size=(60, 12))
        found = fit_foreignness(rng.normal(size=(100, 12)), held[:40])
        alarms.append(np.mean(found.distance(held[40:]) > found.cut))
    assert 0.02 < np.mean(alarms) <= 0.06


def test_the_share_is_a_conformal_p_value():
    rng = np.random.default_rng(5)
    found = fit_foreignness(rng.normal(size=(50, 6)), rng.normal(size=(39, 6)))
    assert found.share(-1.0) == 1.0 and found.share(1e9) == pytest.approx(1 / 40)
    assert found.share(float(found.distances[-1])) == pytest.approx(2 / 40)


def test_too_few_images_are_refused():
    with pytest.raises(InputError, match=r"18 images are too few.*takes 19"):
        fit_foreignness(np.zeros((50, 3)), np.zeros((18, 3)))
