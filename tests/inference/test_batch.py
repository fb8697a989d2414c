"""`manymask segment` on what radiologists have: series, volumes, regions; what it leaves and what it says."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("highdicom", reason="the extra `dicom` is not installed")
pytest.importorskip("nibabel", reason="the extra `nifti` is not installed")

import highdicom
import nibabel

from manymask import Segmenter
from manymask.cli.segment import parse_roi
from manymask.data.datasets import phantom
from manymask.errors import ConfigError, InputError
from manymask.hub.model_folder import TrainedModel, load_model, save_model
from manymask.hub.provenance import Provenance
from manymask.inference.entries import find_entries, names_of
from manymask.inference.outputs import SeriesResult
from manymask.inference.tally import RunSummary
from manymask.io.dicom.web import archive_series
from manymask.io.nifti import nifti_slices, write_nifti
from tests.dicom_sources import CT, ENHANCED_CT, ct_series, enhanced_ct
from tests.factories import run
from tests.nifti_files import read_nifti

AFFINES = [
    np.diag([0.7, 0.8, 2.5, 1.0]),
    np.array([[-0.7, 0.1, 0, 10], [0.05, -0.8, 0.2, -20], [0, -0.1, 2.5, 30], [0, 0, 0, 1]]),
    np.array([[0, 0, 2.0, 1], [0.5, 0, 0, 2], [0, -0.5, 0, 3], [0, 0, 0, 1]]),
]


@pytest.fixture(scope="module")
def crop_model(drawing_model, tmp_path_factory):
    """The drawing model, told that it was trained on crops."""
    trained, folder = load_model(drawing_model), tmp_path_factory.mktemp("crop") / "model"
    recipe = replace(trained.recipe, crop=True, stretch=True, window="values")
    save_model(TrainedModel(trained.model, recipe, "segmenter", Provenance(), []), folder)
    return folder


def test_files_of_one_name_are_told_apart_by_the_folders_above(tmp_path):
    for name in ("a/b/x.png", "c/b/x.png", "c/y.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / name)

    def named(*given):
        entries = find_entries([str(tmp_path / name) for name in given])[0]
        return [names_of(entries)[entry.path] for entry in entries]

    assert named("a/b/x.png", "c/b/x.png", "c/y.png") == ["a/b/x.png", "c/b/x.png", "y.png"]
    assert named("a", "c") == ["a/b/x.png", "y.png", "c/b/x.png"]
    assert named("a/b", "c/y.png") == ["x.png", "y.png"]


def pixels(path):
    return np.asarray(Image.open(path))


def failures(text):
    """The lines on stderr that are no warnings."""
    return [line for line in text.splitlines() if line.startswith("manymask:") and "warning:" not in line]


def save_series(folder, datasets):
    folder.mkdir(parents=True, exist_ok=True)
    for k, dataset in enumerate(datasets):
        dataset.save_as(folder / f"{k}.dcm", enforce_file_format=True)
    return folder


@pytest.mark.parametrize("affine", AFFINES)
@pytest.mark.parametrize("shape", [(17, 12, 4), (9, 20)])
def test_masks_go_back_into_the_volume_they_came_from(tmp_path, affine, shape):
    volume = np.random.default_rng(0).integers(0, 100, shape).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(volume, affine), tmp_path / "v.nii.gz")
    pictures = read_nifti(tmp_path / "v.nii.gz")
    results = [
        SeriesResult(np.stack([p.pixels > 50, p.pixels > 70]), (p.pixels / 100).astype(np.float32), p.pixels > 60)
        for p in pictures
    ]
    write_nifti(tmp_path / "out", pictures, results)
    expected = {
        "mask-01": volume > 50, "mask-02": volume > 70, "consensus": volume > 60,
        "confidence": (volume / 100).astype(np.float32),
    }  # fmt: skip
    source = nibabel.load(tmp_path / "v.nii.gz")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {f"{name}.nii.gz" for name in expected}
    for name, values in expected.items():
        found = nibabel.load(tmp_path / "out" / f"{name}.nii.gz")
        assert found.shape == shape and (np.asarray(found.dataobj) == values).all(), name
        assert (found.affine == source.affine).all()
    with pytest.raises(InputError, match="not slices of one NIfTI file"):
        write_nifti(tmp_path / "out", [pictures[0], replace(pictures[0], origin=None)], [results[0], results[0]])


def test_volume_leaves_slices_and_nifti_and_passes_over_empty_slices(monkeypatch, drawing_model, tmp_path, capsys):
    volume = np.stack([phantom.draw(k).image[:, :, 0].T for k in range(4)], axis=2).astype(np.int16)
    volume[:, :, 3] = 0
    nibabel.save(nibabel.Nifti1Image(volume, AFFINES[1]), tmp_path / "brain.nii.gz")
    out = tmp_path / "out"
    assert run(monkeypatch, "segment", tmp_path / "brain.nii.gz", "--model", drawing_model, "--out", out) == 0
    said = capsys.readouterr()
    assert "3 of 3 image(s)" in said.out and "1 flat slice(s) left out (brain-slice-0004): all" in said.err
    names = {f"brain-slice-{k:04}" for k in (1, 2, 3)} | {"brain"}
    assert {p.name for p in out.iterdir()} == names | {"summary.csv"}
    consensus = np.asarray(nibabel.load(out / "brain/consensus.nii.gz").dataobj)
    assert consensus.shape == volume.shape and consensus.any() and not consensus[:, :, 3].any()
    shown = pixels(out / "brain-slice-0002/consensus.png") > 0
    assert (
        shown.sum() == consensus[:, :, 1].sum() and (np.sort(shown.sum(0)) == np.sort(consensus[:, :, 1].sum(1))).all()
    )
    assert json.loads((out / "brain/result.json").read_text())["images"] == sorted(names - {"brain"})


def test_anonymous_volume_forgets_its_file_name(monkeypatch, drawing_model, tmp_path):
    volume = np.stack([phantom.draw(k).image[:, :, 0] for k in range(2)], axis=2).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "Mueller_Eva.nii.gz")
    Image.fromarray(phantom.draw(0).image[:, :, 0]).save(tmp_path / "Mueller_Eva.png")
    inputs = [tmp_path / "Mueller_Eva.nii.gz", tmp_path / "Mueller_Eva.png"]
    assert run(monkeypatch, "segment", *inputs, "--model", drawing_model, "--out", tmp_path / "out", "--anonymise") == 0
    files = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert files and not any("Mueller" in str(p.relative_to(tmp_path)) for p in files)
    assert not any(b"Mueller" in p.read_bytes() for p in files)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "volume", "volume-slice-0001", "volume-slice-0002", "image-0001", "summary.csv"
    }  # fmt: skip


def test_series_in_a_folder_leaves_one_seg_for_all_its_slices(monkeypatch, drawing_model, tmp_path):
    save_series(tmp_path / "in", ct_series(3))
    save_series(tmp_path / "in/more", [enhanced_ct(2)])
    inputs = [tmp_path / "in", tmp_path / "in/more"]
    assert run(monkeypatch, "segment", *inputs, "--model", drawing_model, "--out", tmp_path / "out") == 0
    folders = {p.name for p in (tmp_path / "out").iterdir()}
    assert {"series-0004", "series-0004-2", "series-0004-image-0002", "series-0004-image-0001-frame-0002"} <= folders
    segs = [highdicom.seg.segread(tmp_path / "out" / name / "masks.dcm") for name in ("series-0004", "series-0004-2")]
    found = {seg.SourceImageSequence[0].ReferencedSOPClassUID: len(seg.SourceImageSequence) for seg in segs}
    assert found == {CT: 3, ENHANCED_CT: 1}


def test_series_of_which_no_seg_can_be_made_is_told_apart_from_failed_images(
    monkeypatch, drawing_model, tmp_path, capsys
):
    slices = ct_series(2)
    for one in slices:
        del one.FrameOfReferenceUID
    save_series(tmp_path / "in", slices)
    assert run(monkeypatch, "segment", tmp_path / "in", "--model", drawing_model, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().out
    assert "2 of 2 image(s) segmented" in said and "1 series got no SEG" in said
    assert len(list((tmp_path / "out").rglob("consensus.png"))) == 2 and not list((tmp_path / "out").rglob("*.dcm"))


def test_volume_keeps_its_units_and_can_be_read_from_any_slice_on(tmp_path):
    volume = np.random.default_rng(0).integers(0, 100, (12, 10, 4)).astype(np.int16)
    image = nibabel.Nifti1Image(volume, np.diag([300.0, 300.0, 900.0, 1.0]))
    image.header.set_xyzt_units("micron", "sec")
    nibabel.save(image, tmp_path / "v.nii")
    pictures = read_nifti(tmp_path / "v.nii")
    later = list(nifti_slices(tmp_path / "v.nii", indices=range(2, 4)))
    assert [p.name for p in later] == [p.name for p in pictures[2:]]
    assert all((a.pixels == b.pixels).all() for a, b in zip(later, pictures[2:], strict=True))
    results = [SeriesResult((p.pixels > 50)[None], p.pixels / np.float32(100), p.pixels > 50) for p in later]
    write_nifti(tmp_path / "out", later, results)
    assert nibabel.load(tmp_path / "out/mask-01.nii.gz").header.get_xyzt_units() == ("micron", "sec")


def test_crop_model_segments_the_regions_named_and_nothing_else(monkeypatch, crop_model, tmp_path, capsys):
    (dataset,) = ct_series(1, shape=(200, 240))
    path = save_series(tmp_path / "in", [dataset]) / "0.dcm"
    arguments = ["segment", path, "--model", crop_model, "--out", tmp_path / "out", "--window", "lung"]
    assert run(monkeypatch, *arguments) == 2
    assert "--roi X,Y" in capsys.readouterr().err
    assert run(monkeypatch, *arguments, "--roi", "50,60", "--roi", "200,150") == 0
    folder = tmp_path / "out/series-0004-image-0001"
    assert json.loads((folder / "result.json").read_text())["rois"] == [[50, 60], [200, 150]]
    held = highdicom.seg.segread(folder / "masks.dcm").get_pixels_by_source_instance([dataset.SOPInstanceUID])[0]
    looked = np.zeros((200, 240), bool)
    looked[28:92, 18:82] = looked[118:182, 168:232] = True  # 64² about each centre
    assert not held[~looked].any() and held[28:92, 18:82].any() and held[118:182, 168:232].any()
    first = Segmenter(load_model(crop_model))
    from manymask.io.dicom.series import seen_through
    from tests.dicom_files import read_dicom

    (picture,) = read_dicom([path])
    drawn = first.segment(seen_through(picture, first.recipe.window), rois=[(50, 60), (200, 150)])
    assert torch.equal(torch.from_numpy(held[..., 1] > 0), drawn.masks[0] >= 0.5)


def test_one_damaged_slice_does_not_stop_its_series(monkeypatch, drawing_model, tmp_path, capsys):
    slices = ct_series(4)
    slices[1].PixelData = slices[1].PixelData[:100]
    folder = save_series(tmp_path / "in", slices)
    assert run(monkeypatch, "segment", folder, "--model", drawing_model, "--out", tmp_path / "out") == 2
    said = capsys.readouterr()
    assert "3 of 4" in said.out and len(failures(said.err)) == 1
    seg = highdicom.seg.segread(tmp_path / "out/series-0004/masks.dcm")
    held = {
        uid
        for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
        for uid in [item.ReferencedSOPInstanceUID]
    }
    assert held == {slices[k].SOPInstanceUID for k in (0, 2, 3)}


def test_one_unreadable_series_does_not_stop_the_others(monkeypatch, drawing_model, tmp_path, capsys):
    good, bad = ct_series(1)[0], ct_series(1)[0]
    bad.PixelData = bad.PixelData[:100]
    save_series(tmp_path / "in", [good])
    save_series(tmp_path / "bad", [bad])
    inputs = [tmp_path / "bad", tmp_path / "in"]
    assert run(monkeypatch, "segment", *inputs, "--model", drawing_model, "--out", tmp_path / "out") == 2
    said = capsys.readouterr()
    assert "1 of 2" in said.out and len(failures(said.err)) == 1


@pytest.mark.parametrize("text", ["", "3", "3;4", "3,4,5", "-1,2", "1.5,2", "x,y"])
def test_region_that_is_no_point_is_refused(text):
    with pytest.raises(ConfigError, match="--roi wants X,Y"):
        parse_roi(text)
    assert parse_roi(" 3, 4 ") == (3, 4)


@pytest.mark.parametrize(
    "address",
    ["http://h/dicom-web", "https://h/dicom-web/studies/1.2", "http:///studies/1/series/2", "http://h:x/studies/1/series/2",
     "https://me:secret@h/studies/1/series/x", "ftp://me:secret@h/studies/1/series/2", "https:/me:secret@h/studies/1/series/2",
     "htps://me:secret@h/studies/1/series/2", "dicomweb+https://me:secret@h/studies/1/series/2"],
)  # fmt: skip
def test_address_that_names_no_series_is_refused_without_the_password(address):
    with pytest.raises(InputError, match="an archive is addressed by a series") as caught:
        archive_series(address)
    entries, found = find_entries([address])
    assert not entries and found.problems == [str(caught.value)]
    assert "secret" not in str(caught.value)


def test_address_hides_who_one_is(monkeypatch):
    series = archive_series("https://me:s%40cret@archive:8443/pacs/dicom-web/studies/1.2.3/series/4.5.6/")
    assert (series.base, series.study, series.series) == ("https://archive:8443/pacs/dicom-web", "1.2.3", "4.5.6")
    assert series.credentials == ("me", "s@cret") and "cret" not in repr(series)
    monkeypatch.setenv("MANYMASK_DICOMWEB_USER", "rater")
    monkeypatch.setenv("MANYMASK_DICOMWEB_PASSWORD", "word")
    assert archive_series("http://[::1]:80/studies/1/series/2").credentials == ("rater", "word")


def test_warnings_are_said_once_a_kind_with_the_first_image_and_their_count(capsys):
    tally = RunSummary()
    for name, warnings in (("a.png", ["It is enlarged 2.0 times."]), ("b.png", []),
                           ("c.png", ["It is enlarged 3.5 times.", "It is grey."])):  # fmt: skip
        tally.warn(name, warnings)
    assert not capsys.readouterr().err
    tally.close()
    assert capsys.readouterr().err.splitlines() == [
        "manymask: warning: It is enlarged 2.0 times. (2 images: a.png, …)",
        "manymask: warning: c.png: It is grey.",
    ]


def test_warning_names_the_file_of_a_picture_and_the_folder_of_what_is_anonymous(
    monkeypatch, drawing_model, tmp_path, capsys
):
    path = tmp_path / "Doe.png"
    Image.fromarray(phantom.draw(3).image[:, :, 0][:20, ::2]).save(path)
    arguments = ["segment", path, "--model", drawing_model, "--out", tmp_path / "out"]
    assert run(monkeypatch, *arguments) == 0
    assert f"warning: {path}: The image has" in capsys.readouterr().err
    assert run(monkeypatch, *arguments, "--anonymise") == 0
    said = capsys.readouterr().err
    assert "warning: image-0001: The image has" in said and "Doe" not in said
