"""`manymask segment` on series and volumes: shared noise, volumes in ml, forms, slices, and what is not drawn again."""

import csv
import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("highdicom", reason="the extra `dicom` is not installed")
pytest.importorskip("nibabel", reason="the extra `nifti` is not installed")

import nibabel
import pydicom
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from manymask import Segmenter
from manymask.cli.segment import parse_slices
from manymask.data.datasets import phantom
from manymask.errors import ConfigError, InputError
from manymask.hub.model_folder import load_model
from manymask.inference import series
from manymask.inference.outputs import SeriesResult
from manymask.inference.volumes import volume_records
from manymask.io.dicom.grid import dicom_grid
from manymask.io.image import Picture, VolumeSlice
from tests.dicom_files import read_dicom
from tests.dicom_sources import ct_series
from tests.factories import run
from tests.nifti_files import read_nifti


def save_series(folder: Path, datasets) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for k, dataset in enumerate(datasets):
        dataset.save_as(folder / f"{k}.dcm", enforce_file_format=True)
    return folder


def save_volume(path: Path, count: int = 3, numbers: range | None = None) -> Path:
    images = [phantom.draw(k).image[:, :, 0].T for k in numbers or range(count)]
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.stack(images, axis=2).astype(np.int16), np.diag([0.7, 0.8, 2.5, 1.0])), path)
    return path


def told(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def read_table(out: Path) -> dict[str, dict[str, str]]:
    lines = (out / "summary.csv").read_text(encoding="utf-8").splitlines()
    return {row["name"]: row for row in csv.DictReader(lines)}


def segment(monkeypatch, model: Path, out: Path, *rest: object, code: int = 0) -> None:
    assert run(monkeypatch, "segment", *rest, "--model", model, "--out", out, "--samples", 3) == code


def drawn_slice(
    depth: float | None, masks: list[list[int]], spacing=(0.5, 2.0), number=1
) -> tuple[Picture, SeriesResult]:
    """A slice of one row whose masks hold so many pixels; the consensus is the first."""
    held = np.array([[[i < count for i in range(8)]] for (count,) in masks])
    picture = Picture(np.zeros((1, 8), np.uint8), "a", spacing, slice=VolumeSlice("v", number, depth))
    return picture, SeriesResult(held, np.zeros((1, 8), np.float32), held[0])


def test_equal_slices_of_a_volume_get_equal_masks_and_slices_of_another_do_not(drawing_model, tmp_path):
    """Mask k of a volume has one noise: neighbours that look alike are drawn alike. Images on their own differ by pixels."""
    segmenter = Segmenter(load_model(drawing_model))
    one, other = (read_nifti(save_volume(tmp_path / name, numbers=numbers)) for name, numbers in
                  (("a.nii", [3, 3, 5]), ("b.nii", [3, 3, 6])))  # fmt: skip
    first, second = (segmenter.segment(picture, 3).masks for picture in one[:2])
    assert (first == second).all() and first.std(dim=0).max() > 0.01
    assert segmenter.segment(one[0]).record.noise == "volume"
    assert not (first == segmenter.segment(other[0], 3).masks).all()
    changed = replace(one[0], pixels=np.where(np.arange(64) == 0, one[0].pixels + 1, one[0].pixels))
    near = segmenter.segment(changed, 3).masks
    alone = [segmenter.segment(picture.pixels, 3) for picture in (one[0], changed)]
    assert alone[0].record.noise == "image"
    assert (near - first).abs().mean() < 0.5 * (alone[0].masks - alone[1].masks).abs().mean()


def test_volume_is_the_sum_of_areas_by_the_distance_of_slices():
    """Slices 3 mm apart, one of them missing; pixels of 0.5 by 2 mm."""
    slices = [drawn_slice(depth, masks) for depth, masks in
              ((0.0, [[2], [4]]), (3.0, [[2], [4]]), (9.0, [[1], [2]]), (12.0, [[1], [2]]))]  # fmt: skip
    (record,), remarks = volume_records(*map(list, zip(*slices, strict=True)))
    assert record["volumes_ml"] == pytest.approx([6 * 3 / 1000, 12 * 3 / 1000])
    assert record["volume_consensus_ml"] == pytest.approx(6 * 3 / 1000)
    assert (record["volume_mean_ml"], record["volume_std_ml"]) == pytest.approx((0.027, 0.0127279), rel=1e-4)
    assert (record["volume_low_ml"], record["volume_high_ml"]) == pytest.approx((0.0189, 0.0351))
    assert record["pairwise_iou"] == pytest.approx(0.5) and record["slices"] == 4
    assert remarks == ["Slices are missing at 1 place(s): nothing is counted there."]


def test_slices_at_uneven_distances_reach_half_way_to_their_neighbours():
    slices = [drawn_slice(depth, [[1], [1]], (1.0, 1.0)) for depth in (0.0, 2.0, 4.8)]
    (record,), remarks = volume_records(*map(list, zip(*slices, strict=True)))
    assert record["volumes_ml"] == pytest.approx([(2 + 2.4 + 2.8) / 1000] * 2) and not remarks


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("series-0004-image-0012", "series-0004"),
        ("series-0004-image-0012-frame-0003", "series-0004"),
        ("series-0004-image-0012-2", "series-0004"),
        ("image-0003", "series"),
        ("image-001-slice-0002", "image-001"),
        ("ct-slice-5mm-slice-0001", "ct-slice-5mm"),
        ("frame-12-slice-0002-volume-0001", "frame-12"),
    ],
)
def test_a_series_is_named_after_its_file_whatever_that_is_called(name, whole):
    assert series.series_name(name) == whole


@pytest.mark.parametrize(
    ("numbers", "depths", "reach", "holes"),
    [
        ((1, 3), (0.0, 4.0), 4.0, 1),  # the middle one of three is left out
        ((1, 3, 4), (0.0, 4.0, 6.0), 6.0, 1),
        ((1, 3, 5, 7), (0.0, 4.0, 8.0, 12.0), 16.0, 0),  # numbered by odd numbers, whole
        ((1, 2, 4, 6, 8), (0.0, 2.0, 6.0, 10.0, 14.0), 10.0, 3),
        ((0, 0, 0), (0.0, 2.0, 6.0), 6.0, 1),  # not numbered
    ],
)
def test_slices_that_were_left_out_make_no_volume(numbers, depths, reach, holes):
    slices = [drawn_slice(depth, [[1], [1]], (1.0, 1.0), number) for number, depth in zip(numbers, depths, strict=True)]
    (record,), remarks = volume_records(*map(list, zip(*slices, strict=True)))
    assert record["volumes_ml"] == pytest.approx([reach / 1000] * 2)
    assert remarks == ([f"Slices are missing at {holes} place(s): nothing is counted there."] if holes else [])


def test_two_stacks_between_each_other_make_no_volume():
    depths = sorted(2.0 * k + shift for k in range(10) for shift in (0.0, 0.05))
    slices = [drawn_slice(depth, [[1], [1]], (1.0, 1.0), number) for number, depth in enumerate(depths)]
    (record,), (remark,) = volume_records(*map(list, zip(*slices, strict=True)))
    assert "volumes_ml" not in record and "9 of 19 distances between slices are longer than usual" in remark


@pytest.mark.parametrize(
    ("depths", "spacing", "message"),
    [
        ((0.0, None), (1.0, 1.0), "The distance between slices is not known"),
        ((0.0, 1.0), None, "The size of a pixel is not known"),
        ((1.0, 1.0), (1.0, 1.0), "Several images lie at one position"),
    ],
)
def test_volume_that_is_not_known_is_not_given_and_the_reason_is(depths, spacing, message):
    slices = [drawn_slice(depth, [[1], [2]], spacing) for depth in depths]
    (record,), (remark,) = volume_records(*map(list, zip(*slices, strict=True)))
    assert "volumes_ml" not in record and record["pairwise_iou"] == 0.5 and remark.startswith(message)


def test_volumes_stand_in_the_result_of_the_series_and_in_the_table(monkeypatch, drawing_model, tmp_path):
    out = tmp_path / "out"
    segment(monkeypatch, drawing_model, out, save_volume(tmp_path / "brain.nii.gz"))
    (volume,) = told(out / "brain")["volumes"]
    masks = [np.asarray(nibabel.load(out / f"brain/mask-{k:02}.nii.gz").dataobj) for k in (1, 2, 3)]
    assert volume["volumes_ml"] == pytest.approx([mask.sum() * 0.7 * 0.8 * 2.5 / 1000 for mask in masks])
    consensus = np.asarray(nibabel.load(out / "brain/consensus.nii.gz").dataobj)
    assert volume["volume_consensus_ml"] == pytest.approx(consensus.sum() * 0.7 * 0.8 * 2.5 / 1000)
    rows = read_table(out)
    assert set(rows) == {"brain", *(f"brain-slice-{k:04}" for k in (1, 2, 3))}
    assert float(rows["brain"]["volume_mean_ml"]) == pytest.approx(volume["volume_mean_ml"], abs=1e-4)
    assert rows["brain"]["area_mean"] == "" and rows["brain-slice-0001"]["volume_mean_ml"] == ""
    assert float(rows["brain"]["pairwise_iou"]) == pytest.approx(volume["pairwise_iou"])


def test_series_has_volumes_by_the_positions_of_its_slices(monkeypatch, drawing_model, tmp_path):
    out = tmp_path / "out"
    segment(monkeypatch, drawing_model, out, save_series(tmp_path / "in", ct_series(3)))
    whole = told(out / "series-0004")
    pictures = read_dicom(sorted((tmp_path / "in").glob("*.dcm")))
    distance = pictures[1].slice.depth - pictures[0].slice.depth
    pixel = pictures[0].spacing[0] * pictures[0].spacing[1]
    areas = [sum(each["areas"][k] for each in whole["slices"]) for k in range(3)]
    assert whole["volumes"][0]["volumes_ml"] == pytest.approx([area * pixel * distance / 1000 for area in areas])


@pytest.mark.parametrize("form", ["nifti", "dicom"])
def test_form_of_volumes_alone_leaves_one_folder_for_a_series(monkeypatch, drawing_model, tmp_path, form):
    source, out = save_series(tmp_path / "in", ct_series(3)), tmp_path / "out"
    segment(monkeypatch, drawing_model, out, source, "--form", form)
    assert {p.name for p in out.iterdir()} == {"series-0004", "summary.csv"}
    expected = {"nifti": {"consensus.nii.gz", "confidence.nii.gz", *(f"mask-{k:02}.nii.gz" for k in (1, 2, 3))},
                "dicom": {"masks.dcm", "levels.dcm", "confidence.dcm"}}  # fmt: skip
    names = {p.name for p in (out / "series-0004").iterdir()}
    assert names >= expected[form] | {"result.json"} and not any(name.endswith(".png") for name in names)
    assert len(told(out / "series-0004")["slices"]) == 3


def test_several_forms_at_once_and_those_that_an_image_cannot_have(monkeypatch, drawing_model, tmp_path, capsys):
    source, out = save_series(tmp_path / "in", ct_series(2)), tmp_path / "out"
    Image.fromarray(phantom.draw(3).image[:, :, 0]).save(source / "photo.png")
    segment(monkeypatch, drawing_model, out, source, "--form", "nifti", "--form", "png")
    assert (out / "photo/consensus.png").exists() and (out / "series-0004-image-0001/consensus.png").exists()
    assert (out / "series-0004/consensus.nii.gz").exists() and not list(out.rglob("*.dcm"))
    capsys.readouterr()
    segment(monkeypatch, drawing_model, tmp_path / "two", source / "photo.png", "--form", "dicom", code=2)
    assert "photo: dicom needs an image with a place in the patient, from DICOM (--form)" in capsys.readouterr().err


def test_nifti_of_a_series_lies_where_its_slices_lie(monkeypatch, drawing_model, tmp_path):
    """The corner of a mask is at the same point of the patient in DICOM (left, back) and in NIfTI (right, front)."""
    datasets = ct_series(3)
    pictures = read_dicom(sorted(save_series(tmp_path / "in", datasets).glob("*.dcm")))
    affine, shape, indices = dicom_grid(pictures)
    assert sorted(indices) == [0, 1, 2] and shape == (*pictures[0].pixels.shape[1::-1], 3)
    row, column = 5, 9
    for picture, index in zip(pictures, indices, strict=True):
        header = picture.origin.dataset
        along, down = np.array(header.ImageOrientationPatient).reshape(2, 3)
        point = (
            np.array(header.ImagePositionPatient)
            + along * column * picture.spacing[1]
            + down * row * picture.spacing[0]
        )
        assert (affine @ [column, row, index, 1])[:3] == pytest.approx(point * [-1, -1, 1])
    segment(monkeypatch, drawing_model, tmp_path / "out", tmp_path / "in", "--form", "nifti", "--form", "png")
    volume = np.asarray(nibabel.load(tmp_path / "out/series-0004/mask-01.nii.gz").dataobj)
    name = f"series-0004-image-{int(pictures[1].origin.dataset.InstanceNumber):04}"
    shown = np.asarray(Image.open(tmp_path / "out" / name / "mask-01.png")) > 0
    assert (shown == volume[:, :, indices[1]].T).all() and shown.any()


def test_series_on_no_regular_grid_gets_no_nifti(tmp_path):
    datasets = ct_series(3)
    datasets[2].ImagePositionPatient[2] = float(datasets[2].ImagePositionPatient[2]) + 1.3
    pictures = read_dicom(sorted(save_series(tmp_path / "in", datasets).glob("*.dcm")))
    with pytest.raises(InputError, match=r"irregular distances|no regular grid"):
        dicom_grid(pictures)


def test_slices_are_chosen_by_the_numbers_in_their_names(monkeypatch, drawing_model, tmp_path, capsys):
    out = tmp_path / "out"
    segment(monkeypatch, drawing_model, out, save_volume(tmp_path / "v.nii", 5), "--slices", "2-3")
    assert told(out / "v")["images"] == ["v-slice-0002", "v-slice-0003"]
    series = save_series(tmp_path / "in", ct_series(4))
    segment(monkeypatch, drawing_model, out, series, "--slices", "3-4")
    assert sorted(told(out / "series-0004")["images"]) == ["series-0004-image-0003", "series-0004-image-0004"]
    capsys.readouterr()
    segment(monkeypatch, drawing_model, out, series, "--slices", "30", code=2)
    assert "a series has no slice numbered 30 … 30 (--slices)" in capsys.readouterr().err
    Image.fromarray(phantom.draw(3).image[:, :, 0]).save(tmp_path / "photo.png")
    segment(monkeypatch, drawing_model, out, tmp_path / "photo.png", "--slices", "1-2", code=2)


@pytest.mark.parametrize("text", ["", "a-b", "3-2", "0-", "1-2-3", "-4"])
def test_range_of_slices_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="--slices wants FIRST-LAST"):
        parse_slices(text)
    assert parse_slices(" 40 - 62") == (40, 62) and parse_slices("7") == (7, 7)


@pytest.fixture
def counted(monkeypatch) -> list[str]:
    """The names of the images that are drawn."""
    names: list[str] = []
    real = Segmenter.segment

    def counting(self, image, *rest, **more):
        names.append(image.name)
        return real(self, image, *rest, **more)

    monkeypatch.setattr(Segmenter, "segment", counting)
    return names


def test_continued_run_draws_only_what_is_not_there_in_the_same_way(
    monkeypatch, drawing_model, tmp_path, capsys, counted
):
    folder, out = tmp_path / "in", tmp_path / "out"
    (folder / "sub").mkdir(parents=True)
    for k, name in enumerate(("a.png", "b.png", "sub/a.png")):
        Image.fromarray(phantom.draw(k).image[:, :, 0]).save(folder / name)
    segment(monkeypatch, drawing_model, out, folder)
    assert len(counted) == 3 and {told(p.parent)["input"] for p in out.glob("*/result.json")} == {
        "a.png", "b.png", "sub/a.png"
    }  # fmt: skip
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    counted.clear()
    capsys.readouterr()
    segment(monkeypatch, drawing_model, out, folder, "--continue")
    assert not counted and {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    assert "3 image(s) were segmented in the same way before: their results stay as they are" in capsys.readouterr().out
    (out / "b/mask-02.png").unlink()
    Image.fromarray(phantom.draw(9).image[:, :, 0]).save(folder / "sub/a.png")
    segment(monkeypatch, drawing_model, out, folder, "--continue")
    assert sorted(counted) == ["a", "b"] and (out / "b/mask-02.png").exists()
    for flags in (("--seed", 1), ("--threshold", 0.4), ("--steps", 2), ("--form", "png")):
        counted.clear()
        segment(monkeypatch, drawing_model, out, folder, "--continue", *flags)
        assert len(counted) == 3, flags


def without(path):
    path.unlink()


def emptied(path):
    path.write_bytes(b"")


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize("harm", [without, emptied, cut])
@pytest.mark.parametrize("name", ["a/consensus.png", "a/confidence.png", "a/overlay.png", "a/mask-01.png",
                                  "a/consensus.nii.gz", "a/mask-02.nii.gz"])  # fmt: skip
def test_a_result_that_is_not_whole_is_drawn_again(monkeypatch, drawing_model, tmp_path, counted, name, harm):
    image, out = tmp_path / "a.png", tmp_path / "out"
    Image.fromarray(phantom.draw(1).image[:, :, 0]).save(image)
    forms = ("--form", "png", "--form", "nifti")
    segment(monkeypatch, drawing_model, out, image, *forms)
    before = np.asarray(Image.open(out / name)) if name.endswith("png") else nibabel.load(out / name).get_fdata()
    harm(out / name)
    counted.clear()
    segment(monkeypatch, drawing_model, out, image, "--continue", *forms)
    after = np.asarray(Image.open(out / name)) if name.endswith("png") else nibabel.load(out / name).get_fdata()
    assert len(counted) == 1 and np.array_equal(before, after)
    segment(monkeypatch, drawing_model, out, image, "--continue", *forms)
    assert len(counted) == 1


def test_a_mask_that_a_person_edited_stays(monkeypatch, drawing_model, tmp_path, counted):
    image, out = tmp_path / "a.png", tmp_path / "out"
    Image.fromarray(phantom.draw(1).image[:, :, 0]).save(image)
    segment(monkeypatch, drawing_model, out, image, "--form", "png", "--form", "nifti")
    edited = out / "a/consensus.png", out / "a/consensus.nii.gz"
    Image.new("L", (64, 64)).save(edited[0])
    edited[1].write_bytes(gzip.compress(gzip.decompress(edited[1].read_bytes()), 1) + gzip.compress(b"more"))
    kept = [path.read_bytes() for path in edited]
    counted.clear()
    segment(monkeypatch, drawing_model, out, image, "--continue", "--form", "png", "--form", "nifti")
    assert not counted and [path.read_bytes() for path in edited] == kept


@pytest.mark.parametrize("name", ["mask-01.nii.gz", "confidence.nii.gz"])
def test_a_volume_that_is_not_whole_is_drawn_again(monkeypatch, drawing_model, tmp_path, counted, name):
    source, out = save_series(tmp_path / "in", ct_series(3)), tmp_path / "out"
    segment(monkeypatch, drawing_model, out, source, "--form", "nifti")
    (volume,) = out.rglob(name)
    volume.write_bytes(b"")
    counted.clear()
    segment(monkeypatch, drawing_model, out, source, "--continue", "--form", "nifti")
    assert len(counted) == 3 and volume.stat().st_size


def voi_table() -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [256, 0, 16])
    item.add_new("LUTData", "US", list(range(0, 65536, 256)))
    return Sequence([item])


@pytest.mark.parametrize("change", [{"PixelSpacing": [1.6, 1.6]}, {"WindowCenter": 90, "WindowWidth": 20},
                                    {"ImageOrientationPatient": [0, 1, 0, 1, 0, 0]}, {"SliceThickness": 9},
                                    {"FrameOfReferenceUID": "1.2.9"},
                                    {"VOILUTSequence": voi_table()}])  # fmt: skip
def test_another_header_makes_other_results_of_the_same_pixels(monkeypatch, drawing_model, tmp_path, counted, change):
    source, out = save_series(tmp_path / "in", ct_series(1)), tmp_path / "out"
    segment(monkeypatch, drawing_model, out, source)
    counted.clear()
    segment(monkeypatch, drawing_model, out, source, "--continue")
    assert not counted
    for path in source.iterdir():
        dataset = pydicom.dcmread(path)
        for name, value in change.items():
            setattr(dataset, name, value)
        dataset.save_as(path, enforce_file_format=True)
    segment(monkeypatch, drawing_model, out, source, "--continue")
    assert len(counted) == 1 and len(list(out.glob("*/result.json"))) == 1


def test_other_settings_of_the_same_weights_draw_again(monkeypatch, drawing_model, tmp_path, counted):
    model, image = tmp_path / "model", tmp_path / "a.png"
    shutil.copytree(drawing_model, model)
    Image.fromarray(phantom.draw(1).image[:, :, 0]).save(image)
    segment(monkeypatch, model, tmp_path / "out", image)
    config = json.loads((model / "config.json").read_text())
    config["recipe"]["stretch"] = not config["recipe"].get("stretch", False)
    (model / "config.json").write_text(json.dumps(config))
    for drawn in (1, 0):
        counted.clear()
        segment(monkeypatch, model, tmp_path / "out", image, "--continue")
        assert len(counted) == drawn


def test_slices_that_are_not_numbered_in_their_order_are_not_cut_out(
    monkeypatch, drawing_model, tmp_path, counted, capsys
):
    slices = sorted(ct_series(4), key=lambda each: float(each.ImagePositionPatient[2]))
    for each, number in zip(slices, (1, 3, 2, 4), strict=True):
        each.InstanceNumber = number
    source = save_series(tmp_path / "in", slices)
    flags = ("--model", drawing_model, "--out", tmp_path / "out", "--samples", 2, "--slices")
    assert run(monkeypatch, "segment", source, *flags, "1-2") == 2 and not counted
    assert "image 3 lies between the images 1 … 2" in capsys.readouterr().err
    assert run(monkeypatch, "segment", source, *flags, "1-3") == 0 and len(counted) == 3


def test_another_affine_of_a_volume_is_drawn_again(monkeypatch, drawing_model, tmp_path, counted):
    values = np.stack([phantom.draw(k).image[:, :, 0] for k in range(2)], axis=2)
    for scale, drawn in ((1, 2), (1, 0), (2, 2), (2, 0)):
        nibabel.save(nibabel.Nifti1Image(values, np.diag([scale, scale, 2 * scale, 1.0])), tmp_path / "v.nii.gz")
        counted.clear()
        segment(monkeypatch, drawing_model, tmp_path / "out", tmp_path / "v.nii.gz", "--continue")
        assert len(counted) == drawn, scale
        assert nibabel.load(tmp_path / "out/v/consensus.nii.gz").header.get_zooms()[:3] == (scale, scale, 2 * scale)


def test_continued_series_is_drawn_as_a_whole_or_not_at_all(monkeypatch, drawing_model, tmp_path, counted):
    source, out = save_series(tmp_path / "in", ct_series(3)), tmp_path / "out"
    for flags in ((), ("--form", "dicom")):
        segment(monkeypatch, drawing_model, out, source, *flags)
        counted.clear()
        segment(monkeypatch, drawing_model, out, source, "--continue", *flags)
        assert not counted
        (out / "series-0004/masks.dcm").unlink()
        segment(monkeypatch, drawing_model, out, source, "--continue", *flags)
        assert len(counted) == 3 and (out / "series-0004/masks.dcm").exists()


def test_table_is_written_for_one_image_and_again_when_a_run_is_stopped(monkeypatch, drawing_model, tmp_path):
    for k in (1, 2):
        Image.fromarray(phantom.draw(k).image[:, :, 0]).save(tmp_path / f"{k}.png")
    segment(monkeypatch, drawing_model, tmp_path / "out", tmp_path / "1.png")
    assert set(read_table(tmp_path / "out")) == {"1"}
    real = series.fill_result

    def stopped(folder, output):
        if output.facts["input"] == "2.png":
            raise KeyboardInterrupt
        real(folder, output)

    monkeypatch.setattr(series, "fill_result", stopped)
    inputs = [tmp_path / f"{k}.png" for k in (1, 2)]
    assert run(monkeypatch, "segment", *inputs, "--model", drawing_model, "--out", tmp_path / "two") == 130
    assert set(read_table(tmp_path / "two")) == {"1"}
