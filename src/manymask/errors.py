"""The errors that a user is meant to read, by what they are about."""

import copy
import difflib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self


class ManymaskError(Exception):
    """Base of the errors that a user is meant to read: one line that names what is wrong and how to mend it.

    The command line prints it without a stack trace and exits with status 2. Callers such as the command line and the
    page add their own words from the fields; the message itself names no flag.

    Attributes:
        path: the file or folder that is meant, if there is one.
        parameter: the name of the argument or setting that is wrong, such as `steps`.
        remedies: names of parameters of which another value would help, such as `mask_labels`.
        details: a line for each of several problems, where the message announces them.
    """

    def __init__(
        self,
        message: str = "",
        *,
        path: os.PathLike[str] | str | None = None,
        parameter: str | None = None,
        remedies: Iterable[str] = (),
        details: Iterable[str] = (),
    ) -> None:
        super().__init__(message)
        self.path = path
        self.parameter = parameter
        self.remedies = tuple(remedies)
        self.details = tuple(details)

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *(f"  {line}" for line in self.details)])

    def reworded(self, message: str) -> Self:
        """The same error, of the same type and with the same fields, with another message."""
        other = copy.copy(self)
        other.args = (message,)
        other.details = ()
        return other


class InputError(ManymaskError):
    """A file, image, mask, data set or request that cannot be used."""


class ConfigError(ManymaskError):
    """Settings, a recipe, a format or a model folder that are out of range or do not fit together."""


class DataLeakError(ManymaskError):
    """Cases that are held out were trained on.

    Attributes:
        cases: their ids.
    """

    def __init__(self, message: str = "", *, cases: Iterable[str] = (), **fields: Any) -> None:
        super().__init__(message, **fields)
        self.cases = tuple(cases)


class MissingExtraError(ManymaskError):
    """An optional dependency is not installed.

    Attributes:
        extra: the extra of manymask that installs it, as in `pip install 'manymask[EXTRA]'`.
        package: the package that is missing.
    """

    def __init__(
        self, message: str = "", *, extra: str | None = None, package: str | None = None, **fields: Any
    ) -> None:
        super().__init__(message, **fields)
        self.extra = extra
        self.package = package


@contextmanager
def decoding(path: os.PathLike[str] | str) -> Iterator[None]:
    """Around everything that decodes a file: whatever goes wrong inside becomes one `InputError` that names `path`.

    Decoders raise anything on damaged or hostile bytes, from struct.error to NotImplementedError.
    """
    try:
        yield
    except ManymaskError:
        raise
    except MemoryError:
        raise InputError(f"{path} does not fit into memory; scale it down first", path=path) from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno:  # from the system, not from a decoder
            raise InputError(f"{path}: {error.strerror}", path=path) from None
        raise InputError(f"{path} is damaged, cut short or not supported ({one_line(error)})", path=path) from None


def one_line(error: BaseException, limit: int = 160) -> str:
    """What an exception says, on one line of bounded length; the name of its class where it says nothing."""
    text = " ".join(str(error).split())
    if not text:
        return type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


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
