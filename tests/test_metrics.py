"""Metrics against brute force and against libraries."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.classification import binary_f1_score, binary_jaccard_index

from manymask.metrics import Reliability, bootstrap, ged, hd95, hungarian_iou, overlap, psnr, ssim, summary

sets = st.integers(1, 4).flatmap(lambda n: arrays(bool, (n, 3, 3)))


def iou_by_hand(a, b):
    return (a & b).sum() / (a | b).sum() if (a | b).any() else 1.0


@given(sets, sets)
@settings(max_examples=60, deadline=None)
def test_ged_equals_brute_force(first, second):
    def distance(xs, ys):
        return np.mean([1 - iou_by_hand(x, y) for x in xs for y in ys])

    expected = 2 * distance(first, second) - distance(first, first) - distance(second, second)
    assert ged(first, second) == pytest.approx(expected, abs=1e-6)


@given(sets)
@settings(max_examples=40, deadline=None)
def test_identical_sets_have_ged_zero_and_hm_iou_one(masks):
    assert ged(masks, masks) == pytest.approx(0, abs=1e-6)
    assert hungarian_iou(masks, masks) == pytest.approx(1)


@given(arrays(bool, (2, 2, 2)), arrays(bool, (2, 2, 2)))
@settings(max_examples=40, deadline=None)
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
@settings(max_examples=40, deadline=None)
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


def test_psnr_and_ssim_equal_scikit_image():
    rng = np.random.default_rng(0)
    x = rng.random((1, 64, 64)).astype(np.float32)
    y = np.clip(x + 0.1 * rng.standard_normal(x.shape), 0, 1).astype(np.float32)
    assert psnr(torch.from_numpy(y), torch.from_numpy(x)) == pytest.approx(
        peak_signal_noise_ratio(x, y, data_range=1), abs=1e-3
    )
    expected = structural_similarity(
        x[0], y[0], data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(torch.from_numpy(y), torch.from_numpy(x)) == pytest.approx(expected, abs=0.02)


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
