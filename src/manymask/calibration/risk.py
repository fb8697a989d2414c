"""Conformal risk control (Angelopoulos, Bates, Fisch, Lei & Schuster 2022) of two outlines.

Cut at a low threshold, the confidence map holds nearly all of the lesion: the *outer* outline, whose expected share of
missed lesion pixels is at most α. Cut at a high one, nearly all it holds is lesion: the *inner* outline, whose expected
share of falsely marked pixels is at most α. Both hold on average over images like those of the calibration, whatever the
model: with a loss L_i(λ) in [0, 1] that is monotone in λ, (Σ L_i(λ) + 1) / (n + 1) ≤ α bounds the expected loss of the
next image (their Theorem 1).
"""

import math
from dataclasses import dataclass

import numpy as np

from manymask.errors import InputError

# cuts of the confidence, ascending: all pixels, equal steps of the logit, none
THRESHOLDS = np.concatenate([[0.0], 1 / (1 + np.exp(-np.linspace(-14, 14, 225))), [2.0]]).astype(np.float32)
ALPHAS = (0.05, 0.1, 0.2)
ALPHA = 0.1  # of the outlines that are drawn by default
CONSENSUS = 0.5


@dataclass(frozen=True)
class RiskControl:
    """Thresholds for one α.

    Attributes:
        alpha: the largest expected share.
        outer: confidence from which a pixel belongs to the outer outline, at most 0.5; 0: the whole image.
        inner: the same of the inner outline, at least 0.5; above 1: nothing.
    """

    alpha: float
    outer: float
    inner: float


def losses(confidence: np.ndarray, truths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What every threshold misses and marks falsely in one image.

    Args:
        confidence: (H, W) in [0, 1].
        truths: bool (R, H, W); with several, losses are means over them.

    Returns:
        Share of lesion pixels missed, 0 where there is no lesion; and share of marked pixels outside of the lesion, 0
        where nothing is marked; (len(THRESHOLDS),) each.
    """
    place = _places(confidence)
    area = _at_least(place)
    missed = np.zeros(len(THRESHOLDS))
    false = np.zeros(len(THRESHOLDS))
    for truth in truths:
        held = _at_least(place, truth.ravel())
        missed += 1 - held / max(held[0], 1) if held[0] else 0.0
        false += np.where(area > 0, 1 - held / np.maximum(area, 1), 0.0)
    return missed / len(truths), false / len(truths)


def areas(confidence: np.ndarray) -> np.ndarray:
    """Number of pixels of a map (H, W) in [0, 1] at or above each threshold, (len(THRESHOLDS),)."""
    return _at_least(_places(confidence))


def _places(confidence: np.ndarray) -> np.ndarray:
    """The highest threshold that each pixel reaches."""
    result: np.ndarray = np.searchsorted(THRESHOLDS, confidence.ravel().astype(np.float32), side="right") - 1
    return result


def _at_least(place: np.ndarray, chosen: np.ndarray | None = None) -> np.ndarray:
    """Number of (chosen) pixels at or above each threshold."""
    counted = np.bincount(place if chosen is None else place[chosen], minlength=len(THRESHOLDS))
    return counted[::-1].cumsum()[::-1]


def needed(alpha: float) -> int:
    """The least number of cases with which α can be promised."""
    return math.ceil(1 / alpha - 1 - 1e-9)


def control(missed: np.ndarray, false: np.ndarray, alpha: float) -> RiskControl:
    """Choose thresholds: the highest outer and the lowest inner one that keep the promise.

    The share of false pixels need not fall with the threshold, so the largest share at any higher one counts instead. An
    outline that would lie on the other side of the consensus is the consensus itself, which keeps the promise with room.

    Args:
        missed: (cases, len(THRESHOLDS)), as returned by `losses`.
        false: (cases, len(THRESHOLDS)).
        alpha: the largest expected share.

    Returns:
        The thresholds.

    Raises:
        InputError: there are too few cases for this α.
    """
    n = len(missed)
    if n < needed(alpha):
        raise InputError(
            f"{n} cases are too few to promise at most {100 * alpha:g} %: it takes {needed(alpha)}",
            parameter="alphas",
        )
    envelope = np.maximum.accumulate(false[:, ::-1], axis=1)[:, ::-1]
    bounds = [(loss.sum(axis=0) + 1) / (n + 1) <= alpha for loss in (missed, envelope)]
    outer = float(THRESHOLDS[np.flatnonzero(bounds[0])[-1]])
    inner = float(THRESHOLDS[np.flatnonzero(bounds[1])[0]])
    return RiskControl(alpha, min(outer, CONSENSUS), max(inner, CONSENSUS))
