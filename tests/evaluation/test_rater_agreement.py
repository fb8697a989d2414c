"""Sets of masks against several raters, and the answers that need no drawing, by value."""

from functools import partial
from itertools import product

import numpy as np
import pytest

from manymask.evaluation.evaluator import _collect
from manymask.evaluation.rater_agreement import blind_and_human, rivals, set_scores


def strip(*widths):
    """Bool masks (n, 1, 8): the first `width` pixels of a row."""
    return np.stack([np.arange(8)[None] < width for width in widths])


def test_distances_are_of_distinct_pairs():
    found = set_scores(strip(2, 4).astype(float), strip(4, 4, 8))
    assert found["sample_distance"] == pytest.approx(1 / 2)
    assert found["rater_distance"] == pytest.approx((0 + 1 / 2 + 1 / 2) / 3)


def test_ged_is_twice_the_cross_less_both_own_distances():
    found = set_scores(strip(2, 4).astype(float), strip(4, 8))
    cross = np.mean([1 - 2 / 4, 1 - 2 / 8, 0, 1 - 4 / 8])
    assert found["ged"] == pytest.approx(2 * cross - 1 / 4 - 1 / 4)
    assert found["ged_unbiased"] == pytest.approx(found["ged"] - 1 / 2 / 2)


def test_unbiased_ged_does_not_depend_on_how_many_masks_are_drawn():
    """In expectation over all draws of two and of three masks from three equally likely ones."""

    def expected(count):
        rows = [set_scores(strip(*w).astype(float), strip(4, 8)) for w in product((2, 4, 8), repeat=count)]
        return {name: np.mean([row[name] for row in rows]) for name in ("ged", "ged_unbiased")}

    two, three = expected(2), expected(3)
    assert two["ged"] - three["ged"] > 0.05
    assert two["ged_unbiased"] == pytest.approx(three["ged_unbiased"])


def test_unbiased_ged_of_masks_from_opposite_noise_is_that_of_independent_ones():
    """Wide masks from positive noise, narrow from negative: sixteen masks then always are eight of each."""
    rows = [
        set_scores(strip(*[2 if s else 8 for s in signs], *[8 if s else 2 for s in signs]).astype(float), strip(4, 8))
        for signs in product((0, 1), repeat=8)
    ]
    apart = 1 - 2 / 8
    infinite = 2 * np.mean([1 - 2 / 4, 1 - 4 / 8, 1 - 2 / 8, 0]) - apart / 2 - 1 / 4
    assert np.mean([row["ged_unbiased"] for row in rows]) == pytest.approx(infinite)
    assert np.mean([row["sample_distance"] for row in rows]) == pytest.approx(apart / 2)
    assert np.mean([row["ged"] for row in rows]) == pytest.approx(infinite), "no noise is left in the set"


def test_unbiased_ged_of_masks_that_strata_empty_is_that_of_independent_ones():
    """Of sixteen equal masks half are empty, and exactly half: two independent ones differ as often."""
    drawn = strip(*[4, 0] * 8).astype(float)
    found = set_scores(drawn, strip(4, 0), presence=0.5)
    assert found["sample_distance"] == pytest.approx(0.5) and found["ged"] == pytest.approx(0)
    assert found["ged_unbiased"] == pytest.approx(found["ged"])
    marked = set_scores(strip(*[2, 4] * 8).astype(float), strip(4, 0), presence=1.0)
    assert marked["sample_distance"] == pytest.approx(
        set_scores(strip(*[2, 4] * 8).astype(float), strip(4, 0))["sample_distance"]
    )
    assert set_scores(strip(0, 0).astype(float), strip(4, 0), presence=0.1)["sample_distance"] == pytest.approx(0.18)


def test_level_sets_cut_the_mean_at_sixteen_levels():
    """Half of the masks hold four pixels, half eight: eight level sets of each are the same masks again."""
    drawn = strip(*[4] * 8, *[8] * 8).astype(float)
    found = set_scores(drawn, strip(4, 8))
    assert found["level_sets"] == {"ged": pytest.approx(found["ged"]), "hm_iou": pytest.approx(found["hm_iou"])}
    shifted = np.concatenate([drawn[:8], drawn[8:, :, ::-1] * np.array([0.0] * 4 + [1.0] * 4)])
    assert set_scores(shifted, strip(4, 8))["level_sets"]["ged"] != pytest.approx(
        set_scores(shifted, strip(4, 8))["ged"]
    )


def test_a_quarter_of_the_blanks_is_empty():
    full, raters = strip(*[4] * 16).astype(float), strip(4, 4, 4, 0)
    found = set_scores(full, raters)
    assert found["blanks"]["ged"] == pytest.approx(0) and found["blanks"]["hm_iou"] == 1
    assert found["ged"] > 0.1 and found["hm_iou"] == pytest.approx(3 / 4)


def test_rivals_are_paired_with_the_drawn_masks_and_split_by_raters(store):
    rows = [{"id": case, "raters": 1 + i % 2, "dice": i / 10} | set_scores(strip(2, 4).astype(float), strip(4, 8))
            for i, case in enumerate(store.ids[:4])]  # fmt: skip
    found = rivals(rows, partial(_collect, store))
    assert list(found) == ["level_sets", "blanks", "marked_by_1", "marked_by_2"]
    gained = rows[0]["level_sets"]["ged"] - rows[0]["ged"]
    assert found["level_sets"]["ged_minus_drawn"]["mean"] == pytest.approx(gained)
    assert found["marked_by_1"]["dice"]["mean"] == pytest.approx(0.1)
    assert found["marked_by_2"]["dice"]["mean"] == pytest.approx(0.2)


def test_baselines_are_the_blind_disk_and_one_rater_against_the_others(store):
    found = blind_and_human(store, store.ids, partial(_collect, store))
    assert 0 <= found["disk"]["dice"]["mean"] < 0.9
    by_hand = []
    for case in store.ids:
        masks = store.native_masks(case)
        rest = [np.delete(masks, k, 0).sum(0) >= 2 for k in range(4)]
        by_hand.append(np.mean([2 * (m & r).sum() / (m.sum() + r.sum()) for m, r in zip(masks, rest, strict=True)]))
    assert found["one_rater_against_the_others"]["dice"]["mean"] == pytest.approx(np.mean(by_hand))
