"""The scores of all folds together: each case once, by the model that never saw its group.

python benchmarks/folds.py --results docs/results/cvc_clinicdb/sequence/fold-{1,2,3} --data stores/cvc256 \\
    --out docs/results/cvc_clinicdb/sequence/folds.json

Each folder holds the results.json of `manymask evaluate --split val` of one fold. Intervals are over groups, such as videos.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from manymask.data.folds import scheme_of
from manymask.data.store import Store
from manymask.errors import InputError
from manymask.io.atomic import write_json
from manymask.metrics import summary
from manymask.runtime import git_revision

SCORES = ("dice", "iou", "mean_dice_256", "hd95", "brier")


@dataclass(frozen=True)
class Options:
    """Folders of results, the store that they are of, and where theirs together go."""

    results: tuple[Path, ...]
    data: Path
    out: Path


def together(folds: Sequence[dict[str, Any]], groups: dict[str, str]) -> dict[str, Any]:
    """Means over the cases of all folds, and of each group.

    Args:
        folds: contents of results.json.
        groups: of each case.

    Raises:
        InputError: a case or a group was scored in two folds, or the folds are of different data.
    """
    if len({(fold["data"]["hash"], scheme_of(fold["data"]["scheme"])) for fold in folds}) > 1:
        raise InputError("the folds are of different data or splits")
    held = [{groups[case["id"]] for case in fold["cases"]} for fold in folds]
    if len(set().union(*held)) < sum(map(len, held)):
        raise InputError("a group was scored in two folds: these are not folds of one split")
    cases = [case for fold in folds for case in fold["cases"]]
    of = [groups[case["id"]] for case in cases]
    by_group = {name: [case["dice"] for case in cases if groups[case["id"]] == name] for name in sorted(set(of))}
    return {
        "metrics": {name: dict(summary([case[name] for case in cases], of)) for name in SCORES},
        "groups": {name: {"cases": len(dice), "dice": sum(dice) / len(dice)} for name, dice in by_group.items()},
        "missed": sum(case["dice"] == 0 for case in cases),
        "data": folds[0]["data"] | {"scheme": scheme_of(folds[0]["data"]["scheme"])},
        "protocol": folds[0]["protocol"],
    }


def main(options: Options) -> None:
    """Reads, prints and writes OUT."""
    folds = [json.loads((folder / "results.json").read_text()) for folder in options.results]
    found = together(folds, dict(Store(options.data).groups)) | {"git": git_revision()}
    write_json(options.out, found)
    for name, of in found["metrics"].items():
        print(f"{name:14} {of['mean']:.4f} ({of['low']:.4f} – {of['high']:.4f}), {of['n']} cases")
    print(f"{found['missed']} missed entirely; of {len(found['groups'])} groups:")
    print(*(f"    {name}: {of['dice']:.3f} of {of['cases']}" for name, of in found["groups"].items()), sep="\n")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
