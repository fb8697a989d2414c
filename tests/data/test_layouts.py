"""Folders as people have them: what is recognised is said, what could be meant in several ways is one line."""

import json
from pathlib import Path

import numpy as np
import pytest

from manymask.data.datasets import folder
from manymask.data.datasets.pairs import image_of, without_ending
from manymask.errors import ConfigError, InputError
from manymask.io.labelme import labelme_record
from manymask.io.masks import MaskReading
from tests.data.test_prepare import SHAPE, blob, photo, prepared, save
from tests.factories import run

NAMES = [f"p{k}" for k in range(6)]
BLOB = blob() > 0
RECTANGLE = [12, 10, 30, 10, 30, 20, 12, 20]  # the corners of `blob`


def images(root: Path, place: str = "", ending: str = ".png", names=NAMES) -> None:
    for seed, name in enumerate(names):
        save(root / place / f"{name}{ending}", photo(seed))


def masks(root: Path, form: str, value=255, names=NAMES) -> None:
    for name in names:
        save(root / form.format(name), blob(value=value))


def coco(path: Path, names=NAMES, form="{}.png", category=1, **more) -> None:
    listed = [
        {"id": k, "file_name": form.format(name), "height": SHAPE[0], "width": SHAPE[1]} for k, name in enumerate(names)
    ]
    objects = [{"image_id": k, "category_id": category, "segmentation": [RECTANGLE]} for k in range(len(names))]
    path.parent.mkdir(parents=True, exist_ok=True)
    categories = [{"id": 1, "name": "polyp"}, {"id": 2, "name": "ulcer"}]
    path.write_text(json.dumps({"images": listed, "annotations": objects, "categories": categories} | more))


def labelme(path: Path, name: str, label: str = "lesion", image: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(labelme_record(image or f"{name}.png", SHAPE, BLOB, label)))


def check(source: Path, said: str, count: int = 6, raters: int = 1, **options) -> folder.Source:
    """All images are there once, each with the mask of every rater, and the layout is said."""
    found = folder.read(source, **options)
    assert len(found.cases) == count and said in found.layout, found.layout
    for case in found.cases:
        image, drawn = case.read()
        assert image.shape == (*SHAPE, 3) and drawn.shape == (raters, *SHAPE) and (drawn == BLOB).all()
    return found


# --- images and masks by name


@pytest.mark.parametrize("ending", ["_mask", "_segmentation", "_lesion", "_seg", "-label", "_gt", "_Masks"])
@pytest.mark.parametrize("place", ["", "images", "hospital/scans"])
def test_masks_beside_their_images_are_told_by_their_ending(tmp_path, ending, place):
    images(tmp_path, place)
    masks(tmp_path / place, "{}" + ending + ".png")
    where = "images" if place == "images" else tmp_path.name
    said = f"masks named as their images with an ending in {where} (such as p0{ending}.png)"
    assert {case.id.rpartition("/")[2] for case in check(tmp_path, said).cases} == set(NAMES)


@pytest.mark.parametrize(
    ("image_place", "mask_form", "said"),
    [
        ("images", "masks/{}_segmentation.png", "images in images, masks in masks; one rater"),
        ("", "masks/{}.png", "masks in masks; one rater"),
        ("Original", "Ground Truth/{}.png", "images in Original, masks in Ground Truth"),
        (
            "Training_Input",
            "Training_GroundTruth/{}_seg.png",
            "images in Training_Input, masks in Training_GroundTruth",
        ),
        ("scans/x", "labels/x/{}.png", "images in scans, masks in labels"),
    ],
)
def test_masks_in_a_folder_beside_belong_to_the_only_other_folder(tmp_path, image_place, mask_form, said):
    images(tmp_path, image_place)
    masks(tmp_path, mask_form)
    check(tmp_path, said)


def test_two_other_folders_with_images_are_one_line(tmp_path):
    images(tmp_path, "left")
    images(tmp_path, "right")
    masks(tmp_path, "masks/{}.png")
    with pytest.raises(InputError, match="holds images in left, right: call the folder to take images"):
        folder.read(tmp_path)


def test_a_photograph_and_a_mask_of_one_name_are_told_by_their_format(tmp_path):
    images(tmp_path, ending=".jpg")
    masks(tmp_path, "{}.png")
    check(tmp_path, "masks of their images' names, of another format")


def test_a_folder_for_each_case_holds_one_image_and_a_mask_of_each_rater(tmp_path):
    for k in range(12):
        save(tmp_path / f"case{k:02}/image.webp", photo(k))
        for rater in range(1, 4 if k else 3):
            save(tmp_path / f"case{k:02}/task01_seg{rater:02}.png", blob())
    found = folder.read(tmp_path)
    assert "beside the one image of each folder" in found.layout and "3 raters (1, 2, 3)" in found.layout
    assert [case.read_by for case in found.cases[:2]] == [(True, True, False), (True, True, True)]
    assert found.cases[3].id == "case03/image" and found.cases[3].read()[1].sum() == 3 * BLOB.sum()


def test_other_endings_are_offered_and_taken_by_name(tmp_path):
    images(tmp_path)
    masks(tmp_path, "{}_disc.png")
    for name in NAMES:
        save(tmp_path / f"{name}_cup.png", np.roll(blob(), 3, axis=1))
    with pytest.raises(InputError, match="endings such as cup, disc could mark masks; name the one to take") as caught:
        folder.read(tmp_path)
    assert caught.value.remedies == ("masks",)
    check(tmp_path, "(such as p0_disc.png; 6 file(s) of other endings are passed over)", masks=("disc",))
    both = folder.read(tmp_path, masks=("disc", "cup"))
    assert "2 raters (cup, disc)" in both.layout and [m.sum() for m in both.cases[0].read()[1]] == [BLOB.sum()] * 2


@pytest.mark.parametrize(
    ("name", "image", "rater"),
    [
        ("a_mask", "a", ""),
        ("a_seg02", "a", "2"),
        ("a-mask-rater-3", "a", "3"),
        ("a_expert1_mask", "a", "1"),
        ("a (7)_mask_1", "a (7)", "1"),
        ("x/mask1", "x/", "1"),
        ("unmask", "unmask", ""),
    ],
)
def test_names_are_taken_apart(name, image, rater):
    assert without_ending(name) == (image, rater)
    assert image_of(name, {name: None, "a": None}) == (name, "")


# --- raters


def test_numbered_endings_are_raters_and_a_missing_file_was_not_read(tmp_path):
    source = tmp_path / "in"
    images(source)
    masks(source, "{}_mask_1.png")
    masks(source, "{}_mask_2.png", names=NAMES[:4])
    save(source / "p3_mask_2.png", 0 * blob())
    found = folder.read(source)
    assert "2 raters (1, 2)" in found.layout
    assert [case.read_by for case in found.cases] == [(True, True)] * 4 + [(True, False)] * 2
    store = prepared(source)
    assert [len(store.native_masks(name)) for name in ("p3", "p4")] == [2, 1] and not store.native_masks("p3")[1].any()
    assert store.manifest["layout"] == found.layout
    assert store.manifest["foreground"][1].startswith("rater 1: 4 of 6 images read, 1 empty")


def test_masks_with_and_without_a_number_are_parts_or_raters_as_one_says(tmp_path):
    images(tmp_path)
    masks(tmp_path, "{}_mask.png")
    save(tmp_path / "p2_mask_1.png", np.roll(blob(), 18, axis=0))
    with pytest.raises(
        InputError, match=r"if they are of several raters, number all.*parts of one mask, say so"
    ) as caught:
        folder.read(tmp_path)
    assert caught.value.remedies == ("parts",)
    source = folder.read(tmp_path, parts=True)
    assert source.layout.endswith("one rater")
    assert [case.read()[1].sum() // BLOB.sum() for case in source.cases] == [1, 1, 2, 1, 1, 1]


# --- labelme and COCO


@pytest.mark.parametrize(
    ("place", "said"), [("", "6 labelme file(s) beside their images"), ("labelme", "labelme files in")]
)
def test_labelme_files_are_read_beside_the_images_or_in_a_folder(tmp_path, place, said):
    images(tmp_path, "images" if place else "")
    for name in NAMES:
        labelme(tmp_path / place / f"{name}.json", name, image=f"..\\images\\{name}.png")
    check(tmp_path, said)
    (tmp_path / place / "p1.json").rename(tmp_path / place / "renamed.json")
    check(tmp_path, said)
    (tmp_path / place / "renamed.json").unlink()
    with pytest.raises(InputError, match=r"p1\.png has no mask"):
        next(case for case in folder.read(tmp_path).cases if case.id == "p1").read()


def test_several_labels_are_named_until_some_are_chosen(tmp_path):
    images(tmp_path)
    for name in NAMES:
        labelme(tmp_path / f"{name}.json", name, "ruler" if name == "p5" else "lesion")
    with pytest.raises(InputError, match=r"several labels: lesion \(5\), ruler \(1\); choose those of the foreground"):
        folder.read(tmp_path)
    cases = folder.read(tmp_path, reading=MaskReading(labels=("lesion",))).cases
    assert [case.read()[1].any() for case in cases] == [True] * 5 + [False]
    with pytest.raises(ConfigError, match="no label 'leison'; did you mean lesion"):
        folder.read(tmp_path, reading=MaskReading(labels=("leison",)))


def test_masks_and_polygons_beside_one_another_are_one_line_until_one_is_named(tmp_path):
    images(tmp_path)
    masks(tmp_path, "{}_mask.png")
    for name in NAMES:
        labelme(tmp_path / f"{name}.json", name)
    with pytest.raises(InputError, match=r"holds 6 labelme file.* and masks named as their images"):
        folder.read(tmp_path)
    check(tmp_path, "an ending", masks=("mask",))
    check(tmp_path, "labelme file(s)", masks=("labelme",))


@pytest.mark.parametrize(("place", "form"), [("annotations/instances.json", "{}.png"), ("a.json", "images/{}.png")])
def test_a_coco_file_lists_images_and_outlines(tmp_path, place, form):
    images(tmp_path, "images")
    coco(tmp_path / place, form=form)
    check(tmp_path, f"outlines in COCO's {place}; one rater")


def test_coco_files_of_parts_are_the_owners_split(tmp_path):
    for part, count in (("train", 4), ("valid", 1), ("test", 1)):
        images(tmp_path, part, names=NAMES[:count])
        coco(tmp_path / part / "_annotations.coco.json", NAMES[:count])
    source = check(tmp_path, "split by the owner: 4 train, 1 val, 1 test")
    assert source.schemes["given"]["train"] == [f"train/p{k}" for k in range(4)]


def test_coco_files_of_the_same_images_are_raters(tmp_path):
    images(tmp_path, "images")
    coco(tmp_path / "rater1.json")
    coco(tmp_path / "rater2.json", NAMES[:5])
    source = folder.read(tmp_path)
    assert "2 raters" in source.layout and [case.read_by for case in source.cases][4:] == [(True, True), (True, False)]


def test_an_image_of_a_coco_file_without_objects_is_empty_and_one_that_is_not_listed_is_named(tmp_path):
    images(tmp_path, "images")
    coco(tmp_path / "a.json", NAMES[:4])
    content = json.loads((tmp_path / "a.json").read_text())
    del content["annotations"][2]
    (tmp_path / "a.json").write_text(json.dumps(content))
    source = folder.read(tmp_path)
    assert [case.read()[1].any() for case in source.cases] == [True, True, False, True]
    notes = "; ".join(source.notes)
    assert "2 image file(s) that no COCO file lists passed over" in notes
    assert "1 image(s) of the COCO file(s) have no object" in notes


def test_categories_are_chosen_by_name_or_number(tmp_path):
    images(tmp_path, "images")
    coco(tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text())
    content["annotations"][0]["category_id"] = 2
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"several labels: polyp \(5\), ulcer \(1\)"):
        folder.read(tmp_path)
    for label in ("ulcer", 2):
        cases = folder.read(tmp_path, reading=MaskReading(labels=(label,))).cases
        assert [case.read()[1].any() for case in cases] == [True] + [False] * 5


def test_a_number_that_is_also_a_name_or_means_something_else_in_another_file_is_refused(tmp_path):
    images(tmp_path, "train", names=NAMES[:4])
    images(tmp_path, "test", names=NAMES[4:])
    graded = {"categories": [{"id": 1, "name": "0"}, {"id": 2, "name": "1"}]}
    for part, names in (("train", NAMES[:4]), ("test", NAMES[4:])):
        coco(tmp_path / part / "_annotations.coco.json", names, category=2, **graded)
    with pytest.raises(InputError, match="'1' is the number of '0' and the name of number 2; rename one"):
        folder.read(tmp_path, reading=MaskReading(labels=(1,)))
    swapped = {"categories": [{"id": 2, "name": "polyp"}, {"id": 1, "name": "ulcer"}]}
    coco(tmp_path / "train/_annotations.coco.json", NAMES[:4])
    coco(tmp_path / "test/_annotations.coco.json", NAMES[4:], category=2, **swapped)
    with pytest.raises(InputError, match=r"number 1 is 'ulcer' in .* and 'polyp' in .*: choose by name"):
        folder.read(tmp_path, reading=MaskReading(labels=(1,)))
    check(tmp_path, "COCO", reading=MaskReading(labels=("polyp",)))


def test_a_coco_file_beside_masks_is_one_line_until_one_is_named(tmp_path):
    images(tmp_path, "images")
    masks(tmp_path, "masks/{}.png")
    coco(tmp_path / "a.json")
    with pytest.raises(InputError, match=r"holds masks in a\.json, masks: name the one to take"):
        folder.read(tmp_path)
    check(tmp_path, "COCO", masks=("a.json",))
    check(tmp_path, "masks in masks", masks=("masks",))


def test_an_image_that_a_coco_file_lists_and_is_not_there_is_named(tmp_path):
    images(tmp_path / "in", "images", names=NAMES[:5])
    coco(tmp_path / "in/a.json")
    with pytest.raises(InputError, match=r"a\.json: its image p5 is not there"):
        prepared(tmp_path / "in")


# --- nnU-Net


def nnunet(root: Path, ending: str = ".png", **labels) -> None:
    for part, names in (("Tr", NAMES[:5]), ("Ts", NAMES[5:])):
        for k, name in enumerate(names):
            save(root / f"images{part}/{name}_0000{ending}", photo(k + len(names)))
            save(root / f"labels{part}/{name}{ending}", blob(value=1))
    named = {"background": 0, **labels}
    content = {"channel_names": {"0": "R"}, "labels": named, "numTraining": 5, "file_ending": ending}
    (root / "dataset.json").write_text(json.dumps(content))


def test_nnunets_folders_are_read_with_their_split(tmp_path):
    nnunet(tmp_path, lesion=1)
    source = check(tmp_path, "values named by nnU-Net's dataset.json; split by the owner: 5 train, 0 val, 1 test")
    assert source.cases[0].id == "train/p0_0000"


def test_nnunets_labels_are_chosen_by_name_and_regions_are_several_values(tmp_path):
    nnunet(tmp_path, rim=1, core=2, whole=[1, 2])
    for name, value in (("p0", 2), ("p1", 1)):
        save(tmp_path / f"labelsTr/{name}.png", blob(value=value))
    with pytest.raises(InputError, match=r"dataset\.json holds several labels: core, rim, whole; choose"):
        folder.read(tmp_path)
    for labels, expected in ((("core",), [True, False]), ((1,), [False, True]), (("whole",), [True, True])):
        cases = folder.read(tmp_path, reading=MaskReading(labels=labels)).cases
        assert [case.read()[1].any() for case in cases[:2]] == expected


def test_a_second_channel_is_called_by_its_name(tmp_path):
    nnunet(tmp_path / "in", lesion=1)
    save(tmp_path / "in/imagesTr/p0_0001.png", photo(30))
    with pytest.raises(InputError, match=r"p0_0001\.png is a further channel of p0_0000"):
        prepared(tmp_path / "in")


def test_a_label_by_name_needs_something_that_names_it(tmp_path):
    images(tmp_path, "images")
    masks(tmp_path, "masks/{}.png", value=1)
    with pytest.raises(ConfigError, match=r"holds numbers, and nothing says which of them 'lesion' is"):
        folder.read(tmp_path, reading=MaskReading(labels=("lesion",))).cases[0].read()


# --- volumes and DICOM


def test_a_nifti_volume_is_a_case_for_each_slice_in_one_group(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    affine = np.diag([-2.0, -2.0, 5.0, 1.0])
    for k, name in enumerate(NAMES):
        values = np.stack([photo(10 * k + z)[:, :, 0] for z in range(1 + k % 2)], axis=-1).swapaxes(0, 1)
        label = np.zeros(values.shape, np.uint8)
        label[12:30, 10:20, 0] = 1
        for place, array in ((f"imagesTr/{name}_0000", values), (f"labelsTr/{name}", label)):
            (tmp_path / place).parent.mkdir(exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / f"{place}.nii.gz")
    source = folder.read(tmp_path)
    assert [case.id for case in source.cases][:3] == ["p0_0000", "p1_0000-slice-0001", "p1_0000-slice-0002"]
    assert {case.group for case in source.cases} == {f"{name}_0000" for name in NAMES}
    image, drawn = source.cases[1].read()
    assert image.shape == (*SHAPE, 3) and (drawn[0] == BLOB).all() and not source.cases[2].read()[1].any()
    nibabel.save(nibabel.Nifti1Image(label, np.diag([-4.0, -4.0, 5.0, 1.0])), tmp_path / "labelsTr/p5.nii.gz")
    with pytest.raises(InputError, match=r"p5\.nii\.gz lies on another grid than its image p5_0000\.nii\.gz"):
        folder.read(tmp_path).cases[-1].read()
    nibabel.save(nibabel.Nifti1Image(label[:, :, :1], affine), tmp_path / "labelsTr/p5.nii.gz")
    with pytest.raises(InputError, match=r"p5\.nii\.gz has 1 slice\(s\) but its image p5_0000\.nii\.gz 2"):
        folder.read(tmp_path).cases[-1].read()


def test_dicom_slices_are_read_through_a_window_with_masks_of_their_names(tmp_path):
    pytest.importorskip("pydicom")
    from tests import dicom_files as dicom

    for k, name in enumerate(NAMES):
        pixels = (photo(k)[:, :, 0].astype(np.uint16) * 8 + 100).astype(np.uint16)
        dicom.save(tmp_path / f"images/{name}.dcm", dicom.slice_at(k, pixels, InstanceNumber=k))
    masks(tmp_path, "masks/{}.png")
    check(tmp_path, "masks in masks")
    narrow = folder.read(tmp_path, window="0,100").cases[0].read()[0]
    assert set(np.unique(narrow)) >= {0, 255} and (narrow != folder.read(tmp_path).cases[0].read()[0]).any()


def test_slices_of_a_dicom_patient_stay_on_one_side_of_the_split(tmp_path):
    pytest.importorskip("pydicom")
    from tests import dicom_files as dicom

    for k in range(24):
        pixels = (photo(k)[:, :, 0].astype(np.uint16) * 8 + 100).astype(np.uint16)
        dicom.save(tmp_path / f"images/s{k:02}.dcm", dicom.slice_at(k, pixels, PatientID=f"secret {k // 3}"))
    masks(tmp_path, "masks/{}.png", names=[f"s{k:02}" for k in range(24)])
    source = folder.read(tmp_path)
    groups = {case.id: case.group for case in source.cases}
    assert len(set(groups.values())) == 8 and all(groups[f"s{k:02}"] == groups[f"s{k // 3 * 3:02}"] for k in range(24))
    assert not any("secret" in group for group in groups.values())
    assert any("name 8 patients: none crosses the split" in note for note in source.notes)
    sides = {groups[case]: part for part, ids in source.schemes["random"].items() for case in ids}
    assert all(part == sides[groups[case]] for part, ids in source.schemes["random"].items() for case in ids)


def test_one_patient_in_all_headers_is_taken_for_a_placeholder(tmp_path):
    pytest.importorskip("pydicom")
    from tests import dicom_files as dicom

    for k, name in enumerate(NAMES):
        pixels = (photo(k)[:, :, 0].astype(np.uint16) * 8 + 100).astype(np.uint16)
        dicom.save(tmp_path / f"images/{name}.dcm", dicom.slice_at(k, pixels, PatientID="ANON"))
    masks(tmp_path, "masks/{}.png")
    source = folder.read(tmp_path)
    assert [case.group for case in source.cases] == [case.id for case in source.cases]
    assert any("one patient for all images" in note for note in source.notes)


# --- the command line


def test_prepare_prints_the_layout_and_takes_labels_by_name(tmp_path, monkeypatch, capsys):
    images(tmp_path / "in")
    for name in NAMES:
        labelme(tmp_path / "in" / f"{name}.json", name, "ruler" if name == "p5" else "lesion")
    flags = ("prepare", "folder", "--source", tmp_path / "in", "--out", tmp_path / "out")
    assert run(monkeypatch, *flags) == 2
    assert "choose those of the foreground (--mask-labels)" in capsys.readouterr().err
    assert run(monkeypatch, *flags, "--mask-labels", "lesion") == 0
    assert "layout: 6 labelme file(s) beside their images" in capsys.readouterr().out
