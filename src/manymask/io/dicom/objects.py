"""The DICOM objects of a result, which refer to the images that it was drawn on.

For each series in space, and for each photograph or frame without a place in space, every object in a series of its
own, since viewers show one object a series:
    masks.dcm, levels.dcm, consensus.dcm   SEG, see there; accepted.dcm, and fractional.dcm on request
    confidence.dcm                         Parametric Map, of images in space
    outlines.dcm                           presentation state, of images without a place in space
    measurements.dcm                       SR, TID 1500
Equal masks of equal images have equal UIDs (`uid`): a rerun gives the objects of before, with another date.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from manymask.errors import MissingExtraError
from manymask.io.atomic import atomic_file
from manymask.io.dicom.deidentify import Anonymiser
from manymask.io.dicom.derived import label_of, refused
from manymask.io.dicom.finding import Finding
from manymask.io.dicom.header import readable
from manymask.io.dicom.parametric_map import confidence_map
from manymask.io.dicom.presentation import outlines
from manymask.io.dicom.report import report
from manymask.io.dicom.seg import accepted_kind, kinds, segmentation
from manymask.io.dicom.seg_source import SegSource, sources
from manymask.io.image import Drawn, Picture, PromisedOutlines


def derived_objects(
    pictures: Sequence[Picture],
    results: Sequence[Drawn],
    facts: Mapping[str, Any],
    anonymiser: Anonymiser | None = None,
    fractional: bool = False,
    finding: Finding = Finding(),
    accepted: Sequence[np.ndarray] = (),
    volume: Mapping[str, Any] | None = None,
) -> list[Any]:
    """The DICOM objects of pictures from DICOM, ready for writing or for STOW.

    Args:
        pictures: from DICOM.
        results: one per picture.
        facts: as in result.json (`Record.facts`); model, program and settings become the parameters of the algorithm, the
            model also begins the description of the series.
        anonymiser: makes the objects anonymous; without it they have the patient and the study of their images.
        fractional: whether the confidence map is also a FRACTIONAL SEG.
        finding: what the masks show.
        accepted: of each picture, the mask that a person accepted, bool (H, W); `facts["accepted"]` tells how it was
            corrected.
        volume: of the series that all pictures form, as in result.json; None if it is not known.

    Returns:
        pydicom data sets.

    Raises:
        InputError: pictures are not from DICOM, or their headers do not let an object refer to them.
    """
    _highdicom()
    facts = _with_promises(facts, results[0].outlines)
    counts: Counter[str] = Counter()
    made = []
    found_sources = _sources(pictures)
    for source in found_sources:
        name, series = pictures[source.members[0]].name, source.images[0].SeriesInstanceUID
        counts[series] += 1
        own, instance = [results[i] for i in source.members], counts[series]
        with readable(name, "gets no DICOM SEG: a field of patient or study cannot be read"):
            chosen = kinds(own, facts, fractional)
            if accepted:
                chosen.append(accepted_kind([accepted[i] for i in source.members], facts))
            spacings = [pictures[i].spacing for i in source.members]
            whole = volume if len(found_sources) == 1 else None
            try:
                found = [segmentation(source, kind, facts, finding, instance) for kind in chosen]
                found.append(
                    confidence_map(source, own, facts, finding, instance)
                    if source.in_space
                    else outlines(source, chosen[0], facts, instance)
                )
                found.append(report(source, own, found[0], spacings, facts, finding, instance, whole))
            except Exception as error:
                raise refused(name, error) from None
            for each in found:
                _carry_over(source.record, each) if anonymiser is None else anonymiser.strip(each)
        made += found
    return made


def write_objects(folder: Path, datasets: Sequence[Any]) -> list[Path]:
    """Write masks.dcm, levels.dcm … to `folder`, numbered where there are several of a kind.

    Args:
        folder: an existing folder.
        datasets: as returned by `derived_objects`.

    Returns:
        The paths.
    """
    labels = [label_of(dataset) for dataset in datasets]
    several, paths = len(set(labels)) < len(labels), list[Path]()
    for place, (label, dataset) in enumerate(zip(labels, datasets, strict=True)):
        number = 1 + labels[:place].count(label)
        paths.append(folder / (f"{label.lower()}-{number:04}.dcm" if several else f"{label.lower()}.dcm"))
        with atomic_file(paths[-1]) as beside:
            dataset.save_as(beside, enforce_file_format=True)
    return paths


def _with_promises(facts: Mapping[str, Any], promised: PromisedOutlines | None) -> Mapping[str, Any]:
    """The facts with the share of the outlines and their calibration, if there are outlines."""
    if promised is None:
        return facts
    return {**facts, "outlines": {"alpha": promised.alpha, "calibration": promised.calibration}}


def _sources(pictures: Sequence[Picture]) -> list[SegSource]:
    with readable(pictures[0].name, "gets no DICOM SEG: its header cannot be read"):
        return sources(pictures)


def _carry_over(record: Any, made: Any) -> None:
    """Patient and study as they stand in the source, by highdicom. Its warnings would quote them."""
    from pydicom import config

    with config.disable_value_validation():
        made.copy_patient_and_study_information(record)


def _highdicom() -> None:
    try:
        import highdicom  # noqa: F401
    except ImportError:
        raise MissingExtraError(
            "DICOM SEG needs the extra `dicom`: pip install 'manymask[dicom]'", extra="dicom", package="highdicom"
        ) from None
