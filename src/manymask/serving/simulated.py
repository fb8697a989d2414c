"""Simulated images to try models of which no picture may be passed on: a region of a lung, a frame of a colonoscopy."""

import numpy as np
from scipy.ndimage import gaussian_filter

from manymask.rng import seed_of


def _noise(rng: np.random.Generator, side: int, scale: float) -> np.ndarray:
    """Smoothed noise (side, side) of unit spread."""
    noise = gaussian_filter(rng.standard_normal((side, side)), scale, mode="reflect")
    result: np.ndarray = noise / noise.std()
    return result


def _blob(side: int, centre: tuple[float, float], radius: float, rough: np.ndarray) -> np.ndarray:
    """Distance from the border of a wobbly disc at (x, y), in pixels, negative inside."""
    y, x = np.mgrid[:side, :side] + 0.5
    result: np.ndarray = np.hypot(x - centre[0], y - centre[1]) - radius * (1 + 0.12 * rough)
    return result


def lung(number: int, side: int = 192) -> np.ndarray:
    """Dark parenchyma with vessels and, in the middle, a nodule whose rim fades away.

    Args:
        number: which one.
        side: of the image, in pixels.

    Returns:
        uint8 (side, side).
    """
    rng = np.random.default_rng(seed_of("simulated lung", number))
    shade = 0.13 + 0.02 * _noise(rng, side, 6) + 0.022 * _noise(rng, side, 0.8)
    y, x = np.mgrid[:side, :side] + 0.5
    for _ in range(9):  # vessels: thin bright lines
        angle, offset = rng.uniform(0, np.pi), rng.uniform(-0.5, 0.5) * side
        bend = 6 * _noise(rng, side, 30)
        away = np.abs((x - side / 2) * np.sin(angle) - (y - side / 2) * np.cos(angle) - offset + bend)
        shade += rng.uniform(0.12, 0.35) * np.exp(-((away / rng.uniform(1.2, 2.4)) ** 2))
    wall = side * 0.06 - x + 7 * _noise(rng, side, 22)
    shade += 0.6 / (1 + np.exp(-wall / 1.5))
    rough = _noise(rng, side, 5)
    rim = _blob(side, (side / 2, side / 2), 15, rough)
    core = _blob(side, (side / 2 - 2, side / 2 + 1), 10, rough)
    shade += 0.28 / (1 + np.exp(rim / 1.8)) + 0.3 / (1 + np.exp(core / 1.2))
    result: np.ndarray = np.round(gaussian_filter(shade, 0.7).clip(0, 1) * 255).astype(np.uint8)
    return result


def colon(number: int, side: int = 320) -> np.ndarray:
    """Reddish folds that darken into the distance, and a polyp: a bright dome with a shadow and a highlight.

    Args:
        number: which one.
        side: of the image, in pixels.

    Returns:
        uint8 (side, side, 3).
    """
    rng = np.random.default_rng(seed_of("simulated colon", number))
    y, x = np.mgrid[:side, :side] + 0.5
    deep = np.hypot(x - 0.66 * side, y - 0.3 * side) / side
    folds = np.sin(26 * deep + 1.2 * _noise(rng, side, 40))
    light = 0.18 + 0.75 * np.clip(deep / 0.55, 0, 1) ** 1.1 + 0.045 * folds
    red, green, blue = 0.82 * light, 0.40 * light, 0.32 * light
    vein = np.exp(-((_noise(rng, side, 9) / 0.05) ** 2))
    away = _blob(side, (0.38 * side, 0.58 * side), 0.17 * side, _noise(rng, side, 16))
    inside = 1 / (1 + np.exp(away / 2.2))
    shadow = 0.35 * np.exp(-((np.clip(away, 0, None) / (0.03 * side)) ** 2))
    dome = np.sqrt(np.clip(1 - (np.hypot(x - 0.36 * side, y - 0.55 * side) / (0.23 * side)) ** 2, 0, 1))
    texture = 0.03 * _noise(rng, side, 2.2)
    shine = np.exp(-(((x - 0.335 * side) / (0.022 * side)) ** 2 + ((y - 0.5 * side) / (0.014 * side)) ** 2))
    shine += 0.7 * np.exp(-(((x - 0.46 * side) / (0.01 * side)) ** 2 + ((y - 0.63 * side) / (0.016 * side)) ** 2))
    channels = []
    for ground, tint, loss in ((red, 0.93, 0.06), (green, 0.50, 0.12), (blue, 0.42, 0.1)):
        outside = ground * (1 - shadow) * (1 - loss * vein)
        channels.append(outside * (1 - inside) + inside * (tint * (0.5 + 0.5 * dome) + texture) + 0.9 * shine * inside)
    frame = np.stack(channels, axis=-1) + 0.012 * rng.standard_normal((side, side, 1))
    result: np.ndarray = np.round(gaussian_filter(frame, (0.8, 0.8, 0)).clip(0, 1) * 255).astype(np.uint8)
    return result
