"""DICOM presentation states out: outlines over images that have no place in space (PS3.3 A.33).

Viewers that show no SEG on a photograph draw these lines. A layer for the consensus, one for each drawn mask, and of
calibrated results one for the inner and one for the outer outline. Holes in a mask are not drawn.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from manymask.io.dicom.derived import RESEARCH, finish, identity
from manymask.io.dicom.header import numbers
from manymask.io.dicom.seg import Kind
from manymask.io.dicom.seg_source import SegSource
from manymask.io.polygons import polygons

LABEL = "OUTLINES"
_TOLERANCE = 0.5  # pixels by which a line may leave the mask's own outline
_MOST_CORNERS = 8000  # of one line: its length in bytes is a number of 16 bits


def outlines(source: SegSource, masks: Kind, facts: Mapping[str, Any], instance: int) -> Any:
    """A presentation state of one frame, not yet with patient and study; raises what highdicom raises.

    Args:
        source: the image, without a place in space.
        masks: the SEG of the same frame, whose segments are drawn.
        facts: as in result.json.
        instance: its number in its series.
    """
    from highdicom.color import CIELabColor
    from highdicom.pr import (
        ColorSoftcopyPresentationState,
        GraphicAnnotation,
        GraphicLayer,
        GraphicObject,
        GrayscaleSoftcopyPresentationState,
    )

    image = _displayed(source)
    annotations, layers = [], []
    for k, (label, colour) in enumerate(masks.segments):
        layer = GraphicLayer(f"LAYER_{k + 1}", k + 1, label[:64], CIELabColor.from_rgb(*colour))
        layers.append(layer)
        lines = [GraphicObject("POLYLINE", line, "PIXEL") for line in _lines(masks.values[0, :, :, k] > 0)]
        if lines:
            annotations.append(GraphicAnnotation([image], layer, graphic_objects=lines))
    colour_image = image.SamplesPerPixel > 1
    shown = {"icc_profile": _profile(source.record)} if colour_image else _greys(source.record)
    made = (ColorSoftcopyPresentationState if colour_image else GrayscaleSoftcopyPresentationState)(
        referenced_images=[image],
        content_label=LABEL,
        content_description=RESEARCH,
        graphic_annotations=annotations,
        graphic_layers=layers,
        **shown,
        **identity(source, LABEL, facts, masks.values, instance),
    )
    if source.frame is not None:  # highdicom refers to the whole image
        areas, drawn = made.DisplayedAreaSelectionSequence, made.get("GraphicAnnotationSequence", ())
        for item in (*made.ReferencedSeriesSequence, *areas, *drawn):
            for reference in item.get("ReferencedImageSequence", ()):
                reference.ReferencedFrameNumber = source.frame
    made.Laterality = ""  # of paired organs, which the image may or may not say
    return finish(made, source, facts)


def _displayed(source: SegSource) -> Any:
    """The bare header, as that of a single frame, with what a presentation state says of pixels."""
    from pydicom import Dataset

    image = Dataset()
    image.update(source.images[0])
    del image.NumberOfFrames
    image.SharedFunctionalGroupsSequence = image.PerFrameFunctionalGroupsSequence = [Dataset()]
    image.SamplesPerPixel = int(source.record.get("SamplesPerPixel") or 1)
    image.PhotometricInterpretation = source.record.get("PhotometricInterpretation") or "MONOCHROME2"
    return image


def _greys(record: Any) -> dict[str, Any]:
    """How grey values are shown, as the header says: arguments of highdicom's presentation state of grey images."""
    from highdicom import ModalityLUTTransformation
    from highdicom.pr import SoftcopyVOILUTTransformation

    slope, intercept = numbers(record, "RescaleSlope", 1), numbers(record, "RescaleIntercept", 1)
    centre, width = numbers(record, "WindowCenter", 1), numbers(record, "WindowWidth", 1)
    shown: dict[str, Any] = {}
    if slope is not None and intercept is not None:
        shown["modality_lut_transformation"] = ModalityLUTTransformation(
            rescale_slope=float(slope[0]), rescale_intercept=float(intercept[0]), rescale_type="US"
        )
    if centre is not None and width is not None and width[0] >= 1:
        window = SoftcopyVOILUTTransformation(window_center=float(centre[0]), window_width=float(width[0]))
        shown["voi_lut_transformations"] = [window]
    return shown


def _profile(record: Any) -> bytes:
    """The colour space of the image: its own, or sRGB. DICOM takes input profiles alone (PS3.3 C.11.15); those of displays
    differ in the class that their header names, bytes 12 to 15."""
    from PIL.ImageCms import ImageCmsProfile, createProfile

    profile = bytes(record.get("ICCProfile") or ImageCmsProfile(createProfile("sRGB")).tobytes())
    return profile[:12] + b"scnr" + profile[16:] if profile[12:16] == b"mntr" else profile


def _lines(mask: np.ndarray) -> Iterator[np.ndarray]:
    """Closed lines (n, 2) of (column, row), 0 at the image's upper left corner, 1 a pixel on."""
    tolerance = _TOLERANCE
    found = list(polygons(mask, tolerance))
    while max(map(len, found), default=0) > _MOST_CORNERS:
        tolerance *= 2
        found = list(polygons(mask, tolerance))
    for line in found:
        yield np.array([*line, line[0]], dtype=np.float32)
