"""The small parts of optimisation by value."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from manymask.recipes import Training
from manymask.runtime import bf16_is_faster
from manymask.training.optim import batch_ids, clipping_groups, learning_rate, warm_started_ema


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 0.2), (4, 1.0), (3, 0.8), (16, 1.0), (64, 0.5), (256, 0.25)], ids=lambda v: str(v)
)
def test_learning_rate_warms_up_stays_and_falls_with_the_root_of_the_step(step, rate):
    assert learning_rate(step, Training(learning_rate=1.0, warmup=5, decay_after=16)) == pytest.approx(rate)
    assert learning_rate(step, Training(learning_rate=2.0, warmup=5, decay_after=16)) == pytest.approx(2 * rate)


def test_without_warm_up_the_first_step_has_the_full_rate():
    assert learning_rate(0, Training(learning_rate=1.0, warmup=0, decay_after=0)) == 1.0


@pytest.mark.parametrize(("count", "share"), [(0, 1 / 10), (1, 2 / 11), (90, 0.9), (torch.tensor(10**6), 0.9)])
def test_average_keeps_a_share_that_grows_to_its_decay(count, share):
    averaged = [torch.tensor([1.0, 3.0])]
    warm_started_ema(0.9)(averaged, [torch.tensor([2.0, 1.0])], count)
    assert averaged[0].tolist() == pytest.approx([share + 2 * (1 - share), 3 * share + (1 - share)])


def test_batches_cut_one_row_of_shuffled_epochs():
    ids = [str(i) for i in range(5)]
    row = [case for step in range(5) for case in batch_ids(ids, 3, step, 2)]
    assert sorted(row[:5]) == sorted(row[5:]) == ids and row[:5] != row[5:]
    assert row == [case for step in range(2) for case in batch_ids(ids, 3, step, 5)], "however it is cut"
    assert row != [case for step in range(5) for case in batch_ids(ids, 4, step, 2)]


@pytest.mark.parametrize(("half", "single", "faster"), [(1, 2, True), (2, 1, False), (1, 1.05, False), (1, 1.2, True)])
def test_half_precision_is_taken_where_its_best_time_is_shorter_by_a_tenth(monkeypatch, half, single, faster):
    """Of four times each, the third is the best."""
    lengths = [scale * length for scale in (half, single) for length in (9, 5, 1, 7)]
    ticks = iter([tick for length in lengths for tick in (100.0, 100.0 + length)])
    monkeypatch.setattr("manymask.runtime.time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    assert bf16_is_faster() is faster


def test_parts_that_are_trained_apart_are_clipped_apart():
    whole, part = nn.Module(), nn.Linear(1, 1)
    whole.first, whole.apart, whole.last = nn.Linear(2, 2, bias=False), part, nn.Linear(2, 2, bias=False)
    assert [len(group) for group in clipping_groups(whole)] == [4]
    part.trained_apart = True
    groups = clipping_groups(whole)
    assert [{id(p) for p in group} for group in groups] == [
        {id(whole.first.weight), id(whole.last.weight)},
        {id(part.weight), id(part.bias)},
    ]
