"""RT Structure Sets and Segmentations in a folder of masks, as masks of the DICOM slices that they belong to."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from manymask.data.datasets.annotations import Mask, Parts, PatientMasks, StructureMask
from manymask.data.datasets.pairs import Images, Rater, is_image, walk
from manymask.errors import InputError
from manymask.io.dicom.file import load_dicom
from manymask.io.dicom.header import text
from manymask.io.dicom.rtstruct import is_rtstruct, read_rtstruct
from manymask.io.dicom.seg_masks import is_seg, read_seg
from manymask.io.nifti import is_nifti
from manymask.io.raster import is_raster


def dicom_raters(folder: Path, images: Images, parts: bool = False) -> list[Rater]:
    """The raters of the structure sets and segmentations below a folder; none if there are no such files.

    Files of different series are of one rater. Of several files of one series each is a rater, numbered in the order of
    their names, or with `parts` they are parts of one mask. A slice on which nothing is marked has an empty mask, since the
    rater saw the whole series.

    Raises:
        InputError: a file belongs to none of the images, or other masks lie beside it.
    """
    paths = [place / name for place, _, names in walk(folder) for name in names if is_image(place / name)]
    readers = {path: _reader(path) for path in paths}
    files = {path: read for path, read in readers.items() if read is not None}
    if not files:
        return []
    if len(files) < len(paths):
        other = next(path for path in paths if path not in files)
        raise InputError(
            f"{folder} holds structure sets or segmentations, and other masks: {next(iter(files)).name}, {other.name}",
            path=folder,
        )
    headers = {name: [(path, load_dicom(path, header_only=True)) for path in found if _is_dicom(path)]
               for name, found in images.by_name.items()}  # fmt: skip
    slots: list[dict[str, list[Mask]]] = []
    notes: list[str] = []
    for path, read in files.items():
        marked = read(path)
        covered = _covered(marked, headers)
        own: dict[str, list[Mask]] = {name: [StructureMask(marked, image)] for name, image, _ in covered}
        if not own:
            raise InputError(f"{path} belongs to none of the images in {images.folder}", path=path)
        lost = marked.strays([header for _, _, header in covered])
        if lost:
            notes.append(
                f"{lost} contour(s) or frame(s) of {path} lie on none of its images in {images.folder}: they count nowhere"
            )
        free = next((slot for slot in slots if parts or not slot.keys() & own.keys()), None)
        if free is None:
            slots.append(own)
        elif parts:
            for name, masks in own.items():
                free.setdefault(name, []).extend(masks)
        else:
            free.update(own)
    if parts:
        slots = [{name: [Parts(tuple(masks))] for name, masks in slot.items()} for slot in slots]
    return [Rater(folder, str(k) if len(slots) > 1 else "", masks, tuple(notes)) for k, masks in enumerate(slots)]


def _covered(marked: PatientMasks, headers: dict[str, list[tuple[Path, Any]]]) -> list[tuple[str, Path, Any]]:
    """Name, file and header of the images that a file marks; of several series in one frame of reference, those of which it
    names an image, if it names any."""
    found = [(name, image, header) for name, each in headers.items() for image, header in each if marked.covers(header)]
    named = {
        text(header, "SeriesInstanceUID") for _, _, header in found if text(header, "SOPInstanceUID") in marked.images
    }
    return [each for each in found if not named or text(each[2], "SeriesInstanceUID") in named]


def _reader(path: Path) -> Callable[[Path], PatientMasks] | None:
    """What reads a file that marks regions; None for other files."""
    if not _is_dicom(path):
        return None
    return read_rtstruct if is_rtstruct(path) else read_seg if is_seg(path) else None


def _is_dicom(image: Path) -> bool:
    return not is_raster(image) and not is_nifti(image)
