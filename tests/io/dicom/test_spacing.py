"""How large a pixel is in the patient: divided by the magnification, from ultrasound regions, or not claimed."""

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from manymask.io.dicom.spacing import measure
from tests.dicom_files import dataset, pictures_of, region, slice_at

GREY = np.arange(256, dtype=np.uint16).reshape(16, 16)


def mammogram(**fields) -> Dataset:
    return dataset(GREY, Modality="MG", **fields)


def test_a_slice_has_the_spacing_of_its_header_and_nothing_to_be_said():
    (picture,) = pictures_of([slice_at(0)])
    assert picture.spacing == (0.7, 0.8) and not any("mm" in note for note in picture.notes)


@pytest.mark.parametrize(
    "distances",
    [
        {"EstimatedRadiographicMagnificationFactor": 1.8},
        {"DistanceSourceToDetector": 650, "DistanceSourceToPatient": 650 / 1.8},
    ],
)
@pytest.mark.parametrize("name", ["ImagerPixelSpacing", "PixelSpacing"])
def test_spacing_at_the_detector_is_divided_by_the_magnification(name, distances):
    (picture,) = pictures_of([mammogram(**{name: [0.1, 0.2]}, **distances)])
    assert picture.spacing == pytest.approx((0.1 / 1.8, 0.2 / 1.8))
    assert "divided by the magnification, 1.8" in picture.notes[0]


@pytest.mark.parametrize(
    "distances",
    [
        {},
        {"EstimatedRadiographicMagnificationFactor": 0},
        {"DistanceSourceToDetector": 650},
        {"DistanceSourceToDetector": 361, "DistanceSourceToPatient": 650},
    ],
)
@pytest.mark.parametrize("spacing", [{"ImagerPixelSpacing": [0.1, 0.1]}, {"PixelSpacing": [0.1, 0.1]}])
def test_without_a_magnification_no_size_in_the_patient_is_claimed(spacing, distances):
    (picture,) = pictures_of([mammogram(**spacing, **distances)])
    assert picture.spacing is None and "at the detector" in picture.notes[0]


def test_calibrated_spacing_is_taken_and_said():
    for fields in ({"PixelSpacingCalibrationType": "FIDUCIAL"}, {"ImagerPixelSpacing": [0.2, 0.2]}):
        found = measure(mammogram(PixelSpacing=[0.1, 0.1], **fields))
        assert found.spacing == (0.1, 0.1) and "calibrated" in found.notes[0]


def test_a_spacing_that_differs_by_rounding_alone_is_not_calibrated():
    fields = {"ImagerPixelSpacing": [0.1, 0.1], "EstimatedRadiographicMagnificationFactor": 1.6}
    assert measure(mammogram(PixelSpacing=[0.10001, 0.1], **fields)).spacing == (0.1 / 1.6, 0.1 / 1.6)


def test_a_scanned_film_has_no_size_in_the_patient():
    found = measure(dataset(GREY, Modality="OT", NominalScannedPixelSpacing=[0.1, 0.1]))
    assert found.spacing is None and "scanned film" in found.notes[0]


@pytest.mark.parametrize(
    ("regions", "spacing", "note"),
    [
        ([region()], 0.5, "inside of the ultrasound region"),
        ([region(), region(0.05)], 0.5, "inside of the ultrasound region"),
        ([region(), region(0.01, units=4, kind=3)], 0.5, "inside of the ultrasound region"),  # a spectrum beside
        ([region(), region(0.07)], None, "different scales"),
        ([region(units=4)], None, "No ultrasound region"),
        ([region(0)], None, "No ultrasound region"),
        ([region(end=400)], 0.5, "inside of the ultrasound region"),
    ],
)
def test_ultrasound_is_measured_by_its_regions(regions, spacing, note):
    (picture,) = pictures_of([dataset(GREY, Modality="US", SequenceOfUltrasoundRegions=Sequence(regions))])
    assert picture.spacing == (None if spacing is None else pytest.approx((spacing, spacing)))
    assert note in picture.notes[0]
    assert any("beyond the image" in line for line in picture.notes) == (regions[0].RegionLocationMaxX1 > 16)


def test_pixels_that_are_not_square_and_axes_that_are_not_at_right_angles_are_said():
    assert "not square" in measure(dataset(GREY, Modality="XC", PixelAspectRatio=[1, 2])).notes[0]
    assert "not square" in measure(slice_at(0, PixelSpacing=[0.4, 0.8])).notes[0]
    sheared = measure(slice_at(0, ImageOrientationPatient=[1, 0, 0, 0.5, 0.8660254, 0]))
    assert sheared.spacing is None and "right angles" in sheared.notes[0]
