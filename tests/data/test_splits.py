"""Which case falls into which part of a split, literally."""

import numpy as np
import pytest
import torch
from PIL import Image

from manymask.data.case import Batch, content_hash, random_scheme
from manymask.data.datasets import folder


def singles(count: int) -> dict[str, str]:
    return {f"{i:03}": f"{i:03}" for i in range(count)}


def test_a_hundred_cases_split_80_10_10_and_not_in_order():
    scheme = random_scheme(singles(100), 42)
    assert [len(scheme[part]) for part in ("train", "val", "test")] == [80, 10, 10]
    assert scheme["test"] == ["028", "029", "057", "075", "081", "084", "086", "089", "094", "097"]
    assert scheme["val"] == ["014", "017", "035", "053", "054", "064", "069", "071", "088", "095"]
    assert scheme != random_scheme(singles(100), 43)


def test_shares_count_cases_not_groups():
    """One patient of 50, fifty of one image each: train takes the large one whole."""
    groups = {f"{i:03}": "large" if i < 50 else f"{i}" for i in range(100)}
    scheme = random_scheme(groups, 0)
    assert [len(scheme[part]) for part in ("train", "val", "test")] == [80, 10, 10]
    assert sum(groups[case] == "large" for case in scheme["train"]) == 50


def test_fractions_are_those_of_train_and_validation():
    scheme = random_scheme(singles(20), 0, (0.5, 0.25))
    assert [len(scheme[part]) for part in ("train", "val", "test")] == [10, 5, 5]


def test_three_cases_leave_no_part_empty():
    scheme = random_scheme(singles(3), 1)
    assert [len(scheme[part]) for part in ("train", "val", "test")] == [1, 1, 1]


@pytest.mark.parametrize("grouped", [True, False])
def test_own_folder_groups_by_what_stands_before_two_underscores(tmp_path, grouped):
    rng, sign = np.random.default_rng(0), "__" if grouped else "_"
    names = [f"p{patient}{sign}{k}" for patient in range(5) for k in range(2)]
    mask = np.zeros((16, 16), np.uint8)
    mask[4:10, 4:12] = 255
    for name in names:
        for kind, pixels in (("images", rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)), ("masks", mask)):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / kind / f"{name}.png")
    source = folder.read(tmp_path)
    found = {case.id: case.group for case in source.cases}
    assert found == {name: name[:2] if grouped else name for name in names}
    assert source.schemes == {"random": random_scheme(found, 42)}
    sizes = [len(source.schemes["random"][part]) for part in ("train", "val", "test")]
    assert sizes == ([6, 2, 2] if grouped else [8, 1, 1])


def test_content_hash_names_its_kind_and_depends_on_every_byte():
    assert content_hash(b"ab", b"c") == content_hash(b"abc") == "sha256:ba7816bf8f01cfea"


def test_noise_is_named_by_pixels_where_they_are_known():
    image = torch.zeros(2, 1, 4, 4)
    assert Batch(["a", "b"], image, names=["c", "d"]).noise_names == ["c", "d"]
    assert Batch(["a", "b"], image).noise_names == ["a", "b"]
