"""The manifest of a store, checked when the store is opened: nothing later relies on what is not so.

Format 1 had no `format`, `content` and `read_by`: its hash is the `content` of today, and every rater read every image.
Formats 1 and 2 called the raters `readers`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from manymask.data.case import PARTS
from manymask.errors import InputError, ManymaskError, one_line
from manymask.io.atomic import read_json

FORMAT = 3
MASK_LIMIT = 2**31  # pixels of all native masks of a case


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a store, with what format 1 lacked; `InputError` for whatever does not fit together."""
    path = folder / "manifest.json"
    manifest = read_json(path)
    try:
        if not isinstance(manifest, dict):
            raise ValueError("it is no object")
        if manifest.get("format", 1) not in range(1, FORMAT + 1):
            raise InputError(
                f"{path}: format {manifest['format']!r}, this version reads up to {FORMAT}; prepare it again",
                path=path,
            )
        if "readers" in manifest:
            manifest["raters"] = manifest.pop("readers")
        manifest = {"content": manifest.get("hash"), "read_by": None, "warnings": [], "remark": ""} | manifest
        _check_cases(manifest)
        _check_schemes(manifest)
        _check_places(manifest, (folder / "native.bin").stat().st_size)
    except FileNotFoundError:
        raise InputError(f"{folder / 'native.bin'} is missing: prepare the data set again") from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise damaged(path, error) from None
    return manifest


def damaged(path: Path, error: Exception | str) -> ManymaskError:
    """The one sentence for every store that does not hold together."""
    said = error if isinstance(error, str) else one_line(error)
    return InputError(f"{path} is damaged ({said}): prepare the data set again", path=path)


def _check_cases(manifest: Mapping[str, Any]) -> None:
    for name in ("name", "hash", "content", "licence", "remark"):
        _expect(manifest, name, lambda value: isinstance(value, str))
    for name in ("size", "channels", "raters"):
        _expect(manifest, name, lambda value: _whole(value) and 1 <= value <= 2**15)
    for name in ("ids", "groups", "warnings"):
        _expect(manifest, name, lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value))
    ids, raters = manifest["ids"], manifest["raters"]
    if not ids or len(set(ids)) < len(ids) or len(manifest["groups"]) != len(ids):
        raise ValueError("ids and groups do not fit together")
    if manifest["read_by"] is not None and (
        len(manifest["read_by"]) != len(ids)
        or any(len(row) != raters or not set(row) <= {0, 1} or not any(row) for row in manifest["read_by"])
    ):
        raise ValueError("read_by does not fit the cases")


def _check_schemes(manifest: Mapping[str, Any]) -> None:
    _expect(manifest, "schemes", lambda value: isinstance(value, dict) and bool(value))
    known = set(manifest["ids"])
    for name, scheme in manifest["schemes"].items():
        if not set(scheme) <= set(PARTS) or not all(isinstance(ids, list) for ids in scheme.values()):
            raise ValueError(f"split {name!r} has other parts than {', '.join(PARTS)}")
        cases = [case for ids in scheme.values() for case in ids]
        if not set(cases) <= known or len(set(cases)) < len(cases):
            raise ValueError(f"split {name!r} names unknown cases, or some twice")


def _check_places(manifest: Mapping[str, Any], end: int) -> None:
    places = manifest["native"]
    if len(places) != len(manifest["ids"]):
        raise ValueError("native does not fit the cases")
    for place in places:
        if len(place) != 4 or not all(_whole(value) for value in place):
            raise ValueError("native holds something else than four numbers a case")
        start, length, height, width = place
        if start < 0 or length < 1 or start + length > end:
            raise ValueError("native points outside of native.bin")
        if height < 1 or width < 1 or manifest["raters"] * height * width > MASK_LIMIT:
            raise ValueError("native masks are empty or too large")


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _expect(manifest: Mapping[str, Any], name: str, check: Callable[[Any], bool]) -> None:
    if name not in manifest:
        raise ValueError(f"it has no {name}")
    if not check(manifest[name]):
        raise ValueError(f"{name} is of the wrong kind")


def open_array(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """A memory-mapped uint8 array of exactly this shape."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path} is missing: prepare the data set again", path=path) from None
    except Exception as error:  # numpy parses the header as Python
        raise damaged(path, error) from None
    if array.dtype != np.uint8 or array.shape != shape or not array.flags.c_contiguous:
        raise damaged(path, f"it holds {array.dtype} {array.shape}, the manifest says {shape}")
    result: np.ndarray = array
    return result
