"""NIfTI in and out: a 2-D image, or a volume slice by slice along its third axis.

Orientation. A picture is the slice as a radiologist sees it: columns run along the first axis of the data, rows along
the second, each turned so that it runs towards the patient's left, back or feet, as the affine tells (an axis that
runs towards right, front or head is reversed). `to_picture` and `to_plane` are exact inverses and depend on the affine
alone, so a mask (H, W) goes back into the volume as `data[:, :, index] = to_plane(mask, affine)`.
"""

import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from manymask.errors import UserError
from manymask.files.atomic import atomic_file
from manymask.files.dicom_header import SMALLEST_SIDE, VOLUME_LIMIT
from manymask.files.picture import Drawn, NiftiSlice, Picture
from manymask.files.raster import PIXEL_LIMIT
from manymask.files.window import Window, fixed

SUFFIXES = (".nii", ".nii.gz")
_OFFSET_LIMIT = 1 << 26  # bytes of header and extensions that stand before the voxels
_MILLIMETRES = {"meter": 1000.0, "mm": 1.0, "micron": 0.001}


def is_nifti(path: Path) -> bool:
    """Whether the name ends in .nii or .nii.gz; hidden files do not count."""
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".")


def read_nifti(path: Path, window: Window | None = None) -> list[Picture]:
    """Every slice of a file; see `nifti_slices`."""
    return list(nifti_slices(path, window))


def count_slices(path: Path) -> int:
    """How many slices `nifti_slices` gives, from the header alone."""
    nibabel = _nibabel()
    return int(np.prod(_checked_header(path, nibabel).get_data_shape()[2:]))


def nifti_slices(path: Path, window: Window | None = None, first: int = 0) -> Iterator[Picture]:
    """The slices from `first` on, in the order of the third axis, in the file's own values (scaled by its slope); with a
    fixed window as uint8; colour as uint8 (H, W, 3). Raises `UserError` for what is no 2-D or 3-D NIfTI of sensible size."""
    nibabel = _nibabel()
    _checked_header(path, nibabel)
    try:
        image = nibabel.load(path)
        data, slope, inter = image.dataobj.get_unscaled(), image.dataobj.slope, image.dataobj.inter
        affine = np.asarray(image.affine, dtype=np.float64)
    except MemoryError:
        raise
    except Exception as error:
        raise UserError(f"{path} is damaged or cut short ({str(error).splitlines()[0][:100]})") from None
    if not np.isfinite(affine).all():
        raise UserError(f"{path}: its affine holds values that are not numbers")
    shape = tuple(int(n) for n in data.shape)
    volume = data.reshape(*shape[:2], -1)
    stem = path.name[: -len(next(s for s in reversed(SUFFIXES) if path.name.lower().endswith(s)))]
    for index in range(first, volume.shape[2]):
        shown = values = to_picture(_values(volume[:, :, index], slope, inter, path), affine)
        if window is not None and window.kind == "fixed" and values.ndim == 2:
            shown = fixed(values, window.centre, window.width)
        name = stem if volume.shape[2] == 1 else f"{stem}-slice-{index + 1:04}"
        origin = NiftiSlice(affine, shape, index, values, image.header.get_xyzt_units())
        yield Picture(shown, name, _spacing(image.header), origin)


def write_nifti(folder: Path, pictures: Sequence[Picture], results: Sequence[Drawn]) -> list[Path]:
    """mask-01.nii.gz … and consensus.nii.gz (uint8, 0 or 1) and confidence.nii.gz (float32), on the source's grid.

    pictures: slices of one file, with a result each; slices that are not among them stay 0. Raises `UserError` for
    pictures that do not come from one NIfTI file.
    """
    nibabel = _nibabel()
    slices = [p.origin for p in pictures if isinstance(p.origin, NiftiSlice)]
    if not slices or len(slices) < len(pictures) or len({(s.shape, s.affine.tobytes()) for s in slices}) > 1:
        raise UserError("these pictures are not slices of one NIfTI file: no volume can be made of them")
    affine, shape = slices[0].affine, slices[0].shape

    def write(name: str, planes: list[np.ndarray]) -> Path:
        volume = np.zeros((*shape[:2], int(np.prod(shape[2:]))), planes[0].dtype)
        for place, plane in zip(slices, planes, strict=True):
            volume[:, :, place.index] = to_plane(plane, affine)
        path = folder / f"{name}.nii.gz"
        with atomic_file(path) as beside:
            image = nibabel.Nifti1Image(volume.reshape(shape), affine)
            image.header.set_xyzt_units(*slices[0].units)
            beside.write_bytes(gzip.compress(image.to_bytes(), 6, mtime=0))  # equal masks, equal bytes
        return path

    return [
        *(write(f"mask-{k + 1:02}", [(np.asarray(r.masks[k]) >= 0.5).astype(np.uint8) for r in results])
          for k in range(len(results[0].masks))),
        write("consensus", [np.asarray(r.consensus).astype(np.uint8) for r in results]),
        write("confidence", [np.asarray(r.confidence, dtype=np.float32) for r in results]),
    ]  # fmt: skip


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
        raise UserError("NIfTI files need the extra `nifti`: pip install 'manymask[nifti]'") from None
    return nibabel


def _checked_header(path: Path, nibabel: Any) -> Any:
    """The header, its sizes and offsets checked from the first few hundred bytes, before anything else is unpacked."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    header = _first_header(path, nibabel)
    shape = tuple(int(n) for n in header.get_data_shape())
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (2, 3):
        raise UserError(f"{path} has {len(shape)} dimensions; give a 2-D image or a 3-D volume, one point in time")
    if min(shape[:2]) < SMALLEST_SIDE or min(shape) < 1:
        raise UserError(f"{path} is {shape[0]}×{shape[1]} pixels: too small to segment")
    if shape[0] * shape[1] > PIXEL_LIMIT or int(np.prod(shape, dtype=object)) > VOLUME_LIMIT:
        raise UserError(f"{path} is {'×'.join(map(str, shape))}, too many voxels to read; scale it down first")
    try:
        kind = header.get_data_dtype()
        offset = float(header["vox_offset"])
    except Exception:
        raise UserError(f"{path}: its data type is not known") from None
    if not 0 <= offset <= _OFFSET_LIMIT:
        raise UserError(f"{path} is damaged: its voxels would start at byte {offset:.0f}")
    if kind.kind == "c" or (kind.fields is None and kind.kind not in "iufb"):
        raise UserError(f"{path} holds {kind} values; real numbers or RGB colours are read")
    return header


def _first_header(path: Path, nibabel: Any) -> Any:
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        if zipped != path.name.lower().endswith(".gz"):
            raise ValueError
        with gzip.open(path) if zipped else path.open("rb") as file:
            head = file.read(540)
        size = (int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big"))
        if 540 in size and head[4:8] == b"n+2\0":
            return nibabel.Nifti2Header(head, check=False)
        if 348 in size and head[344:348] == b"n+1\0":
            return nibabel.Nifti1Header(head[:348], check=False)
    except Exception:
        pass
    raise UserError(f"{path} is not a NIfTI file (.nii or .nii.gz) that can be read")


def _values(plane: np.ndarray, slope: float, inter: float, path: Path) -> np.ndarray:
    if plane.dtype.fields is not None:
        return np.stack([plane[name] for name in ("R", "G", "B")], axis=-1)
    if slope == 1 and inter == 0:
        return np.asarray(plane, dtype=None if plane.dtype.itemsize <= 4 else np.float32)
    return np.asarray(plane, dtype=np.float32) * np.float32(slope) + np.float32(inter)


def _spacing(header: Any) -> tuple[float, float] | None:
    """mm between rows (second axis) and columns (first axis)."""
    across, down = (float(z) * _MILLIMETRES.get(header.get_xyzt_units()[0], 1.0) for z in header.get_zooms()[:2])
    known = np.isfinite((across, down)).all() and min(across, down) > 0
    return (down, across) if known else None
