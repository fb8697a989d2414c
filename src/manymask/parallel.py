"""Many items at once in threads: results come in the order of the items, and a bounded number is under way.

The only place that starts threads for throughput. Networks and decoders run outside of Python's lock, so threads are enough.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")

MOST_AT_ONCE = 8  # draws on the processor: each has its own feature maps


class CancelledError(Exception):
    """The work was stopped before it was done."""


class Stop(threading.Event):
    """Tells workers to stop."""

    def check(self, *_: object) -> None:
        """Raise `CancelledError` once it is set; can be called before each network pass."""
        if self.is_set():
            raise CancelledError


def draws_at_once(device: str) -> int:
    """How many draws share the processor: one for each of its cores, or a single one on an accelerator."""
    return min(torch.get_num_threads(), MOST_AT_ONCE) if device == "cpu" else 1


@contextmanager
def shared_cores(draws: int) -> Iterator[int]:
    """Inside, each of so many draws has its share of torch's threads: images beside one another scale, one image does not.

    Yields how many worker threads keep them busy while others read and write.
    """
    cores = torch.get_num_threads()
    torch.set_num_threads(max(1, cores // draws))
    try:
        yield draws + max(1, cores // 2)
    finally:
        torch.set_num_threads(cores)


def in_order(
    work: Callable[[T], R],
    items: Iterable[T],
    threads: int,
    *,
    stop: Stop | None = None,
    size: Callable[[T], int] = lambda item: 0,
    most: int = 0,
    discard: Callable[[R], object] = lambda result: None,
) -> Generator[R, None, None]:
    """Apply `work` to each item in threads; `items` itself is gone through here, a little ahead of the results.

    At most 2 · threads items are under way, and of more than one their sizes add up to at most `most`. An error of `work`
    is raised in its turn. However it ends, no thread is left: `stop` is set, what has not begun is dropped, and finished
    results that nobody took are given to `discard`.
    """
    waiting: deque[tuple[Future[R], int]] = deque()
    held = 0
    with ThreadPoolExecutor(threads, thread_name_prefix="manymask") as pool:
        try:
            for item in items:
                weight = size(item)
                while waiting and (len(waiting) >= 2 * threads or held + weight > most > 0 or waiting[0][0].done()):
                    result = waiting[0][0].result()  # taken off the line only then: an interruption discards it
                    held -= waiting.popleft()[1]
                    yield result
                waiting.append((pool.submit(work, item), weight))
                held += weight
            while waiting:
                result = waiting[0][0].result()
                waiting.popleft()
                yield result
        finally:
            if stop is not None:
                stop.set()
            pool.shutdown(cancel_futures=True)
            for future, _ in waiting:
                if not future.cancelled() and future.exception() is None:
                    discard(future.result())
