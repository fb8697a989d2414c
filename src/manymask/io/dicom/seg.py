"""DICOM SEG out: masks and confidence of DICOM pictures as objects that refer to their source images (PS3.3 A.51).

For each series in space, or for each photograph, every one in a series of its own, since viewers show one object
a series:
    MASKS       BINARY      the consensus and each drawn mask, one segment each, and of calibrated results the inner and
                            the outer outline; they overlap
    LEVELS      BINARY      confidence ≥ 0.25, 0.5 and 0.75
    ACCEPTED    BINARY      where a person accepted a mask, that mask; the only one of type SEMIAUTOMATIC
and, where it is asked for, since viewers refuse it or hang on it:
    CONFIDENCE  FRACTIONAL  the confidence map as a probability, in 256 steps
Equal masks of equal images have equal UIDs (`dicom_uid`): a rerun gives the objects of before, with another date.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from manymask._version import __version__
from manymask.errors import InputError, MissingExtraError
from manymask.io.atomic import atomic_file
from manymask.io.dicom.deidentify import Anonymiser
from manymask.io.dicom.finding import Finding
from manymask.io.dicom.header import readable, whole_number
from manymask.io.dicom.seg_source import SegSource, sources
from manymask.io.dicom.uid import instance_uid, series_uid
from manymask.io.image import Drawn, Picture, PromisedOutlines
from manymask.io.palette import PALETTE

LEVELS = (0.25, 0.5, 0.75)
_WHITE = (255, 255, 255)
_GREYS = ((208, 208, 208), (144, 144, 144))  # of the inner and the outer outline


@dataclass(frozen=True)
class _Kind:
    """One SEG to be: its content label, its segments with their colours, its values (frames, H, W, segments), the
    descriptions of segments by their number, and the type of the algorithm."""

    label: str
    segments: list[tuple[str, tuple[int, int, int]]]
    values: np.ndarray
    remarks: Mapping[int, str] = field(default_factory=dict)
    algorithm: str = "AUTOMATIC"


def segmentations(
    pictures: Sequence[Picture],
    results: Sequence[Drawn],
    facts: Mapping[str, Any],
    anonymiser: Anonymiser | None = None,
    fractional: bool = False,
    finding: Finding = Finding(),
    accepted: Sequence[np.ndarray] = (),
) -> list[Any]:
    """The SEG objects (pydicom data sets, ready for writing or for STOW) of pictures from DICOM, one result a picture.

    facts: as in result.json (`Record.facts`); model, program and settings are told as the algorithm's parameters, the model
    in the description of the series too, the program among the equipment.
    finding: what the masks show.
    accepted: of each picture, the mask that a person accepted, bool (H, W); `facts["accepted"]` tells how it was corrected.
    `fractional` adds the confidence map. With an `anonymiser` no field of patient or study is carried over, see there.
    `InputError` for pictures that are not from DICOM, or whose headers do not let a SEG refer to them.
    """
    _highdicom()
    outlines = results[0].outlines
    if outlines is not None:
        facts = {**facts, "outlines": {"alpha": outlines.alpha, "calibration": outlines.calibration}}
    counts: Counter[tuple[str, str]] = Counter()
    made = []
    for source in _sources(pictures):
        name = pictures[source.members[0]].name
        kinds = _kinds([results[i] for i in source.members], facts, fractional)
        if accepted:
            kinds.append(_accepted([accepted[i] for i in source.members], facts))
        for kind in kinds:
            key = (source.images[0].SeriesInstanceUID, kind.label)
            counts[key] += 1
            with readable(name, "gets no DICOM SEG: a field of patient or study cannot be read"):
                seg = _segmentation(source, kind, facts, finding, counts[key], name)
                if anonymiser is None:
                    _carry_over(source.record, seg)
                else:
                    anonymiser.strip(seg)
            made.append(seg)
    return made


def _sources(pictures: Sequence[Picture]) -> list[SegSource]:
    with readable(pictures[0].name, "gets no DICOM SEG: its header cannot be read"):
        return sources(pictures)


def write_segmentations(folder: Path, datasets: Sequence[Any]) -> list[Path]:
    """masks.dcm, confidence.dcm, levels.dcm in `folder`; numbered where there are several of a kind."""
    several, paths = len({d.ContentLabel for d in datasets}) < len(datasets), list[Path]()
    for dataset in datasets:
        name = dataset.ContentLabel.lower()
        number = 1 + sum(path.name.startswith(name) for path in paths)
        paths.append(folder / (f"{name}-{number:04}.dcm" if several else f"{name}.dcm"))
        with atomic_file(paths[-1]) as beside:
            dataset.save_as(beside, enforce_file_format=True)
    return paths


def _kinds(results: Sequence[Drawn], facts: Mapping[str, Any], fractional: bool = False) -> list[_Kind]:
    masks = np.stack([np.asarray(r.masks) >= 0.5 for r in results])  # frames, n, H, W
    consensus = np.stack([np.asarray(r.consensus, dtype=bool) for r in results])
    confidence = np.stack([np.asarray(r.confidence, dtype=np.float32) for r in results])
    left_out = facts.get("left_out", ())
    n = masks.shape[1] + len(left_out)
    threshold = facts.get("threshold", 0.5)
    drawn = [(f"Mask {k + 1} of {n}", PALETTE[k % len(PALETTE)]) for k in range(n) if k + 1 not in left_out]
    levels = [(f"Confidence >= {level:g}", PALETTE[c]) for level, c in zip(LEVELS, (3, 0, 5), strict=True)]
    agreed = (f"Consensus (confidence >= {threshold:g})", _WHITE)
    planes, segments, remarks = _outlined([r.outlines for r in results if r.outlines is not None], masks.shape[1] + 2)
    kinds = [
        _Kind(
            "MASKS",
            [agreed, *drawn, *segments],
            np.moveaxis(np.concatenate([consensus[:, None], masks, *planes], axis=1), 1, -1).astype(np.uint8),
            remarks,
        ),
        _Kind("LEVELS", levels, np.stack([confidence >= level for level in LEVELS], axis=-1).astype(np.uint8)),
    ]
    if fractional:
        kinds.append(_Kind("CONFIDENCE", [("Confidence", PALETTE[1])], confidence.clip(0, 1)[..., None]))
    return kinds


def _accepted(masks: Sequence[np.ndarray], facts: Mapping[str, Any]) -> _Kind:
    """The mask that a person accepted, and in words how it came about."""
    left_out = facts.get("left_out", ())
    strokes = len(facts.get("accepted", {}).get("strokes", ()))
    without = f" without mask {', '.join(map(str, left_out))}" if left_out else ""
    by_hand = f", corrected by hand with {strokes} stroke{'s' if strokes > 1 else ''}" if strokes else ""
    remark = f"Consensus (confidence >= {facts.get('threshold', 0.5):g}){without}{by_hand}, accepted by a person"
    values = np.stack([np.asarray(mask, dtype=np.uint8) for mask in masks])[..., None]
    return _Kind("ACCEPTED", [("Accepted", _WHITE)], values, {1: remark}, "SEMIAUTOMATIC")


def _outlined(
    outlines: Sequence[PromisedOutlines], first: int
) -> tuple[list[np.ndarray], list[tuple[str, tuple[int, int, int]]], dict[int, str]]:
    """Planes, segments and descriptions of the inner and the outer outline, numbered from `first`, and of the consensus.

    Nothing for results that are not calibrated.
    """
    if not outlines:
        return [], [], {}
    alpha, share = f"{outlines[0].alpha:g}", f"{100 * outlines[0].alpha:g} %"
    planes = [np.stack([np.asarray(getattr(each, name), dtype=bool) for each in outlines])[:, None]
              for name in ("inner", "outer")]  # fmt: skip
    labels = [f"{name} outline (alpha {alpha})" for name in ("Inner", "Outer")]
    average = "on average over images like those of the calibration"
    remarks = {
        1: _predicted([each.dice for each in outlines]),
        first: f"At most {share} of its pixels are no lesion, {average}",
        first + 1: f"At most {share} of the lesion's pixels lie outside of it, {average}",
    }
    return planes, list(zip(labels, _GREYS, strict=True)), remarks


def _predicted(dice: Sequence[tuple[float, float, float]]) -> str:
    """The predicted Dice of the consensus at 0.5: of the only slice, or of the worst one."""
    level, low, high = min(dice)
    where = "" if len(dice) == 1 else f" in the worst of {len(dice)} slices, at most {max(dice)[0]:.2f}"
    return f"Predicted Dice of the consensus at 0.5: {level:.2f} (90 % interval {low:.2f} to {high:.2f}){where}"


def _segmentation(
    source: SegSource, kind: _Kind, facts: Mapping[str, Any], finding: Finding, instance: int, name: str
) -> Any:
    from highdicom.seg import Segmentation

    told = _parameters(facts)
    try:
        seg = Segmentation(
            source_images=source.images,
            pixel_array=kind.values,
            segmentation_type="FRACTIONAL" if kind.values.dtype == np.float32 else "BINARY",
            segment_descriptions=_descriptions(kind, facts, finding),
            series_instance_uid=series_uid(source.images[0].SeriesInstanceUID, kind.label, told),
            series_number=_series_number(source.record, kind.label),
            sop_instance_uid=instance_uid(source.uids(), kind.label, told, kind.values),
            instance_number=instance,
            manufacturer="manymask",
            manufacturer_model_name="manymask",
            software_versions=tuple(_versions(facts)),
            device_serial_number=__version__,
            content_label=kind.label,
            content_description="For research, not for diagnosis or treatment",
            series_description=_described(facts, kind.label),
            specific_character_set="ISO_IR 192",
            plane_positions=source.positions,
            omit_empty_frames=bool(kind.values.any()),  # an object has one frame at least
        )
    except Exception as error:
        # the bare header has no patient in it, so what highdicom says of it may be told
        raise InputError(f"{name}: no DICOM SEG can refer to it ({_line(error)})", path=name) from None
    seg.ContributingEquipmentSequence = [_equipment(facts)]
    seg.SeriesDate, seg.SeriesTime = seg.ContentDate, seg.ContentTime
    _mend(seg, source)
    return seg


def _descriptions(kind: _Kind, facts: Mapping[str, Any], finding: Finding) -> list[Any]:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentDescription
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    category, region = finding.finding, finding.region
    algorithm = AlgorithmIdentificationSequence(
        "manymask",
        codes.cid7162.ArtificialIntelligence,
        " ".join(_versions(facts)),
        parameters={name: str(value) for name, value in _parameters(facts).items()},
    )
    found = [
        SegmentDescription(
            segment_number=k,
            segment_label=label,
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=Code(category[0], "SCT", category[1]),
            anatomic_regions=[Code(region[0], "SCT", region[1])] if region else None,
            algorithm_type=kind.algorithm,
            algorithm_identification=algorithm,
            display_color=CIELabColor.from_rgb(*colour),
        )
        for k, (label, colour) in enumerate(kind.segments, start=1)
    ]
    for number, remark in kind.remarks.items():
        found[number - 1].SegmentDescription = remark  # (0062,0006); highdicom's class of this name is the whole item
    return found


def _model(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    return facts.get("model") or {"name": "manymask", "dataset": ""}


def _parameters(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the masks of a source, flat: the model with the hash of its weights, and the settings."""
    model = {"model": _model(facts)["name"], "recipe": _model(facts).get("recipe", ""),
             "weights_sha256": _model(facts).get("weights_sha256", "")}  # fmt: skip
    told = {name: facts[name] for name in ("samples", "orientations", "seed", "threshold") if name in facts}
    rois = {"rois": "; ".join(f"{x},{y}" for x, y in facts["rois"])} if facts.get("rois") else {}
    left_out = {"left_out": ", ".join(map(str, facts["left_out"]))} if facts.get("left_out") else {}
    outlines = {f"outlines.{name}": value for name, value in (facts.get("outlines") or {}).items()}
    return (
        model
        | told
        | rois
        | left_out
        | outlines
        | {f"sampler.{name}": value for name, value in (facts.get("sampler") or {}).items()}
    )


def _versions(facts: Mapping[str, Any]) -> list[str]:
    program = facts.get("manymask") or {"version": __version__, "git": ""}
    return [str(program[name]) for name in ("version", "git") if program[name]]


def _described(facts: Mapping[str, Any], label: str) -> str:
    """A series description, at most 64 letters: the model first, since viewers show the beginning alone."""
    name = re.sub(r"[^\w .+-]", "_", _model(facts)["name"])
    rest = f": {label.lower()} (manymask, research use)"
    return name.encode("ascii", "replace").decode().replace("?", "_")[: 64 - len(rest)] + rest


def _equipment(facts: Mapping[str, Any]) -> Any:
    """The program and model as an item of the Contributing Equipment Sequence."""
    from pydicom import Dataset
    from pydicom.sr.codedict import codes

    code, item = Dataset(), Dataset()
    purpose = codes.DCM.ProcessingEquipment
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = purpose.value, "DCM", purpose.meaning
    item.PurposeOfReferenceCodeSequence = [code]
    item.Manufacturer, item.ManufacturerModelName = "manymask", _described(facts, "model")
    item.SoftwareVersions = _versions(facts)
    item.ContributionDescription = f"Drew the masks; SHA-256 of the weights {_model(facts).get('weights_sha256', '')}"
    return item


def _carry_over(record: Any, seg: Any) -> None:
    """Patient and study as they stand in the source, by highdicom. Its warnings would quote them."""
    from pydicom import config

    with config.disable_value_validation():
        seg.copy_patient_and_study_information(record)


def _mend(seg: Any, source: SegSource) -> None:
    """What highdicom leaves open for images that lie nowhere in space."""
    shared = seg.SharedFunctionalGroupsSequence[0]
    if "PixelSpacing" not in source.images[0] and "PixelMeasuresSequence" in shared:
        del shared.PixelMeasuresSequence  # stood in for a spacing that is not known
    references = {id(image): image for image in _references(seg)}  # frames share them
    for image in references.values():
        if source.frame is not None:  # the frame was segmented, highdicom refers to the whole image
            image.ReferencedFrameNumber = source.frame
        elif source.frames:  # it counts the frames that it was given
            image.ReferencedFrameNumber = source.frames[int(image.ReferencedFrameNumber) - 1]
    if "FrameOfReferenceUID" not in source.images[0] or "ImagePositionPatient" not in source.images[0]:
        seg.PatientOrientation = source.images[0].get("PatientOrientation")


def _references(seg: Any) -> Iterator[Any]:
    """What the frames of a SEG say of the images they lie on."""
    for frame in seg.PerFrameFunctionalGroupsSequence:
        for derivation in frame.get("DerivationImageSequence", ()):
            yield from derivation.SourceImageSequence


def _series_number(record: Any, label: str) -> int:
    """100 × that of the source + 1, 2, 3, 4, as long as it stays a number that viewers sort by."""
    number = whole_number(record, "SeriesNumber") or 0
    return (
        100 * (number if 0 <= number < 10_000_000 else 0)
        + 1
        + ("MASKS", "CONFIDENCE", "LEVELS", "ACCEPTED").index(label)
    )


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].strip(" .'\"")[:200]


def _highdicom() -> None:
    try:
        import highdicom  # noqa: F401
    except ImportError:
        raise MissingExtraError(
            "DICOM SEG needs the extra `dicom`: pip install 'manymask[dicom]'", extra="dicom", package="highdicom"
        ) from None
