"""A chest CT made for the tests: a nodule in a lung, for the shipped LIDC models and the viewers."""

import numpy as np
from pydicom.uid import generate_uid

from tests.dicom_sources import CT, base

SHAPE = (144, 176)  # rows, columns
SPACING, DISTANCE = 0.7, 2.0
_MIDDLE = 4  # the slice on which the nodule is largest
_RADIUS = 6.0  # mm


def chest_ct(slices=9):
    """Axial slices from the feet upwards: soft tissue, a lung, and in it a nodule that leans, with noise."""
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    return [_slice(k, slices, study, series, frame) for k in range(slices)]


def _slice(k, slices, study, series, frame):
    d = base(CT, study, series, _pixels(k))
    d.Modality, d.FrameOfReferenceUID, d.InstanceNumber = "CT", frame, k + 1
    d.ImageType, d.AcquisitionNumber, d.KVP = ["ORIGINAL", "PRIMARY", "AXIAL"], 1, "120"
    d.ImageOrientationPatient, d.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-60.0, -50.0, -100 + DISTANCE * k]
    d.PixelSpacing, d.SliceThickness = [SPACING, SPACING], DISTANCE
    d.RescaleSlope, d.RescaleIntercept, d.RescaleType = 1, 0, "HU"
    d.WindowCenter, d.WindowWidth = 0, 2000  # the nodule is grey: white and colours stand out
    d.PatientPosition, d.PositionReferenceIndicator = "HFS", ""
    return d


def nodule(k):
    """Where the nodule is on slice k, bool (H, W): nearly a ball, its middle two columns and a row further on each slice."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    column, row = middle(k)
    away = np.hypot(columns - column, rows - row) * SPACING
    return np.hypot(away, (k - _MIDDLE) * DISTANCE) < _RADIUS


def middle(k):
    """Column and row of the nodule's middle on slice k."""
    return 104 + 2 * (k - _MIDDLE), 62 - (k - _MIDDLE)


def _pixels(k):
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    lung = ((columns - 88) / 76) ** 2 + ((rows - 72) / 60) ** 2 < 1
    values = np.where(lung, np.where(nodule(k), 30, -850), 40)
    return (values + np.random.default_rng(k).normal(0, 20, SHAPE)).round().astype(np.int16)
