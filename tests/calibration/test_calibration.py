"""The file beside the weights: it comes back as it was, and a damaged or foreign one is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest

from manymask.calibration import calibration as module
from manymask.calibration.calibration import Calibration, Origin
from manymask.calibration.confidence import Isotonic, Temperature
from manymask.calibration.evidence import NAMES
from manymask.calibration.foreignness import fit_foreignness
from manymask.calibration.presence import fit_presence
from manymask.calibration.quality import fit_quality
from manymask.calibration.risk import RiskControl
from manymask.errors import InputError


def made(weights: str = "0" * 64) -> Calibration:
    rng = np.random.default_rng(0)
    rows = rng.random((40, len(NAMES)))
    folds = np.arange(40) % 5
    return Calibration(
        origin=Origin(weights, "0" * 64, "phantom", "sha256:00", "random", "val", tuple(f"p{i}" for i in range(40)), 40, 3,
                      {"samples": 5}, 0, "", "2026-01-01T00:00:00Z"),
        confidence=Temperature(1.5, -0.1),
        risks=(RiskControl(0.1, 0.2, 0.9), RiskControl(0.2, 0.4, 0.6)),
        quality=fit_quality(rows, rows[:, 0], folds),
        presence=fit_presence(rows, (rows[:, 5] > 0.5).astype(float), np.ones(40)),
        foreign=fit_foreignness(rng.normal(size=(60, 8)), rng.normal(size=(30, 8))),
        held_out={"presence_auroc": 0.9},
        notes=("A sentence.",),
    )  # fmt: skip


def again(found: Calibration) -> Calibration:
    return module.read(json.loads(json.dumps(module.text_of(found))), "calibration.json")


def test_what_was_written_comes_back():
    before, after = made(), again(made())
    assert after.origin == before.origin and after.confidence == before.confidence and after.risks == before.risks
    row = np.random.default_rng(1).random(len(NAMES))
    assert np.allclose(after.quality(row), before.quality(row), rtol=1e-5)
    assert after.presence(row) == pytest.approx(before.presence(row), rel=1e-5)
    assert after.foreign.cut == pytest.approx(before.foreign.cut, rel=1e-6)


def test_either_map_and_missing_parts_come_back():
    curve = Isotonic(np.array([0.0, 0.5, 1.0]), np.array([0.1, 0.3, 0.9]))
    after = again(replace(made(), confidence=curve, presence=None, foreign=None))
    assert isinstance(after.confidence, Isotonic) and after.confidence(np.array([0.25]))[0] == pytest.approx(0.2)
    assert after.presence is None and after.foreign is None


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("format",), 1, "format 1, not 2"),
        (("quality", "level"), "x", "quality.level: not an array"),
        (("quality", "level"), [[float("nan")]], "quality.level: not an array of finite"),
        (("quality", "scale"), [1.0], "do not fit together"),
        (("quality", "fold"), [99.0] * 40, "do not fit together"),
        (("quality", "width"), [[0.0, 1.0]] * 5, "do not fit together"),
        (("foreign", "rest"), 0.0, "do not fit together"),
        (("risks",), [{"alpha": 0.1}], "risks: fields inner, outer are missing"),
        (("risks",), {}, "risks: not a list"),
        (("origin", "seed"), "one", "origin.seed: not a value of type int"),
        (("confidence",), {"a": 1}, "confidence: not the fields of Temperature or Isotonic"),
        (("presence", "coefficients"), [1.0], "do not fit together"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(place, value, said):
    content = module.text_of(made())
    inner = content
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    with pytest.raises(InputError, match=said):
        module.read(content, "calibration.json")


def test_thresholds_are_found_by_their_share():
    assert made().risk(0.2).outer == 0.4
    with pytest.raises(InputError, match=r"not calibrated for a share of 0\.3; choose 0\.1, 0\.2"):
        made().risk(0.3)


def test_an_image_like_the_training_images_is_not_foreign_and_one_far_off_is():
    masks = np.random.default_rng(0).random((5, 16, 16)).astype(np.float32)
    near, far = (made().assess(masks, 0.7, scale * np.ones(8)) for scale in (0.1, 50.0))
    assert not near.foreign and far.foreign and far.like_training == pytest.approx(1 / 31)
    assert (near.dice, near.failure, near.presence) == (far.dice, far.failure, far.presence)


def test_without_features_nothing_is_said_of_foreignness():
    found = made().assess(np.zeros((2, 8, 8), dtype=np.float32), None, None)
    assert found.foreign is None and found.like_training is None


def test_doubt_orders_by_failure_and_then_by_dice():
    found = made().assess(np.zeros((2, 8, 8), dtype=np.float32), None, None)
    surer = replace(found, failure=found.failure / 2)
    better = replace(found, dice=found.dice + 0.1)
    assert surer.doubt < found.doubt and better.doubt < found.doubt
