"""Results get their place in the output folder: written aside, then put there whole, beside those of other images."""

import gzip
import itertools
import os
import zlib
from collections.abc import Callable, Container, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manymask.errors import ManymaskError
from manymask.io.atomic import (
    Ours,
    check_replaceable,
    locked,
    naming,
    put,
    read_json,
    settle,
    working_folder,
    write_json,
)
from manymask.io.record import SourceRecord

RESULT = "result.json"
PNG_END = b"IEND\xaeB`\x82"


@dataclass(frozen=True)
class Placed:
    """Where a result was put.

    Attributes:
        path: its folder.
        replaced: whether it replaced an earlier result of the same image.
        occupied: the folder of that name, if it holds the result of another image.
    """

    path: Path
    replaced: bool = False
    occupied: Path | None = None


@dataclass(frozen=True)
class Filled:
    """A result that is written in full, in a hidden folder of OUT, and waits for its place.

    Attributes:
        out: OUT.
        name: the name that it should get.
        work: the hidden folder.
        held: keeps it; closed, it is gone.
    """

    out: Path
    name: str
    work: Path
    held: ExitStack

    def put(self, source: SourceRecord, taken: Container[str] = ()) -> Placed:
        """Put the result into OUT/NAME.

        A result of another source is never replaced: the new one is put in OUT/NAME-2, or where the same source has its
        result already. Several programs may write to one OUT.

        Args:
            source: the image, by which an earlier result of it is recognised.
            taken: names that this run has used already.

        Returns:
            Where it was put.

        Raises:
            InputError: there is something other than a result.
        """
        with self.held, naming(self.out / self.name, self.work), locked(self.out):
            place = _place(self.out, self.name, source, taken)
            put(self.work / "new", place.path)
        return place

    def discard(self) -> None:
        """Remove the result."""
        self.held.close()


def fill_aside(out: Path, name: str, fill: Callable[[Path], None]) -> Filled:
    """Write a result into a hidden folder of OUT.

    Args:
        out: OUT.
        name: the name that it should get.
        fill: writes the result into a folder.

    Returns:
        The result, to be put in its place or discarded.
    """
    with ExitStack() as stack:
        work = stack.enter_context(working_folder(out))
        beside = work / "new"
        beside.mkdir()
        with naming(out / name, work):
            fill(beside)
            seal(beside)
            settle(beside)
        return Filled(out, name, work, stack.pop_all())


def seal(folder: Path) -> None:
    """Note in a result's result.json which files lie beside it, with their bytes, by which `is_whole` knows them.

    Args:
        folder: of the result.
    """
    files = {
        path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()
    }
    files.pop(RESULT, None)
    write_json(folder / RESULT, read_json(folder / RESULT) | {"files": files})


def is_whole(found: Mapping[str, Any], folder: Path) -> bool:
    """Whether none of the files of a result is missing, empty or cut short; what a person has edited since then is whole.

    Args:
        found: its result.json.
        folder: of the result.

    Returns:
        False also of a result.json that does not name them.
    """
    files = found.get("files")
    return isinstance(files, dict) and all(_is_whole(folder / name, size) for name, size in files.items())


def _is_whole(path: Path, size: int) -> bool:
    found = path.stat().st_size if path.is_file() else 0
    if found in (size, 0):
        return found == size
    if path.suffix == ".png":  # of another size: whole if its end is there
        return path.read_bytes()[-len(PNG_END) :] == PNG_END
    try:
        with gzip.open(path) as file:
            while file.read(1 << 20):
                pass
    except (OSError, EOFError, zlib.error):
        return False
    return True


def put_result(
    out: Path, name: str, source: SourceRecord, fill: Callable[[Path], None], taken: Container[str] = ()
) -> Placed:
    """Put a result into OUT/NAME, completely or not at all; see `Filled.put`.

    Args:
        out: OUT.
        name: NAME.
        source: as in `Filled.put`.
        fill: writes the result into a folder.
        taken: as in `Filled.put`.

    Returns:
        Where it was put.
    """
    return fill_aside(out, name, fill).put(source, taken)


def _place(out: Path, name: str, source: SourceRecord, taken: Container[str]) -> Placed:
    """The first of NAME, NAME-2, … with a result of this source; else the first that is free."""
    free: Path | None = None
    occupied: Path | None = None
    for number in itertools.count(1):
        path = out / (name if number == 1 else f"{name}-{number}")
        if path.name in taken:
            continue
        if not os.path.lexists(path):
            return Placed(path if free is None else free, occupied=occupied)
        check_replaceable(path, Ours(RESULT))
        if not (path / RESULT).exists():
            free = free or path
        elif not _source_in(path).differs(source):
            return Placed(path, replaced=True)
        else:
            occupied = occupied or path
    raise AssertionError


def _source_in(folder: Path) -> SourceRecord:
    try:
        return SourceRecord.read(read_json(folder / RESULT))
    except ManymaskError:
        return SourceRecord()
