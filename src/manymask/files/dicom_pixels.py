"""The pixels of a DICOM frame: decompressed, in the modality's unit, windowed, as uint8.

Grey: stored values → modality LUT or rescale (PS3.3 C.11.1) → VOI LUT or window (C.11.2) → MONOCHROME1 inverted.
Colour: RGB, whatever it was stored as. Padding pixels are black and take no part in a stretch.
"""

import struct
import zlib
from typing import Any

import numpy as np

from manymask.errors import UserError
from manymask.files.dicom_header import count_frames, group, readable
from manymask.files.window import Window, fixed, header_window, stretch, to_byte


def render(dataset: Any, number: int, window: Window, label: str) -> np.ndarray:
    """Frame `number` (from 1) as uint8 (H, W) or (H, W, 3). Raises `UserError` for what cannot be decoded."""
    stored = decode(dataset, number, label)
    photometric = str(dataset.get("PhotometricInterpretation") or "MONOCHROME2")
    if photometric == "PALETTE COLOR":
        return _palette(stored, dataset, label)
    if stored.ndim == 3:
        return stored if stored.dtype == np.uint8 else _eight_bits(stored, dataset)
    padding = padding_of(stored, dataset)
    grey = _shade(stored, dataset, number, window, ~padding, label)
    if photometric == "MONOCHROME1":
        grey = 255 - grey
    grey[padding] = 0
    return grey


def frame_values(dataset: Any, number: int = 1, label: str = "the image") -> np.ndarray:
    """Grey values of a frame before any window, float32 (H, W): Hounsfield units for CT, negated where low is bright.
    Padding pixels are as dark as the darkest other. Colour as `render` has it."""
    stored = decode(dataset, number, label)
    photometric = str(dataset.get("PhotometricInterpretation") or "MONOCHROME2")
    if stored.ndim == 3 or photometric == "PALETTE COLOR":
        return render(dataset, number, Window(), label)
    values = modality(stored, dataset, number, label).astype(np.float32)
    values = -values if photometric == "MONOCHROME1" else values
    padding = padding_of(stored, dataset)
    values[padding] = values[~padding].min() if not padding.all() else 0
    return values


def decode(dataset: Any, number: int, label: str) -> np.ndarray:
    """Stored values (H, W), or RGB (H, W, 3), of one frame; only this frame is decompressed."""
    from pydicom.pixels import pixel_array

    syntax = _transfer_syntax(dataset, label)
    if "PixelData" not in dataset or not dataset.PixelData:
        raise UserError(f"{label} has no pixel data: they were taken out, or the file is cut short")
    _check_syntax(syntax, label)
    if syntax.is_encapsulated:
        _check_stream(dataset, number, label)
    with readable(label, f"is damaged: its pixel data ({syntax.name}) cannot be decoded or are cut short"):
        pixels = pixel_array(dataset, index=number - 1)
    shape = (int(dataset.Rows), int(dataset.Columns))
    if pixels.shape[:2] != shape or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise UserError(f"{label}: the pixel data are not the image that the header describes")
    return pixels


def _transfer_syntax(dataset: Any, label: str) -> Any:
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    meta = getattr(dataset, "file_meta", None)
    if meta is not None and meta.get("TransferSyntaxUID"):
        return meta.TransferSyntaxUID
    implicit, little = dataset.original_encoding
    if implicit is None:
        raise UserError(f"{label} does not say how its pixels are stored (no transfer syntax)")
    dataset.file_meta = meta if meta is not None else FileMetaDataset()
    explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dataset.file_meta.TransferSyntaxUID


def _check_syntax(syntax: Any, label: str) -> None:
    from pydicom.pixels import get_decoder

    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise UserError(f"{label}: transfer syntax {syntax.name} ({syntax}) is not supported") from None
    if not decoder.is_available:
        raise UserError(f"{label}: no decoder for {syntax.name} is installed: pip install 'manymask[dicom]'")


def modality(stored: np.ndarray, dataset: Any, number: int, label: str) -> np.ndarray:
    """Stored values through the modality LUT, or rescaled by slope and intercept: float32 (H, W)."""
    from pydicom.pixels import apply_modality_lut

    with readable(label, "has a rescale slope, intercept or modality table that cannot be read"):
        if dataset.get("ModalityLUTSequence"):
            return apply_modality_lut(stored, dataset).astype(np.float32)
        place = group(dataset, number, "PixelValueTransformationSequence")
        slope, intercept = place.get("RescaleSlope"), place.get("RescaleIntercept")
        values = stored * np.float32(1 if slope is None else slope) + np.float32(0 if intercept is None else intercept)
    if not np.isfinite(values).all():
        raise UserError(f"{label}: the rescale slope or intercept is not a number")
    return values.astype(np.float32)


def padding_of(stored: np.ndarray, dataset: Any) -> np.ndarray:
    """Where the frame holds padding (PS3.3 C.7.5.1.1.2), bool (H, W): one value, or the range up to its limit."""
    try:
        value = int(dataset.PixelPaddingValue)
        limit = int(dataset.get("PixelPaddingRangeLimit", value))
    except (AttributeError, TypeError, ValueError):
        return np.zeros(stored.shape, bool)
    return (stored >= min(value, limit)) & (stored <= max(value, limit))


def _shade(stored: np.ndarray, dataset: Any, number: int, window: Window, shown: np.ndarray, label: str) -> np.ndarray:
    values = modality(stored, dataset, number, label)
    if window.kind == "fixed":
        return fixed(values, window.centre, window.width)
    if window.kind == "full":
        return stretch(values, shown)
    place = group(dataset, number, "FrameVOILUTSequence")
    table = _voi_table(values, place, label)
    if table is not None:
        return table
    own = header_window(place)
    if own is not None:
        return fixed(values, *own)
    plain = stored.dtype == np.uint8 and (values == stored).all()
    return stored.copy() if plain else stretch(values, shown)  # eight bits without a window are shown as they are


def _voi_table(values: np.ndarray, place: Any, label: str) -> np.ndarray | None:
    """Values through the header's VOI LUT (C.11.2.1.1) as uint8, or None if it has none."""
    from pydicom.pixels import apply_voi

    if not place.get("VOILUTSequence"):
        return None
    with readable(label, "has a VOI table that cannot be read; give a window, such as `full`"):
        bits = int(place.VOILUTSequence[0].LUTDescriptor[2])
        return to_byte(apply_voi(np.round(values).astype(np.int32), place) / np.float32(2**bits - 1))


def _palette(stored: np.ndarray, dataset: Any, label: str) -> np.ndarray:
    from pydicom.pixels import apply_color_lut

    with readable(label, "has a colour table that cannot be read"):
        coloured = apply_color_lut(stored, dataset)[:, :, :3]
    return coloured if coloured.dtype == np.uint8 else (coloured >> 8).astype(np.uint8)


def _eight_bits(colour: np.ndarray, dataset: Any) -> np.ndarray:
    return to_byte(colour / np.float32(2 ** int(dataset.get("BitsStored") or 16) - 1))


def _check_stream(dataset: Any, number: int, label: str) -> None:
    """A JPEG says its own size, which decoders believe: refuse one that differs from the header, which was checked."""
    from pydicom.encaps import get_frame

    with readable(label, "is damaged: its pixel data are cut short"):
        frame = get_frame(dataset.PixelData, number - 1, number_of_frames=count_frames(dataset))
    found, expected = stream_size(frame), (int(dataset.Rows), int(dataset.Columns))
    if found is not None and found != expected:
        raise UserError(f"{label}: the pixel data are not the image that the header describes")


def stream_size(frame: bytes) -> tuple[int, int] | None:
    """Rows and columns that a JPEG, JPEG-LS or JPEG 2000 stream declares; None for any other stream."""
    start = frame.find(b"\xff\x4f\xff\x51")  # JPEG 2000: start of codestream, then SIZ
    if start >= 0 and not frame.startswith(b"\xff\xd8"):
        columns, rows, left, top = struct.unpack_from(">4I", frame[start : start + 24].ljust(24, b"\0"), 8)
        return rows - top, columns - left
    place = 2
    while frame.startswith(b"\xff\xd8") and place + 9 <= len(frame) and frame[place] == 0xFF:
        marker, length = frame[place + 1], int.from_bytes(frame[place + 2 : place + 4], "big")
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):  # a start of frame
            rows, columns = struct.unpack_from(">2H", frame, place + 5)
            return rows, columns
        place += 1 if marker == 0xFF else 2 + length
    return None


def inflates_beyond(compressed: bytes, limit: int) -> bool:
    """Whether raw deflated bytes become more than `limit`; no more than a piece of them is ever held."""
    unpack, total, rest = zlib.decompressobj(-zlib.MAX_WBITS), 0, compressed
    while rest and not unpack.eof:
        total += len(unpack.decompress(rest, 1 << 20))
        rest = unpack.unconsumed_tail
        if total > limit:
            return True
    return False
