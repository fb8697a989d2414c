"""Ctrl-C and SIGTERM: what is under way is left whole, then the process ends with the status that the signal asks for."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from manymask.errors import Interruption

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_raised: list[int] = []


def interrupt_on_sigterm() -> None:
    """SIGTERM raises `Interruption`, as Ctrl-C raises KeyboardInterrupt: what is half written is removed on the way out."""
    _raised.clear()
    signal.signal(signal.SIGTERM, _raise)


def _raise(number: int, frame: FrameType | None) -> None:
    _raised.append(number)
    raise Interruption(number)


def interrupted(error: BaseException) -> BaseException:
    """The interruption behind an error, if a SIGTERM was raised before: code that was being loaded, such as torch's, may
    swallow that and fail over what it then lacks."""
    if not _raised or isinstance(error, (Interruption, KeyboardInterrupt)):
        return error
    return Interruption(_raised[0])


class Deferred:
    """Holds the first Ctrl-C or SIGTERM back until it is asked for; a second Ctrl-C ends the process at once.

    Enter it as a context; outside of the main thread, where no handler can be set, it holds nothing back.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._at_once = False
        self._old: dict[int, Any] = {}

    def __enter__(self) -> "Deferred":
        self.number = None
        try:
            self._old = {number: signal.signal(number, self._note) for number in SIGNALS}
        except ValueError:
            self._old = {}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        self.number = self.number or number
        if self._at_once:
            raise Interruption(number)

    @contextmanager
    def at_once(self, when: bool = True) -> Iterator[None]:
        """Inside, a signal raises `Interruption` in the middle of what is done; one that was held back raises on entry."""
        self._at_once = when
        try:
            if when and self.number is not None:
                raise Interruption(self.number)
            yield
        finally:
            self._at_once = False
