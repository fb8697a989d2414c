"""One door: files and folders of any kind, decoded only as they are asked for."""

import sys

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from manymask.errors import InputError, ManymaskError
from manymask.io.dicom.pixels import render_noted
from manymask.io.inputs import find_inputs, read_pictures
from manymask.io.window import parse_window
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
    monkeypatch.setattr("manymask.io.dicom.series.render_noted", lambda *a: decoded.append(1) or render_noted(*a))
    pictures = read_pictures([tmp_path])
    assert not decoded
    next(pictures)
    assert len(decoded) == 1 and len(list(pictures)) == 3


@given(st.permutations(range(4)))
@settings(max_examples=10)
def test_order_of_slices_does_not_depend_on_names_or_arguments(tmp_path_factory, order):
    folder = tmp_path_factory.mktemp("series")
    paths = [save(folder / f"{n}.dcm", slice_at(float(k))) for n, k in enumerate(order)]
    for given_paths in (paths, [folder]):
        heights = [p.origin.dataset.ImagePositionPatient[2] for p in read_pictures(given_paths)]
        assert heights == [0, 1, 2, 3]


def test_what_holds_no_image_is_said(tmp_path):
    (tmp_path / "notes/a.txt").parent.mkdir()
    (tmp_path / "notes/a.txt").write_text("hello")
    (tmp_path / "empty.dcm").write_bytes(b"")
    plan = save(tmp_path / "sub/plan.dcm", dataset(SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3"))
    for paths, message in (
        ([tmp_path / "notes"], "holds no image"),
        ([tmp_path / "notes/a.txt"], "is not an image that can be read"),
        ([tmp_path / "nowhere"], "no such file or folder"),
        ([tmp_path / "empty.dcm"], "is empty"),
        ([plan], "this is an RT Structure Set, not an image"),
        ([plan.parent], "this is an RT Structure Set, not an image"),
        ([], "name at least one image"),
    ):
        found = find_inputs(paths)
        assert not found.inputs and len(found.problems) == 1 and message in found.problems[0]
        with pytest.raises(InputError, match=message):
            list(read_pictures(paths))


def test_folders_are_walked_and_nothing_is_passed_over_without_a_word(tmp_path):
    save(tmp_path / "PAT/STU/SER/IM0001", slice_at(0))
    (tmp_path / "PAT/DICOMDIR").write_bytes(b"x")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "__MACOSX/._a.png").parent.mkdir()
    (tmp_path / "__MACOSX/._a.png").write_bytes(b"x")
    Image.fromarray(PHOTO).save(tmp_path / "top.png")
    found = find_inputs([tmp_path])
    assert len(found.inputs) == 2 and not found.problems and not found.remarks
    for k in range(6):
        (tmp_path / f"PAT/{k}.pdf").write_bytes(b"x")
    (tmp_path / "README").write_bytes(b"x")
    assert find_inputs([tmp_path]).remarks == [
        f"{tmp_path}: 7 file(s) passed over, no images: README, 0.pdf, 1.pdf, 2.pdf, … (6 .pdf, 1 without ending)"
    ]
    (tmp_path / "IM0009").write_bytes(b"")
    (tmp_path / "broken.png").symlink_to(tmp_path / "nowhere.png")
    said = find_inputs([tmp_path]).problems
    assert len(said) == 2 and "IM0009 is empty" in said[0] and "broken.png: no such file" in said[1]


def test_a_dicomdir_stands_for_its_folder(tmp_path):
    save(tmp_path / "A/IM0001", slice_at(0))
    (tmp_path / "DICOMDIR").write_bytes(b"x")
    found = find_inputs([tmp_path / "DICOMDIR"])
    assert len(found.inputs) == 1 and not found.problems and "its folder is read" in found.remarks[0]


def test_results_masks_and_loops_of_links_are_not_taken_for_images(tmp_path):
    for name in ("images/a.png", "masks/a.png", "out/a/mask-01.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.fromarray(PHOTO).save(tmp_path / name)
    (tmp_path / "out/a/result.json").write_text("{}")
    (tmp_path / "loop").symlink_to(tmp_path)
    found = find_inputs([tmp_path])
    assert [entry.path.parent.name for entry in found.inputs] == ["images"] and not found.problems
    assert sorted(line.rsplit(": ", 1)[1] for line in found.remarks) == ["passed over"] * 2


def test_a_link_to_itself_is_one_problem_and_ends_nothing(tmp_path):
    Image.fromarray(PHOTO).save(tmp_path / "lesion.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    found = find_inputs([tmp_path])
    assert [entry.path.name for entry in found.inputs] == ["lesion.png"]
    assert found.problems == [f"{tmp_path / 'loop.png'}: no such file or folder"]


@pytest.mark.parametrize("name", ["lesion", "lesion.heic", "IMG_1.2.3"])
def test_an_image_is_known_by_its_content_whatever_its_name(tmp_path, name):
    Image.fromarray(PHOTO).save(tmp_path / name, format="PNG")
    for given_path in (tmp_path, tmp_path / name):
        (picture,) = read_pictures([given_path])
        assert (picture.pixels == PHOTO).all()


def test_a_file_given_twice_is_taken_once(tmp_path):
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    found = find_inputs([tmp_path / "a.png", tmp_path, tmp_path / "a.png"])
    assert len(found.inputs) == 1 and "was given before" in found.remarks[0]


@pytest.mark.parametrize("bad", [b"", b"x" * 50, b"\0" * 128 + b"DICM" + b"\xff" * 40])
def test_a_bad_file_leaves_the_others_alone(mixed, bad):
    (mixed / "IM7.dcm").write_bytes(bad)
    found = find_inputs([mixed])
    assert len(found.inputs) == 3 and len(found.problems) == 1 and "IM7.dcm" in found.problems[0]


def test_reports_in_a_folder_are_passed_over_with_a_line(mixed):
    (line,) = [line for line in find_inputs([mixed]).remarks if "plan.dcm" in line]
    assert line.endswith("this is an RT Structure Set, not an image: passed over")


def test_a_cut_image_is_a_problem_even_in_a_folder(mixed):
    whole = (mixed / "IM1").read_bytes()
    (mixed / "IM1").write_bytes(whole[: whole.index(b"1.2.3.4") + 4])
    found = find_inputs([mixed])
    assert len(found.problems) == 1 and "IM1: this is a CT Image without pixel data" in found.problems[0]
    assert len(found.inputs[-1]) == 2


def test_passwords_in_what_was_typed_are_not_shown(tmp_path):
    for typed in ("me:PW@host/dicom-web", "https/me:PW@host", "nowhere:PW@x/y"):
        assert "PW" not in find_inputs([tmp_path / typed]).problems[0]


def test_no_patient_is_seen_in_names_or_messages(tmp_path, capsys, caplog, recwarn):
    path = save(tmp_path / "x.dcm", slice_at(0))
    names = [p.name for p in read_pictures([path])]
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError) as caught:
        list(read_pictures([path]))
    said = " ".join([*names, str(caught.value), *capsys.readouterr(), caplog.text, *(str(w.message) for w in recwarn)])
    assert not any(word in said for word in (*PATIENT.split("^"), "4711", "1964"))


@pytest.mark.parametrize(("module", "name", "extra"), [("pydicom", "IM0", "dicom"), ("nibabel", "a.nii.gz", "nifti")])
def test_without_an_extra_its_files_name_it_and_the_others_are_read(mixed, monkeypatch, module, name, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ManymaskError, match=rf"manymask\[{extra}\]"):
        list(read_pictures([mixed / name]))
    assert [p.name for p in read_pictures([mixed / "lesion.png"])] == ["lesion"]


@pytest.mark.parametrize("name", ["IM0", "a.nii.gz"])
def test_a_picture_without_its_pixels_keeps_shape_and_header_alone(mixed, name):
    picture = next(read_pictures([mixed / name]))
    light = picture.light()
    assert light.pixels.shape == picture.pixels.shape and not light.pixels.any() and light.pixels.base.nbytes <= 8
    if name == "IM0":
        assert "PixelData" not in light.origin.dataset and "PixelData" in picture.origin.dataset
        assert light.origin.dataset.SOPInstanceUID == picture.origin.dataset.SOPInstanceUID
    else:
        assert light.origin.values is None and light.origin.header is picture.origin.header


def test_a_file_that_announces_more_frames_than_it_holds_is_one_line(tmp_path):
    save(tmp_path / "x.dcm", slice_at(0, NumberOfFrames=500))
    (entry,) = find_inputs([tmp_path]).inputs
    failed = []
    assert len(entry) == 500 and not list(entry.pictures(failed=failed.append)) and len(failed) == 1


def test_images_of_formats_that_are_not_read_are_a_problem_not_no_images(mixed):
    for name in ("brain.hdr", "brain.img"):
        (mixed / name).write_bytes(b"\x5c\x01\0\0" + bytes(344))
    (problem,) = find_inputs([mixed]).problems
    assert problem.startswith(f"{mixed}: 2 image(s) of a format that is not read (brain.hdr, brain.img): convert it")
    (problem,) = find_inputs([mixed / "brain.hdr"]).problems
    assert "brain.hdr is an image of a format that is not read: convert it to PNG, TIFF or NIfTI (.nii.gz)" in problem


def test_images_without_pixels_are_one_line_for_all(mixed):
    for number in range(3):
        save(mixed / f"bare{number}.dcm", slice_at(float(number), PixelData=None, Rows=None, Columns=None))
    (problem,) = find_inputs([mixed]).problems
    assert problem == f"{mixed / 'bare0.dcm'} and 2 more: this is a CT Image without pixel data"
