"""The grid of voxels that the slices of a DICOM series lie on, as NIfTI describes it."""

from collections.abc import Sequence

import numpy as np

from manymask.errors import InputError
from manymask.io.dicom.header import group, numbers, place_of
from manymask.io.image import DicomFrame, Picture

_TO_RAS = np.diag([-1.0, -1.0, 1.0])  # DICOM counts towards left and back, NIfTI towards right and front
_OFF = 0.1  # of a step: how far a slice may lie off its place


def dicom_grid(pictures: Sequence[Picture]) -> tuple[np.ndarray, tuple[int, int, int], list[int]]:
    """Affine (4, 4), shape (columns, rows, slices), and the index of each picture along the third axis.

    The first axis runs along the rows of an image, the second along its columns, the third with the normal. Places without
    a picture stay empty. `InputError` for slices that lie on no regular grid.
    """
    name = pictures[0].name
    places = [
        place_of(p.origin.dataset, p.origin.number) for p in pictures if isinstance(p.origin, DicomFrame) and p.slice
    ]
    found = [place for place in places if place is not None]
    spacing = pictures[0].spacing
    if len(found) < len(pictures) or spacing is None:
        raise InputError(
            f"{name} has no place or no pixel spacing in the patient: no NIfTI can be made of it", path=name
        )
    normal = found[0].normal / np.linalg.norm(found[0].normal)
    first = min(found, key=lambda place: float(normal @ place.position))
    depths = np.array([float(normal @ (place.position - first.position)) for place in found])
    step, indices = _steps(depths, name)
    far = found[int(np.argmax(depths))]
    along = (far.position - first.position) / max(indices) if max(indices) else normal * _thickness(pictures[0], step)
    for place, index in zip(found, indices, strict=True):
        if np.linalg.norm(place.position - first.position - index * along) > _OFF * max(step, min(spacing)):
            raise InputError(f"{name}: its slices lie on no regular grid: no NIfTI can be made of them", path=name)
    affine = np.eye(4)
    columns = [first.orientation[:3] * spacing[1], first.orientation[3:] * spacing[0], along]
    affine[:3, :3] = _TO_RAS @ np.stack(columns, axis=1)
    affine[:3, 3] = _TO_RAS @ first.position
    height, width = pictures[0].pixels.shape[:2]
    return affine, (width, height, max(indices) + 1), indices


def _steps(depths: np.ndarray, name: str) -> tuple[float, list[int]]:
    """The distance between neighbouring slices, and each slice's place in such steps."""
    gaps = np.diff(np.sort(depths))
    if len(gaps) == 0:
        return 0.0, [0]
    step = float(np.median(gaps))
    places = depths / step if step > 0 else depths * np.nan
    if not np.isfinite(places).all() or np.abs(places - np.round(places)).max() > _OFF or gaps.min() < step / 2:
        raise InputError(f"{name}: its slices are at irregular distances: no NIfTI can be made of them", path=name)
    return step, [int(place) for place in np.round(places)]


def _thickness(picture: Picture, step: float) -> float:
    """Of a single slice, in mm; 1 where the header is silent."""
    if step or not isinstance(picture.origin, DicomFrame):
        return step
    said = numbers(group(picture.origin.dataset, picture.origin.number, "PixelMeasuresSequence"), "SliceThickness", 1)
    return float(said[0]) if said is not None and said[0] > 0 else 1.0
