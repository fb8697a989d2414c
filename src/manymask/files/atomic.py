"""Writes that either happen whole or not at all."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from manymask.errors import UserError
from manymask.files.text import MOST_BYTES, read_text


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to; renames it into place if the block succeeds, removes it otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    beside = Path(name)
    try:
        yield beside
        beside.chmod(0o644)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, ours: str | None = None) -> Iterator[Path]:
    """The same for a folder. An existing one is refused unless it is empty, or holds the file `ours` that tells it
    was written by us: then it is replaced."""
    if path.exists() and not _replaceable(path, ours):
        raise UserError(f"{path} exists already: remove it or name another place")
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    aside = beside.with_name(beside.name + ".old")
    try:
        yield beside
        beside.chmod(0o755)
        for file in beside.iterdir():
            file.chmod(0o755 if file.is_dir() else 0o644)  # some writers leave them readable to their owner alone
        if path.exists():
            path.rename(aside)
        beside.rename(path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)


def _replaceable(path: Path, ours: str | None) -> bool:
    return path.is_dir() and (not any(path.iterdir()) or (ours is not None and (path / ours).exists()))


def write_json(path: Path, content: Any) -> None:
    """JSON with two spaces of indent; NaN is not JSON and raises."""
    with atomic_file(path) as beside:
        beside.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path, most: int = MOST_BYTES) -> Any:
    """Parsed JSON of at most `most` bytes, or `UserError` naming the file."""
    try:
        return json.loads(read_text(path, most))
    except RecursionError:
        raise UserError(f"{path} is not readable JSON (nested too deeply)") from None
    except ValueError as error:
        raise UserError(f"{path} is not readable JSON ({error})") from None


def read_object(path: Path, most: int = MOST_BYTES) -> dict[str, Any]:
    """The same for a file that holds one JSON object."""
    content = read_json(path, most)
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a JSON object")
    return content
