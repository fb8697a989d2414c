"""OUT/summary.csv: one line per result in a folder, the images whose masks agree least first."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from manymask.errors import InputError, ManymaskError
from manymask.io.atomic import atomic_file, locked, read_json

NAME = "summary.csv"
COLUMNS = (
    "name",
    "input",
    "unit",
    "area_mean",
    "area_sd",
    "area_consensus",
    "pairwise_iou",
    "mean_entropy_bits",
    "predicted_dice",
    "dice_low",
    "dice_high",
    "failure",
    "presence",
    "foreign",
    "warnings",
)


def write_summary(out: Path) -> Path | None:
    """Write OUT/summary.csv from every OUT/*/result.json, whichever run wrote it.

    Args:
        out: OUT.

    Returns:
        The path of the summary; None if there are fewer than two results, for which none is written.

    Raises:
        InputError: a file of this name was not written by this program.
    """
    found = [(path.parent.name, _read(path)) for path in sorted(out.glob("*/result.json"))]
    rows = [row(name, result) for name, result in found if isinstance(result.get("areas"), list) and result["areas"]]
    if len(rows) < 2:
        return None
    rows.sort(key=lambda r: (r["pairwise_iou"] == "", r["pairwise_iou"], r["name"]))
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    path = out / NAME
    with locked(out):
        if path.exists() and not path.read_bytes().startswith(",".join(COLUMNS[:4]).encode()):
            raise InputError(f"{path} is not ours: no summary is written, name another place or move it", path=path)
        with atomic_file(path) as beside:
            beside.write_bytes(text.getvalue().encode("utf-8", "backslashreplace"))
    return path


def row(name: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """One line of the summary.

    Args:
        name: of the result's folder.
        result: content of its result.json.

    Returns:
        Values of `COLUMNS`; areas in mm² if the spacing is known, else in pixels; what is predicted is that of the
        consensus at 0.5, and empty where the result is not calibrated.
    """
    known = "areas_mm2" in result
    areas = np.asarray(result["areas_mm2" if known else "areas"], dtype=np.float64)
    return {
        "name": name, "input": result.get("input", ""), "unit": "mm2" if known else "px",
        "area_mean": round(float(areas.mean()), 3), "area_sd": round(float(areas.std(ddof=min(1, len(areas) - 1))), 3),
        "area_consensus": result.get("area_consensus_mm2" if known else "area_consensus", ""),
        "pairwise_iou": "" if result.get("pairwise_iou") is None else result["pairwise_iou"],
        "mean_entropy_bits": result.get("mean_entropy_bits", ""), **_predicted(result),
        "warnings": " ".join(result.get("warnings", ())),
    }  # fmt: skip


def _predicted(result: Mapping[str, Any]) -> dict[str, Any]:
    promises = result.get("promises")
    worst = promises.get("worst") if isinstance(promises, dict) else None
    values = worst if isinstance(worst, dict) else {}
    named = {"predicted_dice": "dice"} | {name: name for name in ("dice_low", "dice_high", "failure", "presence")}
    row = {name: "" if values.get(key) is None else round(values[key], 4) for name, key in named.items()}
    foreign = values.get("foreign")
    return {**row, "foreign": "" if foreign is None else "yes" if foreign else "no"}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except ManymaskError:
        return {}
    return content if isinstance(content, dict) else {}
