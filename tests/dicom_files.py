"""DICOM files for the tests, made by pydicom: small, valid, and with a patient's name that must never be seen again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from manymask.errors import InputError
from manymask.io.dicom.series import dicom_series, series_of
from manymask.io.image import Picture
from manymask.io.window import Window

PATIENT = "Musterfrau^Erika"
SERIES = "1.2.826.0.1.3680043.8.498.1"


def dataset(pixels: np.ndarray | None = None, **fields: Any) -> FileDataset:
    """A CT slice (or what `fields` make of it) in memory; a field given as None is left out."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = fields.pop("syntax", ExplicitVRLittleEndian)
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    made.PatientName, made.PatientID, made.PatientBirthDate = PATIENT, "P-4711", "19640812"
    made.SOPClassUID, made.SOPInstanceUID = CTImageStorage, generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID, made.Modality = "1.2.3.4", SERIES, "CT"
    if pixels is not None:
        _describe(made, pixels)
    for name, value in fields.items():
        if value is not None:
            setattr(made, name, value)
        elif name in made:
            delattr(made, name)
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = made.SOPClassUID, made.SOPInstanceUID
    return made


def _describe(made: Dataset, pixels: np.ndarray) -> None:
    made.Rows, made.Columns = pixels.shape[:2]
    made.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    made.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        made.PlanarConfiguration = 0
    made.BitsAllocated = made.BitsStored = pixels.dtype.itemsize * 8
    made.HighBit, made.PixelRepresentation = made.BitsStored - 1, int(pixels.dtype.kind == "i")
    made.PixelData = pixels.tobytes()


def slice_at(z: float, pixels: np.ndarray | None = None, **fields: Any) -> FileDataset:
    """An axial CT slice at height z (mm), stored as HU + 1024."""
    if pixels is None:
        pixels = np.full((16, 16), 1024, np.uint16)
        pixels[4:8, 4:8] += 100
    place = {"ImagePositionPatient": [-8.0, -8.0, z], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    usual = {"PixelSpacing": [0.7, 0.8], "RescaleSlope": 1, "RescaleIntercept": -1024, "SeriesNumber": 4}
    return dataset(pixels, **{**place, **usual, **fields})


def save(path: Path, made: FileDataset) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)
    return path


def region(delta=0.05, units=3, kind=1, end=16) -> Dataset:
    made = Dataset()
    made.RegionSpatialFormat, made.PhysicalUnitsXDirection, made.PhysicalUnitsYDirection = kind, units, units
    made.RegionLocationMinX0 = made.RegionLocationMinY0 = 0
    made.RegionLocationMaxX1 = made.RegionLocationMaxY1 = end
    made.PhysicalDeltaX, made.PhysicalDeltaY = delta, -delta
    return made


def read_dicom(paths: Sequence[Path], window: Window | None = None) -> list[Picture]:
    """Every frame of the files, series after series; raises `InputError` for the first that cannot be read or that does
    not fit the others."""
    listing = dicom_series(paths)
    for problem in listing.problems:
        raise InputError(problem)
    return [picture for series in listing.series for picture in series.pictures(window)]


def pictures_of(datasets: Sequence[Any], window: Window | None = None) -> list[Picture]:
    """The same for pydicom data sets that are in memory already."""
    listing = series_of(datasets)
    for problem in listing.problems:
        raise InputError(problem)
    return [picture for series in listing.series for picture in series.pictures(window)]
