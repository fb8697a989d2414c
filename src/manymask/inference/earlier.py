"""Results of an earlier run that a run would draw again in the same way: what makes them equal, and whole."""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from manymask.calibration.calibration import Calibration
from manymask.errors import ManymaskError
from manymask.inference.placing import is_whole
from manymask.io.atomic import read_object
from manymask.io.record import Record, SourceRecord

_SETTINGS = ("samples", "seed", "threshold", "sampler", "orientations", "guidance_scale", "head_share", "rois",
             "left_out")  # fmt: skip


class EarlierResults:
    """Results in a folder by their source, each of which is taken once, by whichever thread.

    Of each only its name and the hash of its pixels are kept.

    Args:
        out: the folder.
        made: a record of the settings; its source does not count.
        calibration: of the results; None if they are not calibrated.
        fits: further conditions on a result.json and its folder.
    """

    def __init__(
        self,
        out: Path,
        made: Record,
        calibration: Calibration | None,
        fits: Callable[[Mapping[str, Any], Path], bool],
    ) -> None:
        self.out = out
        self._lock = threading.Lock()
        self._names: dict[str, list[str]] = {}
        for path in sorted(out.glob("*/result.json")):
            found = read_result(path.parent)
            alike = found and _drawn_alike(found, made) and _promises_alike(found, calibration)
            if alike and fits(found, path.parent) and is_whole(found, path.parent):
                self._names.setdefault(SourceRecord.read(found).pixels_sha256, []).append(path.parent.name)

    def take(self, source: SourceRecord) -> str | None:
        """The name of a result of this source; None if there is none left.

        Args:
            source: of the picture or series.

        Returns:
            The name of a folder.
        """
        with self._lock:
            names = self._names.get(source.pixels_sha256, [])
            for name in names:
                if SourceRecord.read(read_result(self.out / name)) == source:
                    names.remove(name)
                    return name
        return None

    def take_all(self, sources: Sequence[SourceRecord]) -> list[str]:
        """The names of results of all of these sources, or none.

        Args:
            sources: of pictures and series.

        Returns:
            Names of folders in their order; empty if one of them has no result.
        """
        names: list[str] = []
        for source in sources:
            name = self.take(source)
            if name is None:
                return []
            names.append(name)
        return names


def read_result(folder: Path) -> dict[str, Any]:
    """The result.json of a folder; empty if it cannot be read."""
    try:
        return read_object(folder / "result.json")
    except ManymaskError:
        return {}


def value_at(content: Any, *keys: str) -> Any:
    """A value of nested dictionaries; None if there is none."""
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content


def _drawn_alike(found: Mapping[str, Any], record: Record) -> bool:
    made = json.loads(json.dumps(record.facts()))
    return (
        all(found.get(name) == made.get(name) for name in _SETTINGS)
        and value_at(found, "model", "weights_sha256") == record.model.weights_sha256
        and value_at(found, "model", "settings_sha256") == record.model.settings_sha256
        and value_at(found, "manymask", "version") == record.version
        and "noise" in found
        and found.get("tile") == _tile(found, record.tile)
    )


def _tile(found: Mapping[str, Any], tile: int | None) -> int | None:
    """The windows that an image of this size is drawn in; None of one that a single window covers."""
    sides = [found.get(name) for name in ("width", "height")]
    covered = tile is not None and all(isinstance(side, int) and side <= tile for side in sides)
    return None if covered else tile


def _promises_alike(found: Mapping[str, Any], calibration: Calibration | None) -> bool:
    promises = found.get("promises")
    theirs = (value_at(promises, "data_hash"), value_at(promises, "created"))
    ours = (None, None) if calibration is None else (calibration.origin.data_hash, calibration.origin.created)
    return theirs == ours and (value_at(promises, "worst") is None) == (calibration is None)
