"""Metrics against brute force and against libraries."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binomtest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.classification import binary_f1_score, binary_jaccard_index

from manymask import metrics
from manymask.errors import InputError
from manymask.metrics import (
    Reliability,
    aurc,
    bootstrap,
    clopper_pearson,
    difference,
    ged,
    hd95,
    hungarian_iou,
    mean_dice,
    near_lesion,
    overlap,
    pairwise_iou,
    psnr,
    risk_coverage,
    ssim,
    summary,
    threshold_jaccard,
)

sets = st.integers(1, 4).flatmap(lambda n: arrays(bool, (n, 3, 3)))


def iou_by_hand(a, b):
    return (a & b).sum() / (a | b).sum() if (a | b).any() else 1.0


@given(sets, sets)
@settings(max_examples=60)
def test_ged_equals_brute_force(first, second):
    def distance(xs, ys):
        return np.mean([1 - iou_by_hand(x, y) for x in xs for y in ys])

    expected = 2 * distance(first, second) - distance(first, first) - distance(second, second)
    assert ged(first, second) == pytest.approx(expected, abs=1e-6)


@given(sets)
@settings(max_examples=40)
def test_identical_sets_have_ged_zero_and_hm_iou_one(masks):
    assert ged(masks, masks) == pytest.approx(0, abs=1e-6)
    assert hungarian_iou(masks, masks) == pytest.approx(1)


@given(arrays(bool, (2, 2, 2)), arrays(bool, (2, 2, 2)))
@settings(max_examples=40)
def test_hungarian_iou_equals_the_better_of_both_matchings(a, b):
    straight = (iou_by_hand(a[0], b[0]) + iou_by_hand(a[1], b[1])) / 2
    crossed = (iou_by_hand(a[0], b[1]) + iou_by_hand(a[1], b[0])) / 2
    assert hungarian_iou(a, b) == pytest.approx(max(straight, crossed))


def test_hungarian_iou_of_unequal_counts_repeats_both():
    a, b = np.zeros((2, 4, 4), bool), np.zeros((3, 4, 4), bool)
    a[0, :2], b[0, :2], b[1, :2] = True, True, True
    # six against six: three times top half and three times empty, against four and two: five pairs agree
    assert hungarian_iou(a, b) == pytest.approx(5 / 6)


@given(arrays(bool, (6, 6)), arrays(bool, (6, 6)))
@settings(max_examples=40)
def test_overlap_equals_torchmetrics(a, b):
    dice, iou = overlap(a, b)
    if (a | b).any():
        one, other = torch.from_numpy(a.astype(int)), torch.from_numpy(b.astype(int))
        assert dice == pytest.approx(float(binary_f1_score(one, other)), abs=1e-6)
        assert iou == pytest.approx(float(binary_jaccard_index(one, other)), abs=1e-6)
    else:
        assert (dice, iou) == (1.0, 1.0)


def test_hd95_of_a_shifted_square_is_the_shift_and_of_an_empty_mask_none():
    a, b = np.zeros((2, 40, 40), bool)
    a[10:20, 10:20], b[10:20, 13:23] = True, True
    assert hd95(a, b) == pytest.approx(3)
    assert hd95(a, np.zeros_like(a)) is None


def test_hd95_is_the_larger_of_both_directed_percentiles():
    """Ten pixels of a row lie on the other mask, the eleventh is 10 px off: interpolated half way between 0 and 10.

    Of all 21 distances together the percentile would be 0, and the largest is 10.
    """
    a, b = np.zeros((2, 32, 32), bool)
    a[5, 5:15] = b[5, 5:15] = True
    b[15, 10] = True
    assert hd95(a, b) == hd95(b, a) == pytest.approx(5)


def test_near_a_lesion_is_what_any_rater_marked_and_five_pixels_about():
    raters = np.zeros((2, 20, 40), bool)
    raters[0, 10, 10] = raters[1, 10, 30] = True
    region = near_lesion(raters)
    assert region[10, 5:16].all() and not region[10, 4] and not region[10, 16] and region[15, 30] and not region[16, 30]
    assert region.sum() == 2 * 61  # of city-block distance 5
    assert not near_lesion(np.zeros((2, 8, 8), bool)).any()


def test_psnr_and_ssim_equal_scikit_image():
    rng = np.random.default_rng(0)
    x = rng.random((1, 64, 64)).astype(np.float32)
    y = np.clip(x + 0.1 * rng.standard_normal(x.shape), 0, 1).astype(np.float32)
    assert psnr(torch.from_numpy(y), torch.from_numpy(x)) == pytest.approx(
        peak_signal_noise_ratio(x, y, data_range=1), abs=1e-3
    )
    _, everywhere = structural_similarity(
        x[0], y[0], data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    inner = everywhere[5:-5, 5:-5].mean()  # where the window of 11 fits
    assert ssim(torch.from_numpy(y), torch.from_numpy(x)) == pytest.approx(inner, abs=1e-5)


def test_psnr_of_equal_pictures_is_capped():
    x = torch.rand(1, 8, 8)
    assert psnr(x, x) == 100 and psnr(x, x + 0.1) == pytest.approx(20, abs=1e-3)


def test_reliability_is_zero_when_confidence_is_frequency_and_large_when_sure_and_wrong():
    calm = Reliability()
    for p in (0.1, 0.5, 0.9):
        marked = np.zeros(1000)
        marked[: int(1000 * p)] = 1
        calm.add(np.full(1000, p), marked)
    assert calm.error == pytest.approx(0, abs=1e-9)
    sure = Reliability()
    sure.add(np.ones(10), np.zeros(10))
    assert sure.error == pytest.approx(1)


def test_calibration_error_sums_absolute_gaps_over_fifteen_bins():
    """Too low by 0.95 on two pixels of the first bin, too high by 0.99 on two of the last; 0.0667 opens the second."""
    diagram = Reliability()
    diagram.add(np.array([0.0, 0.05, 0.99, 1.0]), np.array([0.0, 1.0, 1.0, 0.0]))
    assert diagram.count.tolist() == [2] + [0] * 13 + [2]
    assert diagram.error == pytest.approx((0.95 + 0.99) / 4)
    diagram.add(np.array([0.0667]), np.array([0.0667]))
    assert diagram.count[1] == 1 and diagram.error == pytest.approx((0.95 + 0.99) / 5)
    assert Reliability().error == 0


def test_bootstrap_interval_is_that_of_resampled_groups():
    """The same draws by hand: 95 % of the means of all values of the drawn groups, large groups counting more."""
    members = [[0.1], [0.9, 0.5], [0.2, 0.3, 0.8], [0.7], [0.4, 0.0, 0.6, 0.5], [1.0, 0.95]]
    values = [value for group in members for value in group]
    groups = [name for name, group in zip("abcdef", members, strict=True) for _ in group]
    drawn = np.random.default_rng(0).integers(6, size=(2000, 6))
    means = [np.mean([value for k in draw for value in members[k]]) for draw in drawn]
    expected = (np.mean(values), np.quantile(means, 0.025), np.quantile(means, 0.975))
    assert bootstrap(values, groups) == pytest.approx(expected)


def test_bootstrap_interval_widens_when_cases_come_in_groups():
    values = np.repeat(np.random.default_rng(0).random(20), 10)
    _, low, high = bootstrap(values, [str(i) for i in range(200)])
    _, group_low, group_high = bootstrap(values, [str(i // 10) for i in range(200)])
    assert group_high - group_low > 2 * (high - low)
    assert low < values.mean() < high


def test_summary_counts_what_it_skips():
    found = summary([1.0, None, 0.0], ["a", "b", "c"])
    assert found["mean"] == 0.5 and found["n"] == 2 and found["skipped"] == 1
    assert math.isclose(summary([0.7], ["a"])["low"], 0.7)


def test_threshold_jaccard_counts_nothing_below_065():
    assert [threshold_jaccard(x) for x in (0.0, 0.649, 0.65, 1.0)] == [0, 0, 0.65, 1]


def test_mean_dice_averages_over_256_levels():
    truth = np.array([[True, True, False, False]])
    assert mean_dice(truth.astype(float), truth) == pytest.approx((255 + 2 * 2 / (4 + 2)) / 256), (
        "level 0 holds all pixels"
    )
    confidence = np.array([[1.0, 0.5, 0.2, 0.0]])
    by_hand = [overlap(confidence >= level / 255, truth)[0] for level in range(256)]
    assert mean_dice(confidence, truth) == pytest.approx(np.mean(by_hand))
    empty = np.zeros((1, 4), bool)
    assert mean_dice(np.zeros((1, 4)), empty) == pytest.approx(255 / 256), "nothing where nothing is, but for level 0"


@pytest.mark.parametrize("block", [1, 7, 77])
def test_iou_counted_in_blocks_is_that_of_whole_masks(monkeypatch, block):
    rng = np.random.default_rng(0)
    first, second = rng.random((3, 7, 11)) < 0.5, rng.random((4, 7, 11)) < 0.3
    first[0] = second[0] = False
    monkeypatch.setattr(metrics, "_BLOCK", block)
    expected = np.array([[iou_by_hand(a, b) for b in second] for a in first], np.float32)
    assert (pairwise_iou(first, second) == expected).all()


@given(st.integers(1, 400), st.floats(0, 1), st.sampled_from([0.9, 0.95, 0.99]))
def test_clopper_pearson_is_that_of_scipy(of, share, level):
    count = round(share * of)
    expected = binomtest(count, of).proportion_ci(level, method="exact")
    assert clopper_pearson(count, of, level) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_risk_coverage_by_value():
    risk = np.array([0.5, 0.0, 1.0])
    assert risk_coverage(risk, risk).tolist() == [0, 0.25, 0.5]
    assert risk_coverage(-risk, risk).tolist() == [1, 0.75, 0.5]
    assert risk_coverage(np.zeros(3), risk) == pytest.approx([0.5, 0.5, 0.5])


def test_aurc_of_the_best_the_worst_and_no_order():
    risk = np.array([0.5, 0.0, 1.0])
    assert aurc(risk, risk) == (0.25, 0.0)
    assert aurc(-risk, risk) == (0.75, 0.5)
    assert aurc(np.zeros(3), risk) == pytest.approx((0.5, 0.25))


def test_ties_count_as_the_mean_over_their_orders():
    rng = np.random.default_rng(0)
    doubt, risk = rng.integers(0, 3, 30).astype(float), rng.random(30)
    orders = [aurc(doubt + 1e-6 * rng.random(30), risk)[0] for _ in range(4000)]
    assert aurc(doubt, risk)[0] == pytest.approx(np.mean(orders), abs=4 * np.std(orders) / np.sqrt(4000))


def test_a_random_order_has_the_mean_risk_as_its_area():
    rng = np.random.default_rng(1)
    risk = rng.random(40)
    areas = [aurc(rng.random(40), risk)[0] for _ in range(4000)]
    assert np.mean(areas) == pytest.approx(risk.mean(), abs=4 * np.std(areas) / np.sqrt(4000))


def test_scores_are_compared_case_by_case():
    groups = {"a": "p", "b": "p", "c": "q"}
    ours, theirs = {"a": 0.9, "b": 0.5, "c": 0.7}, {"c": 0.6, "b": 0.7, "a": 0.6}
    found = difference(ours, theirs, groups)
    assert found["mean"] == pytest.approx((0.3 - 0.2 + 0.1) / 3) and found["n"] == 3
    one = difference(ours, theirs, dict.fromkeys(groups, "p"))
    assert one["low"] == one["high"] == one["mean"], "one group has no spread"
    with pytest.raises(InputError, match="of different cases"):
        difference(ours, {"a": 0.6}, groups)
