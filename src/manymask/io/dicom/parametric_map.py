"""DICOM Parametric Map out: the confidence map of a series in space, as float32 (PS3.3 A.75)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from manymask.io.dicom.derived import RESEARCH, SCHEME, finish, identity
from manymask.io.dicom.finding import Finding
from manymask.io.dicom.seg_source import SegSource
from manymask.io.image import Drawn

_BODY = ("38266002", "Entire body")


def confidence_map(
    source: SegSource, results: Sequence[Drawn], facts: Mapping[str, Any], finding: Finding, instance: int
) -> Any:
    """The confidence of every frame, not yet with patient and study; raises what highdicom raises.

    Args:
        source: the images, which must lie in space: a map has a place in the patient.
        results: one per frame.
        facts: as in result.json.
        finding: what the masks show, and where in the body.
        instance: its number in its series.
    """
    from highdicom import VOILUTTransformation
    from highdicom.pm import ParametricMap, RealWorldValueMapping
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    values = np.stack([np.asarray(result.confidence, dtype=np.float32) for result in results]).clip(0, 1)
    mapping = RealWorldValueMapping(
        lut_label="CONFIDENCE",
        lut_explanation="Mean of the probabilities of the drawn masks",
        unit=codes.UCUM.NoUnits,
        value_range=(0.0, 1.0),
        slope=1.0,
        intercept=0.0,
        quantity_definition=Code("CONFIDENCE", SCHEME, "Confidence of the drawn masks"),
    )
    made = ParametricMap(
        source_images=source.images,
        pixel_array=values,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[VOILUTTransformation(window_center=0.5, window_width=1.0)],
        content_label="CONFIDENCE",
        content_description=RESEARCH,
        plane_positions=source.positions,
        **identity(source, "CONFIDENCE", facts, values, instance),
    )
    made.ContentCreatorName = ""
    made.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [_anatomy(finding)]
    _upwards(made)
    return finish(made, source, facts)


def _anatomy(finding: Finding) -> Any:
    """What the frames show, without which dcmqi reads no map: both sides of a part of the body, or all of it."""
    from highdicom.sr import CodedConcept
    from pydicom import Dataset

    item, (value, meaning) = Dataset(), finding.region or _BODY
    item.AnatomicRegionSequence = [CodedConcept(value, "SCT", meaning)]
    item.FrameLaterality = "B" if finding.region else "U"
    return item


def _upwards(made: Any) -> None:
    """Frames in the order of their position along the normal: dcmqi, and with it 3D Slicer, takes them as they come."""
    frames = list(made.PerFrameFunctionalGroupsSequence)
    shared = made.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient
    normal = np.cross(*np.asarray([float(value) for value in shared]).reshape(2, 3))
    places = [[float(value) for value in frame.PlanePositionSequence[0].ImagePositionPatient] for frame in frames]
    order = np.argsort(np.asarray(places) @ normal, kind="stable")
    pixels = np.frombuffer(made.FloatPixelData, "<f4").reshape(len(frames), -1)
    made.PerFrameFunctionalGroupsSequence = [frames[k] for k in order]
    made.FloatPixelData = pixels[order].tobytes()
