"""Threads change neither results nor their order, and nothing is left of work that was stopped."""

import threading
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manymask.parallel import CancelledError, Stop, draws_at_once, in_order, shared_cores


@settings(max_examples=40)
@given(st.lists(st.integers(0, 3), max_size=25), st.integers(1, 5), st.integers(0, 6))
def test_results_come_in_the_order_of_the_items_and_few_are_under_way(sizes, threads, most):
    lock, now = threading.Lock(), {"items": 0, "size": 0}
    peaks = dict(now)

    def feed():
        for k, size in enumerate(sizes):
            with lock:
                now["items"] += 1
                now["size"] += size
                peaks["items"] = max(peaks["items"], now["items"])
                if now["items"] > 1:
                    peaks["size"] = max(peaks["size"], now["size"])
            yield k, size

    def work(item):
        time.sleep(0.001 * (item[0] * 7 % 3))
        return item[0] ** 2

    found = []
    for result in in_order(work, feed(), threads, size=lambda item: item[1], most=most):
        with lock:
            now["items"] -= 1
            now["size"] -= sizes[len(found)]
        found.append(result)
    assert found == [k**2 for k in range(len(sizes))]
    assert peaks["items"] <= 2 * threads + 1  # and the next, which is known but not begun
    if most:
        assert peaks["size"] <= max(most, 3) + 3


def test_an_error_is_raised_in_its_turn_and_leaves_nothing_behind():
    stop, gone = Stop(), []

    def work(k):
        if k == 2:
            raise ValueError("2")
        return k

    found, before = [], threading.active_count()
    with pytest.raises(ValueError, match="2"):
        for result in in_order(work, range(10), 4, stop=stop, discard=gone.append):
            found.append(result)
    assert found == [0, 1] and stop.is_set() and threading.active_count() == before
    assert not {0, 1, 2} & set(gone) and len(gone) == len(set(gone))


def test_whoever_stops_early_waits_for_no_long_work():
    stop, begun, gone = Stop(), [], []

    def work(k):
        begun.append(k)
        while k:  # until it is told
            try:
                stop.check()
            except CancelledError:
                return k
            time.sleep(0.001)
        return k

    results = in_order(work, range(100), 2, stop=stop, discard=gone.append)
    assert next(results) == 0
    results.close()
    assert len(begun) <= 4 and sorted(gone) == sorted(set(begun) - {0})


def test_draws_share_the_threads_of_the_processor():
    cores = torch.get_num_threads()
    try:
        for have, draws in ((1, 1), (2, 2), (16, 8)):
            torch.set_num_threads(have)
            assert draws_at_once("cpu") == draws and draws_at_once("cuda:0") == 1
            with shared_cores(draws) as threads:
                assert torch.get_num_threads() == have // draws and threads > draws
            assert torch.get_num_threads() == have
    finally:
        torch.set_num_threads(cores)
