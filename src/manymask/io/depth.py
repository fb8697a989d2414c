"""Deep pixels (more than 8 bits) as bytes: stretched from the darkest to the brightest, isolated outliers left aside.

A burned-in marker, a dead pixel or a saturated spot may hold a value far from all others. Stretching up to it would leave
the picture itself with a few grey values. So at each end at most `_SHARE` of the pixels are cut off, and only where they
are outliers beyond doubt: set apart by a gap of half the range of all others, or farther away than twice that range. A
picture of fewer than `_LEVELS` grey values without them is left alone: it would be noise that is stretched.
"""

from pathlib import Path

import numpy as np

from manymask.errors import InputError

STRETCHED = "The grey values"  # how every note on it begins
_SHARE = 0.005
_GAP = 0.5
_FAR = 2.0
_LEVELS = 64
_LOOK = 1_000_000
_LEAST_STEPS = 256  # of single precision, from the darkest to the brightest
_BAND = 256  # rows at a time


def to_bytes(pixels: np.ndarray, name: str = "the image") -> np.ndarray:
    """Pixels of any shape and type as uint8; bytes stay as they are, True is 255."""
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == bool:
        return np.where(pixels, np.uint8(255), np.uint8(0))
    low, high = shown_range(pixels, name)
    if pixels.dtype == np.uint16:
        result: np.ndarray = _stretched(np.arange(65536, dtype=np.uint16), low, high)[pixels]
        return result
    return _stretched(pixels, low, high)


def stretch_note(pixels: np.ndarray, name: str = "the image") -> str | None:
    """How `to_bytes` stretches these pixels, in a sentence; None for bytes, which stay as they are."""
    if pixels.dtype in (np.uint8, bool):
        return None
    low, high = shown_range(pixels, name)
    note = f"{STRETCHED} {low:g} to {high:g} were stretched to 0 to 255"
    cut = int(np.count_nonzero(pixels < low)) + int(np.count_nonzero(pixels > high))
    if not cut:
        return note + "."
    return note + f"; {cut} outlying values were cut off (the file holds {pixels.min():g} to {pixels.max():g})."


def shown_range(pixels: np.ndarray, name: str = "the image") -> tuple[float, float]:
    """The values that become 0 and 255."""
    low, high = float(pixels.min()), float(pixels.max())
    if not np.isfinite([low, high]).all():  # of NaN, minimum and maximum are NaN
        raise InputError(f"{name} holds values that are not numbers (NaN or infinite)", path=name)
    sample = pixels.reshape(-1)[:: max(1, pixels.size // _LOOK)]
    inner_low, inner_high = (float(v) for v in np.quantile(sample, (_SHARE, 1 - _SHARE), method="nearest"))
    if len(np.unique(sample[(sample >= inner_low) & (sample <= inner_high)])) < _LEVELS:
        return low, high
    return -_end(pixels, -inner_high, -inner_low, -low, -1), _end(pixels, inner_low, inner_high, high, 1)


def _end(pixels: np.ndarray, low: float, high: float, most: float, sign: int) -> float:
    """The upper end of what is shown, of pixels times `sign`: `most`, unless the values above `high` are outliers."""
    width = high - low
    if width <= 0 or most - high <= _GAP * width:
        return most
    tail = np.unique(pixels[pixels > high] if sign > 0 else pixels[pixels < -high]).astype(np.float64) * sign
    tail = np.concatenate([[high], np.sort(tail)])
    widest = int(np.diff(tail).argmax())
    if tail[widest + 1] - tail[widest] > _GAP * (tail[widest] - low):
        return float(tail[widest])
    return float(tail[tail <= high + _GAP / 2 * width].max()) if most > high + _FAR * width else most


def above(values: np.ndarray, low: float) -> np.ndarray:
    """How far values of any shape and type lie above `low`, float32. Where single precision cannot hold all of them apart, as
    whole numbers of 32 bits, they are subtracted in double precision before."""
    if values.dtype.itemsize <= 2 or values.dtype == np.float32:
        near = values.astype(np.float32)
        near -= low
        return near
    found = np.empty(values.shape, np.float32)
    for first in range(0, len(values), _BAND):
        rows = slice(first, first + _BAND)
        found[rows] = values[rows].astype(np.float64) - low
    return found


def single(values: np.ndarray, path: Path) -> np.ndarray:
    """Values as float32; those that are no numbers stay so. `InputError` where single precision cannot hold the others."""
    if values.dtype.itemsize > 4:
        measured = values[np.isfinite(values)]
        if np.abs(measured).max(initial=0) > np.finfo(np.float32).max:
            raise InputError(f"{path} holds values that are too large for a grey value", path=path)
        check_precision(measured, path)
    return values.astype(np.float32, copy=False)


def check_precision(values: np.ndarray, path: Path) -> None:
    """`InputError` for values so far from 0 beside their range that in single precision they would be a few steps, or one."""
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    step = float(np.spacing(np.float32(max(abs(float(low)), abs(float(high))))))
    if low < high and high - low < _LEAST_STEPS * step:
        raise InputError(
            f"{path}: its values, about {float(high):.3g}, differ by too little for single precision", path=path
        )


def _stretched(pixels: np.ndarray, low: float, high: float) -> np.ndarray:
    values = above(pixels, low)
    values /= max(high - low, 1e-12)
    values *= 255
    np.round(values, out=values)
    return np.clip(values, 0, 255, out=values).astype(np.uint8)
