"""What is written of a series as a whole: DICOM SEG or NIfTI volumes, and one result.json with volumes in ml."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from manymask.calibration.calibration import Calibration
from manymask.choices import Form
from manymask.errors import InputError
from manymask.inference.outputs import Output, SeriesResult, fill_result, series_promises
from manymask.inference.volumes import volume_records
from manymask.io.atomic import write_json
from manymask.io.dicom.objects import write_objects
from manymask.io.image import DicomFrame, NiftiSlice, Picture
from manymask.io.nifti import write_nifti
from manymask.io.nifti_grid import geometry_of, is_flat
from manymask.io.record import Record, SourceRecord


def forms_of(picture: Picture, asked: Sequence[Form]) -> frozenset[Form]:
    """The forms in which a result is written.

    Args:
        picture: the image.
        asked: the requested forms; PNG and the form of the input if empty.

    Returns:
        Those of the requested forms that an image of this kind can have.

    Raises:
        InputError: it can have none of them.
    """
    frame, volume = isinstance(picture.origin, DicomFrame), isinstance(picture.origin, NiftiSlice)
    own: frozenset[Form] = frozenset(("dicom",) if frame else ("nifti",) if volume else ())
    if not asked:
        return own | {"png"}
    found = frozenset(asked) & (own | {"png", "nifti"})
    if not found:
        raise InputError(
            f"{picture.name}: dicom needs an image with a place in the patient, from DICOM",
            path=picture.name,
            parameter="form",
        )
    return found


def on_its_own(picture: Picture, forms: frozenset[Form]) -> frozenset[Form]:
    """The forms that are written for each picture, not for the series that it belongs to.

    Args:
        picture: the image.
        forms: as returned by `forms_of`.

    Returns:
        PNG; and NIfTI of what is no slice of a volume.
    """
    return forms & (frozenset(("png", "nifti")) if is_flat(picture) else frozenset(("png",)))


def geometry_facts(picture: Picture, forms: frozenset[Form]) -> dict[str, str]:
    """What result.json says of the geometry of NIfTI files.

    Args:
        picture: the image.
        forms: in which it is written.

    Returns:
        An entry if NIfTI is among them.
    """
    return {"nifti_geometry": geometry_of(picture)} if "nifti" in forms else {}


def fill_picture(folder: Path, output: Output, picture: Picture, forms: frozenset[Form]) -> None:
    """Write what `on_its_own` says of a picture, and result.json.

    Args:
        folder: an existing folder.
        output: what is written.
        picture: the image.
        forms: as returned by `on_its_own`.
    """
    if "png" in forms:
        fill_result(folder, output)
    else:
        write_json(folder / "result.json", output.content())
    if "nifti" in forms:
        write_nifti(folder, [picture], [SeriesResult.of(output)])


def together(records: Sequence[Record]) -> Record:
    """The record of the series that several pictures form.

    Args:
        records: one per picture.

    Returns:
        The first record, with the source of the whole.
    """
    return replace(records[0], source=whole_source([record.source for record in records]))


def whole_source(sources: Sequence[SourceRecord]) -> SourceRecord:
    """The source of the series that several pictures form.

    Args:
        sources: one per picture.

    Returns:
        Their file, all UIDs, and a hash of all hashes.
    """
    if len(sources) == 1:
        return sources[0]
    uids = tuple(dict.fromkeys(uid for source in sources for uid in source.sop_instance_uids))
    pixels, headers = (
        "".join(each) for each in zip(*((s.pixels_sha256, s.header_sha256) for s in sources), strict=True)
    )
    hashes = [hashlib.sha256(each.encode()).hexdigest() if each else "" for each in (pixels, headers)]
    return SourceRecord(sources[0].file, uids, *hashes)


def series_name(name: str) -> str:
    """The name of a series.

    Args:
        name: of one of its pictures, such as `series-0004-image-0012` or `ct-slice-0003-volume-0002`.

    Returns:
        Such as `series-0004`.
    """
    return re.sub(r"(^|-)(image|slice|frame)-\d{4,}(-(frame|volume)-\d{4,})?(-\d+)?$", "", name) or "series"


def complete(folder: Path, forms: frozenset[Form]) -> bool:
    """Whether a folder holds the three-dimensional results that were requested.

    Args:
        folder: of a series, or of a picture from DICOM or NIfTI.
        forms: as returned by `forms_of`.

    Returns:
        Whether none is missing.
    """
    needed = {"dicom": "masks*.dcm", "nifti": "consensus.nii.gz"}
    return all(any(folder.glob(pattern)) for form, pattern in needed.items() if form in forms)


@dataclass(frozen=True)
class Whole:
    """A series with its results, ready to be written.

    Attributes:
        pictures: the slices in order.
        results: one per slice.
        record: of the whole.
        objects: its DICOM objects (pydicom data sets); empty if there are none.
        forms: in which it is written.
    """

    pictures: Sequence[Picture]
    results: Sequence[SeriesResult]
    record: Record
    objects: Sequence[Any]
    forms: frozenset[Form]

    def fill(self, folder: Path, content: Mapping[str, Any] | None = None) -> None:
        """Write the three-dimensional results to a folder, and result.json if its content is given."""
        if "dicom" in self.forms:
            write_objects(folder, self.objects)
        if "nifti" in self.forms:
            write_nifti(folder, self.pictures, self.results)
        if content is not None:
            write_json(folder / "result.json", content)

    def facts(
        self, name: str, calibration: Calibration | None, output: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[str]]:
        """The content of the series' result.json.

        Args:
            name: stands for the file if there is none.
            calibration: of the model.
            output: what was requested of the files.

        Returns:
            The content, and what is to be said of the volumes.
        """
        volumes, remarks = volume_records(self.pictures, self.results)
        names = [picture.name for picture in self.pictures]
        warnings = dict.fromkeys([*remarks, *(w for result in self.results for w in result.warnings)])
        slices = [
            {
                "image": name,
                "areas": result.masks.sum(axis=(1, 2)).tolist(),
                "area_consensus": int(result.consensus.sum()),
            }
            for name, result in zip(names, self.results, strict=True)
        ]
        nifti = geometry_facts(self.pictures[0], self.forms)
        return {
            "input": self.record.source.file or name, **self.record.facts(), "output": output, **nifti,
            "warnings": list(warnings), "width": max(result.masks.shape[2] for result in self.results),
            "height": max(result.masks.shape[1] for result in self.results), "images": names,
            "volumes": volumes, "slices": slices, "promises": series_promises(names, self.results, calibration),
        }, remarks  # fmt: skip
