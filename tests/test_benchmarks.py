"""The scripts behind the figures: what they compare, by value."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from manymask.data.case import Batch

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import level_sets
import nearest
import off_centre


def test_rivals_are_as_many_masks_made_of_the_drawn_ones():
    drawn = np.zeros((16, 1, 2), dtype=np.float32)
    drawn[:8, 0, 0] = 1  # half of the masks hold the first pixel
    sets = level_sets.rivals(drawn)
    assert {len(masks) for masks in sets.values()} == {16}
    assert sets["drawn"][:, 0, 0].sum() == 8 == sets["level_sets"][:, 0, 0].sum()
    assert not sets["level_sets"][:, 0, 1].any()
    full = level_sets.rivals(np.ones((16, 1, 2), dtype=np.float32))
    assert [int(full[f"blank_{k}"].any(axis=(1, 2)).sum()) for k in (2, 4, 6, 8)] == [14, 12, 10, 8]


def test_raters_who_marked_are_counted_and_equal_sets_have_no_distance():
    raters = np.array([[[1, 0]], [[1, 0]], [[0, 0]], [[0, 0]]], dtype=bool)
    row = level_sets.score("a", np.repeat(raters, 4, axis=0).astype(np.float32), raters)
    assert row["raters"] == 2
    assert row["drawn"] == {"ged": pytest.approx(0, abs=1e-6), "hm_iou": 1.0}


@pytest.mark.parametrize("diagonal", off_centre.DIAGONALS)
@pytest.mark.parametrize("offset", off_centre.OFFSETS)
def test_middle_of_the_crop_lies_so_far_off_the_middle_of_the_window(offset, diagonal):
    mask = torch.zeros(1, 1, 128, 128)
    mask[0, 0, 64, 64] = 1
    seen = off_centre.cut(Batch(["a"], mask, mask), offset, [diagonal])
    assert seen.image.shape[-2:] == (96, 96)
    row, column = np.argwhere(seen.truth()[0, 0].numpy())[0]
    assert (row - 48, column - 48) == (diagonal[0] * offset, diagonal[1] * offset)


def test_masks_that_a_window_cuts_are_left_out():
    truth = np.zeros((128, 128), dtype=bool)
    truth[64, 64] = True
    assert off_centre.inside(truth, (1, 1))
    truth[64, 98] = True  # within the middle window, whose last column is 111; cut where it starts 16 px to the left
    assert off_centre.inside(truth, (1, -1)) and not off_centre.inside(truth, (1, 1))


def test_shares_of_groups_and_neighbours_in_training():
    groups = {"1": "a", "2": "a", "3": "b", "4": "b", "5": "c"}
    assert nearest.group_seen(groups, ["1", "3"], ["2", "4", "5"]) == pytest.approx(2 / 3)
    # 2 follows 1 of its video; 3's only trained neighbour, 2, is of another; 5 has none
    assert nearest.neighbour_seen(groups, ["1"], ["2", "3", "5"]) == pytest.approx(1 / 3)
    assert nearest.neighbour_seen(groups, ["2"], ["3"]) == 0
