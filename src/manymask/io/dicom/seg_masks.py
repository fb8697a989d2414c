"""DICOM Segmentations in: BINARY, FRACTIONAL and LABELMAP, as masks of the slices that they were made of."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from manymask.errors import InputError
from manymask.io.dicom.decode import decode
from manymask.io.dicom.file import load_dicom
from manymask.io.dicom.header import Place, check_size, count_frames, group, numbers, place_of, readable, text
from manymask.io.text import composed

SEG, LABELMAP = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"
_BACKGROUND = "background"  # a segment of a LABELMAP that is none
_ON_SLICE = 0.1  # mm from the place of a slice


@dataclass(frozen=True)
class SegFrame:
    """One frame: its number, from 1; the number of its segment, 0 in a LABELMAP; SOP Instance UIDs of the images that it was
    made of; its place in the patient, and mm between rows and columns, if they are known."""

    number: int
    segment: int
    sources: frozenset[str]
    place: Place | None
    spacing: np.ndarray | None


@dataclass(frozen=True)
class Segmentation:
    """The frames of a file, the names of its segments, and the series or frame of reference that it belongs to. cut: where a
    FRACTIONAL value counts as foreground; 0 in other files."""

    path: Path
    dataset: Any
    frames: tuple[SegFrame, ...]
    segments: Mapping[int, str]
    series: frozenset[str]
    frame_of_reference: str
    cut: float = 0.0
    lock: Lock = field(default_factory=Lock, compare=False)  # pydicom parses fields as they are asked for

    @property
    def regions(self) -> list[str]:
        """The names of the segments."""
        return [name for name in self.segments.values() if name.lower() != _BACKGROUND]

    @property
    def images(self) -> frozenset[str]:
        """The SOP instances that frames were made of."""
        return frozenset(uid for frame in self.frames for uid in frame.sources)

    def strays(self, headers: Sequence[Any]) -> int:
        """How many frames belong to none of these images, by their sources or, without any, in space."""
        known = {text(header, "SOPInstanceUID") for header in headers}
        planes = [place_of(header) for header in headers]
        return sum(
            not known & set(frame.sources)
            if frame.sources
            else not any(_on_slice(frame.place, place) for place in planes)
            for frame in self.frames
        )

    def covers(self, header: Any) -> bool:
        """Whether an image belongs to the segmentation: by its series, else its frame of reference, else by itself."""
        if self.series:
            return text(header, "SeriesInstanceUID") in self.series
        if self.frame_of_reference:
            return text(header, "FrameOfReferenceUID") == self.frame_of_reference
        return any(text(header, "SOPInstanceUID") in frame.sources for frame in self.frames)

    def mask(self, header: Any, label: str, regions: Collection[str] | None = None) -> np.ndarray:
        """The union of the segments on a slice, bool (H, W); of those named, or of all if None.

        `InputError` for a segmentation on another grid than the slice.
        """
        found = np.zeros((int(header.Rows), int(header.Columns)), bool)
        wanted = [
            number
            for number, name in self.segments.items()
            if name.lower() != _BACKGROUND and (regions is None or name in regions)
        ]
        place, uid = place_of(header), text(header, "SOPInstanceUID")
        for frame in self.frames:
            if frame.segment and frame.segment not in wanted:
                continue
            if uid not in frame.sources if frame.sources else not _on_slice(frame.place, place):
                continue
            self._check_grid(frame, place, header, label)
            with self.lock:
                values = decode(self.dataset, frame.number, str(self.path)).values
            found |= values > self.cut if frame.segment else np.isin(values, wanted)
        return found

    def _check_grid(self, frame: SegFrame, place: Place | None, header: Any, label: str) -> None:
        same = (int(self.dataset.Rows), int(self.dataset.Columns)) == (int(header.Rows), int(header.Columns))
        if frame.place is not None and place is not None:
            same &= bool(np.abs(frame.place.position - place.position).max() <= _ON_SLICE)
            same &= bool(np.allclose(frame.place.orientation, place.orientation, atol=1e-3))
        spacing = numbers(header, "PixelSpacing", 2)
        if spacing is not None and frame.spacing is not None:
            same &= bool(np.allclose(frame.spacing, spacing, rtol=1e-2))
        if not same:
            raise InputError(f"{self.path} lies on another grid than its image {label}", path=self.path)


def is_seg(path: Path) -> bool:
    """Whether a DICOM file is a segmentation."""
    return text(load_dicom(path, header_only=True), "SOPClassUID") in (SEG, LABELMAP)


def read_seg(path: Path) -> Segmentation:
    """The frames of a file; their pixels are decoded when a mask is asked for. `InputError` for one that is damaged, and for
    frames that say neither which image they were made of nor where they lie."""
    dataset = load_dicom(path)
    check_size(dataset, str(path))
    with readable(str(path), "is damaged: its segments cannot be read"):
        labelled = text(dataset, "SOPClassUID") == LABELMAP
        segments = {int(item.SegmentNumber): composed(text(item, "SegmentLabel") or item.SegmentNumber)
                    for item in dataset.SegmentSequence}  # fmt: skip
        frames = tuple(_frame(dataset, number, labelled) for number in range(1, count_frames(dataset) + 1))
        series = frozenset(text(item, "SeriesInstanceUID") for item in dataset.get("ReferencedSeriesSequence") or ())
        fractional = text(dataset, "SegmentationType") == "FRACTIONAL"
        most = float(dataset.get("MaximumFractionalValue") or 255) if fractional else 0.0
    if any(not frame.sources and frame.place is None for frame in frames):
        raise InputError(f"{path}: a frame says neither which image it was made of nor where it lies", path=path)
    reference = text(dataset, "FrameOfReferenceUID")
    # from half of the largest value on: what lies above half less a half step of whole numbers
    return Segmentation(path, dataset, frames, segments, series - {""}, reference, max(0.0, most / 2 - 0.25))


def _frame(dataset: Any, number: int, labelled: bool) -> SegFrame:
    named = group(dataset, number, "SegmentIdentificationSequence")
    derived = group(dataset, number, "DerivationImageSequence")
    images = [] if derived is dataset else derived.get("SourceImageSequence") or []
    sources = frozenset(text(item, "ReferencedSOPInstanceUID") for item in images) - {""}
    segment = 0 if labelled else int(named.ReferencedSegmentNumber)
    spacing = numbers(group(dataset, number, "PixelMeasuresSequence"), "PixelSpacing", 2)
    return SegFrame(number, segment, sources, place_of(dataset, number), spacing)


def _on_slice(frame: Place | None, image: Place | None) -> bool:
    """Whether a frame lies in the plane of an image."""
    if frame is None or image is None:
        return False
    return abs(float(np.dot(frame.position - image.position, image.normal))) <= _ON_SLICE
