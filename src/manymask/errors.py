"""The one kind of error that a user is meant to read."""

import difflib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class UserError(Exception):
    """A mistake in what was given, told in one line that names the file and the mend.

    The command line prints it without a stack trace and exits with status 2.
    """


@contextmanager
def decoding(path: os.PathLike[str] | str) -> Iterator[None]:
    """Around everything that decodes a file: whatever goes wrong inside becomes one `UserError` that names `path`.

    Decoders raise anything on damaged or hostile bytes, from struct.error to NotImplementedError.
    """
    try:
        yield
    except UserError:
        raise
    except MemoryError:
        raise UserError(f"{path} does not fit into memory; scale it down first") from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno:  # from the system, not from a decoder
            raise UserError(f"{path}: {error.strerror}") from None
        raise UserError(f"{path} is damaged, cut short or not supported ({one_line(error)})") from None


def one_line(error: BaseException, limit: int = 160) -> str:
    """What an exception says, on one line of bounded length; the name of its class where it says nothing."""
    text = " ".join(str(error).split())
    if not text:
        return type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


def at_least_one(flag: str, value: int | None) -> None:
    """`UserError` for a flag that counts something and counts nothing."""
    if value is not None and value < 1:
        raise UserError(f"{flag} must be at least 1, not {value}")


def in_range(flag: str, value: float | None, low: float, high: float) -> None:
    """`UserError` for a flag outside of what it may be."""
    if value is not None and not low <= value <= high:
        raise UserError(f"{flag} must lie in {low} … {high}, not {value}")


def guesses(word: str, known: Iterable[str]) -> str:
    """`; did you mean …?` with the known words that are most like this one; empty where none is."""
    near = difflib.get_close_matches(word, list(known), 3, 0.5)
    return f"; did you mean {', '.join(near)}?" if near else ""


class Interruption(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, raised when what was under way has been left whole. `status` is the exit status it asks for."""

    def __init__(self, number: int, message: str = "interrupted") -> None:
        super().__init__(message)
        self.number = number

    @property
    def status(self) -> int:
        return 128 + self.number
