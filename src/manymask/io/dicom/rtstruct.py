"""DICOM RT Structure Sets in: contours of regions of interest, in mm of the patient, as masks of the slices they lie on."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from manymask.errors import InputError
from manymask.io.dicom.file import load_dicom
from manymask.io.dicom.header import numbers, place_of, readable, text
from manymask.io.polygons import fill_polygons, lies_outside
from manymask.io.text import composed

RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
_ON_SLICE = 0.1  # mm from the plane of a slice, for contours that do not name their image
_HALF_SLICE = 1.0  # mm, where an image does not say how thick it is


@dataclass(frozen=True)
class Contour:
    """One closed line: points (n, 3) in mm; image: SOP Instance UID, empty if it names none; xor: whether it cuts a hole into
    the lines of the same region that it lies in."""

    region: str
    image: str
    points: np.ndarray
    xor: bool


@dataclass(frozen=True)
class StructureSet:
    """The contours of a file, and the series or frame of reference that they lie in."""

    path: Path
    contours: tuple[Contour, ...]
    series: frozenset[str]
    frames_of_reference: frozenset[str]

    @property
    def regions(self) -> list[str]:
        """The name of the region of each contour."""
        return [contour.region for contour in self.contours]

    @property
    def images(self) -> frozenset[str]:
        """The SOP instances that contours name."""
        return frozenset(contour.image for contour in self.contours if contour.image)

    def strays(self, headers: Sequence[Any]) -> int:
        """How many contours lie on none of these images, by their name or, without one, in space."""
        known = {text(header, "SOPInstanceUID") for header in headers}
        planes = [place for header in headers if (place := place_of(header)) is not None]
        return sum(
            contour.image not in known
            if contour.image
            else not any(_off(contour, place) <= _ON_SLICE for place in planes)
            for contour in self.contours
        )

    def covers(self, header: Any) -> bool:
        """Whether an image belongs to the structure set: by its series, else by its frame of reference."""
        if self.series:
            return text(header, "SeriesInstanceUID") in self.series
        return text(header, "FrameOfReferenceUID") in self.frames_of_reference

    def mask(self, header: Any, label: str, regions: Collection[str] | None = None) -> np.ndarray:
        """The union of the regions on a slice, bool (H, W); of those named, or of all if None.

        `InputError` for an image without a position in space, and for a contour that names this one and lies on another slice,
        or beside the image.
        """
        place, spacing = place_of(header), numbers(header, "PixelSpacing", 2)
        if place is None or spacing is None:
            raise InputError(f"{label} has no position in space: contours of {self.path} cannot be placed", path=label)
        shape, uid = (int(header.Rows), int(header.Columns)), text(header, "SOPInstanceUID")
        masks: dict[str, np.ndarray] = {}
        for contour in self.contours:
            if (regions is not None and contour.region not in regions) or (contour.image or uid) != uid:
                continue
            off = _off(contour, place)
            if not contour.image and off > _ON_SLICE:
                continue
            if off > _reach(header):
                raise InputError(
                    f"{self.path}: a contour of {contour.region!r} names the image {label} and lies {off:.1f} mm off its plane",
                    path=self.path,
                )
            corners = _pixels(contour.points, place, spacing)
            if lies_outside(shape, corners):
                raise InputError(
                    f"{self.path}: a contour of {contour.region!r} lies outside of the image {label}", path=self.path
                )
            mask = masks.setdefault(contour.region, np.zeros(shape, bool))
            drawn = fill_polygons(shape, [corners])
            masks[contour.region] = mask ^ drawn if contour.xor else mask | drawn
        found: np.ndarray = np.any([np.zeros(shape, bool), *masks.values()], axis=0)
        return found


def _off(contour: Contour, place: Any) -> float:
    """How far a contour goes from the plane of an image, in mm."""
    return float(np.abs((contour.points - place.position) @ place.normal).max())


def _reach(header: Any) -> float:
    """How far from an image's plane a contour may lie that names it, in mm: half a slice, since points are rounded."""
    known = [numbers(header, name, 1) for name in ("SliceThickness", "SpacingBetweenSlices")]
    half = [abs(float(each[0])) / 2 for each in known if each is not None]
    return max(_ON_SLICE, min(half, default=_HALF_SLICE))


def _pixels(points: np.ndarray, place: Any, spacing: np.ndarray) -> np.ndarray:
    """(column, row) of points in mm; the position of an image is the middle of its first pixel."""
    away = points - place.position
    across, down = place.orientation[:3], place.orientation[3:]
    return np.stack([away @ across / spacing[1] + 0.5, away @ down / spacing[0] + 0.5], axis=1)


def is_rtstruct(path: Path) -> bool:
    """Whether a DICOM file is a structure set."""
    return text(load_dicom(path, header_only=True), "SOPClassUID") == RTSTRUCT


def read_rtstruct(path: Path) -> StructureSet:
    """The closed contours of a file; points and open lines have no area. `InputError` for one that is damaged."""
    dataset = load_dicom(path)
    with readable(str(path), "is damaged: its contours cannot be read"):
        names = {int(item.ROINumber): composed(item.get("ROIName") or item.ROINumber)
                 for item in dataset.get("StructureSetROISequence") or ()}  # fmt: skip
        contours = tuple(
            Contour(names[int(region.ReferencedROINumber)], _image_of(item), _points(item), "XOR" in _kind(item))
            for region in dataset.get("ROIContourSequence") or ()
            for item in region.get("ContourSequence") or ()
            if _kind(item).startswith("CLOSED") and len(item.get("ContourData") or ()) >= 9
        )
        frames = list(dataset.get("ReferencedFrameOfReferenceSequence") or ())
        series = [s for frame in frames for study in frame.get("RTReferencedStudySequence") or ()
                  for s in study.get("RTReferencedSeriesSequence") or ()]  # fmt: skip
        return StructureSet(
            path,
            contours,
            frozenset(text(item, "SeriesInstanceUID") for item in series),
            frozenset(text(item, "FrameOfReferenceUID") for item in frames),
        )


def _kind(item: Any) -> str:
    return text(item, "ContourGeometricType").replace("_", "")


def _image_of(item: Any) -> str:
    images = list(item.get("ContourImageSequence") or ())
    return text(images[0], "ReferencedSOPInstanceUID") if images else ""


def _points(item: Any) -> np.ndarray:
    points = np.asarray([float(value) for value in item.ContourData]).reshape(-1, 3)
    if not np.isfinite(points).all():
        raise ValueError("a point is no number")
    return points
