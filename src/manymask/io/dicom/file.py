"""DICOM files opened: what is one, and its data set, read without believing the lengths that it claims."""

import hashlib
import io
import logging
import warnings
from functools import cache
from pathlib import Path
from typing import Any

from manymask.errors import InputError, ManymaskError, MissingExtraError
from manymask.io.dicom.decode import inflates_beyond
from manymask.io.dicom.header import readable
from manymask.io.samples import PIXEL_LIMIT

PATIENT = "patient-"  # begins the names that `patient_of` gives
_DEFLATED_LIMIT = 4 * PIXEL_LIMIT  # bytes
_SUFFIXES = (".dcm", ".dicom", ".ima")
_DAMAGED = "is damaged or cut short, or is no DICOM file"
_HEADER = [
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "Modality",
    "ImageType", "SeriesNumber", "InstanceNumber", "AcquisitionNumber", "AcquisitionTime", "TemporalPositionIdentifier",
    "EchoNumbers", "EchoTime", "TriggerTime", "DiffusionBValue", "DiffusionGradientOrientation", "InversionTime", "KVP",
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "PixelSpacing", "ImagerPixelSpacing",
    "NominalScannedPixelSpacing", "PixelSpacingCalibrationType", "EstimatedRadiographicMagnificationFactor",
    "DistanceSourceToDetector", "DistanceSourceToPatient", "PixelAspectRatio", "SequenceOfUltrasoundRegions",
    "TotalPixelMatrixColumns", "ImagePositionPatient", "ImageOrientationPatient", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "DirectoryRecordSequence",
]  # fmt: skip


def pydicom_quiet() -> Any:
    """pydicom, its warnings and log turned off: both quote values of the header, and a log is no place for them."""
    try:
        import pydicom
    except ImportError:
        raise MissingExtraError(
            "DICOM files need the extra `dicom`: pip install 'manymask[dicom]'", extra="dicom", package="pydicom"
        ) from None
    warnings.filterwarnings("ignore", module=r"pydicom\..*")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    return pydicom


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM: by its magic word, its ending, or, without preamble, because it reads as such."""
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError:
        return False
    if head[128:] == b"DICM" or path.suffix.lower() in _SUFFIXES or path.name.upper() == "DICOMDIR":
        return True
    # without preamble it starts with an element of group 2 or 8, of either byte order
    return head[:2] in (b"\x02\0", b"\x08\0", b"\0\x02", b"\0\x08") and _reads_as_dicom(path)


def is_dicomdir(path: Path) -> bool:
    """Whether a file is the table of contents of its folder, by its name or its class."""
    if path.name.upper() == "DICOMDIR":
        return True
    try:
        header = pydicom_quiet().dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID"])
        return str(header.file_meta.get("MediaStorageSOPClassUID")) == "1.2.840.10008.1.3.10"
    except Exception:  # what is wrong with it is said when it is read
        return False


def load_dicom(path: Path, header_only: bool = False, more: tuple[str, ...] = ()) -> Any:
    """The data set of a file; or the part of its header that places it, with `more` fields. `InputError` if unreadable."""
    pydicom = pydicom_quiet()
    if not path.is_file():
        raise InputError(f"{path}: no such file", path=path)
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty", path=path)
    with readable(str(path), _DAMAGED):
        _check_deflated(path)
        with _WithinFile(path) as file:
            if header_only:
                dataset = pydicom.dcmread(file, force=True, stop_before_pixels=True, specific_tags=_tags(more))
            else:
                dataset = pydicom.dcmread(file, force=True)
    if len(dataset) == 0:
        raise InputError(f"{path} {_DAMAGED}", path=path)
    return dataset


def patient_of(path: Path) -> str | None:
    """A name for the patient of a file, `patient-` and a digest of the identifier, so that it tells nothing; None if the file
    is no DICOM or names no patient."""
    if not is_dicom(path):
        return None
    try:
        return patient_in(load_dicom(path, header_only=True, more=("PatientID",)))
    except ManymaskError:  # said when it is read
        return None


def patient_in(dataset: Any) -> str | None:
    """The same for a data set that is read already."""
    found = str(dataset.get("PatientID") or "").strip()
    return f"{PATIENT}{hashlib.sha256(found.encode()).hexdigest()[:12]}" if found else None


class _WithinFile(io.BufferedReader):
    """A file of which no more is read than there is: an element may claim four gigabytes."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._end = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self._end - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


@cache
def _tags(more: tuple[str, ...]) -> list[int | None]:
    from pydicom.datadict import tag_for_keyword

    return [tag_for_keyword(name) for name in (*_HEADER, *more)]


def _check_deflated(path: Path) -> None:
    """A deflated file is unpacked whole while it is read: refuse one that would grow beyond any image we take."""
    from pydicom.filereader import _read_file_meta_info, read_preamble
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    with _WithinFile(path) as file:
        try:
            read_preamble(file, force=True)
            syntax = _read_file_meta_info(file).get("TransferSyntaxUID")
        except Exception:
            return  # what is wrong with it is said when it is read
        if syntax == DeflatedExplicitVRLittleEndian and inflates_beyond(file.read(), _DEFLATED_LIMIT):
            raise InputError(f"{path} unpacks to more than an image may hold", path=path)


def _reads_as_dicom(path: Path) -> bool:
    try:
        with _WithinFile(path) as file:
            header = pydicom_quiet().dcmread(file, force=True, stop_before_pixels=True, specific_tags=["SOPClassUID"])
        return str(header.get("SOPClassUID") or "").startswith("1.2.840.10008.")
    except Exception:
        return False
