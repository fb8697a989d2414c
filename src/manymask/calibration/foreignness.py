"""How unlike the training images an image is: the distance of its features from a Gaussian fitted to theirs.

The Gaussian has a few principal directions and one variance for all others (probabilistic PCA, Tipping & Bishop 1999),
since there are more features than a calibration has images. The cut is a conformal quantile over held-out images, so that
an image like them is called foreign with the stated probability at most.
"""

import math
from dataclasses import dataclass

import numpy as np

from manymask.errors import InputError

DIRECTIONS = 24
FALSE_ALARMS = 0.05


@dataclass(frozen=True)
class Foreignness:
    """A Gaussian of features, and the distances of held-out images like the training images.

    Attributes:
        mean: (d,).
        directions: principal directions, (k, d).
        variance: along each of them, (k,).
        rest: variance of every other direction.
        distances: of the held-out images, ascending, (n,).
    """

    mean: np.ndarray
    directions: np.ndarray
    variance: np.ndarray
    rest: float
    distances: np.ndarray

    def distance(self, embedding: np.ndarray) -> np.ndarray:
        """Mean squared deviation per feature, 1 on average over the training images: (…, d) → (…)."""
        x = embedding - self.mean
        along = x @ self.directions.T
        beside = (x**2).sum(axis=-1) - (along**2).sum(axis=-1)
        result: np.ndarray = ((along**2 / self.variance).sum(axis=-1) + beside.clip(0) / self.rest) / x.shape[-1]
        return result

    @property
    def cut(self) -> float:
        """The distance from which an image is called foreign."""
        n = len(self.distances)
        return float(self.distances[min(math.ceil((1 - FALSE_ALARMS) * (n + 1)) - 1, n - 1)])

    def share(self, distance: float) -> float:
        """Share of images like the training images that are at least this far (a conformal p-value)."""
        n = len(self.distances)
        return float((n - np.searchsorted(self.distances, distance) + 1) / (n + 1))


def fit_foreignness(reference: np.ndarray, held_out: np.ndarray) -> Foreignness:
    """Fit.

    Args:
        reference: features of training images, (m, d).
        held_out: features of other images like them, (n, d).

    Returns:
        The Gaussian with the distances of the held-out images.

    Raises:
        InputError: there are too few images.
    """
    least = math.ceil(1 / FALSE_ALARMS) - 1
    if len(held_out) < least or len(reference) < 3:
        raise InputError(f"{len(held_out)} images are too few to tell foreign ones from others: it takes {least}")
    mean = reference.mean(axis=0)
    _, values, directions = np.linalg.svd(reference - mean, full_matrices=False)
    variance = values**2 / (len(reference) - 1)
    k = min(DIRECTIONS, len(reference) // 4, len(variance) - 1)
    others = max(reference.shape[1] - k, 1)
    rest = max(float(variance[k:].sum() / others), 1e-12)
    found = Foreignness(mean, directions[:k], np.maximum(variance[:k], rest), rest, np.zeros(1))
    return Foreignness(mean, found.directions, found.variance, rest, np.sort(found.distance(held_out)))
