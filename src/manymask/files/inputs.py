"""One door for all that can be segmented: PNG, JPEG, TIFF, BMP, DICOM and NIfTI files, and folders of them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from manymask.errors import UserError
from manymask.files.dicom import Series, dicom_series, is_dicom
from manymask.files.nifti import is_nifti, nifti_slices
from manymask.files.picture import Picture
from manymask.files.raster import is_raster, read_pixels
from manymask.files.window import Window


@dataclass(frozen=True)
class Raster:
    """A PNG, JPEG, TIFF or BMP file."""

    path: Path

    def pictures(self, window: Window | None = None) -> Iterator[Picture]:
        yield Picture(read_pixels(self.path), self.path.stem)


@dataclass(frozen=True)
class Nifti:
    """A NIfTI file."""

    path: Path

    def pictures(self, window: Window | None = None, first: int = 0) -> Iterator[Picture]:
        return nifti_slices(self.path, window, first)


Input = Raster | Nifti | Series


def read_pictures(paths: Iterable[Path], window: Window | None = None) -> Iterator[Picture]:
    """The pictures of files and folders, decoded one after the other as they are asked for. See `find_inputs`."""
    for entry in find_inputs(paths):
        yield from entry.pictures(window)


def find_inputs(paths: Iterable[Path]) -> list[Input]:
    """What files and folders hold, from names and headers alone: single images in the order given, then DICOM series.

    A folder counts with all that lies directly in it; a folder of DICOM files is one or more series, and reports or
    plans among them are passed over. Raises `UserError` for what is not there, holds no image, or cannot be read.
    """
    single: list[Input] = []
    named: list[Path] = []
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            entries = _in_folder(path)
            found += [p for p in entries if not (is_raster(p) or is_nifti(p))]
            single += [_file(p) for p in entries if is_raster(p) or is_nifti(p)]
        elif not path.exists():
            raise UserError(f"{path}: no such file or folder")
        elif is_raster(path) or is_nifti(path):
            single.append(_file(path))
        elif is_dicom(path):
            named.append(path)
        else:
            raise UserError(f"{path} is not an image that can be read (PNG, JPEG, TIFF, BMP, DICOM or NIfTI)")
    series: Sequence[Input] = [*dicom_series(named), *dicom_series(found, skip_others=True)]
    if not single and not series:
        raise UserError("name at least one image or folder of images")
    return [*single, *series]


def _file(path: Path) -> Input:
    return Raster(path) if is_raster(path) else Nifti(path)


def _in_folder(folder: Path) -> list[Path]:
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    kept = [p for p in files if is_raster(p) or is_nifti(p) or (p.name.upper() != "DICOMDIR" and is_dicom(p))]
    if not kept:
        raise UserError(f"{folder} holds no image (PNG, JPEG, TIFF, BMP, DICOM or NIfTI)")
    return kept
