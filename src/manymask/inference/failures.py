"""Errors of single images, reported while the run goes on; a full disk ends the run."""

import errno
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from manymask.errors import InputError, ManymaskError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class FullError(Exception):
    """Nothing more can be written: the disk is full, a quota is used up, or the file system is read-only."""


@contextmanager
def reported(report: Callable[[ManymaskError], None], label: str | None) -> Iterator[None]:
    """Report any error of one image or one write as one line, and go on.

    An unforeseen error is reported by its type and place alone, since its text might hold patient data. With the
    environment variable MANYMASK_DEBUG it is raised instead.

    Args:
        report: called with the error.
        label: the image or place, put before errors that name no file; None if there is none.

    Yields:
        Nothing.

    Raises:
        FullError: nothing more can be written.
    """
    before = f"{label}: " if label is not None else ""
    try:
        yield
    except ManymaskError as error:
        report(error if error.path is not None else error.reworded(f"{before}{error}"))
    except OSError as error:
        place = before if error.filename is None else f"{error.filename}: "
        line = f"{place}{error.strerror or error}"
        if error.errno in _FULL:
            raise FullError(line) from None
        report(InputError(line))
    except MemoryError:
        report(InputError(f"{label or 'this series'} does not fit into memory; scale it down first", path=label))
    except (FullError, GeneratorExit):
        raise
    except Exception as error:
        if os.environ.get("MANYMASK_DEBUG"):
            raise
        report(_unforeseen(error, label, before))


def _unforeseen(error: Exception, label: str | None, before: str) -> InputError:
    where = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(where.filename).name}:{where.lineno}"
    return InputError(f"{before}unforeseen {type(error).__name__} at {place}; please report it", path=label)
