"""Damaged DICOM and NIfTI files: whatever the bytes, one line or an image, and no word of the patient."""

import gzip
import random
import resource
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from manymask.errors import ManymaskError
from manymask.io.dicom.objects import derived_objects
from manymask.io.dicom.series import seen_through
from manymask.io.image import DicomFrame, Picture
from manymask.io.inputs import find_inputs
from manymask.io.nifti import write_nifti
from tests.dicom_files import PATIENT, region
from tests.dicom_sources import base, cine, ct_series, enhanced_ct, photograph

EXTREMES = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\1\0\0\0",
            b"1e99", b"nan ", b"-inf")  # fmt: skip
FACTS = {"model": {"name": "m", "recipe": "r", "dataset": "d", "weights_sha256": "0"}, "samples": 1, "seed": 0,
         "threshold": 0.5}  # fmt: skip


def written(made) -> bytes:
    buffer = BytesIO()
    made.PatientName = PATIENT
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def seeds() -> dict[str, bytes]:
    """A small file of each kind, by the name it is written under."""
    found = {}
    for name, syntax in (("rle", RLELossless), ("j2k", JPEG2000Lossless), ("jls", JPEGLSLossless)):
        (made,) = ct_series(1, (48, 40))
        made.compress(syntax)
        found[f"{name}.dcm"] = written(made)
    for name, syntax in (("deflated", DeflatedExplicitVRLittleEndian), ("implicit", ImplicitVRLittleEndian)):
        (made,) = ct_series(1, (48, 40))
        made.file_meta.TransferSyntaxUID = syntax
        found[f"{name}.dcm"] = written(made)
    (big,) = ct_series(1, (48, 40))
    big.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    big.PixelData = np.frombuffer(big.PixelData, "<i2").astype(">i2").tobytes()
    ultrasound = cine(2)
    ultrasound.SequenceOfUltrasoundRegions = [region()]
    palette = base("1.2.840.10008.5.1.4.1.1.7", pixels=np.arange(256, dtype=np.uint8).reshape(16, 16))
    palette.PhotometricInterpretation = "PALETTE COLOR"
    for colour in ("Red", "Green", "Blue"):
        palette.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [256, 0, 16])
        palette.add_new(
            f"Segmented{colour}PaletteColorLookupTableData", "OW", bytes([0, 0, 1, 0, 0, 0, 1, 0, 255, 0, 9, 0])
        )
    for name, made in {"ct": ct_series(1)[0], "big": big, "enhanced": enhanced_ct(2), "us": ultrasound, "palette": palette,
                       "photo": photograph()}.items():  # fmt: skip
        found[f"{name}.dcm"] = written(made)
    volume = nibabel.Nifti1Image(np.arange(960, dtype=np.int16).reshape(12, 10, 8), np.diag([0.7, 0.8, 2, 1]))
    found["a.nii"] = volume.to_bytes()
    found["a.nii.gz"] = gzip.compress(found["a.nii"], mtime=0)
    return found


def damaged(content: bytes, generator: random.Random) -> bytes:
    """Bits flipped, a cut, extremes in place of numbers, chunks repeated, random bytes; mostly near the front."""
    data = bytearray(content)
    for _ in range(generator.choice((1, 1, 1, 2, 4, 16))):
        reach = len(data) if generator.random() < 0.3 else min(len(data), 1600)
        place = generator.randrange(max(1, reach))
        kind = generator.randrange(6)
        if kind == 0 and data:
            data[place % len(data)] ^= 1 << generator.randrange(8)
        elif kind == 1:
            data[place : place + 4] = generator.choice(EXTREMES)
        elif kind == 2:
            data[place : place + 2] = generator.choice((b"\0\0", b"\xff\xff", b"\1\0"))
        elif kind == 3:
            data[place:place] = data[place : place + generator.randrange(64)] * generator.randrange(1, 5)
        elif kind == 4:
            data[place : place + 8] = generator.randbytes(8)
        elif generator.random() < 0.3:
            del data[place:]
    return bytes(data)


def attempt(folder: Path, name: str, content: bytes) -> list[str]:
    """Reads what stands in a folder as `segment` does, SEG and NIfTI included; what was said."""
    (folder / name).write_bytes(content)
    found = find_inputs([folder])
    said = [*found.problems, *found.remarks]
    for entry in found.inputs:
        try:
            pictures = []
            for picture in entry.pictures(failed=lambda error: said.append(str(error))):
                assert seen_through(picture, "values").pixels.shape[:2] == picture.pixels.shape[:2]
                pictures.append(picture)
            if pictures and len(content) % 3 == 0:  # the slow part
                leave(pictures, folder / "out")
        except ManymaskError as error:
            said.append(str(error))
    return said


def leave(pictures: list[Picture], folder: Path) -> None:
    shapes = [picture.pixels.shape[:2] for picture in pictures]
    drawn = [
        SimpleNamespace(outlines=None, masks=np.ones((1, *s), bool), confidence=np.ones(s), consensus=np.ones(s, bool))
        for s in shapes
    ]
    if isinstance(pictures[0].origin, DicomFrame):
        derived_objects(pictures, drawn, FACTS)
    else:
        write_nifti(folder, pictures, drawn)


def check(tmp_path: Path, count: int, seed: int) -> None:
    kinds = list(seeds().items())
    for number in range(count):
        generator = random.Random(seed + number)
        name, content = kinds[number % len(kinds)]
        folder = tmp_path / f"{number}"
        folder.mkdir()
        bad = damaged(content, generator)
        try:
            said = attempt(folder, name, bad)
        except Exception as error:
            raise AssertionError(f"seed {seed + number} of {name}: {type(error).__name__}") from error
        for line in said:
            assert "\n" not in line and len(line) < 600, line
            assert not any(word in line for word in (*PATIENT.split("^"), "19500203", "Elsewhere")), line


def test_seeds_themselves_are_read(tmp_path):
    for name, content in seeds().items():
        (tmp_path / name).mkdir()
        assert attempt(tmp_path / name, name, content) == [], name


def test_damaged_files_are_one_line_or_an_image(tmp_path):
    check(tmp_path, 390, 0)


@pytest.mark.slow
def test_ten_thousand_damaged_files_in_bounded_memory(tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    check(tmp_path, 10_000, 1_000_000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20, "kilobytes"
