"""DICOM images made for the tests: CT slices, an enhanced CT, photographs, a cine loop. No patient was ever near."""

import numpy as np
from pydicom import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CT, ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1"
PHOTOGRAPH, SECONDARY = "1.2.840.10008.5.1.4.1.1.77.1.4", "1.2.840.10008.5.1.4.1.1.7"
CINE = "1.2.840.10008.5.1.4.1.1.3.1"
PIXELS = (48, 40)  # rows, columns: not a multiple of 8 together with odd counts, not square


def base(sop_class, study=None, series=None, pixels=None):
    """An image with the fields that every kind has."""
    d = Dataset()
    d.file_meta, d.preamble = FileMetaDataset(), b"\0" * 128
    d.SOPClassUID, d.SOPInstanceUID = sop_class, generate_uid()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.file_meta.MediaStorageSOPClassUID, d.file_meta.MediaStorageSOPInstanceUID = sop_class, d.SOPInstanceUID
    d.SpecificCharacterSet = "ISO_IR 100"
    d.StudyInstanceUID, d.SeriesInstanceUID = study or generate_uid(), series or generate_uid()
    d.PatientName, d.PatientID, d.PatientBirthDate, d.PatientSex = "Müller^Eva", "4711", "19500203", "F"
    d.AccessionNumber, d.StudyID, d.StudyDate, d.StudyTime = "A1", "S1", "20200102", "030405"
    d.ReferringPhysicianName, d.SeriesNumber, d.InstanceNumber = "House^Gregory", 4, 1
    d.StudyDescription, d.InstitutionName, d.Manufacturer = "CHEST", "St. Elsewhere", "Maker"
    if pixels is not None:
        put_pixels(d, pixels)
    return d


def put_pixels(d, pixels):
    """uint8 or int16 pixels, (H, W), (H, W, 3), or with frames first for `NumberOfFrames`."""
    colour = pixels.shape[-1] == 3
    shape = pixels.shape[:-1] if colour else pixels.shape
    d.Rows, d.Columns = shape[-2:]
    if len(shape) == 3:
        d.NumberOfFrames = shape[0]
    d.SamplesPerPixel, d.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
    if colour:
        d.PlanarConfiguration = 0
    d.BitsAllocated = d.BitsStored = 8 * pixels.dtype.itemsize
    d.HighBit, d.PixelRepresentation = d.BitsStored - 1, int(pixels.dtype.kind == "i")
    raw = pixels.tobytes()
    d.PixelData = raw + b"\0" * (len(raw) % 2)
    d["PixelData"].VR = "OW" if d.BitsAllocated > 8 else "OB"


def ct_pixels(seed, shape=PIXELS):
    return np.random.default_rng(seed).integers(-1000, 400, shape).astype(np.int16)


def ct_series(slices=5, shape=PIXELS):
    """Axial CT slices, 2.5 mm apart, in no particular order."""
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    made = []
    for k in range(slices):
        d = base(CT, study, series, ct_pixels(k, shape))
        d.Modality, d.FrameOfReferenceUID, d.InstanceNumber = "CT", frame, slices - k
        d.ImageType, d.AcquisitionNumber, d.KVP = ["ORIGINAL", "PRIMARY", "AXIAL"], 1, "120"
        d.ImageOrientationPatient, d.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-10.5, 20.25, -100 + 2.5 * k]
        d.PixelSpacing, d.SliceThickness = [0.7, 0.8], 2.5
        d.RescaleSlope, d.RescaleIntercept, d.RescaleType = 1, 0, "HU"
        made.append(d)
    order = np.random.default_rng(1).permutation(slices)
    return [made[i] for i in order]


def enhanced_ct(frames=4):
    d = base(ENHANCED_CT, pixels=np.stack([ct_pixels(k) for k in range(frames)]))
    d.Modality, d.FrameOfReferenceUID = "CT", generate_uid()
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.7, 0.8], 2.5
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    rescale = Dataset()
    rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = 1, 0, "HU"
    shared.PixelValueTransformationSequence = [rescale]
    d.SharedFunctionalGroupsSequence = [shared]
    items = []
    for k in range(frames):
        item, position = Dataset(), Dataset()
        position.ImagePositionPatient = [-10.5, 20.25, 2.5 * k]
        item.PlanePositionSequence = [position]
        items.append(item)
    d.PerFrameFunctionalGroupsSequence = items
    return d


def photograph(seed=0, sop_class=PHOTOGRAPH):
    d = base(sop_class, pixels=np.random.default_rng(seed).integers(0, 255, (*PIXELS, 3)).astype(np.uint8))
    d.Modality = "XC" if sop_class == PHOTOGRAPH else "OT"
    d.LossyImageCompression = "00"
    return d


def cine(frames=3):
    """Ultrasound: several frames that lie nowhere in the patient."""
    d = base(CINE, pixels=np.random.default_rng(0).integers(0, 255, (frames, *PIXELS)).astype(np.uint8))
    d.Modality = "US"
    return d
