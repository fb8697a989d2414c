"""Contours of RT Structure Sets as the masks of raters."""

import json

import numpy as np
import pytest

pytest.importorskip("pydicom")

import pydicom
from pydicom import Dataset

from manymask.data.datasets import folder
from manymask.errors import InputError
from manymask.io.dicom.rtstruct import RTSTRUCT
from manymask.io.masks import MaskReading
from tests import dicom_files as dicom
from tests.dicom_sources import PIXELS, ct_series

CORNERS = [(10, 12), (25, 12), (25, 30), (10, 30)]  # column, row


@pytest.fixture
def slices(tmp_path):
    """Five slices in tmp_path/images, in the order of their names."""
    found = sorted(ct_series(), key=lambda d: float(d.ImagePositionPatient[2]))
    for k, each in enumerate(found):
        (tmp_path / "images").mkdir(exist_ok=True)
        each.save_as(tmp_path / f"images/{k}.dcm", enforce_file_format=True)
    return found


def in_patient(image, corners):
    """Corners of pixels in mm: the position of an image is the middle of its first pixel."""
    x, y, z = (float(v) for v in image.ImagePositionPatient)
    return [value for column, row in corners for value in (x + (column - 0.5) * 0.8, y + (row - 0.5) * 0.7, z)]


def contour(image, corners, kind="CLOSED_PLANAR", named=True):
    item = Dataset()
    item.ContourGeometricType, item.NumberOfContourPoints = kind, len(corners)
    item.ContourData = [f"{value:.4f}" for value in in_patient(image, corners)]
    if named:
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
        item.ContourImageSequence = [reference]
    return item


def structure_set(path, slices, regions, series=True):
    """A file with contours by the name of their region."""
    made = dicom.dataset(SOPClassUID=RTSTRUCT, Modality="RTSTRUCT", SeriesInstanceUID="1.2.3.9")
    frame, study, of_series = Dataset(), Dataset(), Dataset()
    frame.FrameOfReferenceUID = slices[0].FrameOfReferenceUID
    of_series.SeriesInstanceUID = slices[0].SeriesInstanceUID
    study.RTReferencedSeriesSequence = [of_series]
    if series:
        frame.RTReferencedStudySequence = [study]
    made.ReferencedFrameOfReferenceSequence = [frame]
    made.StructureSetROISequence, made.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(regions.items(), start=7):
        region, drawn = Dataset(), Dataset()
        region.ROINumber, region.ROIName, drawn.ReferencedROINumber = number, name, number
        drawn.ContourSequence = contours
        made.StructureSetROISequence.append(region)
        made.ROIContourSequence.append(drawn)
    return dicom.save(path, made)


def filled(corners):
    (left, top), _, (right, bottom), _ = corners
    mask = np.zeros(PIXELS, bool)
    mask[top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize(("named", "series"), [(True, True), (False, True), (False, False)])
def test_contours_fill_the_pixels_of_their_slice_and_no_other(tmp_path, slices, named, series):
    structure_set(tmp_path / "masks/plan.dcm", slices, {"GTV": [contour(slices[2], CORNERS, named=named)]}, series)
    cases = folder.read(tmp_path).cases
    assert len(cases) == 5
    for k, case in enumerate(cases):
        assert (case.read()[1] == (filled(CORNERS) if k == 2 else False)).all(), k


def test_several_structure_sets_of_a_series_are_raters(tmp_path, slices):
    moved = [(column + 3, row) for column, row in CORNERS]
    for name, corners in (("a", CORNERS), ("b", moved)):
        structure_set(tmp_path / f"masks/{name}.dcm", slices, {"GTV": [contour(slices[0], corners)]})
    drawn = folder.read(tmp_path).cases[0].read()[1]
    assert (drawn == np.stack([filled(CORNERS), filled(moved)])).all()


def test_regions_are_chosen_by_name_and_lines_of_a_region_cut_holes(tmp_path, slices):
    hole = [(15, 15), (20, 15), (20, 20), (15, 20)]
    regions = {"GTV": [contour(slices[0], CORNERS, "CLOSEDPLANAR_XOR"), contour(slices[0], hole, "CLOSEDPLANAR_XOR")],
               "LUNG": [contour(slices[0], [(0, 0), (40, 0), (40, 48), (0, 48)])]}  # fmt: skip
    structure_set(tmp_path / "masks/plan.dcm", slices, regions)
    with pytest.raises(InputError, match="several labels: GTV"):
        folder.read(tmp_path)
    drawn = folder.read(tmp_path, reading=MaskReading(labels=("GTV",))).cases[0].read()[1]
    assert (drawn == (filled(CORNERS) & ~filled(hole))).all()


def test_structure_set_of_other_images_is_refused_in_one_line(tmp_path, slices):
    others = ct_series(1)
    structure_set(tmp_path / "masks/plan.dcm", others, {"GTV": [contour(others[0], CORNERS)]})
    with pytest.raises(InputError, match="belongs to none of the images"):
        folder.read(tmp_path)


def test_names_of_label_images_do_not_rename_regions(tmp_path, slices):
    """A dataset.json as nnU-Net has it, beside structure sets: regions keep their names, and a choice stays one."""
    other = [(x + 12, y) for x, y in CORNERS]
    regions = {"GTV": [contour(slices[0], CORNERS)], "LUNG": [contour(slices[0], other)]}
    structure_set(tmp_path / "masks/plan.dcm", slices, regions)
    content = {"modality": "CT", "labels": {"0": "background", "1": "GTV"}}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    for label, corners in (("LUNG", other), ("GTV", CORNERS)):
        cases = folder.read(tmp_path, reading=MaskReading(labels=(label,))).cases
        assert (cases[0].read()[1] == filled(corners)).all(), label


@pytest.mark.parametrize("named", [True, False])
def test_contours_that_reach_no_slice_are_told(tmp_path, slices, named):
    """The slice of one is not in the folder, by name or by place: it would silently be no lesion."""
    regions = {"GTV": [contour(slices[k], CORNERS, named=named) for k in (1, 3)]}
    structure_set(tmp_path / "masks/plan.dcm", slices, regions)
    assert not any("count nowhere" in note for note in folder.read(tmp_path).notes)
    (tmp_path / "images/3.dcm").unlink()
    (note,) = [note for note in folder.read(tmp_path).notes if "count nowhere" in note]
    assert note.startswith("1 contour(s) or frame(s) of") and "plan.dcm lie on none of its images" in note


def test_of_series_in_one_frame_of_reference_only_the_one_that_is_named_is_marked(tmp_path, slices):
    """A structure set that names no series belongs to that of the images of its contours; of the other it says nothing."""
    for k, each in enumerate(ct_series()):
        each.FrameOfReferenceUID = slices[0].FrameOfReferenceUID
        each.save_as(tmp_path / f"images/other-{k}.dcm", enforce_file_format=True)
    structure_set(tmp_path / "masks/plan.dcm", slices, {"GTV": [contour(slices[2], CORNERS)]}, series=False)
    cases = {case.id: case for case in folder.read(tmp_path).cases}
    assert cases["2"].read()[1].any() and not cases["1"].read()[1].any()
    with pytest.raises(InputError, match="has no mask"):
        cases["other-2"].read()


def test_a_region_that_one_patient_spells_otherwise_is_refused_and_one_without_it_is_told(tmp_path, slices):
    for each in slices:
        each.SeriesInstanceUID, each.SOPInstanceUID = each.SeriesInstanceUID + ".7", each.SOPInstanceUID + ".7"
        (tmp_path / "images/other").mkdir(exist_ok=True)
        each.save_as(tmp_path / f"images/other/{each.SOPInstanceUID}.dcm", enforce_file_format=True)
    others = [pydicom.dcmread(path) for path in sorted((tmp_path / "images").glob("?.dcm"))]
    structure_set(tmp_path / "masks/a.dcm", others, {"GTV": [contour(others[0], CORNERS)]})
    for name in ("gtv", "Gtv_"):
        structure_set(tmp_path / "masks/b.dcm", slices, {name: [contour(slices[0], CORNERS)]})
        with pytest.raises(InputError, match=f"b.dcm holds the label {name!r} and not 'GTV': choose both"):
            folder.read(tmp_path, reading=MaskReading(labels=("GTV",)))
        both = folder.read(tmp_path, reading=MaskReading(labels=("GTV", name)))
        assert sum(case.read()[1].any() for case in both.cases) == 2
    two = {"gtv": [contour(slices[0], CORNERS)], "GTV": [contour(slices[1], CORNERS)]}
    structure_set(tmp_path / "masks/b.dcm", slices, two)
    assert not folder.read(tmp_path, reading=MaskReading(labels=("GTV",))).notes[:-1]
    structure_set(tmp_path / "masks/b.dcm", slices, {"LUNG": [contour(slices[0], CORNERS)]})
    notes = folder.read(tmp_path, reading=MaskReading(labels=("GTV",))).notes
    assert any("1 of 2 structure set(s)" in note and "b.dcm holds LUNG" in note for note in notes)


@pytest.mark.parametrize(("thickness", "off", "fine"), [(5.0, 2.4, True), (5.0, 2.6, False), (None, 0.9, True),
                                                        (None, 1.1, False), (0.6, 0.25, True), (0.6, 0.6, False)])  # fmt: skip
def test_a_contour_that_names_a_slice_and_lies_on_another_is_refused(tmp_path, slices, thickness, off, fine):
    for k, each in enumerate(slices):
        each.SliceThickness = thickness
        each.save_as(tmp_path / f"images/{k}.dcm", enforce_file_format=True)
    drawn = contour(slices[0], CORNERS)
    drawn.ContourData[5] += off  # one point
    structure_set(tmp_path / "masks/plan.dcm", slices, {"GTV": [drawn]})
    case = folder.read(tmp_path).cases[0]
    if fine:
        assert (case.read()[1] == filled(CORNERS)).all()
    else:
        with pytest.raises(InputError, match=f"a contour of 'GTV' names the image .* lies {off:.1f} mm off its plane"):
            case.read()


def test_a_contour_beside_the_image_is_refused(tmp_path, slices):
    beside = [(column + 500, row) for column, row in CORNERS]
    structure_set(tmp_path / "masks/plan.dcm", slices, {"GTV": [contour(slices[0], beside)]})
    with pytest.raises(InputError, match="a contour of 'GTV' lies outside of the image"):
        folder.read(tmp_path).cases[0].read()
