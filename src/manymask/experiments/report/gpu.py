"""What `scripts/gpu_check.sh` found on a GPU, as a section of the report."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from manymask.experiments.report.shape import ANYTHING, check
from manymask.experiments.report.table import Column, Table
from manymask.io.atomic import read_object

FILE = "gpu.json"
TITLES = {
    "compare": "Masks of the shipped models on the device, and on the CPU from the same noise",
    "train": "Training of each family, and its masks on the device and on the CPU",
    "beside": "Five masks of one image beside what others do (seconds × times: one step was timed)",
    "speed": "Five masks of each image: precision, layout, compilation",
    "export": "The exported graph on ONNX Runtime",
    "tests": "Tests on the device",
}
FORM: dict[str, Any] = {
    "revision": str,
    "created": str,
    "quick": bool,
    "hardware": {"device": str, "torch": str, "gpu": (str, type(None)), **ANYTHING},
    "parts": {
        "*": {
            "kind": str,
            "status": str,
            "seconds": float,
            "end": str,
            "rows": [{"*": (float, str, type(None))}],
            **ANYTHING,
        }
    },
    **ANYTHING,
}


def gpu_section(path: Path) -> list[str]:
    """Lines of Markdown: machine, verdict on the masks, a table for each kind of part, and what did not end well.

    Args:
        path: the file that the check wrote.

    Raises:
        InputError: the file is damaged.
    """
    found = read_object(path)
    check(found, FORM, str(path))
    hardware, parts = found["hardware"], found["parts"]
    where = f"{hardware['gpu'] or hardware['device']}, torch {hardware['torch']}"
    lines = [
        f"## GPU check: {where}", "",
        f"Revision {found['revision']}, {found['created'][:10]}, `scripts/gpu_check.sh`"
        f"{', a rehearsal' if found['quick'] else ''}. {_verdict(parts)}", "",
    ]  # fmt: skip
    for kind in dict.fromkeys(part["kind"] for part in parts.values()):
        rows = [row for part in parts.values() if part["kind"] == kind for row in part["rows"]]
        if rows:
            lines.append(_table(kind, rows).markdown())
    ended = [
        f"- {name}: {part['status']} after {part['seconds']:.0f} s. `{_last(part['end'])}`"
        for name, part in parts.items()
        if part["status"] != "done"
    ]
    return lines + (["### Not done", "", *ended, ""] if ended else [])


def _verdict(parts: dict[str, Any]) -> str:
    """How many of the comparisons with the CPU keep their limit."""
    compared = [row for part in parts.values() for row in part["rows"] if "limit" in row]
    kept = sum(row["max_difference"] <= row["limit"] for row in compared)
    return f"Masks are those of the CPU within the limit for {kept} of {len(compared)} models."


def _table(kind: str, rows: Sequence[dict[str, Any]]) -> Table:
    """A column for each key, in the order in which they come up."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    columns = [Column(key.replace("_", " "), _number) for key in keys]
    return Table(f"gpu-{kind}", TITLES.get(kind, kind), columns, [[row.get(key) for key in keys] for row in rows])


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _last(text: str) -> str:
    return text.splitlines()[-1].replace("`", "'") if text else "no time was left"
