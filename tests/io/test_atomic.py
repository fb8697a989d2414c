"""Writes are whole or not there, whoever kills, fills the disk, or writes to the same place at the same time."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from manymask.errors import InputError
from manymask.io import atomic
from manymask.io.atomic import PREFIX, Ours, atomic_file, atomic_folder, read_json, sweep, write_json

KILLED = """
import os, sys
from pathlib import Path
from manymask.io import atomic
{patch}
with atomic.atomic_folder(Path(sys.argv[1]), atomic.Ours("mark")) as beside:
    (beside / "mark").write_text("new")
    {inside}
"""


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def killed(target: Path, patch: str = "", inside: str = "os._exit(9)") -> None:
    code = KILLED.format(patch=patch, inside=inside)
    done = subprocess.run([sys.executable, "-c", code, str(target)], env=os.environ, check=False)
    assert done.returncode == 9


def write(target: Path, text: str) -> None:
    with atomic_folder(target, Ours("mark")) as beside:
        (beside / "mark").write_text(text)


def test_leftovers_of_a_killed_run_are_swept_and_those_of_a_living_one_stay(tmp_path):
    write(tmp_path / "m", "old")
    killed(tmp_path / "m")
    assert (tmp_path / "m" / "mark").read_text() == "old"
    (left,) = names(tmp_path) - {"m"}
    assert left.startswith(PREFIX)
    with atomic_file(tmp_path / "living.txt") as beside:
        beside.write_text("whole")
        sweep(tmp_path)
        assert beside.read_text() == "whole" and left not in names(tmp_path)
    assert names(tmp_path) == {"m", "living.txt"}
    (tmp_path / f"{PREFIX}link").symlink_to(tmp_path / "m")
    sweep(tmp_path)
    assert (tmp_path / "m" / "mark").exists()


@pytest.mark.parametrize("exchange", [True, False])
def test_folder_is_replaced_as_a_whole(tmp_path, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    for text in ("first", "second"):
        write(tmp_path / "m", text)
        assert (tmp_path / "m" / "mark").read_text() == text and names(tmp_path) == {"m"}


def test_kill_between_two_renames_loses_nothing(tmp_path):
    """Where the system cannot exchange two folders, the older one waits aside and comes back with the next sweep."""
    write(tmp_path / "m", "old")
    patch = """
atomic._exchange = lambda one, other: False
rename = Path.rename
Path.rename = lambda self, to: os._exit(9) if self.name == "new" else rename(self, to)"""
    killed(tmp_path / "m", patch, inside="")
    assert "m" not in names(tmp_path)
    sweep(tmp_path)
    assert (tmp_path / "m" / "mark").read_text() == "old" and names(tmp_path) == {"m"}


def test_what_is_not_ours_is_never_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="mine exists already: remove it or name another place"):
        write(tmp_path / "mine", "new")
    assert names(tmp_path) == {"mine"} and names(tmp_path / "mine") == {"thesis.txt"}


def test_failure_in_the_block_leaves_the_old_and_no_debris(tmp_path):
    write(tmp_path / "m", "old")
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "m", Ours("mark")):
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match="no"), atomic_file(tmp_path / "f.txt") as beside:
        beside.write_text("half")
        raise ValueError("no")
    assert names(tmp_path) == {"m"} and (tmp_path / "m" / "mark").read_text() == "old"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EMFILE])
def test_full_disk_names_the_place_that_was_to_be_written(tmp_path, code):
    for target in (tmp_path / "f.txt", tmp_path / "m"):
        writer = atomic_file if target.suffix else atomic_folder
        with pytest.raises(OSError) as caught, writer(target):
            raise OSError(code, os.strerror(code))
        assert (caught.value.errno, caught.value.filename) == (code, str(target))
    with pytest.raises(FileNotFoundError) as caught, atomic_file(tmp_path / "f.txt"):
        (tmp_path / "source").read_bytes()  # another file keeps its own name
    assert caught.value.filename == str(tmp_path / "source") and names(tmp_path) == set()


def test_place_that_cannot_be_written_is_named_without_our_hidden_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError) as caught, atomic_file(tmp_path / "file" / "f.txt"):
        pass
    assert PREFIX not in str(caught.value) and "file" in str(caught.value)


def test_long_names_are_no_longer_while_they_are_written(tmp_path):
    long = "n" * 251 + ".txt"
    with atomic_file(tmp_path / long) as beside:
        beside.write_text("x")
    assert names(tmp_path) == {long}


def test_file_names_that_are_no_unicode_survive_json(tmp_path):
    """Latin-1 names, as they come out of ZIP archives from Windows (case B17)."""
    content = {"file": os.fsdecode(b"l\xe9sion.png"), "other": "Läsion ✓"}
    write_json(tmp_path / "r.json", content)
    assert read_json(tmp_path / "r.json") == content
    json.loads((tmp_path / "r.json").read_bytes().decode("utf-8"))
    write_json(tmp_path / "plain.json", {"other": "Läsion ✓"})
    assert "Läsion ✓" in (tmp_path / "plain.json").read_text(encoding="utf-8")


def test_parts_of_a_folder_are_put_in_place_with_it(tmp_path):
    with atomic_folder(tmp_path / "m") as beside:
        with atomic_file(beside / "part.bin") as part:
            part.write_bytes(b"x")
        (beside / "deep").mkdir(mode=0o700)
        assert names(beside) == {"part.bin", "deep"}
    assert (tmp_path / "m" / "part.bin").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "m" / "deep").stat().st_mode & 0o777 == 0o755
