"""A monotone map from raw confidence to the frequency with which raters mark such pixels.

Pixels are counted in fine bins of confidence, case by case, so that fitting and choosing need neither the images nor much
memory, and folds can leave out whole groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.optimize import isotonic_regression, minimize

BINS = 512  # equal in the logit, where confidences crowd near 0 and 1
REACH = 12.0  # the outermost logit
EDGES = 1 / (1 + np.exp(-np.linspace(-REACH, REACH, BINS - 1)))
KNOTS = 48


@dataclass(frozen=True)
class PixelCounts:
    """Pixels by confidence, bin by bin of `EDGES`.

    Attributes:
        count: number of pixels, (BINS,).
        confidence: sum of their confidence, (BINS,).
        frequency: sum of the share of raters who marked them, (BINS,).
    """

    count: np.ndarray
    confidence: np.ndarray
    frequency: np.ndarray

    @classmethod
    def of(cls, confidence: np.ndarray, frequency: np.ndarray) -> "PixelCounts":
        """Count pixels.

        Args:
            confidence: (N,) in [0, 1].
            frequency: share of raters who marked each pixel, (N,) in [0, 1].
        """
        index = np.searchsorted(EDGES, confidence.ravel())
        weights = (confidence.ravel(), frequency.ravel())
        return cls(np.bincount(index, minlength=BINS), *(np.bincount(index, w, minlength=BINS) for w in weights))

    @classmethod
    def total(cls, counts: "Sequence[PixelCounts]") -> "PixelCounts":
        """All together."""
        return cls(*(np.sum([getattr(each, name) for each in counts], axis=0) for name in cls.__dataclass_fields__))

    @property
    def means(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Confidence, frequency and number of pixels of each bin that holds any."""
        held = self.count > 0
        n = self.count[held]
        return self.confidence[held] / n, self.frequency[held] / n, n


@dataclass(frozen=True)
class Temperature:
    """σ(logit(p) / temperature + shift): Platt's scaling, with a slope above 0.

    Attributes:
        temperature: above 1, confidence was too extreme.
        shift: of the logit; below 0, confidence was too high.
    """

    temperature: float
    shift: float

    def __call__(self, p: np.ndarray) -> np.ndarray:
        """Confidence in [0, 1], of any shape → probability."""
        with np.errstate(over="ignore"):
            result: np.ndarray = 1 / (1 + np.exp(-(_logit(p) / self.temperature + self.shift)))
        return result


@dataclass(frozen=True)
class Isotonic:
    """A monotone curve through a few points, linear in between.

    Attributes:
        confidence: of the points, ascending.
        probability: of the points, ascending.
    """

    confidence: np.ndarray
    probability: np.ndarray

    def __call__(self, p: np.ndarray) -> np.ndarray:
        """Confidence in [0, 1], of any shape → probability."""
        result: np.ndarray = np.interp(p, self.confidence, self.probability)
        return result


ConfidenceMap = Temperature | Isotonic


def fit_temperature(counts: PixelCounts) -> Temperature:
    """The map of `Temperature` with the smallest log loss."""
    x, y, n = counts.means
    logit = _logit(x)

    def loss(at: np.ndarray) -> float:
        z = logit * np.exp(at[0]) + at[1]
        return float((n * (np.logaddexp(0, z) - y * z)).sum() / n.sum())

    slope, shift = minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-10}).x
    return Temperature(float(np.exp(-slope)), float(shift))


def fit_isotonic(counts: PixelCounts) -> Isotonic:
    """The monotone map with the smallest squared error (pool adjacent violators), thinned to at most `KNOTS` points."""
    x, y, n = counts.means
    fitted = np.asarray(isotonic_regression(y, weights=n).x)
    steps = np.flatnonzero(np.diff(fitted, prepend=-1.0, append=2.0))  # where a block of equal values begins
    middle = [np.average(x[a:b], weights=n[a:b]) for a, b in pairwise(steps)]
    points = np.array([middle, fitted[steps[:-1]]])
    chosen = np.unique(np.linspace(0, points.shape[1] - 1, KNOTS).round().astype(int))
    return Isotonic(points[0, chosen], points[1, chosen].clip(0, 1))


def log_loss(mapping: ConfidenceMap, counts: PixelCounts) -> float:
    """Mean log loss per pixel, nats."""
    x, y, n = counts.means
    p = mapping(x).clip(1e-6, 1 - 1e-6)
    return float(-(n * (y * np.log(p) + (1 - y) * np.log(1 - p))).sum() / n.sum())


def fit_confidence(counts: Sequence[PixelCounts], folds: np.ndarray) -> ConfidenceMap:
    """The better of both maps on cases that it was not fitted to, fitted to all.

    Args:
        counts: of each case.
        folds: the fold of each case, (N,).

    Returns:
        The map.
    """
    kinds = (fit_temperature, fit_isotonic)
    losses = np.zeros(len(kinds))
    for fold in np.unique(folds):
        kept = PixelCounts.total([c for c, f in zip(counts, folds, strict=True) if f != fold])
        left = PixelCounts.total([c for c, f in zip(counts, folds, strict=True) if f == fold])
        losses += [log_loss(fit(kept), left) * left.count.sum() for fit in kinds]
    best: ConfidenceMap = kinds[int(losses.argmin())](PixelCounts.total(counts))
    return best


def _logit(p: np.ndarray) -> np.ndarray:
    inside = np.asarray(p, dtype=np.float64).clip(1 / (1 + np.exp(REACH)), 1 / (1 + np.exp(-REACH)))
    result: np.ndarray = np.log(inside / (1 - inside))
    return result
