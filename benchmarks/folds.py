"""The scores of all folds together: each case once, by the model that never saw its group.

python benchmarks/folds.py --results docs/results/cvc_clinicdb/sequence/fold-{1,2,3} --data stores/cvc256 \\
    --rival docs/results/cvc_clinicdb/sequence/twin-{1,2,3} --out docs/results/cvc_clinicdb/sequence/folds.json

Each folder holds the results.json of `manymask evaluate --split val` of one fold; --rival those of another model on
the same folds, whose difference (model − rival) is paired by case. Intervals are over groups, such as videos.
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
from manymask.metrics import difference, summary
from manymask.runtime import git_revision

PAIRED = ("dice", "brier")
SCORES = ("dice", "iou", "mean_dice_256", "hd95", "brier")


@dataclass(frozen=True)
class Options:
    """Folders of results, the store that they are of, and where theirs together go."""

    results: tuple[Path, ...]
    data: Path
    out: Path
    rival: tuple[Path, ...] = ()


def read(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The results of each fold."""
    return [json.loads((folder / "results.json").read_text()) for folder in folders]


def differences(
    folds: Sequence[dict[str, Any]], rivals: Sequence[dict[str, Any]], groups: dict[str, str]
) -> dict[str, Any]:
    """Ours − theirs in Dice and Brier score over the cases of all folds; `InputError` if theirs are of other cases."""

    def scores(of: Sequence[dict[str, Any]], name: str) -> dict[str, float]:
        return {case["id"]: case[name] for fold in of for case in fold["cases"]}

    return {name: dict(difference(scores(folds, name), scores(rivals, name), groups)) for name in PAIRED}


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
    folds, groups = read(options.results), dict(Store(options.data).groups)
    found = together(folds, groups) | {"git": git_revision()}
    if options.rival:
        rivals = read(options.rival)
        found["rival"] = together(rivals, groups) | {"difference": differences(folds, rivals, groups)}
    write_json(options.out, found)
    show("", found)
    if options.rival:
        show("rival: ", found["rival"])
        for name, gap in found["rival"]["difference"].items():
            print(f"model − rival: {name:14} {gap['mean']:+.4f} ({gap['low']:+.4f} – {gap['high']:+.4f})")


def show(whose: str, found: dict[str, Any]) -> None:
    """Prints the scores."""
    for name, of in found["metrics"].items():
        print(f"{whose}{name:14} {of['mean']:.4f} ({of['low']:.4f} – {of['high']:.4f}), {of['n']} cases")
    print(f"{whose}{found['missed']} missed entirely; of {len(found['groups'])} groups:")
    print(*(f"    {name}: {of['dice']:.3f} of {of['cases']}" for name, of in found["groups"].items()), sep="\n")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
