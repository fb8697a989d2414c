"""DICOM in: files of one or several series become pictures, slices in the order of their position, one a frame.

A picture is named after what a viewer shows, `series-0004-image-0012` (`-frame-0003` where a file holds several): the
numbers identify nobody, unlike file names, which often hold the patient's name, and UIDs, which link back to the
archive. Where the header has no number, the place in the order stands in. Pixels stay as stored, neither flipped nor
turned, so that masks fit the source.
"""

import filecmp
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from manymask.errors import InputError, ManymaskError
from manymask.io.depth import STRETCHED
from manymask.io.dicom.file import is_dicom, load_dicom, pydicom_quiet
from manymask.io.dicom.header import (
    check_frames,
    check_size,
    count_frames,
    not_a_picture,
    place_of,
    readable,
    text,
    whole_number,
)
from manymask.io.dicom.pixels import frame_values, render, render_noted
from manymask.io.dicom.spacing import measure
from manymask.io.dicom.stacks import Frame, in_stacks
from manymask.io.image import DicomFrame, Failed, NiftiSlice, Picture, VolumeSlice
from manymask.io.window import Window, parse_window

__all__ = ["Listing", "Series", "Window", "dicom_series", "is_dicom", "load_dicom", "parse_window",
           "seen_through", "series_of"]  # fmt: skip


def seen_through(picture: Picture, window: str) -> Picture:
    """The same picture through another window: a text of `parse_window`, or `values`, the modality's own unit unwindowed
    (float32). Rasters have no window and stay as they are, and so does all where the window is `header`."""
    origin = picture.origin
    if window == "values" and isinstance(origin, NiftiSlice) and origin.values is not None:
        return replace(picture, pixels=origin.values, notes=_unstretched(picture))
    if window == "header" or not isinstance(origin, DicomFrame):
        return picture
    with readable(picture.name):
        if window == "values":
            pixels = frame_values(origin.dataset, origin.number, picture.name)
        else:
            pixels = render(origin.dataset, origin.number, parse_window(window), picture.name)
    return replace(picture, pixels=pixels, notes=_unstretched(picture))


def _unstretched(picture: Picture) -> tuple[str, ...]:
    """The notes without that on how grey values were stretched for the eye."""
    return tuple(note for note in picture.notes if not note.startswith(STRETCHED))


@dataclass(frozen=True)
class Series:
    """The frames of one stack in order, not yet decoded; first: the place of the first among all of its series."""

    frames: Sequence[Frame]
    first: int = 1

    @property
    def file(self) -> str | None:
        """None: DICOM is known by its UIDs."""
        return None

    def __len__(self) -> int:
        return len(self.frames)

    def count(self) -> int:
        """How many frames there are."""
        return len(self.frames)

    def sizes(self) -> set[tuple[int, int]]:
        """Of the frames, as their headers say."""
        return {(int(frame.header.get("Rows") or 0), int(frame.header.get("Columns") or 0)) for frame in self.frames}

    def read(self, index: int, window: Window | None = None) -> Picture:
        """Frame `index`."""
        return next(Series(self.frames[index : index + 1], self.first + index).pictures(window))

    def between(self, first: int, last: int) -> "Series":
        """The frames from number `first` to number `last`, as their names give it. `InputError` where others lie between them."""
        places = [k for k, frame in enumerate(self.frames) if first <= _number(frame, self.first + k) <= last]
        if places and len(places) <= places[-1] - places[0]:
            between = next(k for k in range(places[0], places[-1]) if k not in places)
            raise InputError(
                f"{self.frames[0].label}: image {_number(self.frames[between], self.first + between)} lies between the images "
                f"{first} … {last}: they are not numbered in the order of their positions",
                parameter="slices",
            )
        inside = slice(places[0], places[-1] + 1) if places else slice(0)
        return Series(self.frames[inside], self.first + (inside.start or 0))

    def pictures(self, window: Window | None = None, failed: Failed | None = None) -> Iterator[Picture]:
        """Decodes one frame after the other; a file is held while its frames are wanted. A frame that cannot be read is
        told to `failed`, once a file, and the others go on; without it, it ends the series."""
        path, dataset, told = None, None, ""
        for place, frame in enumerate(self.frames, start=self.first):
            try:
                if frame.path is None or frame.path != path or dataset is None:
                    dataset = frame.header if frame.path is None else load_dicom(frame.path)
                    path = frame.path
                with readable(frame.label):
                    check_size(dataset, frame.label)
                    pixels, notes = render_noted(dataset, frame.number, window or Window(), frame.label)
                    measured, name = measure(frame.header, frame.number), _name(frame, place)
            except ManymaskError as error:
                if failed is None:
                    raise
                if str(error) != told:
                    failed(error)
                told = str(error)
                continue
            origin = DicomFrame(dataset, frame.number)
            yield Picture(
                pixels, name, measured.spacing, origin, measured.notes + notes, _slice(frame, _number(frame, place))
            )


@dataclass
class Listing:
    """What files hold. problems: what should have been read and was not, a line each; remarks: what is to be known of
    the rest, such as reports that were passed over."""

    series: list[Series] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def add(self, frames: Sequence[Frame]) -> None:
        found = in_stacks(frames)
        self.series += [Series(stack) for stack in found.stacks]
        self.problems += found.problems
        self.remarks += found.remarks


def dicom_series(paths: Sequence[Path], skip_others: bool = False) -> Listing:
    """The series that the files belong to, from their headers alone, each in the order of position along its normal.

    `skip_others` passes over objects that are no images, with a remark: a folder holds reports and plans beside its
    slices. Copies of a file are passed over, too.
    """
    listing, frames, known = Listing(), list[Frame](), dict[str, Path]()
    others = dict[str, list[Path]]()
    for path in paths:
        try:
            header = load_dicom(path, header_only=True)
            with readable(str(path)):
                what = not_a_picture(header)
            if skip_others and what is not None:
                others.setdefault(what, []).append(path)
                continue
            found = _frames(header, path, str(path))
        except ManymaskError as error:
            listing.problems.append(str(error))
            continue
        uid = text(header, "SOPInstanceUID")
        first = known.setdefault(uid, path) if uid else path
        if first is path:
            frames += found
        else:
            _leave_out_copy(path, first, listing)
    for what, passed in others.items():
        more = f" and {len(passed) - 1} more" if len(passed) > 1 else ""
        line = f"{passed[0]}{more}: this is {what}"
        if "pixel data" in what:  # an image whose pixels were taken out
            listing.problems.append(line)
        else:
            listing.remarks.append(f"{line}: passed over")
    listing.add(frames)
    return listing


def series_of(datasets: Sequence[Any]) -> Listing:
    """The series that pydicom data sets belong to."""
    pydicom_quiet()
    listing, frames = Listing(), list[Frame]()
    for i, dataset in enumerate(datasets, start=1):
        try:
            frames += _frames(dataset, None, f"DICOM object {i}")
        except ManymaskError as error:
            listing.problems.append(str(error))
    listing.add(frames)
    return listing


def _leave_out_copy(path: Path, first: Path, listing: Listing) -> None:
    if filecmp.cmp(path, first, shallow=False):
        listing.remarks.append(f"{path} is a copy of {first}: left out")
    else:
        listing.problems.append(f"{path} has the same SOP Instance UID as {first}, but differs: left out")


def _frames(header: Any, path: Path | None, label: str) -> list[Frame]:
    with readable(label):
        what = not_a_picture(header)
        if what is not None:
            raise InputError(f"{label}: this is {what}", path=label)
        check_size(header, label)
        check_frames(header, label)
        numbers = range(1, count_frames(header) + 1)
        return [Frame(header, number, path, label, place_of(header, number)) for number in numbers]


def _slice(frame: Frame, number: int) -> VolumeSlice | None:
    """Where a frame lies in the volume of its series; None for what lies nowhere in space."""
    uid = text(frame.header, "SeriesInstanceUID")
    if frame.place is None or not uid:
        return None
    return VolumeSlice(uid, number, float(frame.place.normal @ frame.place.position))


def _number(frame: Frame, place: int) -> int:
    """What a frame is called by: its number in a file of several, else the number of its image."""
    return frame.number if count_frames(frame.header) > 1 else _image_number(frame, place)


def _image_number(frame: Frame, place: int) -> int:
    """As viewers show it; the place in the order where the header has none."""
    image = whole_number(frame.header, "InstanceNumber")
    return place if image is None or image < 0 else image


def _name(frame: Frame, place: int) -> str:
    series = whole_number(frame.header, "SeriesNumber")
    parts = [] if series is None or series < 0 else [f"series-{series:04}"]
    parts.append(f"image-{_image_number(frame, place):04}")
    if count_frames(frame.header) > 1:
        parts.append(f"frame-{frame.number:04}")
    return "-".join(parts)
