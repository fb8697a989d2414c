"""NIfTI of what is no NIfTI: photographs and X-rays lie where ITK puts them, and result.json says what is known of it."""

import json
import zipfile

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("nibabel", reason="the extra `nifti` is not installed")

import nibabel

from manymask import Segmenter
from manymask.data.datasets import phantom
from manymask.errors import InputError
from manymask.io.image import Picture, VolumeSlice
from manymask.io.nifti import nifti_slices
from manymask.io.nifti_grid import geometry_of, grid_of, is_flat
from manymask.serving import service
from manymask.serving.saving import Edit, pack
from tests.factories import run

LESION = np.asarray(Image.fromarray(phantom.draw(1).image[:, :, 0]).resize((90, 70)))


def facts_of(folder):
    return json.loads((folder / "result.json").read_text())


def test_grid_of_a_picture_is_that_of_itk_in_its_own_millimetres():
    plain, sized = Picture(LESION, "p"), Picture(LESION, "p", spacing=(0.5, 0.25))
    assert np.allclose(grid_of([plain]).affine, np.diag([-1, -1, 1, 1])) and grid_of([plain]).unit == "unknown"
    assert np.allclose(grid_of([sized]).affine, np.diag([-0.25, -0.5, 1, 1])) and grid_of([sized]).unit == "mm"
    assert grid_of([sized]).shape == (90, 70, 1)
    assert geometry_of(plain) == "pixels of one unit: neither their size nor their place in the patient is known"
    assert geometry_of(sized) == "pixels of 0.25 × 0.5 mm: their place in the patient is not known"
    with pytest.raises(InputError, match="no volume can be made"):
        grid_of([plain, plain])
    assert not is_flat(Picture(LESION, "p", slice=VolumeSlice("v", 1)))


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_photographs_come_as_nifti_where_asked_for(monkeypatch, drawing_model, tmp_path, ending):
    Image.fromarray(LESION).save(tmp_path / f"lesion.{ending}")
    call = ("segment", tmp_path / f"lesion.{ending}", "-m", drawing_model, "-n", 2)
    assert run(monkeypatch, *call, "-o", tmp_path / "both", "--form", "nifti", "--form", "png") == 0
    folder = tmp_path / "both/lesion"
    written = nibabel.load(folder / "mask-02.nii.gz")
    with Image.open(folder / "mask-02.png") as mask:
        assert np.array_equal(np.asarray(written.dataobj)[:, :, 0].T, np.asarray(mask) > 0)
    assert np.allclose(written.affine, np.diag([-1, -1, 1, 1])) and written.header.get_xyzt_units()[0] == "unknown"
    (again,) = nifti_slices(folder / "consensus.nii.gz")  # as any reader turns it: the picture, upright
    with Image.open(folder / "consensus.png") as consensus:
        assert np.array_equal(again.pixels, np.asarray(consensus) > 0)
    assert facts_of(folder)["nifti_geometry"] == geometry_of(Picture(LESION, "lesion"))
    assert run(monkeypatch, *call, "-o", tmp_path / "plain") == 0
    assert not list((tmp_path / "plain").rglob("*.nii.gz")) and "nifti_geometry" not in facts_of(
        tmp_path / "plain/lesion"
    )


def test_nifti_alone_leaves_no_png_and_is_not_drawn_again(monkeypatch, drawing_model, tmp_path, capsys):
    for name in "ab":
        Image.fromarray(LESION).save(tmp_path / f"{name}.png")
    call = ("segment", tmp_path / "a.png", tmp_path / "b.png", "-m", drawing_model, "-n", 1, "-o", tmp_path / "out")
    assert run(monkeypatch, *call, "--form", "nifti") == 0
    names = {p.name for p in (tmp_path / "out/a").iterdir()}
    assert names == {"mask-01.nii.gz", "consensus.nii.gz", "confidence.nii.gz", "result.json"}
    capsys.readouterr()
    assert run(monkeypatch, *call, "--form", "nifti", "--continue") == 0
    assert "2" in capsys.readouterr().out
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"a", "b", "summary.csv"}
    (tmp_path / "out/b/consensus.nii.gz").unlink()
    assert run(monkeypatch, *call, "--form", "nifti", "--continue") == 0
    assert (tmp_path / "out/b/consensus.nii.gz").exists()


def test_x_rays_and_photographs_from_dicom_have_their_own_files(monkeypatch, drawing_model, tmp_path):
    pytest.importorskip("highdicom", reason="the extra `dicom` is not installed")
    from tests.dicom_sources import photograph

    (tmp_path / "in").mkdir()
    for k in range(2):
        photograph(k).save_as(tmp_path / f"in/{k}.dcm", enforce_file_format=True)
    call = ("segment", tmp_path / "in", "-m", drawing_model, "-n", 1, "-o", tmp_path / "out")
    assert run(monkeypatch, *call, "--form", "nifti", "--form", "dicom") == 0
    written = sorted(p.parent.name for p in (tmp_path / "out").rglob("consensus.nii.gz"))
    assert len(written) == 2 and len(list((tmp_path / "out").rglob("masks*.dcm"))) >= 1
    for name in written:
        assert "pixels of" in facts_of(tmp_path / "out" / name)["nifti_geometry"]


def test_series_say_where_their_grid_is_from(monkeypatch, drawing_model, tmp_path):
    pytest.importorskip("highdicom", reason="the extra `dicom` is not installed")
    from tests.dicom_sources import ct_series

    (tmp_path / "in").mkdir()
    for k, made in enumerate(ct_series(2)):
        made.save_as(tmp_path / f"in/{k}.dcm", enforce_file_format=True)
    call = ("segment", tmp_path / "in", "-m", drawing_model, "-n", 1, "-o", tmp_path / "out", "--form", "nifti")
    assert run(monkeypatch, *call) == 0
    assert (
        facts_of(tmp_path / "out/series-0004")["nifti_geometry"] == "place and pixel spacing in the patient, from DICOM"
    )
    written = nibabel.load(tmp_path / "out/series-0004/consensus.nii.gz")
    assert written.shape[2] == 2 and written.header.get_xyzt_units()[0] == "mm"


def test_page_saves_a_photograph_as_nifti_with_the_accepted_mask(drawing_model, tmp_path):
    segmenter, picture = Segmenter.from_pretrained(drawing_model), Picture(LESION, "lesion")
    subject = service.Subject(picture, picture)
    *_, (scene, _, done) = service.draw_scene(segmenter, subject, service.SegmentRequest(2), service.Limits())
    assert scene.forms == ("PNG", "NIfTI")
    archive, facts = pack(done, 0.5, "NIfTI", tmp_path, edit=Edit(accepted=True))
    with zipfile.ZipFile(archive) as file:
        names = {name.rpartition("/")[2] for name in file.namelist()}
    assert {"mask-01.nii.gz", "accepted.nii.gz", "mask-01.png", "accepted.png"} <= names
    assert facts["nifti_geometry"].startswith("pixels of one unit")
