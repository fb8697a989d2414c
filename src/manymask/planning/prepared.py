"""The store of a run, and how it was prepared: other flags and changed files are noticed.

RUN/store/          the prepared images
RUN/prepared.json   the flags by which masks were read, and a digest of the files of the folder

Before training has begun, images are prepared again wherever flags, files or the plan's measures are others. Afterwards other
flags are refused, and changed files are told.
"""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from manymask import api
from manymask.data.case import Source
from manymask.data.datasets import DATASETS
from manymask.data.datasets.pairs import walk
from manymask.data.store import Store
from manymask.errors import ConfigError, ManymaskError
from manymask.io.atomic import read_object, write_json
from manymask.planning.plan import FILE, Plan
from manymask.planning.request import Request
from manymask.progress import say
from manymask.recipes import ROWS

RECORD = "prepared.json"
FLAGS = ("mask_threshold", "mask_labels", "invert", "skip_bad", "options")


def is_store(folder: Path) -> bool:
    """Whether a folder holds prepared images."""
    return (folder / "manifest.json").exists()


def source_of(asked: Request) -> Source:
    """The cases of the folder, whose pixels are not read yet."""
    return DATASETS["folder"].read(asked.data, 3, asked.reading, **asked.options)


def prepared(asked: Request, plan: Plan) -> Store:
    """The store in the run folder, prepared where it is missing or, before training has begun, not what is asked for.

    Args:
        asked: folder, run and flags.
        plan: of the run.

    Returns:
        The store.

    Raises:
        ConfigError: training began with images of other measures, or with masks that were read in another way.
        ManymaskError: the folder cannot be used.
    """
    place, how = asked.run / "store", _how(asked)
    if is_store(place):
        old, before = Store(place), _record(asked.run)
        fits = (old.stored[0], old.channels) == (plan.size, plan.channels)
        if _begun(asked.run):
            if not fits:
                raise ConfigError(
                    f"{asked.run / FILE} asks for {plan.size}² with {plan.channels} channel(s), but training began at "
                    f"{old.stored[0]}² with {old.channels}: name another run folder", parameter="run", path=asked.run,
                )  # fmt: skip
            _check_flags(asked, how, before)
            _tell_changes(asked, old, how, before)
            return old
        if fits and before == how:
            return old
        if before != how and (asked.run / FILE).exists():
            say(
                f"manymask: flags or files changed: images are prepared again, {FILE} stays (delete it to plan again, too)"
            )
        shutil.rmtree(place)
    recipe = replace(ROWS["folder"], size=plan.size, channels=plan.channels)
    asked.run.mkdir(parents=True, exist_ok=True)
    store = api.prepare(recipe, place, asked.data, skip_bad=asked.skip_bad, reading=asked.reading, **asked.options)
    write_json(asked.run / RECORD, how)
    for line in store.warnings:
        say(f"manymask: {line}")
    return store


def _begun(run: Path) -> bool:
    return any(run.glob("*/config.yaml")) or any(run.glob("fold-*/*/config.yaml"))


def _how(asked: Request) -> dict[str, Any]:
    """The flags, and what tells whether a file was changed: its size and time."""
    reading = asked.reading
    flags = (reading.threshold, reading.labels, reading.invert, asked.skip_bad, dict(asked.options))
    found = hashlib.sha256()
    inside = asked.run.resolve()
    for path in (place / name for place, _, names in walk(asked.data) for name in names):
        if path.is_file() and not path.resolve().is_relative_to(inside):
            stat = path.stat()
            found.update(
                f"{path.relative_to(asked.data)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode(
                    "utf-8", "surrogateescape"
                )
            )
    told: dict[str, Any] = json.loads(json.dumps(dict(zip(FLAGS, flags, strict=True)), default=str))
    return told | {"files": found.hexdigest()}


def _record(run: Path) -> dict[str, Any]:
    """How the store was prepared; empty where that is not known."""
    try:
        return read_object(run / RECORD)
    except ManymaskError:
        return {}


def _check_flags(asked: Request, how: dict[str, Any], before: dict[str, Any]) -> None:
    """Flags that are given must be those of then; without any, masks stay as they were read."""
    other = [name for name in FLAGS if name in before and before[name] != how[name]]
    if not other:
        return
    then = ", ".join(f"{name}: {before[name]}" for name in other)
    if any(how[name] for name in other):
        raise ConfigError(
            f"training in {asked.run} began with masks that were read in another way ({then}): give the flags of then, or name "
            "another run folder",
            parameter=next(name for name in other if how[name]).replace("options", "run"),
            path=asked.run,
        )
    say(f"manymask: masks stay as they were read when this run began ({then})")


def _tell_changes(asked: Request, store: Store, how: dict[str, Any], before: dict[str, Any]) -> None:
    """Says what changed since the store was prepared; with `skip_bad` it left some images out by itself."""
    if before.get("files") == how["files"]:
        return
    go_on = "it goes on with those of then: name another run folder to train on those of now"
    now, then = {case.id for case in source_of(asked).cases}, set(store.ids)
    told = False
    for count, what in ((len(now - then), "added to"), (len(then - now), "taken out of")):
        were = "image was" if count == 1 else "images were"
        if count and not asked.skip_bad:
            told = True
            say(f"manymask: {count} {were} {what} {asked.data} since this run began; {go_on}")
    if before and not told:
        say(f"manymask: images or masks in {asked.data} were changed since this run began; {go_on}")
