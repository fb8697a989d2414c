"""DICOM SR out: what was measured on the drawn masks, as an imaging measurement report (PS3.16 TID 1500).

A group for each image where anything is drawn: area of the consensus, and mean, standard deviation, least and greatest area of
the masks; mean IoU of pairs of masks; of calibrated results the predicted Dice with its interval. Groups with a consensus
refer to its segment in masks.dcm, those without to the image. Of a series whose volumes are known, a group for the whole: the
same of volumes in ml.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from manymask._version import __version__
from manymask.io.dicom.derived import SCHEME, finish, identity, model_of, parameters_of, versions
from manymask.io.dicom.finding import Finding
from manymask.io.dicom.seg_source import SegSource
from manymask.io.dicom.uid import derived_uid
from manymask.io.image import Drawn
from manymask.metrics import pairwise_iou

LABEL = "MEASUREMENTS"
Code = tuple[str, str, str]  # value, scheme, meaning
AREA: Code = ("42798000", "SCT", "Area")
VOLUME: Code = ("118565006", "SCT", "Volume")
AGREEMENT: Code = ("PAIRWISE_IOU", SCHEME, "Mean IoU of pairs of masks")
PREDICTED: tuple[Code, ...] = (
    ("PREDICTED_DICE", SCHEME, "Predicted Dice of the consensus at 0.5"),
    ("PREDICTED_LOW", SCHEME, "Predicted Dice, lower end of 90 % interval"),
    ("PREDICTED_HIGH", SCHEME, "Predicted Dice, upper end of 90 % interval"),
)
DERIVATIONS: tuple[Code, ...] = (
    ("373098007", "SCT", "Mean"),
    ("386136009", "SCT", "Standard Deviation"),
    ("255605001", "SCT", "Minimum"),
    ("56851009", "SCT", "Maximum"),
)
SQUARE_MM: Code = ("mm2", "UCUM", "mm2")
PIXELS: Code = ("{pixels}", "UCUM", "pixels")
ML: Code = ("ml", "UCUM", "ml")
RATIO: Code = ("1", "UCUM", "no units")


@dataclass(frozen=True)
class Value:
    """One measurement; derivation: how it sums up several masks."""

    name: Code
    value: float
    unit: Code
    derivation: Code | None = None


def measured(result: Drawn, spacing: tuple[float, float] | None) -> list[Value]:
    """What is reported of one image.

    Args:
        result: its masks and consensus.
        spacing: mm between rows and between columns; areas are in pixels without it.

    Returns:
        The measurements, the area of the consensus first.
    """
    masks = np.asarray(result.masks) >= 0.5
    pixel, unit = (1.0, PIXELS) if spacing is None else (spacing[0] * spacing[1], SQUARE_MM)
    areas = masks.sum(axis=(1, 2)) * pixel
    found = _with_spread(AREA, float(np.asarray(result.consensus).sum() * pixel), areas, unit)
    if len(masks) > 1:
        pairs = pairwise_iou(masks, masks)[np.triu_indices(len(masks), 1)]
        found.append(Value(AGREEMENT, float(pairs.mean()), RATIO))
    if result.outlines is not None:
        found += [Value(code, value, RATIO) for code, value in zip(PREDICTED, result.outlines.dice, strict=True)]
    return found


def measured_volume(volume: Mapping[str, Any]) -> list[Value]:
    """What is reported of a series.

    Args:
        volume: as in result.json: `volume_consensus_ml`, `volumes_ml` of the masks, and `pairwise_iou` unless it is one mask.

    Returns:
        The measurements, the volume of the consensus first.
    """
    found = _with_spread(VOLUME, volume["volume_consensus_ml"], np.asarray(volume["volumes_ml"]), ML)
    if volume.get("pairwise_iou") is not None:
        found.append(Value(AGREEMENT, volume["pairwise_iou"], RATIO))
    return found


def _with_spread(name: Code, consensus: float, each: np.ndarray, unit: Code) -> list[Value]:
    """The value of the consensus, and how those of the masks are spread."""
    spread = (each.mean(), each.std(ddof=min(1, len(each) - 1)), each.min(), each.max())
    found = [Value(name, consensus, unit)]
    return found + [Value(name, float(value), unit, code) for value, code in zip(spread, DERIVATIONS, strict=True)]


def report(
    source: SegSource,
    results: Sequence[Drawn],
    masks: Any,
    spacings: Sequence[tuple[float, float] | None],
    facts: Mapping[str, Any],
    finding: Finding,
    instance: int,
    volume: Mapping[str, Any] | None = None,
) -> Any:
    """The report of one source, not yet with patient and study; raises what highdicom raises.

    Args:
        source: the images.
        results: one per frame.
        masks: the SEG of the same source whose first segment is the consensus.
        spacings: mm between rows and between columns of each frame, if known.
        facts: as in result.json.
        finding: what the masks show.
        instance: its number in its series.
        volume: of the whole source, as in result.json; None if it is not known.
    """
    from highdicom import sr
    from pydicom.sr.codedict import codes

    drawn = [k for k, r in enumerate(results) if np.asarray(r.masks).max() >= 0.5 or np.asarray(r.consensus).any()]
    places = drawn or range(len(results))
    values = [measured(results[k], spacings[k]) for k in places]
    whole = measured_volume(volume) if volume and "volumes_ml" in volume else []
    content_values = np.array([v.value for group in (*values, whole) for v in group])
    told = identity(source, LABEL, facts, content_values, instance)
    groups = [_whole(source, whole, masks, facts, finding, told["sop_instance_uid"])] if whole else []
    groups += [
        _group(source, k, group, masks, facts, finding, told["sop_instance_uid"])
        for k, group in zip(places, values, strict=True)
    ]
    content = sr.MeasurementReport(
        observation_context=_context(facts),
        procedure_reported=_code(("363679005", "SCT", "Imaging")),
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
        language_of_content_item_and_descendants=sr.LanguageOfContentItemAndDescendants(
            _code(("en", "RFC5646", "English"))
        ),
    )
    made = sr.Comprehensive3DSR(evidence=[*source.images, masks], content=content, is_complete=True, **told)
    made.CodingSchemeIdentificationSequence = [_scheme()]
    return finish(made, source, facts)


def _told(values: Sequence[Value], facts: Mapping[str, Any], finding: Finding, uid: str, name: str) -> dict[str, Any]:
    """The arguments that all groups share; name: of what is tracked."""
    from highdicom import sr

    region = finding.region
    return {
        "tracking_identifier": sr.TrackingIdentifier(derived_uid("tracking", uid, name), name),
        "finding_type": _code((finding.finding[0], "SCT", finding.finding[1])),
        "finding_sites": [sr.FindingSite(_code((region[0], "SCT", region[1])))] if region else None,
        "algorithm_id": _algorithm(facts),
        "measurements": [
            sr.Measurement(
                _code(v.name), v.value, _code(v.unit), derivation=_code(v.derivation) if v.derivation else None
            )
            for v in values
        ],
    }


def _whole(
    source: SegSource, values: Sequence[Value], masks: Any, facts: Mapping[str, Any], finding: Finding, uid: str
) -> Any:
    from highdicom import sr

    series = sr.SourceSeriesForSegmentation(source.images[0].SeriesInstanceUID)
    segment = sr.ReferencedSegment(masks.SOPClassUID, masks.SOPInstanceUID, 1, source_series=series)
    told = _told(values, facts, finding, uid, "Consensus of the series")
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_segment=segment, **told)


def _group(
    source: SegSource,
    frame: int,
    values: Sequence[Value],
    masks: Any,
    facts: Mapping[str, Any],
    finding: Finding,
    uid: str,
) -> Any:
    from highdicom import sr

    told = _told(values, facts, finding, uid, f"Consensus {frame + 1}")
    number, image = _frame_of_consensus(source, frame, masks), source.images[min(frame, len(source.images) - 1)]
    shown = source.frame_number(frame)
    where = (image.SOPClassUID, image.SOPInstanceUID, None if shown is None else [shown])
    if number is None:
        return sr.MeasurementsAndQualitativeEvaluations(
            source_images=[sr.SourceImageForMeasurementGroup(*where)], **told
        )
    segment = sr.ReferencedSegmentationFrame(
        masks.SOPClassUID, masks.SOPInstanceUID, number, 1, sr.SourceImageForSegmentation(*where)
    )
    del segment[0].ReferencedSOPSequence[0].ReferencedSegmentNumber  # not beside a number of a frame (PS3.3 table 10-3)
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_segment=segment, **told)


def _frame_of_consensus(source: SegSource, frame: int, masks: Any) -> int | None:
    """The number of the SEG's frame that holds the consensus on a frame of the source; None if it is empty there."""
    number = source.frame_number(frame)
    uid = source.images[min(frame, len(source.images) - 1)].SOPInstanceUID
    for place, item in enumerate(masks.PerFrameFunctionalGroupsSequence, start=1):
        image = item.DerivationImageSequence[0].SourceImageSequence[0]
        same = image.ReferencedSOPInstanceUID == uid and image.get("ReferencedFrameNumber") == number
        if same and item.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 1:
            return place
    return None


def _context(facts: Mapping[str, Any]) -> Any:
    """The observer is the program, by a UID of its version and model."""
    from highdicom import sr
    from pydicom.sr.codedict import codes

    device = sr.DeviceObserverIdentifyingAttributes(
        uid=derived_uid("device", versions(facts), dict(model_of(facts))),
        name="manymask",
        manufacturer_name="manymask",
        model_name=str(model_of(facts)["name"]),
        serial_number=__version__,
    )
    return sr.ObservationContext(observer_device_context=sr.ObserverContext(codes.DCM.Device, device))


def _algorithm(facts: Mapping[str, Any]) -> Any:
    from highdicom import sr

    parameters = [f"{name}={value}" for name, value in parameters_of(facts).items()]
    return sr.AlgorithmIdentification("manymask", " ".join(versions(facts)), parameters)


def _code(code: Code) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(*code)


def _scheme() -> Any:
    from pydicom import Dataset

    item = Dataset()
    item.CodingSchemeDesignator, item.CodingSchemeName = SCHEME, "manymask's own codes"
    return item
