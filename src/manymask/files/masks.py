"""Masks of readers from image files: what counts as foreground."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from manymask.errors import UserError
from manymask.files.raster import read_pixels


@dataclass(frozen=True)
class MaskReading:
    """How masks that are not simply black and white are read.

    threshold: foreground is what reaches this value, in soft masks; labels: foreground is what holds one of these
    values, in label images; invert: foreground and background are exchanged.
    """

    threshold: float | None = None
    labels: tuple[int, ...] = ()
    invert: bool = False


def read_mask(path: Path, reading: MaskReading | None = None) -> np.ndarray:
    """A mask as bool (H, W); `UserError` for one that can be read in several ways, unless `reading` decides."""
    reading = reading or MaskReading()
    mask = _foreground(path, read_pixels(path), reading)
    return ~mask if reading.invert else mask


def _foreground(path: Path, pixels: np.ndarray, reading: MaskReading) -> np.ndarray:
    if pixels.ndim == 3:
        if (pixels[:, :, :1] != pixels[:, :, : min(3, pixels.shape[2])]).any():
            raise UserError(f"{path}: a mask must be black and white, this one has colours")
        pixels = pixels[:, :, 0]
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise UserError(f"{path}: the mask holds values that are not numbers (NaN or infinite)")
    if reading.labels:
        return np.isin(pixels, reading.labels)
    if reading.threshold is not None:
        return pixels >= reading.threshold
    values = np.unique(pixels)
    if len(values) > 2 or (len(values) == 2 and values[0] != 0):
        shown = ", ".join(map(str, values[:6])) + (", …" if len(values) > 6 else "")
        raise UserError(f"{path}: a mask must hold 0 and one other value, found {shown}; cut it with --mask-threshold")
    return pixels > 0
