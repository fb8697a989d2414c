"""What a DICOM header says before anything is decoded: whether it is an image, how large, where in the body.

A header is a pydicom data set with or without its pixels. Messages name the object and what is wrong with it, never a
field that could tell who the patient is.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from manymask.errors import InputError, ManymaskError
from manymask.io.samples import PIXEL_LIMIT

# all frames of one object together, in samples: 2,000 CT slices of 512² fit
VOLUME_LIMIT = 600_000_000
FRAME_LIMIT = 10_000
SMALLEST_SIDE = 8

# objects that hold numbers in place of pixels, or pixels that are no picture, by their class in the standard
_NOT_PICTURES = {
    "1.2.840.10008.1.3.10": "a DICOMDIR, a table of contents: give the files or the folder it lists",
    "1.2.840.10008.5.1.4.1.1.66.4": "a DICOM Segmentation (SEG), not an image",
    "1.2.840.10008.5.1.4.1.1.66.7": "a DICOM Segmentation (label map), not an image",
    "1.2.840.10008.5.1.4.1.1.481.2": "an RT Dose, not an image",
    "1.2.840.10008.5.1.4.1.1.481.3": "an RT Structure Set, not an image",
    "1.2.840.10008.5.1.4.1.1.481.5": "an RT Plan, not an image",
    "1.2.840.10008.5.1.4.1.1.30": "a Parametric Map, not an image",
    "1.2.840.10008.5.1.4.1.1.66": "Raw Data, not an image",
    "1.2.840.10008.5.1.4.1.1.104.1": "an Encapsulated PDF, not an image",
}  # fmt: skip

# slides of pathology: a pyramid of tiles, none of which is a picture of its own
_WHOLE_SLIDES = ("1.2.840.10008.5.1.4.1.1.77.1.6", "1.2.840.10008.5.1.4.1.1.77.1.9")


@contextmanager
def readable(label: str, otherwise: str = "is damaged or cut short") -> Iterator[None]:
    """Whatever goes wrong inside is said as `label otherwise`: pydicom parses fields when they are asked for, parsers
    and decoders raise what they like, and what they say may quote the header, unlike in `errors.decoding`."""
    try:
        yield
    except ManymaskError:
        raise
    except MemoryError:
        raise InputError(f"{label} does not fit into memory", path=label) from None
    except Exception:
        raise InputError(f"{label} {otherwise}", path=label) from None


def not_a_picture(header: Any) -> str | None:
    """What the object is if it is no image (`an RT Structure Set, not an image`), else None."""
    uid = header.get("SOPClassUID") or getattr(header, "file_meta", {}).get("MediaStorageSOPClassUID") or ""
    if str(uid) in _NOT_PICTURES:
        return _NOT_PICTURES[str(uid)]
    if "DirectoryRecordSequence" in header:
        return _NOT_PICTURES["1.2.840.10008.1.3.10"]
    if "Rows" in header:
        return None
    name = str(getattr(uid, "name", "")).removesuffix(" Storage")
    if not name or name == str(uid):
        return "a DICOM object of unknown kind, not an image"
    article = "an" if name[0] in "AEIOUaeiou" or name[:2] in ("RT", "XA", "MR", "XR") else "a"
    return f"{article} {name} without pixel data" if "Image" in name else f"{article} {name}, not an image"


def check_size(header: Any, label: str) -> None:
    """Refuses what is too small to show anything and what would not fit into memory, before it is decoded."""
    if str(header.get("SOPClassUID") or "") in _WHOLE_SLIDES or "TotalPixelMatrixColumns" in header:
        raise InputError(
            f"{label} is a whole slide, stored in tiles, which is not supported: export a region as an image",
            path=label,
        )
    try:
        rows, columns = int(header.Rows), int(header.Columns)
        frames, samples = count_frames(header), int(header.get("SamplesPerPixel") or 1)
        bits = int(header.get("BitsAllocated") or 0)
    except (TypeError, ValueError, AttributeError):
        raise InputError(f"{label}: the header does not say how large the image is", path=label) from None
    if min(rows, columns) < SMALLEST_SIDE:
        raise InputError(f"{label} is {columns}×{rows} pixels: too small to segment", path=label)
    if rows * columns > PIXEL_LIMIT:
        million = PIXEL_LIMIT // 1_000_000
        raise InputError(
            f"{label} is {columns}×{rows}, more than {million} million pixels; scale it down first", path=label
        )
    if frames > FRAME_LIMIT or rows * columns * samples * frames > VOLUME_LIMIT:
        raise InputError(
            f"{label} holds {frames} frames of {columns}×{rows}, too many to read at once; split it", path=label
        )
    if bits not in (1, 8, 16):
        raise InputError(f"{label} has {bits} bits a pixel; images of 8 to 16 bits are read", path=label)


def count_frames(header: Any) -> int:
    """The number of frames, 1 where the header is silent."""
    return max(1, int(header.get("NumberOfFrames") or 1))


def check_frames(header: Any, label: str) -> None:
    """Refuses a file that describes other frames than it says to hold: some would be left out, or read by no scale."""
    described = len(header.get("PerFrameFunctionalGroupsSequence") or [])
    if described and described != count_frames(header):
        raise InputError(
            f"{label}: its header describes {described} frames, but speaks of {count_frames(header)}", path=label
        )


def group(header: Any, number: int, name: str) -> Any:
    """Item of the functional group `name` for frame `number` (from 1), its own or shared, else the header itself."""
    own = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = header.get("SharedFunctionalGroupsSequence") or []
    for item in (*own[number - 1 : number], *shared[:1]):
        found = item.get(name)
        if found:
            return found[0]
    return header


@dataclass(frozen=True)
class Place:
    """Where a slice lies: direction of its rows and columns (6,), and its first pixel's centre (3,) in mm."""

    orientation: np.ndarray
    position: np.ndarray

    @property
    def normal(self) -> np.ndarray:
        return np.cross(self.orientation[:3], self.orientation[3:])


def place_of(header: Any, number: int = 1) -> Place | None:
    """Where frame `number` lies in the patient; None for a photograph, an X-ray, an ultrasound frame, and for frames
    that share the one position of the header."""
    orientation = numbers(group(header, number, "PlaneOrientationSequence"), "ImageOrientationPatient", 6)
    where = group(header, number, "PlanePositionSequence")
    position = numbers(where, "ImagePositionPatient", 3)
    if orientation is None or position is None or (where is header and count_frames(header) > 1):
        return None
    place = Place(orientation, position)
    return place if np.linalg.norm(place.normal) > 0.5 else None


def whole_number(header: Any, name: str) -> int | None:
    """An integer field, or None where it is absent or no number."""
    try:
        return int(header[name].value)
    except Exception:  # pydicom parses a field when it is asked for, and raises what it likes
        return None


def text(header: Any, name: str) -> str:
    """A field as text, empty where it is absent or unreadable."""
    try:
        return str(header.get(name) or "")
    except Exception:
        return ""


def numbers(place: Any, name: str, count: int) -> np.ndarray | None:
    """The values of a field, if there are `count` of them and all are finite; else None."""
    try:
        said = place.get(name)
        values = np.asarray(
            [float(v) for v in (said if hasattr(said, "__iter__") and not isinstance(said, str) else [said])]
        )
    except Exception:
        return None
    return values if len(values) == count and all(map(math.isfinite, values)) else None
