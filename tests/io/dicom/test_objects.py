"""The DICOM objects beside SEG: what stands in them, read back by others, and whether they are valid DICOM."""

import io
import json
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
from manymask.io.image import PromisedOutlines
from manymask.io.polygons import fill_polygons
from tests.dicom_files import pictures_of
from tests.dicom_sources import cine, ct_series, enhanced_ct, photograph
from tests.factories import run
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


def test_labelmap_describes_the_consensus_before_the_background():
    """Viewers that take segments by place, not by number, give the consensus its own colour."""
    (made,) = objects(ct_series(2))[2]["CONSENSUS"]
    assert [(item.SegmentNumber, item.SegmentLabel) for item in made.SegmentSequence] == [
        (1, "Consensus (confidence >= 0.5)"),
        (0, "Background"),
    ]
    assert made.PixelPaddingValue == 0


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


def measurements(made):
    """The values of the report's groups by (name, derivation), and what each group refers to."""
    report = highdicom.sr.Comprehensive3DSR.from_dataset(made)
    groups = []
    for group in report.content.get_planar_roi_measurement_groups() + report.content.get_image_measurement_groups():
        values = {}
        for each in group.get_measurements():
            derivation = each.derivation.meaning if each.derivation else ""
            values[each.name.meaning, derivation] = (each.value, each.unit.value)
        groups.append((values, group))
    return groups


def test_report_has_areas_spread_and_agreement_of_each_slice_and_refers_to_the_consensus():
    pictures, results, found = objects(ct_series())
    (made,), (masks,) = found["MEASUREMENTS"], found["MASKS"]
    groups = measurements(made)
    assert len(groups) == 5 and made.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34"
    by_uid = {p.origin.dataset.SOPInstanceUID: r for p, r in zip(pictures, results, strict=True)}
    for values, group in groups:
        segment = group.referenced_segmentation_frame[0].ReferencedSOPSequence[0]
        assert segment.ReferencedSOPInstanceUID == masks.SOPInstanceUID
        frame = masks.PerFrameFunctionalGroupsSequence[int(segment.ReferencedFrameNumber) - 1]
        assert frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 1
        source = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert group.referenced_segmentation_frame[1].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == source
        result = by_uid[source]
        areas = (result.masks >= 0.5).sum(axis=(1, 2)) * 0.56
        expected = {"": result.consensus.sum() * 0.56, "Mean": areas.mean(), "Standard Deviation": areas.std(ddof=1),
                    "Minimum": areas.min(), "Maximum": areas.max()}  # fmt: skip
        for derivation, value in expected.items():
            assert values["Area", derivation] == (pytest.approx(value, rel=1e-4), "mm2"), derivation
        pairs = [(0, 1), (0, 2), (1, 2)]
        drawn_masks = result.masks >= 0.5
        iou = np.mean(
            [(drawn_masks[i] & drawn_masks[j]).sum() / (drawn_masks[i] | drawn_masks[j]).sum() for i, j in pairs]
        )
        assert values["Mean IoU of pairs of masks", ""][0] == pytest.approx(iou, rel=1e-4)
        assert group.finding_type.meaning == "Nodule"
        assert "weights_sha256=" in {item.value[:15] for item in texts(group, "Algorithm Parameters")}
    assert made.CompletionFlag == "COMPLETE" and made.VerificationFlag == "UNVERIFIED"


def texts(group, name):
    return [item for item in group[0].ContentSequence if item.name.meaning == name]


def test_report_gives_the_predicted_dice_of_calibrated_results_and_pixels_where_no_size_is_known():
    (picture,) = pictures_of([photograph()])
    result = drawn(picture, 0)
    result.outlines = PromisedOutlines(0.1, result.masks[0] > 0.8, result.masks[0] > 0.2, (0.8, 0.7, 0.9), "abc")
    made = {label_of(each): each for each in derived_objects([picture], [result], FACTS)}
    ((values, _),) = measurements(pydicom.dcmread(io.BytesIO(written(made["MEASUREMENTS"]))))
    assert values["Predicted Dice of the consensus at 0.5", ""] == (pytest.approx(0.8), "1")
    assert values["Predicted Dice, lower end of 90 % interval", ""][0] == pytest.approx(0.7)
    assert values["Area", ""] == (result.consensus.sum(), "{pixels}")


def test_slices_without_any_mask_are_not_reported_and_those_without_consensus_refer_to_the_image():
    pictures = pictures_of(ct_series(3))
    results = [drawn(picture, k) for k, picture in enumerate(pictures)]
    nothing = np.zeros_like(results[0].consensus)
    results[0] = SimpleNamespace(outlines=None, masks=results[0].masks * 0, confidence=nothing, consensus=nothing)
    results[1].consensus = nothing
    made = {label_of(each): each for each in derived_objects(pictures, results, FACTS)}
    (planar, _), (image, group) = measurements(pydicom.dcmread(io.BytesIO(written(made["MEASUREMENTS"]))))
    assert image["Area", ""][0] == 0 and image["Area", "Mean"][0] > 0 and planar["Area", ""][0] > 0
    uids = [item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in group.source_images]
    assert uids == [pictures[1].origin.dataset.SOPInstanceUID]


@pytest.mark.parametrize("source", [photograph, cine])
def test_outlines_over_images_without_a_place_in_space_enclose_the_masks(source):
    pictures, results, found = objects([source()])
    assert len(found["OUTLINES"]) == len(pictures) and "OUTLINES" not in objects(ct_series(1))[2]
    for picture, result, made in zip(pictures, results, found["OUTLINES"], strict=True):
        layers = {layer.GraphicLayer: layer.GraphicLayerDescription for layer in made.GraphicLayerSequence}
        assert list(layers.values())[:2] == ["Consensus (confidence >= 0.5)", "Mask 1 of 3"]
        expected = [result.consensus, *(result.masks >= 0.5)]
        for item, mask in zip(made.GraphicAnnotationSequence, expected, strict=True):
            lines = [np.reshape(each.GraphicData, (-1, 2)) for each in item.GraphicObjectSequence]
            assert all((line[0] == line[-1]).all() for line in lines)
            filled = fill_polygons(mask.shape, [line[:-1] for line in lines])
            assert (filled & mask).sum() / (filled | mask).sum() > 0.95
            shown = item.ReferencedImageSequence[0]
            assert shown.ReferencedSOPInstanceUID == picture.origin.dataset.SOPInstanceUID
            assert shown.get("ReferencedFrameNumber") == (picture.origin.number if source is cine else None)


def test_anonymous_reports_refer_to_the_anonymous_segmentation():
    _, _, found = objects(ct_series(2), anonymiser=Anonymiser())
    (made,), (masks,) = found["MEASUREMENTS"], found["MASKS"]
    for _, group in measurements(made):
        reference = group.referenced_segmentation_frame[0].ReferencedSOPSequence[0]
        assert reference.ReferencedSOPInstanceUID == masks.SOPInstanceUID
    assert made.PatientIdentityRemoved == "YES" and "Müller" not in str(made)


def test_volumes_of_a_series_are_reported_of_its_segment(monkeypatch, drawing_model, tmp_path):
    for k, each in enumerate(ct_series(4)):
        each.save_as(tmp_path / f"{k}.dcm", enforce_file_format=True)
    arguments = ["segment", tmp_path, "--model", drawing_model, "--out", tmp_path / "out", "--samples", 3]
    assert run(monkeypatch, *arguments) == 0
    folder = tmp_path / "out/series-0004"
    (told,) = json.loads((folder / "result.json").read_text())["volumes"]
    made = highdicom.sr.srread(folder / "measurements.dcm")
    (group,) = made.content.get_volumetric_roi_measurement_groups()
    values = {(m.name.meaning, m.derivation.meaning if m.derivation else ""): m.value for m in group.get_measurements()}
    assert values["Volume", ""] == pytest.approx(told["volume_consensus_ml"], rel=1e-4)
    assert values["Volume", "Mean"] == pytest.approx(np.mean(told["volumes_ml"]), rel=1e-4)
    assert values["Volume", "Standard Deviation"] == pytest.approx(np.std(told["volumes_ml"], ddof=1), rel=1e-4)
    assert values["Mean IoU of pairs of masks", ""] == pytest.approx(told["pairwise_iou"], rel=1e-4)
    segment = group[0].ContentSequence[-2].ReferencedSOPSequence[0]
    masks = pydicom.dcmread(folder / "masks.dcm")
    assert (segment.ReferencedSOPInstanceUID, segment.ReferencedSegmentNumber) == (masks.SOPInstanceUID, 1)
    if DCIODVFY:
        said = subprocess.run([DCIODVFY, folder / "measurements.dcm"], capture_output=True, text=True)
        assert "Error" not in said.stdout + said.stderr


@pytest.mark.skipif(shutil.which("paramap2itkimage") is None, reason="dcmqi is not installed (pip install dcmqi)")
def test_dcmqi_reads_every_pixel_of_consensus_and_confidence(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    pictures = pictures_of(ct_series())
    results = [drawn(picture, k) for k, picture in enumerate(pictures)]
    write_objects(tmp_path, derived_objects(pictures, results, FACTS))
    for program, name, field in (("segimage2itkimage", "consensus", "1"), ("paramap2itkimage", "confidence", "pmap")):
        (tmp_path / name).mkdir()
        arguments = ["--inputDICOM", tmp_path / f"{name}.dcm", "--outputDirectory", tmp_path / name, "-t", "nii"]
        subprocess.run([program, *arguments], check=True, capture_output=True)
        held = nibabel.load(tmp_path / name / f"{field}.nii.gz").get_fdata()  # columns, rows, slices
        expected = np.stack([getattr(result, name) for result in results]).transpose(2, 1, 0)
        assert np.abs(held - expected).max() < 1e-6
    read = subprocess.run(
        ["tid1500reader", "--inputDICOM", tmp_path / "measurements.dcm", "--outputMetadata", tmp_path / "sr.json"],
        capture_output=True,
    )
    assert read.returncode == 0 and len(json.loads((tmp_path / "sr.json").read_text())["Measurements"]) == 5
