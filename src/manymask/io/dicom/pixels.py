"""The pixels of a DICOM frame: decompressed, in the modality's unit, windowed, as uint8.

Grey: stored values → modality LUT or rescale (PS3.3 C.11.1) → VOI LUT or window (C.11.2) → MONOCHROME1 inverted.
Colour: RGB, whatever it was stored as. Padding pixels are black and take no part in a stretch.
"""

from typing import Any

import numpy as np

from manymask.errors import InputError
from manymask.io.depth import stretch_note
from manymask.io.dicom.decode import Stored, decode, photometric_of, transfer_syntax
from manymask.io.dicom.header import group, readable
from manymask.io.dicom.tables import lut, palette
from manymask.io.window import Window, fixed, header_window, stretch, to_byte


def render(dataset: Any, number: int, window: Window, label: str) -> np.ndarray:
    """Frame `number` (from 1) as uint8 (H, W) or (H, W, 3). Raises `InputError` for what cannot be decoded."""
    return render_noted(dataset, number, window, label)[0]


def render_noted(dataset: Any, number: int, window: Window, label: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """As `render`, with how its grey values were stretched where the file has no window."""
    stored = decode(dataset, number, label)
    if _is_colour(stored, dataset):
        return _colour(stored, dataset, label), ()
    grey, note = _shade(stored, dataset, number, window, label)
    if photometric_of(dataset) == "MONOCHROME1":
        grey = 255 - grey
    grey[stored.padding] = 0
    return grey, (note,) if note else ()


def frame_values(dataset: Any, number: int = 1, label: str = "the image") -> np.ndarray:
    """Grey values of a frame before any window, float32 (H, W): Hounsfield units for CT, negated where low is bright.
    Padding pixels are as dark as the darkest other. Colour as `render` has it."""
    stored = decode(dataset, number, label)
    if _is_colour(stored, dataset):
        return _colour(stored, dataset, label)
    values = modality(stored.values, dataset, number, label)
    if photometric_of(dataset) == "MONOCHROME1":
        values = -values
    padding = stored.padding
    if padding.any():
        values[padding] = values[~padding].min() if not padding.all() else 0
    return values


def _is_colour(stored: Stored, dataset: Any) -> bool:
    return stored.values.ndim == 3 or photometric_of(dataset) == "PALETTE COLOR"


def _colour(stored: Stored, dataset: Any, label: str) -> np.ndarray:
    """RGB uint8 (H, W, 3)."""
    values = stored.values
    if values.ndim == 2:
        with readable(label, "has a colour table that cannot be read"):
            return palette(dataset, values, _little(dataset, label))
    bits = int(dataset.get("BitsStored") or 16)
    return values if values.dtype == np.uint8 and bits == 8 else to_byte(values / np.float32(2**bits - 1))


def modality(stored: np.ndarray, dataset: Any, number: int, label: str) -> np.ndarray:
    """Stored values through the modality LUT, or rescaled by slope and intercept: float32 (H, W)."""
    with readable(label, "has a rescale slope, intercept or modality table that cannot be read"):
        if dataset.get("ModalityLUTSequence"):
            signed = stored.dtype.kind == "i"
            return lut(dataset.ModalityLUTSequence[0], _little(dataset, label), signed)(stored).astype(np.float32)
        place = group(dataset, number, "PixelValueTransformationSequence")
        slope, intercept = place.get("RescaleSlope"), place.get("RescaleIntercept")
        with np.errstate(over="ignore", invalid="ignore"):
            values = stored * np.float32(1 if slope is None else slope)
            values += np.float32(0 if intercept is None else intercept)
        if slope is not None and float(slope) == 0:
            raise InputError(f"{label}: its rescale slope is 0, which would make all grey values one", path=label)
    if not np.isfinite(values).all():
        raise InputError(f"{label}: the rescale slope or intercept is not a number", path=label)
    return values


def _shade(stored: Stored, dataset: Any, number: int, window: Window, label: str) -> tuple[np.ndarray, str | None]:
    values = modality(stored.values, dataset, number, label)
    shown = ~stored.padding
    if window.kind == "fixed":
        return fixed(values, window.centre, window.width), None
    if window.kind == "full":
        return stretch(values, shown), None
    place = group(dataset, number, "FrameVOILUTSequence")
    if place.get("VOILUTSequence"):
        with readable(label, "has a VOI table that cannot be read; give a window, such as `full`"):
            table = lut(place.VOILUTSequence[0], _little(dataset, label), bool(values.min() < 0))
            return to_byte(table(np.round(values)) / np.float32(2**table.bits - 1)), None
    own = header_window(place)
    if own is not None:
        grey = fixed(values, *own)
        if np.ptp(grey) > 0 or np.ptp(values) == 0:
            return grey, None
        note = stretch_note(values[shown]) if shown.any() else None
        return stretch(values, shown, whole=False), note and f"{note} The window of the file shows none of them."
    if stored.values.dtype == np.uint8 and (values == stored.values).all():
        bits = int(dataset.get("BitsStored") or 8)  # eight bits without a window are shown as they are
        return stored.values.copy() if bits == 8 else to_byte(values / np.float32(2**bits - 1)), None
    return stretch(values, shown, whole=False), stretch_note(values[shown]) if shown.any() else None


def _little(dataset: Any, label: str) -> bool:
    return bool(transfer_syntax(dataset, label).is_little_endian)
