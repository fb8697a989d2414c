"""How large a pixel is in the patient, and what is to be said where that is not known.

A projection (X-ray, mammogram) measures at its detector: the patient stands nearer to the source, so everything in it
is smaller than it looks there. Its spacing is divided by the magnification, if the header gives one (PS3.3 10.7.1.3,
C.8.7.1); else no size in the patient is claimed. Ultrasound says in its regions how large a pixel is (C.8.5.5).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from manymask.io.dicom.header import group, numbers, place_of, text

_PROJECTIONS = ("CR", "DX", "MG", "RF", "XA", "IO", "PX", "RG", "DF", "DS", "DD")
_CENTIMETRES = 3
_TISSUE = 1  # a two-dimensional region
_NOT_SQUARE = 1.5  # one side to the other


@dataclass(frozen=True)
class Measure:
    """mm between rows and between columns in the patient, if known; notes: what a reader must know of it."""

    spacing: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()


def spacing_of(header: Any, number: int = 1) -> tuple[float, float] | None:
    """mm between rows and between columns in the patient; None if unknown or nonsense."""
    return measure(header, number).spacing


def measure(header: Any, number: int = 1) -> Measure:
    """The size of a pixel of frame `number` (from 1)."""
    found = _measure(header, number)
    shape = _shape_note(header, found.spacing)
    return Measure(found.spacing, found.notes + shape)


def _measure(header: Any, number: int) -> Measure:
    place = place_of(header, number)
    said = _pair(group(header, number, "PixelMeasuresSequence"), "PixelSpacing")
    if place is not None and said is not None:
        if abs(float(place.orientation[:3] @ place.orientation[3:])) > 0.01:
            return Measure(None, ("The rows and columns of the image are not at right angles: no mm² are given.",))
        return Measure(said)
    modality = text(header, "Modality").upper()
    if header.get("SequenceOfUltrasoundRegions"):
        return _ultrasound(header, said)
    detector = _pair(header, "ImagerPixelSpacing")
    if detector is not None or modality in _PROJECTIONS:
        return _projection(header, said, detector)
    if said is not None:
        return Measure(said)
    if _pair(header, "NominalScannedPixelSpacing") is not None:
        return Measure(None, ("The spacing is that of the scanned film, not of the patient: no mm² are given.",))
    return Measure()


def _projection(header: Any, said: tuple[float, float] | None, detector: tuple[float, float] | None) -> Measure:
    differs = said is not None and detector is not None and not np.allclose(said, detector, rtol=1e-3)
    if said is not None and (differs or text(header, "PixelSpacingCalibrationType")):
        return Measure(said, ("The spacing was calibrated, as the file says, and holds in one plane of the patient.",))
    flat = detector or said
    if flat is None:
        return Measure()
    factor = _magnification(header)
    if factor is None:
        note = "The spacing is at the detector and the magnification is not known: no mm² are given for the patient."
        return Measure(None, (note,))
    return Measure(
        (flat[0] / factor, flat[1] / factor),
        (f"The spacing at the detector was divided by the magnification, {factor:.3g}: sizes are estimates.",),
    )


def _magnification(header: Any) -> float | None:
    """As estimated by the device, else from the distances of detector and patient to the source."""
    estimated = numbers(header, "EstimatedRadiographicMagnificationFactor", 1)
    if estimated is not None and 1 <= estimated[0] < 20:
        return float(estimated[0])
    detector, patient = (numbers(header, f"DistanceSourceTo{name}", 1) for name in ("Detector", "Patient"))
    if detector is None or patient is None or not 0 < patient[0] <= detector[0] < 20 * patient[0]:
        return None
    return float(detector[0] / patient[0])


def _ultrasound(header: Any, said: tuple[float, float] | None) -> Measure:
    """The spacing of the regions in centimetres, if they agree; else what the header says of all its pixels."""
    regions = list(header.SequenceOfUltrasoundRegions)
    scaled = [spacing for region in regions if (spacing := _region_spacing(region)) is not None]
    if not scaled:
        return Measure(said, () if said else ("No ultrasound region is measured in centimetres: no mm² are given.",))
    if any(not np.allclose(spacing, scaled[0], rtol=1e-3) for spacing in scaled):
        return Measure(None, ("The image has ultrasound regions of different scales: no mm² are given.",))
    notes = ["Sizes in mm hold inside of the ultrasound region alone."]
    if any(_beyond(region, header) for region in regions):
        notes.append("An ultrasound region reaches beyond the image, which may have been scaled: check sizes in mm.")
    return Measure(scaled[0], tuple(notes))


def _region_spacing(region: Any) -> tuple[float, float] | None:
    units = [_whole(region.get(f"PhysicalUnits{axis}Direction")) for axis in "XY"]
    deltas = [numbers(region, f"PhysicalDelta{axis}", 1) for axis in "YX"]
    if units != [_CENTIMETRES] * 2 or _whole(region.get("RegionSpatialFormat")) not in (None, _TISSUE):
        return None
    if deltas[0] is None or deltas[1] is None or not deltas[0][0] or not deltas[1][0]:
        return None
    return 10 * abs(float(deltas[0][0])), 10 * abs(float(deltas[1][0]))


def _beyond(region: Any, header: Any) -> bool:
    right, down = _whole(region.get("RegionLocationMaxX1")), _whole(region.get("RegionLocationMaxY1"))
    return (right or 0) > int(header.Columns) or (down or 0) > int(header.Rows)


def _shape_note(header: Any, spacing: tuple[float, float] | None) -> tuple[str, ...]:
    """Where pixels are far from square, the model sees a distorted image."""
    ratio = spacing or _pair(header, "PixelAspectRatio")
    if ratio is None or max(ratio) < _NOT_SQUARE * min(ratio):
        return ()
    return (f"Pixels are not square ({ratio[0]:.3g} high, {ratio[1]:.3g} wide): the model sees a distorted image.",)


def _pair(place: Any, name: str) -> tuple[float, float] | None:
    values = numbers(place, name, 2)
    return (float(values[0]), float(values[1])) if values is not None and min(values) > 0 else None


def _whole(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None
