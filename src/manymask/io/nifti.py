"""NIfTI in and out: a 2-D image, or a volume slice by slice along its third axis.

Orientation. A picture is the slice as a radiologist sees it: columns run along the first axis of the data, rows along
the second, each turned so that it runs towards the patient's left, back or feet, as the affine tells (an axis that
runs towards right, front or head is reversed). `to_picture` and `to_plane` are exact inverses and depend on the affine
alone, so a mask (H, W) goes back into the volume as `data[:, :, index] = to_plane(mask, affine)`.

One affine decides where voxels lie and how large they are: the sform if its code is set, else the qform (nibabel's
rule). A file of several volumes is read volume after volume.
"""

import gzip
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from manymask.errors import InputError, ManymaskError, MissingExtraError, decoding
from manymask.io.atomic import atomic_file
from manymask.io.depth import check_precision, stretch_note
from manymask.io.dicom.header import SMALLEST_SIDE, VOLUME_LIMIT
from manymask.io.image import Drawn, NiftiSlice, Picture, VolumeSlice
from manymask.io.nifti_grid import VoxelGrid, grid_of
from manymask.io.samples import PIXEL_LIMIT, Samples
from manymask.io.window import Window, fixed

SUFFIXES = (".nii", ".nii.gz")
_OFFSET_LIMIT = 1 << 26  # bytes of header and extensions that stand before the voxels
_LONGEST = 32767  # voxels along an axis of NIfTI-1
_MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # by code: unknown, metre, millimetre, micrometre
_GEOMETRY = ("pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y",
             "qoffset_z", "srow_x", "srow_y", "srow_z", "xyzt_units")  # fmt: skip


def is_nifti(path: Path) -> bool:
    """Whether the name ends in .nii or .nii.gz; hidden files do not count."""
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".")


def count_slices(path: Path) -> int:
    """How many slices `nifti_slices` gives, from the header alone."""
    return int(np.prod(_checked_header(path, _nibabel()).get_data_shape()[2:]))


def slices_per_volume(path: Path) -> int:
    """How many of the slices make one volume, from the header alone."""
    return int((*_checked_header(path, _nibabel()).get_data_shape()[2:], 1)[0])


def slice_size(path: Path) -> tuple[int, int]:
    """(H, W) of the slices, from the header alone."""
    width, height = _checked_header(path, _nibabel()).get_data_shape()[:2]
    return int(height), int(width)


def affine_of(path: Path) -> np.ndarray:
    """The affine (4, 4) of a file that was checked before."""
    with decoding(path):
        return np.asarray(_nibabel().load(path).affine, dtype=np.float64)


def nifti_slices(
    path: Path,
    window: Window | None = None,
    indices: Sequence[int] | None = None,
    failed: Callable[[ManymaskError], None] | None = None,
) -> Iterator[Picture]:
    """The slices of these `indices`, all if None, in the order of the third axis, in the file's own values (scaled by its
    slope); with a fixed window as uint8; colour as uint8 (H, W, 3). Values that are not numbers (NaN) are background.

    One slice is held at a time. A slice that cannot be read is told to `failed`, if given. Raises `InputError` for what
    is no NIfTI image of sensible size.
    """
    nibabel = _nibabel()
    written = _checked_header(path, nibabel)
    with decoding(path):
        image = nibabel.load(path, keep_file_open=True)
        grid = _grid(image, written, path)
    stem = path.name[: -len(next(s for s in reversed(SUFFIXES) if path.name.lower().endswith(s)))]
    count = int(np.prod(grid.shape[2:]))
    for index in range(count) if indices is None else indices:
        try:
            plane = _plane(image.dataobj, grid, index, path)
            with decoding(path):
                values, notes = _values(plane, grid, index, path)
        except ManymaskError as error:
            if failed is None:
                raise
            if isinstance(error, _CutError):
                failed(error.reworded(f"{error}: slices from {index + 1} of {count} on are left out"))
                return
            failed(error)
            continue
        shown, stretched = values, None
        if values.ndim == 2:
            if window is not None and window.kind == "fixed":
                shown = fixed(values, window.centre, window.width)
            stretched = stretch_note(shown)
        notes = (*grid.notes, *notes, *([stretched] if stretched else []))
        origin = NiftiSlice(grid.affine, grid.shape, index, values, image.header)
        yield Picture(shown, stem + _suffix(grid.shape, index), grid.spacing, origin, notes, _slice(grid, index, path))


def write_nifti(
    folder: Path,
    pictures: Sequence[Picture],
    results: Sequence[Drawn],
    numbers: Sequence[int] | None = None,
    accepted: Sequence[np.ndarray] = (),
) -> list[Path]:
    """mask-01.nii.gz … and consensus.nii.gz (uint8, 0 or 1) and confidence.nii.gz (float32), on the source's grid; of
    calibrated results inner.nii.gz and outer.nii.gz too, with the share that they hold for in the header's description.

    pictures: slices of one NIfTI file or of one DICOM series, with a result each; slices that are not among them stay 0. Or
    a single picture of another kind, see `grid_of`.
    numbers: of the masks, from 1; without gaps if not given. accepted: of each picture, the mask that a person accepted
    (H, W), in accepted.nii.gz. Raises `InputError` for other pictures, and for a series that lies on no regular grid.
    """
    grid = grid_of(pictures)
    turned = isinstance(pictures[0].origin, NiftiSlice)

    def write(name: str, planes: list[np.ndarray], description: str = "") -> Path:
        volume = np.zeros((*grid.shape[:2], int(np.prod(grid.shape[2:]))), planes[0].dtype)
        for index, plane in zip(grid.indices, planes, strict=True):
            volume[:, :, index] = to_plane(plane, grid.affine) if turned else plane.T
        path = folder / f"{name}.nii.gz"
        with atomic_file(path) as beside:
            image = _on_grid(volume.reshape(grid.shape, order="F"), grid)
            image.header["descrip"] = description
            beside.write_bytes(gzip.compress(image.to_bytes(), 6, mtime=0))  # equal masks, equal bytes
        return path

    paths = [
        *(write(f"mask-{number:02}", [(np.asarray(r.masks[k]) >= 0.5).astype(np.uint8) for r in results])
          for k, number in enumerate(numbers or range(1, len(results[0].masks) + 1))),
        write("consensus", [np.asarray(r.consensus).astype(np.uint8) for r in results]),
        write("confidence", [np.asarray(r.confidence, dtype=np.float32) for r in results]),
    ]  # fmt: skip
    outlines = [r.outlines for r in results if r.outlines is not None]
    if len(outlines) == len(results):
        for name in ("inner", "outer"):
            planes = [np.asarray(getattr(each, name)).astype(np.uint8) for each in outlines]
            paths.append(write(name, planes, f"{name} outline, alpha {outlines[0].alpha:g}"))
    if accepted:
        paths.append(write("accepted", [mask.astype(np.uint8) for mask in accepted], "accepted by a person"))
    return paths


@dataclass(frozen=True)
class _Grid:
    """Where the voxels lie: affine (4, 4); spacing in mm between rows (second axis) and columns (first axis); thickness in
    mm from slice to slice, along their normal."""

    affine: np.ndarray
    shape: tuple[int, ...]
    spacing: tuple[float, float] | None
    notes: tuple[str, ...]
    thickness: float | None = None


def _grid(image: Any, written: Any, path: Path) -> _Grid:
    """written: the header as it lies in the file; nibabel puts 1 in place of sizes of 0."""
    affine = np.asarray(image.affine, dtype=np.float64)
    shape = tuple(int(n) for n in image.shape)
    if not np.isfinite(affine).all():
        raise InputError(f"{path}: its affine holds values that are not numbers", path=path)
    header = image.header
    notes = _notes(header, shape, affine)
    unit = int(header["xyzt_units"]) & 7
    scale = _MILLIMETRES.get(unit)
    if scale is None:
        notes += (f"Its unit of length has the unknown code {unit}: no mm² are given.",)
    across, down = (float(np.linalg.norm(affine[:3, axis])) for axis in (0, 1))
    if scale is None:
        return _Grid(affine, shape, None, notes)
    if min(across, down) <= 0 or not (int(header["sform_code"]) or np.all(np.abs(written["pixdim"][1:3]) > 0)):
        return _Grid(affine, shape, None, (*notes, "Its pixels have the size 0: no mm² are given."))
    if abs(float(affine[:3, 0] @ affine[:3, 1])) > 0.01 * across * down:
        return _Grid(affine, shape, None, (*notes, "Its rows and columns are not at right angles: no mm² are given."))
    normal = np.cross(affine[:3, 0], affine[:3, 1]) / (across * down)
    sized = int(header["sform_code"]) or np.abs(written["pixdim"][3]) > 0
    thickness = abs(float(normal @ affine[:3, 2])) * scale if sized else 0.0
    return _Grid(affine, shape, (down * scale, across * scale), notes, thickness or None)


def _slice(grid: _Grid, index: int, path: Path) -> VolumeSlice | None:
    """Where a slice lies in its volume; None for a file of a single slice."""
    depth = (*grid.shape[2:], 1)[0]
    if depth == 1:
        return None
    at = index % depth
    told = path.stat()
    return VolumeSlice(
        _content(path, told.st_mtime_ns, told.st_size), at + 1, None if grid.thickness is None else at * grid.thickness
    )


@lru_cache(maxsize=8)
def _content(path: Path, changed: int, size: int) -> str:
    """Hash of a file of `size` bytes that was last changed then."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _notes(header: Any, shape: tuple[int, ...], affine: np.ndarray) -> tuple[str, ...]:
    notes = []
    codes = int(header["sform_code"]), int(header["qform_code"])
    if not any(codes):
        notes.append("Its header says nothing of orientation: left and right are not known.")
    elif all(codes):
        with suppress(Exception):  # a quaternion that is none
            if not np.allclose(header.get_qform(), affine, atol=1e-2):
                notes.append("Its sform and qform differ: the sform is used.")
    if int(header["xyzt_units"]) & 7 == 0:
        notes.append("It does not say its unit of length: millimetres are assumed.")
    if len(shape) > 3 and np.prod(shape[3:]) > 1:
        notes.append(f"The file holds {int(np.prod(shape[3:]))} volumes: all are segmented, one after the other.")
    return tuple(notes)


def _on_grid(volume: np.ndarray, grid: VoxelGrid) -> Any:
    """An image of `volume`: sform, qform, their codes and the units are those of the source, if that is a NIfTI.
    Names and comments, which may tell of the patient, are not copied."""
    nibabel = _nibabel()
    wide = isinstance(grid.header, nibabel.Nifti2Header) or max(volume.shape) > _LONGEST
    sized = (
        np.linalg.matrix_rank(grid.affine[:3, :3]) == 3
    )  # else the fields of the source, copied below, say what there is
    image = (nibabel.Nifti2Image if wide else nibabel.Nifti1Image)(volume, grid.affine if sized else None)
    if grid.header is None:
        image.header.set_xyzt_units(grid.unit)
    else:
        for name in _GEOMETRY:
            image.header[name] = grid.header[name]
    return image


def to_picture(plane: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """A slice (X, Y) or (X, Y, C) of the data as a picture (H = Y, W = X)."""
    across, down = _reversed_axes(affine)
    picture = np.swapaxes(plane, 0, 1)[:: -1 if down else 1, :: -1 if across else 1]
    return np.ascontiguousarray(picture)


def to_plane(picture: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """The way back: a picture (H, W) or (H, W, C) as a slice (X = W, Y = H) of the data."""
    across, down = _reversed_axes(affine)
    return np.ascontiguousarray(np.swapaxes(picture[:: -1 if down else 1, :: -1 if across else 1], 0, 1))


def _reversed_axes(affine: np.ndarray) -> tuple[bool, bool]:
    codes = _nibabel().aff2axcodes(affine)
    return codes[0] in ("R", "A", "S"), codes[1] in ("R", "A", "S")


def _nibabel() -> Any:
    try:
        import nibabel
    except ImportError:
        raise MissingExtraError(
            "NIfTI files need the extra `nifti`: pip install 'manymask[nifti]'", extra="nifti", package="nibabel"
        ) from None
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # it prints what it mends in a header
    return nibabel


def _checked_header(path: Path, nibabel: Any) -> Any:
    """The header, its sizes and offsets checked from the first few hundred bytes, before anything else is unpacked."""
    if not path.is_file():
        raise InputError(f"{path}: no such file", path=path)
    header = _first_header(path, nibabel)
    shape = tuple(int(n) for n in header.get_data_shape())
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (2, 3, 4):
        raise InputError(
            f"{path} has {len(shape)} dimensions; give a 2-D image, a 3-D volume, or several volumes in time",
            path=path,
        )
    if min(shape[:2]) < SMALLEST_SIDE or min(shape) < 1:
        raise InputError(f"{path} is {shape[0]}×{shape[1]} pixels: too small to segment", path=path)
    if shape[0] * shape[1] > PIXEL_LIMIT or int(np.prod(shape, dtype=object)) > VOLUME_LIMIT:
        raise InputError(
            f"{path} is {'×'.join(map(str, shape))}, too many voxels to read; scale it down first", path=path
        )
    try:
        kind = header.get_data_dtype()
        offset = float(header["vox_offset"])
    except Exception:
        raise InputError(f"{path}: its data type is not known", path=path) from None
    if not 0 <= offset <= _OFFSET_LIMIT:
        raise InputError(f"{path} is damaged: its voxels would start at byte {offset:.0f}", path=path)
    if kind.kind == "c" or (kind.fields is None and kind.kind not in "iufb"):
        raise InputError(f"{path} holds {kind} values; real numbers or RGB colours are read", path=path)
    return header


def _first_header(path: Path, nibabel: Any) -> Any:
    zipped, header = False, None
    with suppress(Exception):
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as file:
            head = file.read(540)
        size = (int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big"))
        if 540 in size and head[4:8] == b"n+2\0":
            header = nibabel.Nifti2Header(head, check=False)
        elif 348 in size and head[344:348] == b"n+1\0":
            header = nibabel.Nifti1Header(head[:348], check=False)
    if header is None:
        raise InputError(f"{path} is not a NIfTI file (.nii or .nii.gz) that can be read", path=path)
    if zipped != path.name.lower().endswith(".gz"):
        how, ending = ("compressed", ".nii.gz") if zipped else ("not compressed", ".nii")
        raise InputError(f"{path} is {how}: rename it so that it ends in {ending}", path=path)
    return header


class _CutError(InputError):
    """A file that cannot be read on."""


def _plane(data: Any, grid: _Grid, index: int, path: Path) -> np.ndarray:
    """One slice as it lies in the file."""
    place = np.unravel_index(index, grid.shape[2:], order="F")
    try:
        with decoding(path):
            return np.asarray(data[(slice(None), slice(None), *place)])
    except ManymaskError as error:
        raise _CutError(str(error)) from None


def _values(plane: np.ndarray, grid: _Grid, index: int, path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """One slice, upright, and what is to be said of it."""
    if plane.dtype.fields is not None:
        alpha = plane["A"] if "A" in plane.dtype.fields else None
        colours = Samples(np.stack([plane[name] for name in ("R", "G", "B")], axis=-1), alpha=alpha)
        return to_picture(colours.picture(path), grid.affine), ()
    values = to_picture(plane, grid.affine)
    if values.dtype.kind != "f" and values.dtype.itemsize <= 4:
        return values, ()
    measured = ~np.isnan(values)
    if not np.isfinite(values[measured]).all() or np.abs(values[measured]).max(initial=0) > np.finfo(np.float32).max:
        where = _suffix(grid.shape, index).lstrip("-")
        raise InputError(
            f"{path}: {where or 'the image'} holds infinite values, which no grey value can stand for", path=path
        )
    check_precision(values[measured], path)
    values = values.astype(np.float32)
    if measured.all():
        return values, ()
    values[~measured] = values[measured].min() if measured.any() else 0
    return values, (f"{1 - measured.mean():.1%} of the pixels are not numbers (NaN): taken as background.",)


def _suffix(shape: tuple[int, ...], index: int) -> str:
    """How a slice is called behind the name of its file."""
    depth, count = (*shape[2:], 1)[0], int(np.prod(shape[2:]))
    if count == 1:
        return ""
    slice_name = f"-slice-{index % depth + 1:04}"
    return slice_name if count == depth else f"{slice_name}-volume-{index // depth + 1:04}"
