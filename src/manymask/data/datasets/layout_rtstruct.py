"""Contours of RT Structure Sets in a folder of masks, as masks of the DICOM slices that they belong to."""

from pathlib import Path

from manymask.data.datasets.annotations import Mask, StructureMask
from manymask.data.datasets.pairs import Images, Rater, is_image, walk
from manymask.errors import InputError
from manymask.io.dicom.file import load_dicom
from manymask.io.dicom.rtstruct import is_rtstruct, read_rtstruct
from manymask.io.nifti import is_nifti
from manymask.io.raster import is_raster


def structure_raters(folder: Path, images: Images) -> list[Rater]:
    """The raters of the structure sets below a folder; none if there are no such files.

    Files of different series are of one rater. Of several files of one series each is a rater, numbered in the order of
    their names. A slice without a contour has an empty mask, since the rater saw the whole series.

    Raises:
        InputError: a structure set belongs to none of the images, or other masks lie beside it.
    """
    paths = [place / name for place, _, names in walk(folder) for name in names if is_image(place / name)]
    files = [path for path in paths if _is_dicom(path) and is_rtstruct(path)]
    if not files:
        return []
    if len(files) < len(paths):
        other = next(path for path in paths if path not in files)
        raise InputError(f"{folder} holds structure sets and other masks: {files[0].name}, {other.name}", path=folder)
    headers = {name: [(path, load_dicom(path, header_only=True)) for path in found if _is_dicom(path)]
               for name, found in images.by_name.items()}  # fmt: skip
    slots: list[dict[str, list[Mask]]] = []
    for path in files:
        structure = read_rtstruct(path)
        own: dict[str, list[Mask]] = {
            name: [StructureMask(structure, image)]
            for name, found in headers.items()
            for image, header in found
            if structure.covers(header)
        }
        if not own:
            raise InputError(f"{path} belongs to none of the images in {images.folder}", path=path)
        free = next((slot for slot in slots if not slot.keys() & own.keys()), None)
        if free is None:
            slots.append(own)
        else:
            free.update(own)
    return [Rater(folder, str(k) if len(slots) > 1 else "", masks) for k, masks in enumerate(slots)]


def _is_dicom(image: Path) -> bool:
    return not is_raster(image) and not is_nifti(image)
