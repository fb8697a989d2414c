"""Small text files, read whole: regular files of bounded size alone, so that a device or a huge file is never read."""

import stat
import unicodedata
from pathlib import Path

from manymask.errors import InputError

MOST_BYTES = 64_000_000


def check_regular(path: Path, most: int) -> None:
    """`InputError` unless `path` is a regular file of at most `most` bytes."""
    try:
        found = path.stat()
    except FileNotFoundError:
        raise InputError(f"{path} is missing", path=path) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error})", path=path) from None
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path} is not a regular file", path=path)
    if found.st_size > most:
        raise InputError(
            f"{path} holds {found.st_size:,} bytes, more than the {most:,} that such a file may have", path=path
        )


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """The text of a small UTF-8 file. Raises `InputError` naming the file if it is missing, no regular file, larger than
    `most` bytes, or not UTF-8."""
    check_regular(path, most)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text: it is damaged", path=path) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})", path=path) from None


def composed(text: object) -> str:
    """Text in Unicode's composed form (NFC): systems write `ä` as one character or as two, and mean the same."""
    return unicodedata.normalize("NFC", str(text))
