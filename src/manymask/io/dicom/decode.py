"""The stored values of one DICOM frame, by one path for every transfer syntax.

Only the lowest bits of a sample are pixels (BitsStored); what else it holds, an overlay or noise, is masked here, after
decompression. Padding is looked for before that: its value may use the other bits.
"""

import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from manymask.errors import InputError, MissingExtraError
from manymask.io.dicom.header import count_frames, readable

_GREY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
# results must not depend on which decoders happen to be installed
_DECODERS = ("pylibjpeg", "pydicom", "pillow", "pyjpegls", "gdcm")
_LOSSY = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81")
_MAYBE_LOSSY = ("1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.203")
_STREAMS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51")  # JPEG and JPEG-LS, JPEG 2000
_SEQUENTIAL = (b"\xff\xc0", b"\xff\xc1")


@dataclass(frozen=True)
class Stored:
    """values: (H, W), or RGB (H, W, 3); padding: where the frame holds no image (PS3.3 C.7.5.1.1.2), bool (H, W)."""

    values: np.ndarray
    padding: np.ndarray


def photometric_of(dataset: Any) -> str:
    """How samples are meant, such as MONOCHROME2, the default."""
    return str(dataset.get("PhotometricInterpretation") or "MONOCHROME2").strip().upper()


def decode(dataset: Any, number: int, label: str) -> Stored:
    """One frame (from 1); only this frame is decompressed. Raises `InputError` for what cannot be decoded."""
    from pydicom.pixels import pixel_array

    if "PixelData" not in dataset or not dataset.PixelData:
        raise InputError(f"{label} has no pixel data: they were taken out, or the file is cut short", path=label)
    syntax = transfer_syntax(dataset, label)
    _check_colour(dataset, label)
    _check_fields(dataset, label)
    decoder = _decoder(syntax, label)
    if syntax.is_encapsulated:
        dataset, number = _single_frame(dataset, number, label)
    with readable(label, f"is damaged: its pixel data ({syntax.name}) cannot be decoded or are cut short"):
        raw = pixel_array(dataset, index=number - 1, decoding_plugin=decoder, correct_unused_bits=False)
    shape = (int(dataset.Rows), int(dataset.Columns))
    if raw.shape[:2] != shape or raw.ndim not in (2, 3) or (raw.ndim == 3 and raw.shape[2] != 3):
        raise InputError(f"{label}: the pixel data are not the image that the header describes", path=label)
    with readable(label, "has bits stored, or a high bit, that make no sense"):
        values = _own_bits(raw, dataset, syntax)
    padding = _padding(raw, dataset)
    return Stored(values, padding | _padding(values, dataset) if values is not raw else padding)


def transfer_syntax(dataset: Any, label: str) -> Any:
    """As the file says, else as it was read."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    meta = getattr(dataset, "file_meta", None)
    if meta is not None and meta.get("TransferSyntaxUID"):
        return meta.TransferSyntaxUID
    implicit, little = dataset.original_encoding
    if implicit is None:
        raise InputError(f"{label} does not say how its pixels are stored (no transfer syntax)", path=label)
    dataset.file_meta = meta if meta is not None else FileMetaDataset()
    explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dataset.file_meta.TransferSyntaxUID


def _check_colour(dataset: Any, label: str) -> None:
    said, samples = photometric_of(dataset), int(dataset.get("SamplesPerPixel") or 1)
    if said not in _GREY + _COLOUR or (samples != 1) != (said in _COLOUR):
        raise InputError(f"{label}: {said[:20]} pixels of {samples} sample(s) are not supported", path=label)
    dataset.PhotometricInterpretation, dataset.SamplesPerPixel = said, samples  # what is not written is the default
    if samples > 1:
        dataset.PixelRepresentation = 0  # no colour is below zero
        if dataset.get("PlanarConfiguration") is None:
            dataset.PlanarConfiguration = 0


def _check_fields(dataset: Any, label: str) -> None:
    """Whether the header says what is needed, and the pixel data are not of more frames than it says."""
    for name in ("BitsStored", "PixelRepresentation"):
        if dataset.get(name) is None:
            raise InputError(
                f"{label}: its header lacks {name}, without which its grey values are not known", path=label
            )
    with readable(label, "is damaged: its pixel data are cut short"):
        said = count_frames(dataset)
        held = _count_held(dataset, said)
    if held > said:
        raise InputError(f"{label} holds the pixels of {held} frames, but its header speaks of {said}", path=label)


def _count_held(dataset: Any, said: int) -> int:
    """The number of frames whose pixels are there, as far as that can be told without decoding."""
    from pydicom.encaps import generate_fragments, parse_basic_offsets

    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        bits = int(dataset.Rows) * int(dataset.Columns) * int(dataset.SamplesPerPixel) * int(dataset.BitsAllocated)
        return len(dataset.PixelData) * 8 // bits
    listed = len(parse_basic_offsets(dataset.PixelData))
    if said > 1:
        return listed
    result: int = max(listed, sum(fragment.startswith(_STREAMS) for fragment in generate_fragments(dataset.PixelData)))
    return result


def _decoder(syntax: Any, label: str) -> str:
    """The name of the decoder that is used; empty where nothing is compressed."""
    from pydicom.pixels import get_decoder

    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise InputError(f"{label}: transfer syntax {syntax.name} ({syntax}) is not supported", path=label) from None
    if not syntax.is_encapsulated:
        return ""
    name = next((name for name in _DECODERS if name in decoder.available_plugins), None)
    if name is None:
        raise MissingExtraError(
            f"{label}: no decoder for {syntax.name} is installed: pip install 'manymask[dicom]'", extra="dicom"
        )
    return name


def _single_frame(dataset: Any, number: int, label: str) -> tuple[Any, int]:
    """The data set, or one of this frame alone where its stream had to be mended; and the number of the frame in it.

    A stream says its own size, which decoders believe: one that differs from the header, which was checked, is refused.
    """
    from pydicom.encaps import encapsulate, get_frame

    with readable(label, "is damaged: its pixel data are cut short"):
        frame = get_frame(dataset.PixelData, number - 1, number_of_frames=count_frames(dataset))
    found, expected = stream_size(frame), (int(dataset.Rows), int(dataset.Columns))
    if found is not None and found != expected:
        raise InputError(f"{label}: the pixel data are not the image that the header describes", path=label)
    mended = _whole_spectrum(frame)
    if mended == frame:
        return dataset, number
    alone = dataset.group_dataset(0x0028)
    alone.file_meta, alone.NumberOfFrames = dataset.file_meta, 1
    alone.PixelData = encapsulate([mended])
    alone["PixelData"].VR = "OB"
    return alone, 1


def _whole_spectrum(frame: bytes) -> bytes:
    """A sequential JPEG whose scans end at coefficient 63, as they must (ISO 10918-1, B.2.3); some writers put 0."""
    if not frame.startswith(b"\xff\xd8") or not any(marker in frame[:4096] for marker in _SEQUENTIAL):
        return frame
    mended, place = bytearray(frame), frame.find(b"\xff\xda")
    while 0 <= place < len(frame) - 12:
        end = place + 2 + int.from_bytes(frame[place + 2 : place + 4], "big")
        if end <= len(frame) and frame[end - 3 : end - 1] == b"\0\0":
            mended[end - 2] = 63
        place = frame.find(b"\xff\xda", place + 2)
    return bytes(mended)


def _own_bits(raw: np.ndarray, dataset: Any, syntax: Any) -> np.ndarray:
    """The lowest BitsStored bits, or those below HighBit where nothing is compressed; signed values keep their sign.
    Values that a lossy codec carried beyond the range are clipped."""
    width = raw.dtype.itemsize * 8
    bits = int(dataset.get("BitsStored") or width)
    if not 0 < bits <= int(dataset.BitsAllocated):
        raise ValueError
    if bits >= width or raw.dtype.kind not in "iu":
        return raw
    signed = raw.dtype.kind == "i"
    if raw.ndim == 3 or _lossy(dataset, syntax):
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        result: np.ndarray = np.clip(raw, low, high)
        return result
    above = int(dataset.get("HighBit", bits - 1)) + 1 - bits
    if 0 < above <= width - bits and not syntax.is_compressed:
        raw = raw >> above
    return (raw << (width - bits)) >> (width - bits)


def _lossy(dataset: Any, syntax: Any) -> bool:
    return syntax in _LOSSY or (syntax in _MAYBE_LOSSY and str(dataset.get("LossyImageCompression")) == "01")


def _padding(values: np.ndarray, dataset: Any) -> np.ndarray:
    """One value, or the range up to its limit. The field may have been written unsigned where pixels are signed."""
    width = int(dataset.BitsAllocated)
    signed = int(dataset.get("PixelRepresentation") or 0) == 1
    try:
        ends = [int(dataset.PixelPaddingValue), int(dataset.get("PixelPaddingRangeLimit", dataset.PixelPaddingValue))]
    except (AttributeError, TypeError, ValueError):
        return np.zeros(values.shape[:2], bool)
    if values.ndim == 3:
        return np.zeros(values.shape[:2], bool)
    ends = [end % (1 << width) for end in ends]
    ends = [end - (1 << width) if signed and end >= 1 << width - 1 else end for end in ends]
    return (values >= min(ends)) & (values <= max(ends))


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
