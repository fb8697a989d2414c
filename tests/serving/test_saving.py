"""What is saved of a drawing that a visitor has edited: masks left out, strokes of the brush, the accepted mask."""

import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from manymask import Segmenter
from manymask.errors import InputError
from manymask.inference.correction import MOST_STROKES, AcceptedMask, Stroke, corrected, read_strokes
from manymask.io.image import NiftiSlice, Picture
from manymask.serving import saving, service
from tests.dicom_files import pictures_of
from tests.dicom_sources import ct_series


def centres(height, width):
    y, x = np.mgrid[:height, :width] + 0.5
    return x, y


def test_stroke_covers_the_pixels_whose_centre_is_near_its_line():
    x, y = centres(30, 40)
    dab = corrected(np.zeros((30, 40), bool), [Stroke(True, 5.0, ((12.0, 9.0),))])
    assert (dab == (np.hypot(x - 12, y - 9) <= 5)).all() and dab.sum() > 70
    line = corrected(np.zeros((30, 40), bool), [Stroke(True, 3.0, ((10.0, 15.0), (30.0, 15.0)))])
    along = np.clip(x, 10, 30)
    assert (line == (np.hypot(x - along, y - 15) <= 3)).all()


def test_strokes_are_done_in_order_and_reach_over_the_edge():
    full = np.ones((20, 20), bool)
    erase, add = Stroke(False, 50.0, ((-3.0, 4.0), (2.0, 5.0))), Stroke(True, 2.0, ((10.0, 10.0),))
    assert corrected(full, [erase, add]).sum() == 12 and corrected(full, [add, erase]).sum() == 0
    assert full.all(), "what is corrected is a copy"
    nowhere = Stroke(True, 2.0, ((500.0, 500.0),))
    assert not corrected(~full, [nowhere]).any()


def test_more_work_than_a_server_does_for_one_visitor_is_refused():
    large = Stroke(True, 4000.0, tuple((float(k), 0.0) for k in range(200)))
    with pytest.raises(InputError, match="too large"):
        corrected(np.zeros((4000, 4000), bool), [large])


@pytest.mark.parametrize(
    "value",
    [
        {}, [1], [{"add": 1, "radius": 2, "points": [[1, 2]]}], [{"add": True, "radius": 0, "points": [[1, 2]]}],
        [{"add": True, "radius": 2, "points": []}], [{"add": True, "radius": 2, "points": [[1, float("nan")]]}],
        [{"add": True, "radius": float("inf"), "points": [[1, 2]]}], [{"add": True, "radius": 2, "points": [[1]]}],
        [{"add": True, "radius": 2, "points": [[1, 2]]}] * (MOST_STROKES + 1),
    ],
)  # fmt: skip
def test_what_is_no_stroke_is_refused(value):
    with pytest.raises(InputError):
        read_strokes(value)


def test_strokes_survive_json():
    strokes = (Stroke(True, 2.5, ((1.0, 2.0), (3.5, 4.0))), Stroke(False, 1.0, ((0.0, 0.0),)))
    told = AcceptedMask.of(np.zeros((9, 9), bool), strokes).facts((0.5, 2.0))
    assert read_strokes(json.loads(json.dumps(told))["strokes"]) == strokes
    assert told["area_mm2"] == told["area"] > 0 and told["corrected"] and told["pixels_erased"] == 0


def drawn(model, picture):
    segmenter, subject = Segmenter.from_pretrained(str(model)), service.Subject(picture, picture, "lesion.png")
    *_, (scene, _, done) = service.draw_scene(segmenter, subject, service.SegmentRequest(samples=4), service.Limits())
    return scene, done


@pytest.fixture(scope="module")
def drawing(drawing_model):
    pixels = np.random.default_rng(0).integers(0, 256, (90, 130), dtype=np.uint8)
    return drawn(drawing_model, Picture(pixels, "lesion"))[1]


def saved(archive, folder):
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    return next(folder.glob("*/result.json")).parent


def mask(path):
    return np.asarray(Image.open(path)) > 0


def test_masks_left_out_count_neither_for_the_maps_nor_for_the_areas(drawing, tmp_path):
    edit = saving.read_edit(drawing, [2, 4])
    archive, facts = saving.pack(drawing, 0.4, "PNG", tmp_path, edit=edit)
    folder = saved(archive, tmp_path / "out")
    whole = drawing.result(0.4)
    expected = whole.masks[[0, 2]].mean(dim=0)
    assert (mask(folder / "consensus.png") == (expected >= 0.4).numpy()).all()
    assert facts["left_out"] == [2, 4] and facts["samples"] == 4
    assert facts["areas"] == [int((whole.masks[k] >= 0.5).sum()) for k in (0, 2)]
    assert sorted(path.name for path in folder.glob("mask-*")) == ["mask-01.png", "mask-03.png"]
    counts = saving.recount(drawing, 0.4, edit)
    assert counts["curve"][40] == facts["area_consensus"] and counts["agreement"] == facts["pairwise_iou"]
    assert "left_out" not in saving.pack(drawing, 0.4, "PNG", tmp_path)[1], "nothing is said where nothing was left out"


def test_accepted_mask_is_the_corrected_consensus_and_the_result_says_so(drawing, tmp_path):
    strokes = [
        {"add": True, "radius": 6, "points": [[20, 20], [60, 20]]},
        {"add": False, "radius": 9, "points": [[65, 45]]},
    ]
    edit = saving.read_edit(drawing, [1], strokes, True)
    archive, facts = saving.pack(drawing, 0.5, "PNG", tmp_path, edit=edit)
    folder = saved(archive, tmp_path / "out")
    consensus, accepted = mask(folder / "consensus.png"), mask(folder / "accepted.png")
    assert (accepted == corrected(consensus, edit.strokes)).all() and (accepted != consensus).any()
    told = facts["accepted"]
    assert told["area"] == accepted.sum() == saving.recount(drawing, 0.5, edit)["corrected_area"]
    assert (
        told["pixels_added"] == (accepted & ~consensus).sum() and told["pixels_erased"] == (consensus & ~accepted).sum()
    )
    assert told["strokes"][0]["points"] == [[20, 20], [60, 20]]
    with Image.open(folder / "accepted.png") as image:
        assert json.loads(image.text["manymask"])["left_out"] == [1]


def test_nifti_gets_the_accepted_mask_on_its_grid(drawing_model, tmp_path):
    nibabel = pytest.importorskip("nibabel", reason="the extra `nifti` is not installed")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)
    origin = NiftiSlice(np.diag([-1.0, -2, 3, 1]), (60, 40, 3), 1, pixels)
    _, done = drawn(drawing_model, Picture(pixels, "scan", (2.0, 1.0), origin))
    edit = saving.read_edit(done, [3], [{"add": True, "radius": 5, "points": [[30, 20]]}], True)
    folder = saved(saving.pack(done, 0.5, "NIfTI", tmp_path, edit=edit)[0], tmp_path / "out")
    volume = np.asarray(nibabel.load(folder / "accepted.nii.gz").dataobj)
    assert volume.shape == (60, 40, 3) and not volume[:, :, [0, 2]].any()
    assert (mask(folder / "accepted.png") == volume[:, :, 1].T).all()
    assert {path.name for path in folder.glob("mask-*.nii.gz")} == {f"mask-0{k}.nii.gz" for k in (1, 2, 4)}


def test_dicom_gets_the_accepted_mask_as_a_semiautomatic_segmentation(drawing_model, tmp_path):
    pytest.importorskip("highdicom", reason="the extra `dicom` is not installed")
    import highdicom

    picture = pictures_of(ct_series(1))[0]
    _, done = drawn(drawing_model, picture)
    edit = saving.read_edit(done, [2], [{"add": True, "radius": 4, "points": [[8, 8], [12, 8]]}], True)
    folder = saved(saving.pack(done, 0.5, "DICOM SEG", tmp_path, edit=edit)[0], tmp_path / "out")
    accepted, masks = (highdicom.seg.segread(folder / f"{name}.dcm") for name in ("accepted", "masks"))
    (segment,) = accepted.SegmentSequence
    assert segment.SegmentAlgorithmType == "SEMIAUTOMATIC" and segment.SegmentLabel == "Accepted"
    assert segment.SegmentDescription == (
        "Consensus (confidence >= 0.5) without mask 2, corrected by hand with 1 stroke, accepted by a person"
    )
    assert (accepted.pixel_array.squeeze() > 0).tolist() == mask(folder / "accepted.png").tolist()
    assert {each.SegmentAlgorithmType for each in masks.SegmentSequence} == {"AUTOMATIC"}
    assert [each.SegmentLabel for each in masks.SegmentSequence][1:] == [f"Mask {k} of 4" for k in (1, 3, 4)]
    assert accepted.SeriesInstanceUID != masks.SeriesInstanceUID


def test_promise_of_all_masks_is_not_made_without_one(drawing):
    record = replace(drawing.record, left_out=(1,))
    trained = drawing.segmenter.trained
    assert "not calibrated" in drawing.segmenter.uncalibrated(record)
    calibrated = Segmenter(replace(trained, calibration=object()))
    assert calibrated.uncalibrated(record).startswith("Masks were left out by hand")


@pytest.mark.parametrize("text", ["false", "null", "0", "{}", '""', "true", "no"])
def test_what_is_no_list_of_strokes_accepts_nothing(drawing, text):
    with pytest.raises(InputError, match="a JSON list of strokes"):
        saving.read_edit_text(drawing, "", text)
    assert saving.read_edit_text(drawing, "", "[]").accepted and not saving.read_edit_text(drawing, "", "").accepted
    with pytest.raises(InputError, match="corrections are a list"):
        saving.read_edit(drawing, (), {})
