"""DICOM Parametric Map out: the confidence map of a series in space, as float32 (PS3.3 A.75)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from manymask.io.dicom.derived import RESEARCH, SCHEME, finish, identity
from manymask.io.dicom.seg_source import SegSource
from manymask.io.image import Drawn


def confidence_map(source: SegSource, results: Sequence[Drawn], facts: Mapping[str, Any], instance: int) -> Any:
    """The confidence of every frame, not yet with patient and study; raises what highdicom raises.

    Args:
        source: the images, which must lie in space: a map has a place in the patient.
        results: one per frame.
        facts: as in result.json.
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
    made.Laterality = ""  # of paired organs, which the images may or may not say
    return finish(made, source, facts)
