"""A planned model against recipes set by hand, on one folder, in the same minutes on one machine.

python benchmarks/planned.py --data mine --minutes 30 --out build/planned/mine
    --hand folder folder-imagenet folder-256 folder+isic2018 folder-256+cvc_clinicdb

By hand means: prepared at the recipe's size, the recipe's own settings, the three stages in 1 : 1 : 6 of the minutes; with
RECIPE+MODEL the segmenter alone, all the minutes, from this model. All are scored on the whole test part with five masks;
the differences of Dice (planned − by hand) are paired by case, with bootstrap 95 % intervals over groups. Interrupted, the
same command goes on. Give it a core of its own; `fresh_sets.py` lays out sets that no setting was chosen on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from manymask import api
from manymask.hub.catalogue import find_model
from manymask.io.atomic import read_object, write_json
from manymask.metrics import difference
from manymask.planning.request import Request
from manymask.planning.run import train_planned
from manymask.recipes import STAGES, Stage, get_recipe
from manymask.runtime import git_revision, hardware
from manymask.training.checkpoint import progress_of

SHARES = {Stage.IMAGE_CODEC: 1 / 8, Stage.MASK_CODEC: 1 / 8, Stage.SEGMENTER: 6 / 8}


@dataclass(frozen=True)
class Options:
    """The folder, the minutes, and what the planned model is compared with."""

    data: Path
    out: Path
    minutes: float = 30.0
    hand: tuple[str, ...] = ("folder", "folder-imagenet", "folder-256")
    init: str = "auto"
    samples: int = 5
    seed: int = 0


def left(run: Path, stage: Stage, minutes: float) -> float:
    """Minutes that a stage still has."""
    return max(0.0, minutes - progress_of(run / stage).seconds / 60)


def by_hand(name: str, options: Options) -> tuple[Path, Path]:
    """Trains a recipe, from zero or from a model; returns its run and its store."""
    recipe, _, start = name.partition("+")
    place = options.out / name
    store, run = place / "store", place / "run"
    if not store.exists():
        api.prepare(recipe, store, options.data)
    for stage in [Stage.SEGMENTER] if start else STAGES:
        minutes = options.minutes * (1.0 if start else SHARES[stage])
        init = find_model(start) if start else None
        more = left(run, stage, minutes)
        if more > 0.02 * minutes or not (run / stage / "model").exists():
            api.train(get_recipe(recipe), store, run, stage=stage, max_minutes=more, init=init)
    return run, store


def planned(options: Options) -> tuple[Path, Path]:
    """Trains as `manymask train FOLDER` does; returns the run and its store."""
    run = options.out / "planned"
    train_planned(Request(options.data, run, options.minutes, options.init))
    return run, run / "store"


def scored(name: str, run: Path, store: Path, options: Options) -> dict[str, Any]:
    """The test part, all of it; kept, so that it is scored once."""
    place = options.out / f"{name}.json"
    if not place.exists():
        write_json(place, api.evaluate(run, store, samples=options.samples, seed=options.seed).to_dict())
    return read_object(place)


def dice_of(cases: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The Dice of each case."""
    return {case["id"]: case["dice"] for case in cases}


def main(options: Options) -> None:
    """Trains and scores all of them, prints the table and writes OUT/comparison.json."""
    from manymask.data.store import Store

    run, store = planned(options)
    groups = Store(store).groups
    ours = scored("planned", run, store, options)
    found: dict[str, Any] = {"planned": ours["metrics"]["dice"], "differences": {}}
    for name in options.hand:
        theirs = scored(name, *by_hand(name, options), options)
        own = difference(dice_of(ours["cases"]), dice_of(theirs["cases"]), groups)
        found["differences"][name] = {**own, "dice": theirs["metrics"]["dice"]}
    about = {"data": options.data.name, "minutes": options.minutes, "cases": len(ours["cases"])}
    write_json(options.out / "comparison.json", {**about, **found, "git": git_revision(), "hardware": hardware()})
    best = max(found["differences"], key=lambda name: found["differences"][name]["dice"]["mean"], default=None)
    dice = found["planned"]
    print(f"{options.data.name}, {options.minutes:g} minutes, {len(ours['cases'])} test images")
    print(f"{'planned':28} {dice['mean']:.3f} ({dice['low']:.3f} – {dice['high']:.3f})")
    for name, each in found["differences"].items():
        span = f"{each['mean']:+.3f} ({each['low']:+.3f} – {each['high']:+.3f})"
        print(
            f"{name:28} {each['dice']['mean']:.3f}   planned − this {span}{'   best by hand' if name == best else ''}"
        )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
