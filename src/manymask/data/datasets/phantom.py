"""A built-in data set whose truth is known: a bright core in a faint halo, on a textured ground.

Four simulated raters outline each image. A rater includes the halo with a probability that depends on how visible it
is, and shifts the border by a normal number of pixels. So the probability that a rater marks a pixel is known exactly:
P(x) = p Φ(−d_halo(x)/s) + (1 − p) Φ(−d_core(x)/s), with d the signed distance (negative inside), s the border's spread.
"""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.special import ndtr

from manymask.data.case import Case, Source, random_scheme
from manymask.data.datasets.base import MIRROR, Dataset, Intended, Licence
from manymask.io.masks import MaskReading
from manymask.rng import seed_of

RATERS = 4
SIZE = 64
BORDER_SPREAD = 0.7
COUNT = 2000


@dataclass(frozen=True)
class Phantom:
    """One image, its raters, and the truth behind them. Maps are (SIZE, SIZE)."""

    image: np.ndarray  # uint8 (S, S, C)
    masks: np.ndarray  # bool (4, S, S)
    halo_probability: float  # that a rater includes the halo
    pixel_probability: np.ndarray  # that a rater marks the pixel
    halo_ring: np.ndarray  # bool: in the halo, not in the core


def visibility_to_probability(contrast: float) -> float:
    """How likely a rater is to include a halo of this contrast (grey levels in [0, 1]): a logistic curve."""
    return 1 / (1 + math.exp(-(contrast - 0.09) / 0.022))


def draw(index: int, seed: int = 0, channels: int = 1) -> Phantom:
    """The phantom of this index and seed; the same on every machine."""
    rng = np.random.default_rng(seed_of("phantom", seed, index))
    core, halo = _shapes(rng)
    contrast = rng.uniform(0.02, 0.16)
    p = visibility_to_probability(contrast)
    ground = 0.30 + 0.05 * _texture(rng, 4.0) + 0.03 * _texture(rng, 1.0)
    soft_core, soft_halo = (gaussian_filter((d <= 0).astype(np.float32), 0.8) for d in (core, halo))
    shade = ground + contrast * soft_halo + 0.30 * soft_core
    tint = 1 + 0.1 * rng.uniform(-1, 1, size=(1, 1, channels)) * (channels > 1)
    image = np.round((shade[:, :, None] * tint).clip(0, 1) * 255).astype(np.uint8)
    includes, shifts = rng.random(RATERS) < p, BORDER_SPREAD * rng.standard_normal(RATERS)
    masks = np.stack([(halo if inc else core) <= shift for inc, shift in zip(includes, shifts, strict=True)])
    marked = p * ndtr(-halo / BORDER_SPREAD) + (1 - p) * ndtr(-core / BORDER_SPREAD)
    return Phantom(image, masks, p, marked, (halo <= 0) & (core > 0))


def _texture(rng: np.random.Generator, scale: float) -> np.ndarray:
    """Smoothed noise of unit spread."""
    noise = gaussian_filter(rng.standard_normal((SIZE, SIZE)), scale, mode="wrap")
    result: np.ndarray = noise / noise.std()
    return result


def _shapes(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Signed distances to the border of the core and of the halo around it, both wobbly discs."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float64)
    cy, cx = rng.uniform(0.32 * SIZE, 0.68 * SIZE, size=2)
    radius, angle = np.hypot(y - cy, x - cx), np.arctan2(y - cy, x - cx)
    core = rng.uniform(5, 9) * _wobble(rng, angle)
    halo = core + rng.uniform(4.5, 8) * _wobble(rng, angle)
    return _signed_distance(radius <= core), _signed_distance(radius <= halo)


def _wobble(rng: np.random.Generator, angle: np.ndarray) -> np.ndarray:
    waves = [rng.uniform(0, 0.12) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4)]
    result: np.ndarray = 1 + np.sum(waves, axis=0)
    return result


def _signed_distance(inside: np.ndarray) -> np.ndarray:
    """Pixels to the border, negative inside; the border runs half-way between pixels."""
    result: np.ndarray = distance_transform_edt(~inside) - distance_transform_edt(inside) + np.where(inside, 0.5, -0.5)
    return result


def case_index(case_id: str) -> int:
    """The index behind an id like `phantom-00012`."""
    return int(case_id.rsplit("-", 1)[1])


def _read(index: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    phantom = draw(index, channels=channels)
    return phantom.image, phantom.masks


def read(source: Path | None = None, channels: int = 1, reading: MaskReading | None = None) -> Source:
    """The set itself; it needs no source."""
    cases = [Case(f"phantom-{i:05}", f"phantom-{i:05}", partial(_read, i, channels)) for i in range(COUNT)]
    return Source(
        "phantom", cases, {"random": random_scheme({c.id: c.id for c in cases}, 42)}, "Apache-2.0 (generated)"
    )


DATASET = Dataset(
    "phantom",
    read,
    licence=Licence(
        "apache-2.0", "Trained on simulated images; released under the Apache License 2.0.\n", pictures=True
    ),
    use=Intended(
        "Outlines the lesion of a simulated image; for demonstrations and tests.",
        ("simulation",),
        "simulated images with a known distribution of masks",
    ),
    needs_source=False,
    size=SIZE,
    channels=1,
    positive_weight=2,
    augment=MIRROR,
    target="rater",
)
