"""DICOM in: files of one or several series become pictures, slices in the order of their position, one a frame.

A picture is named after what a viewer shows, `series-0004-image-0012` (`-frame-0003` where a file holds several): the
numbers identify nobody, unlike file names, which often hold the patient's name, and UIDs, which link back to the
archive. Where the header has no number, the place in the order stands in. Pixels stay as stored, neither flipped nor
turned, so that masks fit the source.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from manymask.errors import UserError
from manymask.files.dicom_header import (
    Place,
    check_size,
    count_frames,
    not_a_picture,
    place_of,
    readable,
    spacing_of,
    text,
    whole_number,
)
from manymask.files.dicom_pixels import frame_values, inflates_beyond, render
from manymask.files.picture import DicomFrame, NiftiSlice, Picture
from manymask.files.raster import PIXEL_LIMIT
from manymask.files.window import Window, parse_window

__all__ = ["Series", "Window", "dicom_series", "is_dicom", "load_dicom", "parse_window", "pictures_of", "read_dicom",
           "seen_through"]  # fmt: skip

_DEFLATED_LIMIT = 4 * PIXEL_LIMIT  # bytes
_SUFFIXES = (".dcm", ".dicom", ".ima")
_HEADER = [
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "SeriesNumber", "InstanceNumber", "Rows",
    "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "PixelSpacing", "ImagerPixelSpacing",
    "NominalScannedPixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "DirectoryRecordSequence",
]  # fmt: skip


@dataclass(frozen=True)
class _Frame:
    """A frame before it is decoded. `path` is None where the header is the whole data set."""

    header: Any
    number: int
    path: Path | None
    label: str
    place: Place | None


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM: by its magic word, its ending, or, without preamble, because it reads as such."""
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError:
        return False
    if head[128:] == b"DICM" or path.suffix.lower() in _SUFFIXES or path.name.upper() == "DICOMDIR":
        return True
    # without preamble it starts with an element of group 2 or 8, of either byte order
    return head[:2] in (b"\x02\0", b"\x08\0", b"\0\x02", b"\0\x08") and _reads_as_dicom(path)


def read_dicom(paths: Sequence[Path], window: Window | None = None) -> list[Picture]:
    """Every frame of the files, series after series; raises `UserError` for what is no image or cannot be read."""
    return [picture for series in dicom_series(paths) for picture in series.pictures(window)]


def pictures_of(datasets: Sequence[Any], window: Window | None = None) -> list[Picture]:
    """The same for pydicom data sets that are in memory already."""
    _pydicom()
    frames = [f for i, d in enumerate(datasets, start=1) for f in _frames(d, None, f"DICOM object {i}")]
    return [picture for series in _in_series(frames) for picture in series.pictures(window)]


def seen_through(picture: Picture, window: str) -> Picture:
    """The same picture through another window: a text of `parse_window`, or `values`, the modality's own unit unwindowed
    (float32). Rasters have no window and stay as they are, and so does all where the window is `header`."""
    origin = picture.origin
    if window == "values" and isinstance(origin, NiftiSlice) and origin.values is not None:
        return replace(picture, pixels=origin.values)
    if window == "header" or not isinstance(origin, DicomFrame):
        return picture
    with readable(picture.name):
        if window == "values":
            pixels = frame_values(origin.dataset, origin.number, picture.name)
        else:
            pixels = render(origin.dataset, origin.number, parse_window(window), picture.name)
    return replace(picture, pixels=pixels)


@dataclass(frozen=True)
class Series:
    """The frames of one series in order, not yet decoded."""

    frames: Sequence[_Frame]

    def __len__(self) -> int:
        return len(self.frames)

    def pictures(
        self, window: Window | None = None, failed: Callable[[UserError], None] | None = None
    ) -> Iterator[Picture]:
        """Decodes one frame after the other; a file is held while its frames are wanted. A frame that cannot be read is
        told to `failed`, and the others go on; without it, it ends the series."""
        path, dataset = None, None
        for place, frame in enumerate(self.frames, start=1):
            try:
                if frame.path is None or frame.path != path or dataset is None:
                    dataset = frame.header if frame.path is None else load_dicom(frame.path)
                    path = frame.path
                with readable(frame.label):
                    check_size(dataset, frame.label)
                    pixels = render(dataset, frame.number, window or Window(), frame.label)
                    spacing, name = spacing_of(frame.header, frame.number), _name(frame, place)
            except UserError as error:
                if failed is None:
                    raise
                failed(error)
                continue
            yield Picture(pixels, name, spacing, DicomFrame(dataset, frame.number))


def dicom_series(paths: Sequence[Path], skip_others: bool = False) -> list[Series]:
    """The series that the files belong to, from their headers alone, each in the order of position along its normal.

    `skip_others` leaves out objects that are no images (a folder holds reports and plans beside its slices), unless
    there is nothing else. Raises `UserError` for unreadable files and for a series whose slices do not fit together.
    """
    frames: list[_Frame] = []
    others: list[str] = []
    for path in paths:
        header = load_dicom(path, header_only=True)
        with readable(str(path)):
            what = not_a_picture(header)
        if what is not None and skip_others:
            others.append(f"{path}: this is {what}")
        else:
            frames += _frames(header, path, str(path))
    if others and not frames:
        raise UserError(others[0])
    return _in_series(frames)


def _frames(header: Any, path: Path | None, label: str) -> list[_Frame]:
    with readable(label):
        what = not_a_picture(header)
        if what is not None:
            raise UserError(f"{label}: this is {what}")
        check_size(header, label)
        numbers = range(1, count_frames(header) + 1)
        return [_Frame(header, number, path, label, place_of(header, number)) for number in numbers]


def _in_series(frames: Sequence[_Frame]) -> list[Series]:
    members: dict[tuple[int, str], list[_Frame]] = {}
    for frame in frames:
        uid = text(frame.header, "SeriesInstanceUID")
        members.setdefault((whole_number(frame.header, "SeriesNumber") or 0, uid), []).append(frame)
    return [Series(_sorted(members[key])) for key in sorted(members)]


def _sorted(frames: list[_Frame]) -> list[_Frame]:
    """By position along the normal; photographs, X-rays and films by their instance and frame numbers."""
    found = [frame.place for frame in frames if frame.place is not None]
    if len(found) == len(frames):
        _check_together(frames)
    elif found and len({id(frame.header) for frame in frames}) > 1:
        odd = next(frame for frame in frames if frame.place is None)
        raise UserError(f"{odd.label} has no position in the patient, other images of its series have; give it alone")
    first = min(frames, key=lambda frame: text(frame.header, "SOPInstanceUID"))  # whatever the order of the files
    normal = first.place.normal if first.place is not None and len(found) == len(frames) else None

    def key(frame: _Frame) -> tuple[float, int, str, int]:
        along = 0.0 if normal is None or frame.place is None else round(float(normal @ frame.place.position), 4)
        instance = whole_number(frame.header, "InstanceNumber")
        return along, instance or 0, text(frame.header, "SOPInstanceUID"), frame.number

    return sorted(frames, key=key)


def _check_together(frames: Sequence[_Frame]) -> None:
    """The slices of a series are parallel, of one size and one spacing; else it is not one stack."""
    first = frames[0]
    assert first.place is not None
    for frame in frames[1:]:
        assert frame.place is not None
        if np.abs(frame.place.orientation - first.place.orientation).max() > 1e-2:
            what = "orientations (scouts among the slices?)"
        elif (frame.header.Rows, frame.header.Columns) != (first.header.Rows, first.header.Columns):
            what = "image sizes"
        elif not _same_spacing(frame, first):
            what = "pixel spacings"
        else:
            continue
        raise UserError(f"{frame.label} and {first.label} are of one series but mix {what}; give them separately")


def _same_spacing(one: _Frame, other: _Frame) -> bool:
    a, b = spacing_of(one.header, one.number), spacing_of(other.header, other.number)
    return a == b if a is None or b is None else bool(np.allclose(a, b, rtol=1e-3))


def _name(frame: _Frame, place: int) -> str:
    series, image = (whole_number(frame.header, name) for name in ("SeriesNumber", "InstanceNumber"))
    parts = [] if series is None or series < 0 else [f"series-{series:04}"]
    parts.append(f"image-{place if image is None or image < 0 else image:04}")
    if count_frames(frame.header) > 1:
        parts.append(f"frame-{frame.number:04}")
    return "-".join(parts)


def _pydicom() -> Any:
    try:
        import pydicom
    except ImportError:
        raise UserError("DICOM files need the extra `dicom`: pip install 'manymask[dicom]'") from None
    # both quote values of the header, and a log is no place for them
    warnings.filterwarnings("ignore", module=r"pydicom\..*")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    return pydicom


def load_dicom(path: Path, header_only: bool = False, more: tuple[str, ...] = ()) -> Any:
    """The data set of a file; or the part of its header that places it, with `more` fields. `UserError` if unreadable."""
    pydicom = _pydicom()
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty")
    _check_deflated(path)
    with readable(str(path), "is damaged or cut short, or is no DICOM file"):
        if header_only:
            dataset = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=_tags(more))
        else:
            dataset = pydicom.dcmread(path, force=True)
    if len(dataset) == 0:
        raise UserError(f"{path} is damaged or cut short, or is no DICOM file")
    return dataset


@cache
def _tags(more: tuple[str, ...]) -> list[int | None]:
    from pydicom.datadict import tag_for_keyword

    return [tag_for_keyword(name) for name in (*_HEADER, *more)]


def _check_deflated(path: Path) -> None:
    """A deflated file is unpacked whole while it is read: refuse one that would grow beyond any image we take."""
    from pydicom.filereader import _read_file_meta_info, read_preamble
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    with path.open("rb") as file:
        try:
            read_preamble(file, force=True)
            syntax = _read_file_meta_info(file).get("TransferSyntaxUID")
        except Exception:
            return  # what is wrong with it is said when it is read
        if syntax == DeflatedExplicitVRLittleEndian and inflates_beyond(file.read(), _DEFLATED_LIMIT):
            raise UserError(f"{path} unpacks to more than an image may hold")


def _reads_as_dicom(path: Path) -> bool:
    try:
        header = _pydicom().dcmread(path, force=True, stop_before_pixels=True, specific_tags=["SOPClassUID"])
        return str(header.get("SOPClassUID") or "").startswith("1.2.840.10008.")
    except Exception:
        return False
