"""What training is fed: folders as people lay them out, masks that are looked at, twins, stores that hold together."""

import io
import json
import os
import random
import shutil
import unicodedata
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from manymask.cli.wording import worded
from manymask.data import store as stores
from manymask.data.case import Source, random_scheme
from manymask.data.datasets import folder, sections
from manymask.data.datasets.lidc_xml import read_xml
from manymask.data.datasets.phantom import read as phantoms
from manymask.data.raters import random_rater
from manymask.data.store import Store, prepare
from manymask.data.twins import hashes_as_text, hashes_from_text, image_hashes, near_pairs
from manymask.errors import InputError, ManymaskError
from manymask.evaluation.evaluator import EvalConfig, evaluate, results
from manymask.evaluation.held_out import held_out_cases
from manymask.hub.model_folder import load_model, save_model
from manymask.io.atomic import read_json, write_json
from manymask.io.masks import MaskReading
from manymask.models.base import MaskSampler
from tests.factories import run

SHAPE = (40, 48)


def photo(seed: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """A smooth picture; another for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC))


def blob(shape: tuple[int, int] = SHAPE, value: int = 255) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[10:20, 12:30] = value
    return mask


def save(path: Path | str, pixels: np.ndarray) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def pairs(root: Path, names, images="images", masks="masks", start=0, suffix="") -> None:
    for seed, name in enumerate(names, start):
        save(root / images / f"{name}.png", photo(seed))
        save(root / masks / f"{name}{suffix}.png", blob())


def prepared(source: Path, **options) -> Store:
    return prepare(folder.read(source, **options), source.parent / f"{source.name}-store", 32, 3)


# --- layouts


@pytest.mark.parametrize(
    ("image_place", "mask_place", "words"),
    [
        ("{}/images", "{}/masks", ("train", "val", "test")),
        ("{}/Image", "{}/Label", ("Training", "Validation", "Testing")),
        ("images/{}", "masks/{}", ("train", "valid", "test")),
        ("data/{}/imgs", "data/{}/Ground Truth", ("train", "dev", "test")),
        ("images{}", "labels{}", ("Tr", "Val", "Ts")),
        ("{}_images", "{}_masks", ("train", "val", "test")),
    ],
)
def test_the_owners_split_is_kept_whole(tmp_path, image_place, mask_place, words):
    for k, (word, count) in enumerate(zip(words, (8, 3, 4), strict=True)):
        pairs(tmp_path, range(count), image_place.format(word), mask_place.format(word), start=10 * k)
    source = folder.read(tmp_path)
    assert list(source.schemes) == ["given"] and len({case.id for case in source.cases}) == 15
    assert [len(source.schemes["given"][part]) for part in ("train", "val", "test")] == [8, 3, 4]
    assert source.notes == ()
    assert all(case.read()[1].sum() == 180 for case in source.cases)


def test_a_split_without_validation_takes_a_tenth_of_training_and_says_so(tmp_path):
    pairs(tmp_path, range(20), "train/images", "train/masks")
    pairs(tmp_path, range(4), "test/images", "test/masks", start=30)
    source = folder.read(tmp_path)
    assert [len(source.schemes["given"][part]) for part in ("train", "val", "test")] == [17, 3, 4]
    assert source.notes == ("no validation part is given: 3 of the training images validate",)


def test_several_folders_that_are_no_split_are_refused_by_name(tmp_path):
    for place in ("hospital-a", "hospital-b"):
        pairs(tmp_path / place, range(4))
    with pytest.raises(InputError, match=r"several folders of images: .*hospital-a/images, .*hospital-b/images"):
        folder.read(tmp_path)
    pairs(tmp_path / "half/images", range(3), "train", "../masks/train")
    pairs(tmp_path / "half/images", range(3), "test", "../masks/test", start=5)
    pairs(tmp_path / "half/images", range(3), "extra", "../masks/extra", start=9)
    with pytest.raises(InputError, match=r"images/extra is neither train, val nor test"):
        folder.read(tmp_path / "half")


def test_sub_folders_are_walked_and_what_is_passed_over_is_named(tmp_path):
    for k in range(12):
        pairs(tmp_path, (f"patient-{k}/a", f"patient-{k}/b"), start=2 * k)
    save(tmp_path / "backup/x.png", photo(99))
    (tmp_path / "images/notes.txt").write_text("x")
    (tmp_path / "train.txt").write_text("a")
    source = folder.read(tmp_path)
    assert len(source.cases) == 24 and {case.group for case in source.cases} == {f"patient-{k}" for k in range(12)}
    notes = "; ".join(source.notes)
    assert "1 file(s) in" in notes and "notes.txt" in notes and "backup/x.png" in notes and "train.txt" in notes


@pytest.mark.parametrize("other", ["masks-consensus", "masks-0", "labels", "Masks_old"])
def test_masks_beside_other_masks_are_refused_until_one_is_chosen(tmp_path, other):
    pairs(tmp_path, range(5))
    pairs(tmp_path, range(5), masks=other)
    with pytest.raises(InputError, match=f"several folders of masks: .*{other}.*name the one to take"):
        folder.read(tmp_path)
    source = folder.read(tmp_path, masks=("masks",))
    assert source.cases[0].read()[1].shape[0] == 1 and source.notes == (f"passed over: {tmp_path / other}",)
    assert folder.read(tmp_path, masks=("masks", other)).cases[0].read()[1].shape[0] == 2


def test_names_are_compared_after_unicode_normalisation_and_without_usual_suffixes(tmp_path):
    names = [f"Müller é {k}" for k in range(5)]
    for k, name in enumerate(names):
        save(tmp_path / "images" / f"{unicodedata.normalize('NFC', name)}.PNG", photo(k))
        suffix = ("_mask", "_segmentation", "_Seg", "_lesion", "")[k]
        save(tmp_path / "masks" / f"{unicodedata.normalize('NFD', name)}{suffix}.png", blob())
    assert [case.id for case in folder.read(tmp_path).cases] == names


@pytest.mark.parametrize(("image", "mask"), [("p{}", "p{}-mask"), ("p{}", "p{} Mask"), ("p{}_0000", "p{}")])
def test_masks_are_paired_by_the_usual_ways_of_naming(tmp_path, image, mask):
    for k in range(6):
        save(tmp_path / f"in/images/{image.format(k)}.png", photo(k))
        save(tmp_path / f"in/masks/{mask.format(k)}.png", blob())
    store = prepared(tmp_path / "in")
    assert store.ids == [image.format(k) for k in range(6)] and store.masks.any(axis=(1, 2, 3)).all()


def test_what_was_left_out_of_an_image_or_stretched_is_said_once(tmp_path):
    pairs(tmp_path / "in", "abcdef")
    for name, brightest in (("a", 30000), ("b", 40000)):
        pixels = np.linspace(100, brightest, SHAPE[0] * SHAPE[1]).astype(np.uint16).reshape(SHAPE)
        save(tmp_path / f"in/images/{name}.png", pixels)
    Image.fromarray(photo(2)).save(
        tmp_path / "in/images/c.png", format="MPO", save_all=True, append_images=[Image.fromarray(photo(9))]
    )
    said = [line for line in prepared(tmp_path / "in").warnings if "such as" in line]
    assert said == [
        "2 of 6 images, such as a: The grey values 100 to 30000 were stretched to 0 to 255.",
        "1 of 6 images, such as c: The file holds 2 pictures; the first was read.",
    ]


def test_names_that_are_no_unicode_become_ids_that_can_be_written(tmp_path):
    for k in range(4):
        name = os.fsdecode(b"l\xe9sion\n%d.png" % k)
        for kind, pixels in (("images", photo(k)), ("masks", blob())):
            (tmp_path / "in" / kind).mkdir(parents=True, exist_ok=True)
            with (tmp_path / "in" / kind / name).open("wb") as file:
                Image.fromarray(pixels).save(file, "PNG")
    store = prepared(tmp_path / "in")
    assert store.ids == [rf"l\xe9sion\n{k}" for k in range(4)]
    write_json(tmp_path / "x.json", store.ids)
    assert read_json(tmp_path / "x.json") == store.ids


def test_a_link_back_to_a_folder_above_does_not_walk_for_ever(tmp_path):
    pairs(tmp_path, range(3))
    (tmp_path / "images/back").symlink_to(tmp_path)
    assert len(folder.read(tmp_path).cases) == 3


def test_folder_names_are_taken_apart_into_words():
    def said(name):
        found = sections.parse(Path(name))
        return found and (found.kind, found.part, found.rater)

    assert said("masks-3") == ("masks", None, "3") and said("labelsTr") == ("masks", "train", "")
    assert said("test_images") == ("images", "test", "") and said("masks-rater-2") == ("masks", None, "2")
    assert said("images_and_masks") is said("notes") is said("label-studio-export-2") is None


# --- raters who did not read


@pytest.fixture
def two_raters(tmp_path):
    """Rater 1 did not read p2; each marks another area."""
    for k in range(6):
        save(tmp_path / "in/images" / f"p{k}.png", photo(k))
        save(tmp_path / "in/masks-0" / f"p{k}.png", blob())
        if k != 2:
            save(tmp_path / "in/masks-1" / f"p{k}.png", np.roll(blob(), 5, axis=1) if k != 3 else blob() * 0)
    return prepared(tmp_path / "in")


def test_a_slot_that_was_not_read_is_kept_apart_from_one_that_is_empty(two_raters):
    assert two_raters.batch(["p1", "p2", "p3"]).read_by.tolist() == [[True, True], [True, False], [True, True]]
    assert [len(two_raters.native_masks(case)) for case in ("p2", "p3")] == [1, 2]
    assert not two_raters.native_masks("p3")[1].any()
    assert two_raters.manifest["foreground"][1].startswith("rater 1: 5 of 6 images read, 1 empty")


def test_training_draws_from_those_who_read():
    masks = torch.arange(3.0).reshape(1, 3, 1, 1).expand(1000, 3, 1, 1)
    read_by = torch.tensor([[True, False, True]]).expand(1000, 3)
    drawn = random_rater(masks, torch.rand(1000, generator=torch.Generator().manual_seed(0)), read_by).flatten()
    assert set(drawn.tolist()) == {0.0, 2.0} and 0.45 < (drawn == 2).float().mean() < 0.55
    assert random_rater(masks, torch.rand(1000)).unique().tolist() == [0, 1, 2]


class Raters(MaskSampler):
    """Answers with the masks of those who read."""

    def __init__(self, store):
        super().__init__()
        self.store = store

    def prepare(self, batch, n, sampling):
        return self.store.batch(batch.ids).raters_masks()

    def sample(self, common, batch, which, seed, sampling, callback=None):
        return torch.stack([masks[torch.tensor(which) % len(masks)] for masks in common])


def test_scores_count_only_those_who_read(two_raters):
    scores = evaluate(Raters(two_raters), two_raters, two_raters.ids, EvalConfig(2, 2), progress=False)
    assert scores.metrics["ged"]["mean"] == pytest.approx(0, abs=1e-6)
    assert scores.metrics["hm_iou"]["mean"] == pytest.approx(1)
    assert {case["id"]: case["raters"] for case in scores.cases} == {
        "p0": 2,
        "p1": 2,
        "p2": 1,
        "p3": 1,
        "p4": 2,
        "p5": 2,
    }
    brier = {case["id"]: case["brier"] for case in scores.cases}
    counted = 0.25 * two_raters.native_masks("p2").mean()  # if the reading that is missing counted as an empty mask
    assert brier["p2"] < counted / 4 and scores.metrics["dice_all_raters"]["n"] == 4


# --- masks are looked at


@pytest.mark.parametrize(("value", "kind"), [(0, "empty"), (255, "full")])
def test_masks_that_tell_nothing_are_refused(tmp_path, value, kind):
    for k in range(5):
        save(tmp_path / "in/images" / f"{k}.png", photo(k))
        save(tmp_path / "in/masks" / f"{k}.png", np.full(SHAPE, value, np.uint8))
    with pytest.raises(InputError, match=f"all 5 masks are {kind}, there is nothing to learn"):
        prepared(tmp_path / "in", reading=MaskReading(threshold=128))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_inverted_masks_are_suspected_and_inverted_back(tmp_path):
    for k in range(5):
        save(tmp_path / "in/images" / f"{k}.png", photo(k))
        save(tmp_path / "in/masks" / f"{k}.png", 255 - blob())
    (line,) = prepared(tmp_path / "in").warnings
    assert "5 of 5 masks cover most of the image and of its border" in line and "invert the masks" in line
    shutil.rmtree(tmp_path / "in-store")
    assert prepared(tmp_path / "in", reading=MaskReading(invert=True)).native_masks("0").sum() == 180


def test_a_few_inverted_or_empty_masks_are_named(tmp_path):
    pairs(tmp_path / "in", range(8))
    save(tmp_path / "in/masks/3.png", 255 - blob())
    save(tmp_path / "in/masks/5.png", 0 * blob())
    lines = prepared(tmp_path / "in").warnings
    assert [line.endswith(name) for line, name in zip(lines, ("3", "5"), strict=True)] == [True, True]
    assert "1 of 7 masks cover most" in lines[0] and "1 of 8 images have no foreground" in lines[1]


def test_objects_of_a_few_pixels_at_model_size_are_warned_about(tmp_path):
    for k in range(4):
        mask = np.zeros((320, 384), np.uint8)
        mask[100:120, 100:124] = 255
        save(tmp_path / "in/images" / f"{k}.png", photo(k, (320, 384)))
        save(tmp_path / "in/masks" / f"{k}.png", mask)
    (line,) = prepared(tmp_path / "in").warnings
    assert line.startswith("at 32×32 the median object has 4 pixels, and 0 % have fewer than 4")


def test_prepare_prints_the_foreground_of_each_rater(tmp_path, monkeypatch, capsys):
    pairs(tmp_path / "in", range(5))
    pairs(tmp_path / "in", range(5), masks="masks-0")
    flags = ("--source", tmp_path / "in", "--out", tmp_path / "out", "--masks", "masks")
    assert run(monkeypatch, "prepare", "folder", *flags) == 0
    told = capsys.readouterr()
    assert "masks: 0 empty, foreground 9.38 % (median of the others; 9.38 – 9.38 %)" in told.out
    assert "passed over" in told.err and Store(tmp_path / "out").ids == list("01234")


def test_training_looks_at_masks_of_any_store(tmp_path, capsys):
    pairs(tmp_path / "in", range(9))
    for k in range(6):
        save(tmp_path / "in/masks" / f"{k}.png", 0 * blob())
    store = prepared(tmp_path / "in")
    store.check_masks(store.ids)
    assert "67 % of the masks to learn from are empty" in capsys.readouterr().err
    with pytest.raises(InputError, match="all masks are empty"):
        store.check_masks(list("012"))


# --- twins


def test_equal_images_stay_in_one_part(tmp_path):
    names = [f"{k:02}" for k in range(20)]
    pairs(tmp_path / "in", names)
    scheme = folder.read(tmp_path / "in").schemes["random"]
    twins = [scheme["train"][0], scheme["test"][0]]
    shutil.copy(tmp_path / f"in/images/{twins[0]}.png", tmp_path / f"in/images/{twins[1]}.png")
    store = prepared(tmp_path / "in")
    assert set(twins) <= set(store.part(None, "train")) and len({store.groups[case] for case in twins}) == 1
    assert store.warnings[0].endswith(" = ".join(sorted(twins)))
    assert store.warnings[1] == "split random: 1 case(s) changed their part, since equal images stay together"


def test_near_twins_across_the_split_are_named_and_an_owners_split_is_kept(tmp_path):
    pairs(tmp_path / "in", range(8), "train/images", "train/masks")
    pairs(tmp_path / "in", range(4), "test/images", "test/masks", start=20)
    Image.fromarray(photo(3)).save(tmp_path / "in/test/images/1.jpg", quality=60)
    (tmp_path / "in/test/images/1.png").unlink()
    save(tmp_path / "in/test/images/2.png", photo(4))
    store = prepared(tmp_path / "in")
    assert sorted(store.part("given", "test")) == [f"test/{k}" for k in range(4)]
    lines = [line for line in store.warnings if line.startswith("split given")]
    for place, drawn in (("train/images/5", photo(5, (64, 64))), ("test/images/3", np.rot90(photo(5, (64, 64))))):
        save(tmp_path / f"in/{place}.png", drawn)
        save(tmp_path / f"in/{place.replace('images', 'masks')}.png", blob((64, 64)))
    shutil.rmtree(tmp_path / "in-store")
    turned = prepared(tmp_path / "in").warnings[-1]
    assert "2 of 4 test images look like training images: test/1 ≈ train/3, test/3 ≈ train/5" in turned
    assert "1 image(s) lie in several parts" in lines[0] and "test/2 = train/4" in lines[0]
    assert "1 of 4 test images look like training images: test/1 ≈ train/3" in lines[1]


def test_hashes_survive_scaling_and_compression_and_tell_others_apart():
    drawn = [photo(k, (96, 96)) for k in range(60)]
    hashes = image_hashes(image.transpose(2, 0, 1) for image in drawn)
    again = []
    for image in drawn:
        small, buffer = Image.fromarray(image).resize((67, 67), Image.Resampling.BICUBIC), io.BytesIO()
        small.save(buffer, "JPEG", quality=75)
        again.append(np.asarray(Image.open(buffer).resize((96, 96))).transpose(2, 0, 1))
    found = near_pairs(image_hashes(again), hashes)
    assert set(found) <= {(k, k) for k in range(60)} and len(found) >= 58
    assert near_pairs(hashes[:30], hashes[30:]) == []
    ways = [
        np.rot90(image.transpose(2, 0, 1), k % 4, (1, 2))[:, :, :: 1 - 2 * (k > 3)] for k, image in enumerate(drawn[:8])
    ]
    assert near_pairs(image_hashes(ways), hashes) in ([(0, 0)], [])
    assert near_pairs(image_hashes(ways, turned=True), hashes) == [(k, k) for k in range(8)]
    assert (image_hashes(ways, turned=True)[:, 0] == image_hashes(ways)).all()
    assert near_pairs(image_hashes([], turned=True), hashes) == near_pairs(image_hashes([]), hashes) == []
    assert (
        hashes_from_text(hashes_as_text(hashes)) == np.array(sorted(map(bytes, hashes))).view(np.uint8).reshape(60, 16)
    ).all()


# --- a report of all that is wrong


def test_all_that_is_wrong_with_a_folder_is_said_at_once_and_can_be_left_out(tmp_path):
    pairs(tmp_path / "in", [f"p{k}" for k in range(20)])
    for k in (1, 2, 3, 4):
        (tmp_path / f"in/images/p{k}.png").write_bytes(b"no image")
    save(tmp_path / "in/masks/p5.png", blob((20, 20)))
    (tmp_path / "in/masks/p6.png").unlink()
    (tmp_path / "in/images/p7.png").unlink()
    save(tmp_path / "in/images/p8.png", np.zeros(SHAPE, np.uint8))
    source = folder.read(tmp_path / "in")
    with pytest.raises(InputError) as caught:
        prepare(source, tmp_path / "store", 32, 3)
    first, *kinds = str(caught.value).splitlines()
    assert first == "8 of 20 cases cannot be used; mend them, or leave them out:"
    assert len(kinds) == 5 and "p1.png" in kinds[0] and "(and 3 more like it: p2, p3, p4)" in kinds[0]
    assert not (tmp_path / "store").exists()
    said = worded(caught.value, {"skip_bad"}).splitlines()
    assert said[0] == "8 of 20 cases cannot be used; mend them, or leave them out (--skip-bad):"
    assert said[1:] == kinds
    store = prepare(source, tmp_path / "store", 32, 3, skip_bad=True)
    assert set(store.ids) == {f"p{k}" for k in (0, *range(9, 20))}
    assert store.warnings[0].startswith("8 left out: ") and "p6.png has no mask" in store.warnings[0]


# --- the store


def phantom_store(place: Path, count: int = 6, seed: int = 0, change=lambda masks: masks) -> Store:
    cases = phantoms().cases[:count]
    cases = [type(c)(c.id, c.group, lambda c=c: (c.read()[0], change(c.read()[1]))) for c in cases]
    return prepare(Source("p", cases, {"random": random_scheme({c.id: c.id for c in cases}, seed)}, ""), place, 32, 1)


def test_the_hash_covers_native_masks_and_splits_and_the_old_hash_is_kept(tmp_path):
    def one_pixel_more(masks):
        masks = masks.copy()
        masks[:, 0, 0] = True
        return masks

    first, again = phantom_store(tmp_path / "a"), phantom_store(tmp_path / "b")
    split, native = phantom_store(tmp_path / "c", seed=1), phantom_store(tmp_path / "d", change=one_pixel_more)
    assert first.hash == again.hash and len({first.hash, split.hash, native.hash}) == 3
    assert (
        first.content == split.content == native.content != first.hash
    )  # one native pixel of 4 is lost at half the size
    assert first.holds(first.hash) and split.holds(first.content) and not split.holds(first.hash)


def test_a_store_of_the_first_format_loads_and_keeps_its_hash(tmp_path):
    new = phantom_store(tmp_path / "a")
    manifest = read_json(tmp_path / "a/manifest.json")
    for name in ("format", "content", "read_by", "foreground", "warnings"):
        del manifest[name]
    write_json(tmp_path / "a/manifest.json", manifest | {"hash": new.content})
    old = Store(tmp_path / "a")
    assert old.hash == old.content == new.content and new.holds(old.hash) and old.batch(old.ids).read_by is None
    assert (old.native_masks(old.ids[1]) == new.native_masks(old.ids[1])).all()


@pytest.mark.parametrize("name", ["manifest.json", "images.npy", "masks.npy", "native.bin"])
def test_a_damaged_store_is_one_line_or_is_read(tmp_path, name):
    source, rng = phantom_store(tmp_path / "a", count=3), random.Random(name)
    whole = (source.folder / name).read_bytes()
    places = [i for i in range(len(whole)) if name != "images.npy" or i < 128]
    for _ in range(120):
        bad = bytearray(whole)
        kind = rng.randrange(4)
        at = rng.choice(places)
        if kind == 0:
            bad[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del bad[at:]
        elif kind == 2:
            bad[at : at + 1] = rng.choice([b"-1", b"9" * 12, b"null", b"[]", b"{", b"\x00\xff"])
        else:
            bad[at:at] = bad[at : at + rng.randrange(1, 40)]
        (source.folder / name).write_bytes(bad)
        try:
            found = Store(source.folder)
            found.part(None, "train")
            found.batch(found.ids)
            for case in found.ids:
                found.native_masks(case)
        except ManymaskError as error:
            assert "\n" not in str(error) and len(str(error)) < 600


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ids": ["a", "a", "b"]}, "ids and groups do not fit together"),
        ({"size": 64}, "the manifest says"),
        ({"schemes": {"random": {"train": ["nobody"]}}}, "names unknown cases"),
        ({"schemes": {}}, "schemes is of the wrong kind"),
        ({"native": [[0, 1, 0, 5]] * 3}, "native masks are empty or too large"),
        ({"native": [[0, 10**9, 64, 64]] * 3}, "native points outside of native.bin"),
        ({"read_by": [[0, 0, 0, 0]] * 3}, "read_by does not fit the cases"),
        ({"format": 9}, "format 9, this version reads up to 3"),
    ],
)
def test_a_manifest_that_does_not_hold_together_is_refused(tmp_path, change, said):
    place = phantom_store(tmp_path / "a", count=3).folder / "manifest.json"
    write_json(place, read_json(place) | change)
    with pytest.raises(InputError, match=said):
        Store(place.parent)


def test_a_full_disk_is_one_line_that_names_the_place(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(stores.Writer, "add", full)
        with pytest.raises(
            InputError, match=r"a: no room is left to write it \(No space left on device\); about 0\.001 GB"
        ):
            phantom_store(tmp_path / "a")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 100))
    with pytest.raises(InputError, match=r"a: about 0\.001 GB are needed but only 0\.000 GB are free there"):
        phantom_store(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


# --- leaks


def test_a_test_on_training_images_under_other_names_is_noticed(store, trained_run, tmp_path, capsys):
    trained = load_model(trained_run)
    train = set(store.part(None, "train"))
    seen = [case for case in phantoms().cases[:24] if case.id in train][:3]
    fresh = phantoms().cases[100:103]
    cases = [type(c)(f"x{k}", f"x{k}", c.read) for k, c in enumerate([*seen, *fresh])]
    scheme = {"train": [], "val": [], "test": [case.id for case in cases]}
    other = prepare(Source("elsewhere", cases, {"given": scheme}, ""), tmp_path / "other", 64, 1)
    ids = held_out_cases(trained, other, "test")
    assert "3 of 6 images look like images that the model was trained on (x0, x1, x2)" in capsys.readouterr().err
    scores = evaluate(trained.model, other, ids, EvalConfig(1, 1), progress=False)
    found = results(trained, other, "test", EvalConfig(1, 1), scores).to_dict()
    assert json.loads(json.dumps(found["leak"])) == {"tested": 6, "checked": True, "cases": ["x0", "x1", "x2"]}
    trained.training_hashes = None
    assert results(trained, other, "test", EvalConfig(1, 1), scores).to_dict()["leak"]["checked"] is False


def test_training_hashes_are_kept_with_a_model_and_damaged_ones_refused(trained_run, tmp_path):
    trained = load_model(trained_run)
    assert trained.training_hashes is not None and len(trained.training_hashes) > 10
    save_model(trained, tmp_path / "m")
    assert (load_model(tmp_path / "m").training_hashes == trained.training_hashes).all()
    (tmp_path / "m/training_hashes.txt").write_text("00ff\n")
    with pytest.raises(InputError, match=r"training_hashes\.txt is damaged"):
        load_model(tmp_path / "m")


@pytest.mark.parametrize("name", ["cvc_clinicdb", "isic2018", "lidc_idri", "lidc_idri_readers"])
def test_shipped_models_know_what_they_were_trained_on(name):
    folder = Path(__file__).parents[2] / "models" / name
    hashes = hashes_from_text((folder / "training_hashes.txt").read_text())
    count = len((folder / "training_ids.txt").read_text().split("\n")) - 1
    assert 0.95 * count < len(hashes) <= count


def test_a_reading_with_a_coordinate_beyond_all_images_is_one_line(tmp_path):
    edge = f"<edgeMap><xCoord>{10**30}</xCoord><yCoord>1</yCoord></edgeMap>"
    roi = (
        f"<roi><imageZposition>1</imageZposition><imageSOP_UID>1</imageSOP_UID><inclusion>TRUE</inclusion>{edge}</roi>"
    )
    head = "<ResponseHeader><SeriesInstanceUid>1</SeriesInstanceUid></ResponseHeader>"
    nodule = f"<readingSession><unblindedReadNodule>{roi}</unblindedReadNodule></readingSession>"
    (tmp_path / "x.xml").write_text(f"<LidcReadMessage>{head}{nodule}</LidcReadMessage>")
    with pytest.raises(InputError, match=r"x\.xml is not a reading of LIDC-IDRI that can be read"):
        read_xml(tmp_path / "x.xml")


@pytest.mark.parametrize(
    ("orientation", "masks", "said"), [(3, "plain", True), (1, "plain", False), (3, "tagged", False)]
)
def test_images_that_were_turned_and_masks_that_were_not_are_told(tmp_path, orientation, masks, said):
    """Nobody can know on which of both the masks were drawn."""
    for name in "abcdef":
        exif = Image.Exif()
        exif[274] = orientation
        for kind, pixels in (("images", photo(ord(name))), ("masks", blob())):
            (tmp_path / "in" / kind).mkdir(parents=True, exist_ok=True)
            tagged = {"exif": exif} if kind == "images" or masks == "tagged" else {}
            Image.fromarray(pixels).save(tmp_path / "in" / kind / f"{name}.png", **tagged)
    store = prepare(folder.read(tmp_path / "in"), tmp_path / "store", 32, 3)
    assert (
        any("6 of 6 images" in line and "masks must be drawn on the upright image" in line for line in store.warnings)
        == said
    )
