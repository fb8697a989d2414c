"""Look-up tables of DICOM: palettes (PS3.3 C.7.6.3.1.5, C.7.9), modality and VOI LUTs (C.11.1, C.11.2).

Files in the wild disagree with their descriptors: 16 bits announced and 8 used, bytes where words belong, a negative
first value in an unsigned field. The table is taken as its data are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_MOST = 1 << 16  # entries
_COLOURS = ("Red", "Green", "Blue")


@dataclass(frozen=True)
class LookupTable:
    """entries: of the values from `first` on; what lies below has the first entry, what lies above the last."""

    first: int
    bits: int
    entries: np.ndarray

    def __call__(self, values: np.ndarray) -> np.ndarray:
        at = np.clip(values.astype(np.int32) - self.first, 0, len(self.entries) - 1)
        return self.entries[at]


def lut(item: Any, little: bool, signed: bool) -> LookupTable:
    """The table of an item of a Modality or VOI LUT Sequence; raises anything for nonsense.

    little: the byte order of the data set; signed: whether values below zero may come in.
    """
    return _table(item.LUTDescriptor, item.LUTData, little, signed)


def palette(dataset: Any, values: np.ndarray, little: bool) -> np.ndarray:
    """Stored values (H, W) as RGB uint8 (H, W, 3); raises anything for nonsense."""
    signed = int(dataset.get("PixelRepresentation") or 0) == 1
    tables = [_colour(dataset, colour, little, signed) for colour in _COLOURS]
    rgb = np.stack([table(values) for table in tables], axis=-1)
    deep = max(int(table.entries.max()) for table in tables) > 255  # 16 bits may hold numbers of 8
    return (rgb >> 8 if deep else rgb).astype(np.uint8)


def _colour(dataset: Any, colour: str, little: bool, signed: bool) -> LookupTable:
    descriptor = dataset[f"{colour}PaletteColorLookupTableDescriptor"].value
    plain = f"{colour}PaletteColorLookupTableData"
    if plain in dataset:
        return _table(descriptor, dataset[plain].value, little, signed)
    data = dataset[f"Segmented{plain}"].value
    wide = int(descriptor[2]) > 8
    entries = _expanded(_words(data, little).tolist() if wide else list(data), wide)
    return _table(descriptor, entries, little, signed)


def _table(descriptor: Sequence[int], data: Any, little: bool, signed: bool) -> LookupTable:
    count, first, bits = (int(number) for number in descriptor)
    count = count % _MOST or _MOST  # 65,536 does not fit the field
    if signed and first >= _MOST // 2:
        first -= _MOST
    if isinstance(data, bytes):
        wide = len(data) >= 2 * count
        entries = _words(data, little) if wide else _bytes(data, little)
    else:
        entries = np.asarray(data, dtype=np.int64).reshape(-1) % _MOST
    if len(entries) < count:
        raise ValueError("a table is shorter than it says")
    entries = entries[:count].astype(np.int32)
    return LookupTable(first, max(bits, int(entries.max()).bit_length()), entries)


def _words(data: bytes, little: bool) -> np.ndarray:
    return np.frombuffer(data[: len(data) // 2 * 2], "<u2" if little else ">u2")


def _bytes(data: bytes, little: bool) -> np.ndarray:
    """Bytes are written in words: of the other byte order they are swapped in pairs."""
    return np.frombuffer(data, np.uint8) if little else _words(data, False).astype("<u2").view(np.uint8)


def _expanded(data: Sequence[int], wide: bool) -> list[int]:
    """The entries of segments: 0 discrete values, 1 a straight line to a value, 2 a copy of earlier segments."""
    entries: list[int] = []
    starts: list[int] = []
    place = 0
    while place + 1 < len(data):
        starts.append(place)
        if data[place] != 2:
            place = _segment(data, place, entries)
            continue
        source, ahead = _source(data, place + 2, wide, starts)
        for _ in range(data[place + 1]):
            source = _segment(data, source, entries)
        place += 2 + ahead
    return entries


def _source(data: Sequence[int], place: int, wide: bool, starts: Sequence[int]) -> tuple[int, int]:
    """Where the segments to copy begin, and how many numbers say so. In words the standard counts bytes, some writers
    count words."""
    size = 2 if wide else 4
    offset = sum(part << (16 if wide else 8) * k for k, part in enumerate(data[place : place + size]))
    return (offset // 2 if wide and offset % 2 == 0 and offset // 2 in starts else offset), size


def _segment(data: Sequence[int], place: int, entries: list[int]) -> int:
    """Appends a segment of values to `entries`; the place of the next one."""
    kind, length, place = data[place], data[place + 1], place + 2
    if kind > 1 or len(entries) + length > _MOST:
        raise ValueError("a table has a segment of unknown kind, or too many entries")
    if kind == 0:
        entries += data[place : place + length]
        return place + length
    start, end = entries[-1], data[place]
    entries += [round(start + (end - start) * k / length) for k in range(1, length + 1)]
    return place + 1
