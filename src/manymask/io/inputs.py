"""One door for all that can be segmented: pictures as `raster` reads them, DICOM and NIfTI files, and folders of them."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from manymask.errors import InputError, MissingExtraError
from manymask.io.depth import stretch_note
from manymask.io.dicom.file import is_dicomdir
from manymask.io.dicom.series import Series, dicom_series, is_dicom
from manymask.io.heif import check_readable, is_heif
from manymask.io.image import Failed, Picture
from manymask.io.nifti import count_slices, is_nifti, nifti_slices, slice_size, slices_per_volume
from manymask.io.raster import claimed_size, holds_raster, is_raster, read_noted
from manymask.io.window import Window

_KINDS = "PNG, JPEG, TIFF, BMP, WebP, GIF, HEIC, AVIF, DICOM or NIfTI"
# images, by the names of their files, that nothing here reads
_FOREIGN = (".hdr", ".img", ".nrrd", ".nhdr", ".mha", ".mhd", ".mgh", ".mgz", ".mnc", ".jp2",
            ".j2k", ".jxl", ".psd", ".svs", ".ndpi", ".czi", ".mrxs", ".vsi", ".lif", ".nd2")  # fmt: skip
_CONVERT = "convert it to PNG, TIFF or NIfTI (.nii.gz)"
_RESULTS = {"result.json", "triage.json"}  # what `segment` and `triage` leave in folders: their output is no input
_NAMES_SHOWN = 4


@dataclass(frozen=True)
class Raster:
    """A PNG, JPEG, TIFF, BMP, WebP or GIF file; `under`: the folder that was named, if it was found in one."""

    path: Path
    under: Path | None = None

    @property
    def file(self) -> str | None:
        """Its name."""
        return self.path.name

    def count(self) -> int:
        """One."""
        return 1

    def sizes(self) -> set[tuple[int, int]]:
        """Of the image, as its header says."""
        claim = claimed_size(self.path)
        return {(claim.height, claim.width)}

    def read(self, index: int, window: Window | None = None) -> Picture:
        """The image."""
        return next(self.pictures(window))

    def pictures(self, window: Window | None = None, failed: Failed | None = None) -> Iterator[Picture]:
        """The image; it has no window."""
        pixels, notes = read_noted(self.path)
        stretched = stretch_note(pixels, str(self.path))
        yield Picture(pixels, self.path.stem, notes=(*notes, stretched) if stretched else notes)


@dataclass(frozen=True)
class Nifti:
    """A NIfTI file; `numbers`: of its first and last slice that are read, None for all; they count in each of its volumes."""

    path: Path
    under: Path | None = None
    numbers: tuple[int, int] | None = None

    @property
    def file(self) -> str | None:
        """Its name."""
        return self.path.name

    def count(self) -> int:
        """How many slices it has along all axes but the first two."""
        return len(self._indices())

    def _indices(self) -> list[int]:
        count, depth = count_slices(self.path), slices_per_volume(self.path)
        first, last = self.numbers or (1, depth)
        return [index for index in range(count) if first <= index % depth + 1 <= last]

    def between(self, first: int, last: int) -> "Nifti":
        """The slices from number `first` to number `last`."""
        return replace(self, numbers=(first, last))

    def sizes(self) -> set[tuple[int, int]]:
        """Of a slice, as the header says."""
        return {slice_size(self.path)}

    def read(self, index: int, window: Window | None = None) -> Picture:
        """Slice `index`."""
        return next(nifti_slices(self.path, window, [self._indices()[index]]))

    def pictures(self, window: Window | None = None, failed: Failed | None = None) -> Iterator[Picture]:
        """Its slices; see `nifti_slices`."""
        return nifti_slices(self.path, window, None if self.numbers is None else self._indices(), failed)


Input = Raster | Nifti | Series


@dataclass
class FoundInputs:
    """What paths hold. problems: what was named or lies in a folder and cannot be segmented, a line each; remarks: what
    was passed over because it is no image, and how the rest was taken."""

    inputs: list[Input] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


@dataclass
class _Files:
    """Files sorted by what they are."""

    single: list[Input] = field(default_factory=list)
    named: list[Path] = field(default_factory=list)  # DICOM
    lying: list[Path] = field(default_factory=list)  # DICOM in folders
    known: set[str] = field(default_factory=set)

    def again(self, path: Path) -> bool:
        """Whether the same file came before."""
        where = os.path.realpath(path)  # unlike Path.resolve, no error for links that lead to themselves
        seen = where in self.known
        self.known.add(where)
        return seen


def read_pictures(paths: Iterable[Path], window: Window | None = None) -> Iterator[Picture]:
    """The pictures of files and folders, decoded one after the other as they are asked for; `InputError` for the first
    that cannot be read. See `find_inputs`."""
    found = find_inputs(paths)
    for problem in found.problems:
        raise InputError(problem)
    for entry in found.inputs:
        yield from entry.pictures(window)


def picture_at(path: Path, index: int = 0) -> Picture:
    """Picture `index` of a file, from 0; `InputError` where it cannot be read, or is one of several DICOM frames."""
    if is_raster(path):
        return Raster(path).read(0)
    if is_nifti(path):
        return Nifti(path).read(index)
    found = dicom_series([path])
    for problem in found.problems:
        raise InputError(problem, path=path)
    if [series.count() for series in found.series] != [1]:
        raise InputError(f"{path} holds several pictures; give one file for each", path=path)
    return found.series[0].read(0)


def find_inputs(paths: Iterable[Path]) -> FoundInputs:
    """What files and folders hold, from names and headers alone: single images in the order given, then DICOM series.

    Folders are walked with all that lies in them. A folder of DICOM files is one or more series; reports and plans
    among them are passed over. One file that cannot be read leaves the others alone: it is one of the problems.
    """
    found, files = FoundInputs(), _Files()
    for path in paths:
        if os.path.isdir(path):  # noqa: PTH112
            _take_folder(path, files, found)
        elif problem := _not_readable(path):
            found.problems.append(problem)
        elif files.again(path):
            found.remarks.append(f"{path} was given before: taken once")
        elif _is_picture(path):
            files.single.append(_file(path))
        elif is_dicomdir(path) if is_dicom(path) else False:
            found.remarks.append(f"{path} is a table of contents: its folder is read")
            _take_folder(path.parent, files, found)
        elif is_dicom(path):
            files.named.append(path)
        elif path.suffix.lower() in _FOREIGN:
            found.problems.append(f"{path} is an image of a format that is not read: {_CONVERT}")
        else:
            found.problems.append(f"{path} is not an image that can be read ({_KINDS})")
    found.inputs += files.single
    for listing in (dicom_series(files.named), dicom_series(files.lying, skip_others=True)):
        found.inputs += listing.series
        found.problems += listing.problems
        found.remarks += listing.remarks
    if not found.inputs and not found.problems:  # reports and plans alone
        found.problems, found.remarks = found.remarks or ["name at least one image or folder of images"], []
    return found


def _file(path: Path, under: Path | None = None) -> Input:
    return Nifti(path, under) if is_nifti(path) else Raster(path, under)


def _is_picture(path: Path) -> bool:
    return is_raster(path) or is_nifti(path) or (holds_raster(path) and not is_dicom(path))


def without_password(text: str) -> str:
    """An address as it may be shown."""
    return re.sub(r"[^/\s]*@", "…@", text) if ":" in text else text


def _not_readable(path: Path) -> str | None:
    if not os.path.exists(path):  # noqa: PTH110  false for names that the system does not take
        return f"{without_password(str(path))}: no such file or folder"
    if not path.is_file():
        return f"{path} is neither a file nor a folder"
    if not os.access(path, os.R_OK):
        return f"{path} may not be read by you (permissions)"
    return f"{path} is empty" if path.stat().st_size == 0 else None


def _take_folder(folder: Path, files: _Files, found: FoundInputs) -> None:
    """Sorts what lies in a folder; what is no image is counted in one line."""
    others, images = list[Path](), False
    for path in _walk(folder, found):
        seen, problem = files.again(path), _not_readable(path)
        known = _is_picture(path)
        if (problem is None and not known and not is_dicom(path)) or (problem and not (known or _may_be_dicom(path))):
            others.append(path)
            continue
        images = True
        if problem is not None:
            found.problems.append(problem)
        elif known and not seen:
            files.single.append(_file(path, folder))
        elif not seen and not is_dicomdir(path):
            files.lying.append(path)
    _leave_out_undecoded(folder, files, found)
    foreign = [path for path in others if path.suffix.lower() in _FOREIGN]
    others = [path for path in others if path not in foreign]
    if foreign:
        kinds = _by_kind(foreign)
        found.problems.append(f"{folder}: {len(foreign)} image(s) of a format that is not read ({kinds}): {_CONVERT}")
    if not images and not foreign:
        found.problems.append(f"{folder} holds no image ({_KINDS})")
    elif others:
        found.remarks.append(f"{folder}: {len(others)} file(s) passed over, no images: {_by_kind(others)}")


def _leave_out_undecoded(folder: Path, files: _Files, found: FoundInputs) -> None:
    """Photographs of a folder whose decoder is not installed, in one line for all of them."""
    missing, kept = Counter[str](), list[Input]()
    for entry in files.single:
        try:
            if isinstance(entry, Raster) and entry.under == folder and is_heif(entry.path):
                check_readable(entry.path)
        except MissingExtraError as error:
            missing[str(error)] += 1
        else:
            kept.append(entry)
    files.single = kept
    found.problems += [f"{folder}: {count} photograph(s) left out: {said}" for said, count in missing.items()]


def _may_be_dicom(path: Path) -> bool:
    """By its name: DICOM files have their endings, none, or end in the number of a UID."""
    return is_dicom(path) or not path.suffix or path.suffix[1:].isdigit()


def _by_kind(paths: list[Path]) -> str:
    names = ", ".join(path.name for path in paths[:_NAMES_SHOWN])
    if len(paths) <= _NAMES_SHOWN:
        return names
    kinds = Counter(path.suffix.lower() or "without ending" for path in paths)
    return f"{names}, … ({', '.join(f'{count} {kind}' for kind, count in kinds.most_common())})"


def _walk(folder: Path, found: FoundInputs) -> Iterator[Path]:
    """Every file below a folder, in the order of names; what is hidden stays so, results of `segment` are named."""
    known: set[str] = set()
    refused: list[str] = []
    for place, folders, names in os.walk(folder, onerror=lambda e: refused.append(str(e.filename)), followlinks=True):
        here = Path(place)
        if os.path.realpath(place) in known:
            folders.clear()
            continue
        known.add(os.path.realpath(place))
        if here != folder and not _RESULTS.isdisjoint(names):
            found.remarks.append(f"{here} holds results of an earlier run: passed over")
            folders.clear()
            continue
        masks = [name for name in folders if name.lower().startswith("mask") and "images" in folders]
        found.remarks += [f"{here / name} lies beside images and holds their masks: passed over" for name in masks]
        folders[:] = sorted(n for n in folders if not n.startswith((".", "__MACOSX")) and n not in masks)
        yield from (here / name for name in sorted(names) if not _quiet(name))
    found.problems += [f"{place} may not be read by you (permissions)" for place in refused]


def _quiet(name: str) -> bool:
    return name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini")
