"""Colours of outlines, as many as there are masks, distinguishable with colour-vision deficiency too."""

from functools import lru_cache

import numpy as np

Colour = tuple[int, int, int]

# Okabe and Ito's palette (2008), distinguishable with colour-vision deficiency
PALETTE: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
_TAKEN = ((255, 255, 255), (0, 0, 0), (128, 128, 128))  # the consensus, its edge, and grey images
_DARKEST, _LIGHTEST = 0.42, 0.95  # lightness of candidates: outlines show on dark and on light images
_MOST = 256  # colours; more would differ in nothing that is seen
_STEPS = 18  # of the red, green and blue of candidates
# linear sRGB to what is seen with protanopia and deuteranopia (Machado, Oliveira and Fernandes 2009, severity 1.0)
_SEEN_AS = (
    np.eye(3),
    np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
)
# of distances: there are fewer colours with a deficiency, so they lie closer
_WEIGHTS = np.array([1.0, 2.0, 2.0])[:, None]
# linear sRGB to the responses of the cones, and their cube roots to Oklab (Ottosson 2020)
_CONES = np.array(
    [[0.4122215, 0.5363325, 0.0514460], [0.2119035, 0.6806995, 0.1073970], [0.0883025, 0.2817188, 0.6299787]]
)
_OKLAB = np.array(
    [[0.2104543, 0.7936178, -0.0040720], [1.9779985, -2.4285922, 0.4505937], [0.0259040, 0.7827718, -0.8086758]]
)


def colours(count: int) -> tuple[Colour, ...]:
    """Distinct colours: `PALETTE`, then each time the colour that is farthest from all before, white, black and grey.

    Distance is the smallest of normal vision, protanopia and deuteranopia in Oklab. The first k of n colours are those
    of k: mask k has the same colour however many are drawn. After `_MOST` they start again.
    """
    every = _distinct(min(count, _MOST))
    return tuple(every[k % _MOST] for k in range(count))


def colour_of(number: int) -> Colour:
    """The colour of mask `number`, counted from 1."""
    return colours(number)[-1]


@lru_cache(maxsize=32)
def _distinct(count: int) -> tuple[Colour, ...]:
    if count <= len(PALETTE):
        return PALETTE[:count]
    levels = np.linspace(0, 255, _STEPS).round()
    candidates = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    light = seen(candidates)[0, :, 0]
    candidates = candidates[(light >= _DARKEST) & (light <= _LIGHTEST)]
    places = seen(candidates)
    found = list(PALETTE)
    nearest = np.full(len(candidates), np.inf)
    for colour in (*_TAKEN, *PALETTE):
        nearest = np.minimum(nearest, _distances(places, colour))
    while len(found) < count:
        best = candidates[int(nearest.argmax())]
        found.append((int(best[0]), int(best[1]), int(best[2])))
        nearest = np.minimum(nearest, _distances(places, found[-1]))
    return tuple(found)


def seen(values: np.ndarray) -> np.ndarray:
    """sRGB (n, 3), 0 … 255, in Oklab as seen with normal vision, protanopia and deuteranopia: (3, n, 3)."""
    encoded = np.asarray(values, dtype=float) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    lights = np.stack([np.clip(linear @ matrix.T, 0, 1) for matrix in _SEEN_AS])
    found: np.ndarray = np.cbrt(lights @ _CONES.T) @ _OKLAB.T
    return found


def _distances(places: np.ndarray, colour: Colour) -> np.ndarray:
    """The smallest weighted distance of each candidate (3, n, 3) to a colour, (n,)."""
    apart = np.linalg.norm(places - seen(np.array([colour])), axis=-1)
    result: np.ndarray = (apart * _WEIGHTS).min(axis=0)
    return result
