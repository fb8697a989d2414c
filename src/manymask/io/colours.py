"""Colour spaces of image files to sRGB, at the samples' own depth."""

import numpy as np


def from_cmyk(inks: np.ndarray, most: int) -> np.ndarray:
    """Cyan, magenta, yellow and black (H, W, 4), 0 … `most` (all ink), to RGB without a profile: (1 − C)(1 − K)."""
    light = most - inks.astype(np.float32)
    return np.round(light[:, :, :3] * (light[:, :, 3:] / most)).astype(inks.dtype)


def from_ycbcr(values: np.ndarray, weights: tuple[float, ...], reference: tuple[float, ...]) -> np.ndarray:
    """Y, Cb, Cr of 8 bits to RGB; weights and reference: tags YCbCrCoefficients and ReferenceBlackWhite (TIFF 6.0)."""
    red, green, blue = weights
    y, cb, cr = np.moveaxis(values.astype(np.float32), 2, 0)
    black, white = reference[:2]
    y = (y - black) * (255 / (white - black))
    cb = (cb - reference[2]) * (127 / (reference[3] - reference[2]))
    cr = (cr - reference[4]) * (127 / (reference[5] - reference[4]))
    r = y + cr * (2 - 2 * red)
    b = y + cb * (2 - 2 * blue)
    g = (y - red * r - blue * b) / green
    return np.clip(np.round(np.stack([r, g, b], axis=2)), 0, 255).astype(np.uint8)


def from_lab(lightness: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """CIE L* in 0 … 100, a* and b* (H, W), white point D50, to sRGB of 8 bits (IEC 61966-2-1, Bradford-adapted)."""
    y = (lightness.astype(np.float32) + 16) / 116
    xyz = np.stack([y + a.astype(np.float32) / 500, y, y - b.astype(np.float32) / 200], axis=2)
    xyz = np.where(xyz > 6 / 29, xyz**3, (xyz - 4 / 29) * (3 * (6 / 29) ** 2))
    xyz *= np.array([0.96422, 1.0, 0.82521], np.float32)
    matrix = [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ]
    linear = np.clip(xyz @ np.array(matrix, np.float32).T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(encoded * 255).astype(np.uint8)
