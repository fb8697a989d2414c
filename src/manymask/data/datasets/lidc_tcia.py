"""LIDC-IDRI as The Cancer Imaging Archive gives it: CT series as DICOM, the raters' XML, in folders of any nesting.

A reading belongs to the series that it names, wherever both lie. A case is one slice of one nodule: a crop of 128×128
pixels at native scale, centred on the nodule (shifted where the image ends), stretched from its own minimum to its
own maximum as the packed copies are. With `whole` it is one slice with all nodules, in the lung window. Four masks,
one a rater in the order of the reading; where a rater drew nothing, the mask is empty.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from manymask.data.case import Case, Source, random_scheme
from manymask.data.datasets.lidc_xml import (
    RATERS,
    Annotation,
    Contour,
    Reading,
    match_raters,
    rasterise_contours,
    read_xml,
)
from manymask.data.datasets.pairs import refused, safe_name
from manymask.errors import InputError, ManymaskError
from manymask.io.dicom.header import check_size, place_of, readable
from manymask.io.dicom.pixels import frame_values
from manymask.io.dicom.series import is_dicom, load_dicom
from manymask.io.dicom.spacing import spacing_of
from manymask.io.raster import to_channels
from manymask.io.window import NAMED, fixed, stretch
from manymask.progress import Progress

CROP = 128
LICENCE = "CC BY 3.0 (TCIA LIDC-IDRI, Armato et al. 2011)"


@dataclass(frozen=True)
class Slice:
    """One file of a CT series, known by its header."""

    path: Path
    patient: str
    series_uid: str
    sop_uid: str
    shape: tuple[int, int]
    spacing: float
    along: float


def is_tcia(source: Path) -> bool:
    """Whether there is a rater's XML anywhere below a folder."""
    return next(_files(source, ".xml"), None) is not None


def read_tcia(source: Path, channels: int = 1, whole: bool = False) -> Source:
    """The distribution, whole or a part of it. Scheme `patient`: whole patients, 8:1:1, seed 42. Readings without
    their series are counted in the remark; a source with none at all is an `InputError`. Patients and files that cannot be
    read become cases that cannot be used."""
    broken = list[Case]()
    readings = dict[str, tuple[Reading, Path]]()
    for path in _files(source, ".xml"):
        with _reported(path, broken):
            if (reading := read_xml(path)) is not None:
                readings[reading.series_uid] = (reading, path)
    if not readings and not broken:
        raise InputError(f"{source} holds XML but no LidcReadMessage, the readings of LIDC-IDRI's CTs", path=source)
    series = _find_series(source, set(readings), broken)
    if not series and not broken:
        raise InputError(
            f"{source} holds {len(readings)} readings but none of the CT series they belong to", path=source
        )
    scans: dict[str, list[str]] = {}
    for uid in sorted(series):
        scans.setdefault(series[uid][0].patient, []).append(uid)
    cases = list[Case]()
    for patient, uids in sorted(scans.items()):
        with _reported(Path(patient), broken):
            cases += list(_patient_cases(patient, [(*readings[uid], series[uid]) for uid in uids], channels, whole))
    if not cases and not broken:
        raise InputError(f"{source}: no rater outlined a nodule on the {len(series)} series found", path=source)
    missing = len(readings) - len(series)
    remark = f"{missing} of {len(readings)} readings have no CT series here" if missing else ""
    schemes = {"patient": random_scheme({case.id: case.group for case in cases}, 42)}
    return Source("lidc_idri_slices" if whole else "lidc_idri", [*cases, *broken], schemes, LICENCE, remark)


@contextmanager
def _reported(path: Path, broken: list[Case]) -> Iterator[None]:
    """What cannot be read becomes a case that cannot be used, so that `prepare` reports all of them at once."""
    try:
        yield
    except ManymaskError as error:
        broken.append(Case(safe_name(str(path)), safe_name(str(path)), partial(refused, str(error))))


def _files(source: Path, suffix: str = "") -> Iterator[Path]:
    for folder, folders, names in os.walk(source):
        folders.sort()
        for name in sorted(names):
            if name.lower().endswith(suffix) and not name.startswith("."):
                yield Path(folder) / name


def _find_series(source: Path, wanted: set[str], broken: list[Case]) -> dict[str, list[Slice]]:
    """The wanted series from the headers of every DICOM file, their slices in the order of position."""
    found: dict[str, list[Slice]] = {}
    files = [path for path in _files(source) if path.suffix.lower() in ("", ".dcm")]
    for path in Progress(files, desc="read headers", unit="file"):
        if not is_dicom(path):
            continue
        with _reported(path, broken), readable(str(path)):
            header = load_dicom(path, header_only=True, more=("PatientID",))
            if str(header.get("SeriesInstanceUID") or "") in wanted:
                one = _slice(path, header)
                found.setdefault(one.series_uid, []).append(one)
    return {uid: sorted(slices, key=lambda s: (s.along, s.sop_uid)) for uid, slices in found.items()}


def _slice(path: Path, header: Any) -> Slice:
    check_size(header, str(path))
    place, spacing = place_of(header), spacing_of(header)
    if place is None or spacing is None:
        raise InputError(f"{path} is a slice of a CT without position or pixel spacing", path=path)
    shape = (int(header.Rows), int(header.Columns))
    along = float(place.normal @ place.position)
    uids = (str(header.SeriesInstanceUID), str(header.get("SOPInstanceUID") or ""))
    return Slice(path, _patient(header), *uids, shape, spacing[0], along)


def _patient(header: Any) -> str:
    """The collection's own public number; anything else is hashed, so that no real name gets into a store."""
    name = str(header.get("PatientID") or "")
    if re.fullmatch(r"LIDC-IDRI-\d{4}", name):
        return name
    return f"patient-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _patient_cases(
    patient: str, scans: Sequence[tuple[Reading, Path, list[Slice]]], channels: int, whole: bool
) -> Iterator[Case]:
    """The cases of a patient; nodules are numbered through all of the patient's scans."""
    number = 0
    for reading, xml, slices in scans:
        of_uid = {s.sop_uid: k for k, s in enumerate(slices)}
        nodules = match_raters(reading.annotations, slices[0].spacing)
        for nodule in [list(reading.annotations)] if whole else nodules:
            name = f"{patient}/scan-{number}" if whole else f"{patient}/nodule-{number}"
            number += 1
            drawn = _by_slice(nodule, of_uid, xml)
            box = None if whole else _box(nodule, slices[0].shape)
            for k, raters in sorted(drawn.items()):
                masks = _masks(raters, slices[k].shape, xml)
                if masks.any():
                    load = partial(_load, slices[k].path, raters, box, channels, xml)
                    yield Case(f"{name}/slice-{k:03}", patient, load)


def _by_slice(nodule: Sequence[Annotation], of_uid: Mapping[str, int], xml: Path) -> dict[int, list[list[Contour]]]:
    """For each slice (its place in the series) the outlines of each rater; one who split a nodule still is one."""
    drawn: dict[int, list[list[Contour]]] = {}
    for annotation in nodule:
        for contour in annotation.contours:
            if contour.sop_uid not in of_uid:
                raise InputError(
                    f"{xml} outlines a nodule on a slice that its series lacks; download the series again", path=xml
                )
            if annotation.rater < RATERS:
                raters = drawn.setdefault(of_uid[contour.sop_uid], [[] for _ in range(RATERS)])
                raters[annotation.rater].append(contour)
    return drawn


def _masks(raters: Sequence[Sequence[Contour]], shape: tuple[int, int], xml: Path) -> np.ndarray:
    try:
        return np.stack([rasterise_contours(contours, shape) for contours in raters])
    except ValueError as error:
        raise InputError(f"{xml}: {error}", path=xml) from None


def _box(nodule: Sequence[Annotation], shape: tuple[int, int]) -> tuple[slice, slice]:
    """128×128 pixels around the middle of all outlines, within the image."""
    points = np.vstack([contour.points for annotation in nodule for contour in annotation.contours])
    middle = (points.min(axis=0) + points.max(axis=0) + 1) // 2
    rows, columns = (int(np.clip(m - CROP // 2, 0, max(0, n - CROP))) for m, n in zip(middle, shape, strict=True))
    return slice(rows, rows + CROP), slice(columns, columns + CROP)


def _load(
    path: Path, raters: Sequence[Sequence[Contour]], box: tuple[slice, slice] | None, channels: int, xml: Path
) -> tuple[np.ndarray, np.ndarray]:
    values = frame_values(load_dicom(path), label=str(path))
    masks = _masks(raters, values.shape, xml)
    if box is None:
        return to_channels(fixed(values, *NAMED["lung"]), channels), masks
    return to_channels(stretch(values[box]), channels), masks[:, *box]
