"""Writes that happen whole or not at all, whatever ends the program in between.

What is being written lies in a hidden folder `.manymask-XXXXXXXX` beside its place, locked (flock) as long as its program
lives. A folder that nobody holds was left by a killed program: `sweep` removes it, and puts back what had been moved aside
for its successor where that never came.
"""

import ctypes
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from manymask.errors import InputError, ManymaskError
from manymask.io.text import MOST_BYTES, read_text

try:
    import fcntl
except ImportError:  # Windows: no locks, so nothing is swept either
    fcntl = None  # type: ignore[assignment]

PREFIX = ".manymask-"
_LITTER = (".DS_Store", "Thumbs.db")
_swept = set[Path]()  # by this process


@contextmanager
def working_folder(parent: Path) -> Iterator[Path]:
    """A hidden folder inside `parent`, ours alone, gone at the end; what killed programs left there is swept first."""
    with naming(parent):
        parent.mkdir(parents=True, exist_ok=True)
        if (place := parent.resolve()) not in _swept:
            _swept.add(place)
            sweep(parent)
        work, handle = _held(parent)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if handle is not None:
            os.close(handle)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a path to write to; puts it in the place of `path` if the block succeeds, removes it otherwise."""
    if any(part.startswith(PREFIX) for part in path.parent.parts):  # a part of a folder that is put in place as a whole
        yield path
        return
    with working_folder(path.parent) as work, naming(path, work):
        beside = work / path.name
        beside.touch()
        yield beside
        beside.chmod(0o644)
        _sync(beside)
        beside.replace(path)
        _sync(path.parent)


@dataclass(frozen=True)
class Ours:
    """What tells that a folder was written by us, and may be replaced.

    Attributes:
        mark: a file that it holds.
        key: of the JSON in that file, since others, too, call theirs `config.json`.
        files: patterns of all that we write there; what else lies there would be lost.
    """

    mark: str
    key: str = ""
    files: tuple[str, ...] = ("*",)


@contextmanager
def atomic_folder(path: Path, ours: Ours | None = None) -> Iterator[Path]:
    """The same for a folder. An existing one is replaced if it is empty or ours, else refused."""
    check_replaceable(path, ours)
    with working_folder(path.parent) as work, naming(path, work):
        beside = work / "new"
        beside.mkdir()
        yield beside
        settle(beside)
        check_replaceable(path, ours)
        put(beside, path)


def check_replaceable(path: Path, ours: Ours | None) -> None:
    """`InputError` where something stands that is not ours to replace."""
    if not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir())):
        return
    if ours is None or not _is_ours(path, ours):
        raise InputError(f"{path} exists already: remove it or name another place", path=path)
    for name in sorted(each.name for each in path.iterdir()):
        if name not in _LITTER and not any(fnmatchcase(name, pattern) for pattern in ours.files):
            raise InputError(
                f"{path} would be replaced, and {name} in it lost: move that, or name another place", path=path
            )


def check_place(folder: Path, files: Mapping[str, str]) -> None:
    """Before long work whose results go to a folder.

    Args:
        folder: it is made if it is not there.
        files: of the JSON that is written there, the names, and a key that ours has.

    Raises:
        InputError: the folder cannot be written, or such a file there is not ours.
    """
    if folder.is_file():
        raise InputError(f"{folder} is a file: name a folder", path=folder)
    with working_folder(folder):
        pass
    for name, key in files.items():
        if os.path.lexists(folder / name) and not _is_ours(folder, Ours(name, key)):
            raise InputError(f"{folder / name} exists already: remove it or name another place", path=folder / name)


def _is_ours(folder: Path, ours: Ours) -> bool:
    if not (folder / ours.mark).exists():
        return False
    try:
        return not ours.key or ours.key in read_object(folder / ours.mark)
    except ManymaskError:
        return False


def settle(folder: Path) -> None:
    """Everything in a folder is readable by all, as some writers leave it to its owner alone, and on the disk."""
    for file in (*folder.rglob("*"), folder):
        if not file.is_symlink():
            file.chmod(0o755 if file.is_dir() else 0o644)
            _sync(file)


def put(new: Path, path: Path) -> None:
    """Moves a folder out of a working folder into its place; one that stands there is gone with the working folder.

    Both change places in one step where the system can; else the old one waits in `old/` until the new one stands, and
    `sweep` puts it back if it never does.
    """
    if not path.exists():
        new.rename(path)
    elif not _exchange(new, path):
        aside = new.parent / "old"
        aside.mkdir()
        path.rename(aside / path.name)
        new.rename(path)
    _sync(path.parent)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One program at a time, as far as the file system knows locks."""
    handle = os.open(folder, os.O_RDONLY) if fcntl else None
    try:
        if handle is not None:
            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        if handle is not None:
            os.close(handle)


def sweep(parent: Path) -> None:
    """Removes what killed programs of this user left in a folder; what lives is locked and stays."""
    try:
        left = [Path(entry.path) for entry in os.scandir(parent) if entry.name.startswith(PREFIX)]
    except OSError:
        return
    for work in left:
        handle = _lock(work)
        if handle is None:
            continue
        try:
            for old in (work / "old").glob("*"):
                if not os.path.lexists(parent / old.name):
                    old.rename(parent / old.name)
            shutil.rmtree(work, ignore_errors=True)
        except OSError:
            pass  # not ours after all: it does no harm
        finally:
            os.close(handle)


def _held(parent: Path) -> tuple[Path, int | None]:
    """A new working folder and the lock on it; None where the file system has no locks."""
    while True:
        work = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        if fcntl is None:
            return work, None
        try:
            handle = os.open(work, os.O_RDONLY)
        except FileNotFoundError:
            continue  # swept between the two lines
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            os.close(handle)
            return work, None
        if work.exists() and work.stat().st_ino == os.fstat(handle).st_ino:
            return work, handle
        os.close(handle)


def _lock(work: Path) -> int | None:
    """The lock on a working folder that nobody holds; else None."""
    if fcntl is None:
        return None
    try:
        handle = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        if os.fstat(handle).st_uid == os.getuid():
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
    except OSError:
        pass
    os.close(handle)
    return None


def _exchange(one: Path, other: Path) -> bool:
    """Two folders change places in one step (renameat2, Linux); False where that cannot be had."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    here, exchange = -100, 2
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def _sync(path: Path) -> None:
    """What was written lies on the disk, not only in memory; folders cannot be told so everywhere."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        if path.is_dir():
            return
        raise
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        os.close(handle)


@contextmanager
def naming(path: Path, work: Path | None = None) -> Iterator[None]:
    """System errors that name no file, or one of a working folder, name the place that was to be written."""
    try:
        yield
    except OSError as error:
        named = error.filename
        hidden = work is not None and str(named).startswith(str(work))
        if error.errno is None or not (named is None or hidden or PREFIX in str(named)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


def write_json(path: Path, content: Any) -> None:
    """JSON with two spaces of indent; NaN is not JSON and raises. File names that are not Unicode are escaped, so that
    `read_json` gives them back."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    if not _encodable(text):
        text = json.dumps(content, indent=2, allow_nan=False)
    with atomic_file(path) as beside:
        beside.write_text(text + "\n", encoding="utf-8")


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_json(path: Path, most: int = MOST_BYTES) -> Any:
    """Parsed JSON of at most `most` bytes, or `InputError` naming the file."""
    try:
        return json.loads(read_text(path, most))
    except RecursionError:
        raise InputError(f"{path} is not readable JSON (nested too deeply)", path=path) from None
    except ValueError as error:
        raise InputError(f"{path} is not readable JSON ({error})", path=path) from None


def read_object(path: Path, most: int = MOST_BYTES) -> dict[str, Any]:
    """The same for a file that holds one JSON object."""
    content = read_json(path, most)
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, not a JSON object", path=path)
    return content
