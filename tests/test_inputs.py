"""One door: files and folders of any kind, decoded only as they are asked for."""

import sys

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from manymask.errors import UserError
from manymask.files.dicom_pixels import render
from manymask.files.inputs import find_inputs, read_pictures
from manymask.files.window import parse_window
from tests.dicom_files import PATIENT, dataset, save, slice_at

PHOTO = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)


@pytest.fixture
def mixed(tmp_path):
    Image.fromarray(PHOTO).save(tmp_path / "lesion.png")
    nibabel.save(
        nibabel.Nifti1Image(np.arange(960, dtype=np.int16).reshape(12, 10, 8), np.eye(4)), tmp_path / "a.nii.gz"
    )
    for name, k in enumerate((2, 0, 1)):
        save(tmp_path / f"IM{name}", slice_at(5.0 * k, InstanceNumber=k))
    save(tmp_path / "plan.dcm", dataset(SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3"))
    (tmp_path / "DICOMDIR").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / ".hidden.png").write_bytes(b"")
    return tmp_path


def test_a_mixed_folder_gives_all_its_images_and_passes_over_the_rest(mixed):
    names = [picture.name for picture in read_pictures([mixed])]
    assert names == [
        *(f"a-slice-000{k}" for k in range(1, 9)),
        "lesion",
        *(f"series-0004-image-000{k}" for k in (0, 1, 2)),
    ]


def test_single_files_of_each_kind(mixed):
    pictures = list(read_pictures([mixed / "lesion.png", mixed / "IM0", mixed / "a.nii.gz"], parse_window("lung")))
    assert (pictures[0].pixels == PHOTO).all() and pictures[0].origin is None
    assert pictures[-1].name == "series-0004-image-0002" and {p.pixels.dtype.name for p in pictures} == {"uint8"}
    assert len(pictures) == 10


def test_pictures_are_decoded_one_at_a_time(tmp_path, monkeypatch):
    for k in range(4):
        save(tmp_path / f"{k}.dcm", slice_at(k))
    decoded = []
    monkeypatch.setattr("manymask.files.dicom.render", lambda *a: decoded.append(1) or render(*a))
    pictures = read_pictures([tmp_path])
    assert not decoded
    next(pictures)
    assert len(decoded) == 1 and len(list(pictures)) == 3


@given(st.permutations(range(4)))
@settings(max_examples=10, deadline=None)
def test_order_of_slices_does_not_depend_on_names_or_arguments(tmp_path_factory, order):
    folder = tmp_path_factory.mktemp("series")
    paths = [save(folder / f"{n}.dcm", slice_at(float(k))) for n, k in enumerate(order)]
    for given_paths in (paths, [folder]):
        heights = [p.origin.dataset.ImagePositionPatient[2] for p in read_pictures(given_paths)]
        assert heights == [0, 1, 2, 3]


def test_what_holds_no_image_is_said(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    plan = save(tmp_path / "sub/plan.dcm", dataset(SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3"))
    for paths, message in (
        ([tmp_path], "holds no image"),
        ([tmp_path / "notes.txt"], "is not an image that can be read"),
        ([tmp_path / "nowhere"], "no such file or folder"),
        ([plan], "this is an RT Structure Set, not an image"),
        ([plan.parent], "this is an RT Structure Set, not an image"),
        ([], "name at least one image"),
    ):
        with pytest.raises(UserError, match=message):
            find_inputs(paths)


def test_no_patient_is_seen_in_names_or_messages(tmp_path, capsys, caplog, recwarn):
    path = save(tmp_path / "x.dcm", slice_at(0))
    names = [p.name for p in read_pictures([path])]
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError) as caught:
        list(read_pictures([path]))
    said = " ".join([*names, str(caught.value), *capsys.readouterr(), caplog.text, *(str(w.message) for w in recwarn)])
    assert not any(word in said for word in (*PATIENT.split("^"), "4711", "1964"))


@pytest.mark.parametrize(("module", "name", "extra"), [("pydicom", "IM0", "dicom"), ("nibabel", "a.nii.gz", "nifti")])
def test_without_an_extra_its_files_name_it_and_the_others_are_read(mixed, monkeypatch, module, name, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"pip install 'manymask\[{extra}\]'"):
        list(read_pictures([mixed / name]))
    assert [p.name for p in read_pictures([mixed / "lesion.png"])] == ["lesion"]
