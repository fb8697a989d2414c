"""The grid of voxels that masks are written on as NIfTI, from whatever their pictures were read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from manymask.errors import InputError
from manymask.io.dicom.grid import dicom_grid
from manymask.io.image import DicomFrame, NiftiSlice, Picture


@dataclass(frozen=True)
class VoxelGrid:
    """Where masks lie.

    affine: (4, 4), to the right, the front and the head; shape: along its axes; indices: of each picture along all axes but
    the first two; header: of the NIfTI file (nibabel) that the pictures are from; unit: of length, as NIfTI calls it.
    """

    affine: np.ndarray
    shape: tuple[int, ...]
    indices: Sequence[int]
    header: Any = None
    unit: str = "mm"


def is_flat(picture: Picture) -> bool:
    """Whether a picture is no slice of a volume, such as a photograph or an X-ray: it gets a NIfTI file of its own."""
    return not isinstance(picture.origin, NiftiSlice) and picture.slice is None


def grid_of(pictures: Sequence[Picture]) -> VoxelGrid:
    """The grid of the slices of one NIfTI file or one DICOM series, or of a single picture that is no such slice.

    The latter lies where ITK puts it: columns run to the patient's left, rows to the back, and the first pixel is the
    origin. A pixel of unknown size is one unit, and the file does not say of what.
    `InputError` for other pictures, and for a series that lies on no regular grid.
    """
    if len(pictures) == 1 and is_flat(pictures[0]):
        height, width = pictures[0].pixels.shape[:2]
        down, across = pictures[0].spacing or (1.0, 1.0)
        unit = "unknown" if pictures[0].spacing is None else "mm"
        return VoxelGrid(np.diag([-across, -down, 1.0, 1.0]), (width, height, 1), [0], unit=unit)
    if pictures and all(isinstance(p.origin, DicomFrame) for p in pictures):
        return VoxelGrid(*dicom_grid(pictures))
    slices = [p.origin for p in pictures if isinstance(p.origin, NiftiSlice)]
    if not slices or len(slices) < len(pictures) or len({(s.shape, s.affine.tobytes()) for s in slices}) > 1:
        raise InputError("these pictures are not slices of one NIfTI file: no volume can be made of them")
    return VoxelGrid(slices[0].affine, slices[0].shape, [each.index for each in slices], slices[0].header)


def geometry_of(picture: Picture) -> str:
    """Where the geometry of its masks as NIfTI is from, in words, for result.json."""
    if isinstance(picture.origin, NiftiSlice):
        return "grid of the NIfTI file"
    if not is_flat(picture):
        return "place and pixel spacing in the patient, from DICOM"
    if picture.spacing is None:
        return "pixels of one unit: neither their size nor their place in the patient is known"
    down, across = picture.spacing
    return f"pixels of {across:g} × {down:g} mm: their place in the patient is not known"
