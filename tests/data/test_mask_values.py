"""Masks of one folder that hold different values: said in one line, since some may be of another kind."""

import json

import nibabel
import numpy as np
import pytest

from manymask.data.datasets import folder
from manymask.data.store import prepare
from manymask.errors import InputError
from manymask.io.masks import MaskReading, values_of
from tests.data.test_prepare import blob, pairs, photo, save
from tests.factories import run

NAMES = tuple("abcdefgh")


def prepared(source, reading=None, **options):
    return prepare(folder.read(source, reading=reading, **options), source.parent / "store", 32, 3)


def said(store) -> list[str]:
    return [line for line in store.warnings if "differ in the values" in line]


@pytest.fixture
def source(tmp_path):
    pairs(tmp_path / "in", NAMES)
    return tmp_path / "in"


def test_equal_masks_are_not_mentioned(source):
    save(source / "masks/b.png", np.zeros_like(blob()))  # an empty one holds what all hold
    assert said(prepared(source)) == []


def test_other_values_are_counted_and_the_fewest_named(source):
    save(source / "masks/c.png", blob(value=1))
    save(source / "masks/d.png", blob(value=2))
    (line,) = said(prepared(source))
    assert line.startswith(
        "the masks differ in the values that they hold: 6 hold 0, 255; 1 holds 0, 1; 1 holds 0, 2; are some"
    )
    assert line.endswith("such as d.png?")


def test_label_images_need_not_hold_every_label(source):
    for name, values in zip(NAMES, ((1,), (1, 2), (2,), (2, 3), (3,), (1,), (), (1, 3)), strict=True):
        mask = sum((np.roll(blob(value=v), 5 * v, axis=0) for v in values), np.zeros_like(blob()))
        save(source / f"masks/{name}.png", mask)
    assert said(prepared(source, MaskReading(labels=(1,)))) == []


def test_a_black_and_white_mask_among_label_images_is_named(source):
    for name in NAMES[1:]:
        save(source / f"masks/{name}.png", blob(value=1) + np.roll(blob(value=2), 12, axis=0))
    (line,) = said(prepared(source, MaskReading(labels=(1,))))
    assert "7 hold 0, 1, 2; 1 holds 0, 255" in line and "such as a.png" in line


def test_a_label_image_among_black_and_white_masks_is_refused_with_what_the_others_hold(source):
    for name in NAMES:
        save(source / f"masks/{name}.png", blob(value=1))
    save(source / "masks/f.png", blob(value=1) + np.roll(blob(value=2), 12, axis=0))
    with pytest.raises(InputError, match=r"found 0, 1, 2.*7 hold 0, 1; 1 holds 0, 1, 2;.* such as f\.png"):
        prepared(source)


def test_soft_masks_and_black_and_white_ones_are_of_one_kind(source):
    ramp = np.tile(np.linspace(0, 255, 48).astype(np.uint8), (40, 1))
    save(source / "masks/e.png", ramp)
    assert said(prepared(source, MaskReading(threshold=128))) == []
    assert values_of(ramp) == {0.0, 255.0, "shades between"}
    assert values_of(ramp / 255.0) == {0.0, 1.0, "shades between"}


def test_each_rater_is_looked_at_alone(tmp_path):
    source = tmp_path / "in"
    for seed, name in enumerate(NAMES):
        save(source / f"images/{name}.png", photo(seed))
        save(source / f"masks-0/{name}.png", blob())
        save(source / f"masks-1/{name}.png", blob(value=1))
    assert said(prepared(source)) == []
    save(source / "masks-1/b.png", blob())
    (line,) = said(prepare(folder.read(source), tmp_path / "again", 32, 3))
    assert line.startswith("the masks of rater 1 differ in the values that they hold: 7 hold 0, 1; 1 holds 0, 255")


def test_evaluate_says_it_too(source, drawing_model, monkeypatch, capsys):
    save(source / "masks/c.png", blob(value=1))
    assert run(monkeypatch, "evaluate", "--model", drawing_model, "--data", source, "--samples", 1) == 0
    assert "7 hold 0, 255; 1 holds 0, 1; are some of another kind, such as c.png?" in capsys.readouterr().err


def volumes(place, masks):
    """NIfTI volumes of four slices with these masks (60, 50, 4)."""
    for kind in ("images", "masks"):
        (place / kind).mkdir(parents=True)
    for k, mask in enumerate(masks):
        grey = np.random.default_rng(k).integers(0, 500, (60, 50, 4)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(grey, np.eye(4)), place / f"images/v{k}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), place / f"masks/v{k}.nii.gz")
    return place


def disks(*values, dtype=np.uint8):
    """A disk on each of four slices, of these values."""
    x, y = np.mgrid[:60, :50]
    return (((x - 20) ** 2 + (y - 20) ** 2 < 100)[..., None] * np.array(values)).astype(dtype)


def test_labels_of_a_volume_are_not_taken_for_black_and_white_slices(tmp_path):
    """Each slice holds 0 and one other value, the volume two: one must be chosen, and then it alone counts."""
    source = volumes(tmp_path / "in", [disks(1, 1, 2, 2)] * 12)
    with pytest.raises(InputError, match=r"found 0, 1, 2; .* choose the labels"):
        prepared(source)
    store = prepared(source, MaskReading(labels=(1,)))
    assert [bool(store.native_masks(case).any()) for case in store.ids] == [True, True, False, False] * 12


def test_a_soft_volume_is_cut_at_one_half_as_a_whole(tmp_path):
    """Its faint end is empty, not refused, and its values are not stretched."""
    store = prepared(volumes(tmp_path / "in", [disks(1, 0.9, 0.6, 0.3, dtype=np.float32)] * 12))
    assert [bool(store.native_masks(case).any()) for case in store.ids] == [True, True, True, False] * 12
    with pytest.raises(InputError, match=r"nothing in this soft mask reaches 0.5, its largest value is 0.3"):
        prepared(volumes(tmp_path / "faint/in", [disks(0.3, 0.1, 0.2, 0.3, dtype=np.float32)] * 12))


def test_a_chosen_label_that_a_file_of_outlines_lacks_selects_nothing_of_it(tmp_path):
    """Each part has a COCO file of its own categories; tools are no polyps in any."""
    square = [[2, 2, 12, 2, 12, 12, 2, 12]]
    for part, names, category in (
        ("train", {1: "polyp", 2: "tool"}, 1),
        ("val", {1: "polyp"}, 1),
        ("test", {1: "tool"}, 1),
    ):
        (tmp_path / "in" / part).mkdir(parents=True)
        images, objects = [], []
        for k in range(4):
            save(tmp_path / "in" / part / f"{part}{k}.png", photo(k))
            height, width = photo(k).shape[:2]
            images.append({"id": k, "file_name": f"{part}{k}.png", "height": height, "width": width})
            objects.append({"id": k, "image_id": k, "category_id": category, "segmentation": square})
        categories = [{"id": number, "name": name} for number, name in names.items()]
        content = {"images": images, "annotations": objects, "categories": categories}
        (tmp_path / "in" / f"{part}.json").write_text(json.dumps(content))
    store = prepared(tmp_path / "in", MaskReading(labels=("polyp",)))
    marked = {
        part: {bool(store.native_masks(case).any()) for case in store.part("given", part)}
        for part in ("train", "val", "test")
    }
    assert marked == {"train": {True}, "val": {True}, "test": {False}}
