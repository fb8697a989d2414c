"""OUT/summary.csv: one line per result in a folder, the images whose masks agree least first."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from manymask.errors import InputError
from manymask.inference.earlier import read_result
from manymask.inference.volumes import spread
from manymask.io.atomic import atomic_file, locked

NAME = "summary.csv"
COLUMNS = (
    "name",
    "input",
    "unit",
    "area_mean",
    "area_sd",
    "area_low",
    "area_high",
    "area_consensus",
    "volume_mean_ml",
    "volume_sd_ml",
    "volume_low_ml",
    "volume_high_ml",
    "volume_consensus_ml",
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

    Results are read one by one, twice: for their order, of which name and agreement are kept, and for their lines.

    Args:
        out: OUT.

    Returns:
        The path of the summary; None if there are no results.

    Raises:
        InputError: a file of this name was not written by this program.
    """
    order = sorted(_places(out))
    if not order:
        return None
    path = out / NAME
    with locked(out):
        if path.exists() and not _ours(path):
            raise InputError(f"{path} is not ours: no summary is written, name another place or move it", path=path)
        with (
            atomic_file(path) as beside,
            beside.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
        ):
            table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            table.writeheader()
            for _, _, name in order:
                result = read_result(out / name)
                if _listed(result):
                    table.writerow(row(name, result))
    return path


def _places(out: Path) -> Iterator[tuple[bool, float, str]]:
    """Of each result, what its place in the table depends on: the least agreement first, none at all last."""
    for path in out.glob("*/result.json"):
        result = read_result(path.parent)
        if _listed(result):
            agreement = _agreement(result)
            yield agreement is None, agreement or 0.0, path.parent.name


def _listed(result: Mapping[str, Any]) -> bool:
    """Whether a result is that of a picture, or of a series with its volumes."""
    return any(isinstance(result.get(name), list) and result[name] for name in ("areas", "volumes"))


def _agreement(result: Mapping[str, Any]) -> float | None:
    found = _volume(result).get("pairwise_iou") if "volumes" in result else result.get("pairwise_iou")
    return found if isinstance(found, float) else None


def _volume(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """The only volume of a series; empty if there are several, which have no line of their own."""
    volumes = result["volumes"]
    return volumes[0] if len(volumes) == 1 and isinstance(volumes[0], dict) else {}


def _ours(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(200).startswith(",".join(COLUMNS[:4]).encode())


def row(name: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """One line of the summary.

    Args:
        name: of the result's folder.
        result: content of its result.json.

    Returns:
        Values of `COLUMNS`; areas in mm² if the spacing is known, else in pixels, of series volumes in ml. Low and high are
        the 5th and the 95th percentile of the masks. What is predicted is that of the consensus at 0.5, and empty where the
        result is not calibrated.
    """
    agreement = _agreement(result)
    return {
        "name": name, "input": result.get("input", ""), **(_volumes(result) if "volumes" in result else _areas(result)),
        "pairwise_iou": "" if agreement is None else agreement,
        "mean_entropy_bits": result.get("mean_entropy_bits", ""), **_predicted(result),
        "warnings": " ".join(result.get("warnings", ())),
    }  # fmt: skip


def _areas(result: Mapping[str, Any]) -> dict[str, Any]:
    known = "areas_mm2" in result
    areas = result["areas_mm2" if known else "areas"]
    agreed = result.get("area_consensus_mm2" if known else "area_consensus", "")
    return {"unit": "mm2" if known else "px", "area_consensus": agreed, **_spread(areas, "area", "")}


def _volumes(result: Mapping[str, Any]) -> dict[str, Any]:
    found = _volume(result)
    if "volumes_ml" not in found:
        return {}
    return {
        "volume_consensus_ml": round(found["volume_consensus_ml"], 4),
        **_spread(found["volumes_ml"], "volume", "_ml"),
    }


def _spread(values: Sequence[float], name: str, unit: str) -> dict[str, float]:
    found = spread(values, "", name)
    short = {"mean": "mean", "std": "sd", "low": "low", "high": "high"}
    return {f"{name}_{to}{unit}": round(found[f"{name}_{key}"], 4) for key, to in short.items()}


def _predicted(result: Mapping[str, Any]) -> dict[str, Any]:
    promises = result.get("promises")
    worst = promises.get("worst") if isinstance(promises, dict) else None
    values = worst if isinstance(worst, dict) else {}
    named = {"predicted_dice": "dice"} | {name: name for name in ("dice_low", "dice_high", "failure", "presence")}
    row = {name: "" if values.get(key) is None else round(values[key], 4) for name, key in named.items()}
    foreign = values.get("foreign")
    return {**row, "foreign": "" if foreign is None else "yes" if foreign else "no"}
