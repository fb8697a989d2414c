"""The DICOM objects beside SEG: what stands in them, read back by others, and whether they are valid DICOM."""

import io
import shutil
import subprocess
from types import SimpleNamespace

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.uid import UID

from manymask.hub.intended_use import finding
from manymask.io.dicom.deidentify import Anonymiser
from manymask.io.dicom.derived import label_of
from manymask.io.dicom.header import place_of
from manymask.io.dicom.objects import derived_objects, write_objects
from tests.dicom_files import pictures_of
from tests.dicom_sources import cine, ct_series, enhanced_ct, photograph
from tests.io.dicom.test_seg import FACTS, drawn, written

DCIODVFY = shutil.which("dciodvfy")
LABELMAP = "1.2.840.10008.5.1.4.1.1.66.7"


def objects(datasets, facts=FACTS, **options):
    """Pictures, results and the objects by label, written and read again."""
    pictures = pictures_of(datasets)
    results = [drawn(picture, k) for k, picture in enumerate(pictures)]
    found = {}
    for made in derived_objects(pictures, results, facts, finding=finding("lidc_idri"), **options):
        found.setdefault(label_of(made), []).append(pydicom.dcmread(io.BytesIO(written(made))))
    return pictures, results, found


@pytest.mark.parametrize("source", [ct_series, enhanced_ct])
def test_confidence_map_holds_the_confidence_of_each_slice_where_it_lies(source):
    pictures, results, found = objects(source() if source is ct_series else [source()])
    (made,) = found["CONFIDENCE"]
    held = highdicom.pm.ParametricMap.from_dataset(made)
    assert made.SOPClassUID == "1.2.840.10008.5.1.4.1.1.30" and "PixelData" not in made
    assert held.NumberOfFrames == len(pictures)
    values = held.get_frames(apply_real_world_transform=False, dtype=np.float32)
    by_height = {round(p.slice_height, 2): r for p, r in zip(placed(pictures), results, strict=True)}
    for frame, item in zip(values, held.PerFrameFunctionalGroupsSequence, strict=True):
        height = float(item.PlanePositionSequence[0].ImagePositionPatient[2])
        assert (frame == by_height[round(height, 2)].confidence).all()
    assert held.get_volume().spacing == pytest.approx((2.5, 0.7, 0.8))
    mapping = held.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
    assert (
        str(made.PatientName) == "Müller^Eva" and made.StudyInstanceUID == pictures[0].origin.dataset.StudyInstanceUID
    )


def placed(pictures):
    """The pictures with the height at which each lies."""
    return [SimpleNamespace(slice_height=place_of(p.origin.dataset, p.origin.number).position[2]) for p in pictures]


def test_images_without_a_place_in_space_have_no_confidence_map():
    for image in (photograph(), cine(2)):
        assert "CONFIDENCE" not in objects([image])[2]


def test_a_rerun_repeats_every_uid_and_other_settings_none_of_the_instances():
    datasets = ct_series(3)

    def uids(facts=FACTS):
        found = objects(datasets, facts, fractional=True)[2]
        return [str(element.value) for made in found.values() for element in made[0].iterall() if element.VR == "UI"], {
            made[0].SOPInstanceUID for made in found.values()
        }

    first, instances = uids()
    assert first == uids()[0] and all(UID(uid).is_valid for uid in instances)
    assert not instances & uids(FACTS | {"seed": 8})[1]


@pytest.mark.skipif(DCIODVFY is None, reason="dciodvfy is not installed (apt-get install dicom3tools)")
@pytest.mark.parametrize("anonymise", [False, True])
@pytest.mark.parametrize("source", [ct_series, enhanced_ct, photograph, cine])
def test_dciodvfy_finds_no_error(tmp_path, source, anonymise):
    datasets = source() if source is ct_series else [source()]
    pictures = pictures_of(datasets)
    results = [drawn(picture, k) for k, picture in enumerate(pictures)]
    made = derived_objects(pictures, results, FACTS, Anonymiser() if anonymise else None, True, finding("lidc_idri"))
    for path, dataset in zip(write_objects(tmp_path, made), made, strict=True):
        said = subprocess.run([DCIODVFY, path], capture_output=True, text=True)
        errors = [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")]
        if dataset.SOPClassUID == LABELMAP:  # younger than Debian's dciodvfy, which takes it for an unknown class
            errors = [line for line in errors if "Object Not found" not in line and "SegmentNumber of 0" not in line]
        assert errors == [], path.name
