"""What one change of the main recipe is worth: the same codecs, data and steps, several training seeds, on validation.

python benchmarks/changes.py --data stores/cvc64 --recipe cvc_clinicdb --size 64 --scheme pranet --only training \\
    --steps 800 --out docs/results/changes/cvc_clinicdb.json

The rows are those of the experiment's matrix (`manymask experiment`), of a table or by name. Both codecs are trained once and
serve all. Each row is trained with every seed and scored on all validation cases, with masks of the image as it is.
Differences are row − main recipe, of means over the seeds, with 95 % bootstrap intervals over groups; the same difference of
each seed stands beside, since an interval over cases says nothing of another training. Interrupted, the same command goes on.
"""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from twin import Arm, arm_of, compared, figures, known, minutes

from manymask import api
from manymask.data.store import Store
from manymask.errors import ConfigError
from manymask.evaluation.evaluator import EvalConfig, evaluate
from manymask.evaluation.held_out import held_out_cases, matched_store
from manymask.evaluation.outcomes import Outcomes
from manymask.experiments.matrix import MAIN, Variant, matrix, sampling_of, selected
from manymask.hub.model_folder import load_model
from manymask.io.atomic import write_json
from manymask.recipes import CODECS, Stage
from manymask.runtime import git_revision, hardware


@dataclass(frozen=True)
class Options:
    """A store, a main recipe, what is changed of it, and where runs and results go."""

    data: Path
    recipe: str
    out: Path
    only: tuple[str, ...] = ("training",)
    """tables or rows of the matrix"""
    size: int | None = None
    scheme: str | None = None
    runs: Path = Path("runs/changes")
    codecs: Path | None = None
    """a run whose codecs serve all; trained here if not given"""
    codec_minutes: float = 5.0
    steps: int = 800
    seeds: int = 3
    samples: int = 5
    sampler_steps: int = 10


def compared_rows(options: Options) -> list[Variant]:
    """The main recipe and its changes, each trained once; `ConfigError` for one that has codecs of its own."""
    rows = matrix(options.recipe, Store(options.data).raters, options.size)
    main = next(row for row in rows if row.name == MAIN)
    changed = [row for row in selected(rows, options.only) if row.run_id != MAIN]
    for row in changed:
        if (row.recipe.image_codec, row.recipe.mask_codec) != (main.recipe.image_codec, main.recipe.mask_codec):
            raise ConfigError(f"{row.name} has other codecs: only what shares them is compared", parameter="only")
    return [main, *changed]


def trained_codecs(main: Variant, options: Options) -> Path:
    """The run folder of both codecs."""
    run = options.codecs or options.runs / "codecs"
    for stage in CODECS:
        if not (run / stage / "model").exists():
            api.train(
                main.recipe, options.data, run, stage=stage, max_minutes=options.codec_minutes, scheme=options.scheme
            )
    return run


def trained(row: Variant, seed: int, codecs: Path, options: Options) -> Path:
    """The run folder of a segmenter of so many steps, of which the last weights are kept."""
    run = options.runs / f"{row.run_id}-{seed}"
    training = replace(row.recipe.training, seed=seed, steps=options.steps, validate_every=options.steps)
    if not (run / Stage.SEGMENTER / "model").exists():
        for stage in CODECS:
            shutil.copytree(codecs / stage / "model", run / stage / "model", dirs_exist_ok=True)
        recipe = replace(row.recipe, training=training)
        api.train(recipe, options.data, run, stage=Stage.SEGMENTER, scheme=options.scheme)
    return run


def scored(run: Path, options: Options) -> Arm:
    """All validation cases as its masks show them."""
    model = load_model(run)
    store, seen = matched_store(model.recipe, Store(options.data)), Outcomes()
    protocol = EvalConfig(options.samples, 1, sampling=sampling_of(model.recipe, options.sampler_steps))
    found = evaluate(model.model, store, held_out_cases(model, store, "val", options.scheme), protocol, outcomes=seen)
    return arm_of(found.cases, seen)


def described(row: Variant, arms: list[Arm], main: list[Arm], runs: list[Path]) -> dict[str, Any]:
    """Its figures of every seed, and its differences from the main recipe."""
    every = np.arange(len(arms[0].groups))
    seeds = [figures([arm], every) for arm in arms]
    found: dict[str, Any] = {
        "label": row.label,
        "minutes": [minutes(run) for run in runs],
        "seeds": [known(s) for s in seeds],
    }
    if row.run_id != MAIN:
        own = [figures([arm], every) for arm in main]
        apart = [{name: a[name] - b[name] for name in ("dice", "brier")} for a, b in zip(seeds, own, strict=True)]
        found |= {"minus_main": compared(arms, main), "minus_main_by_seed": apart}
    return found


def main(options: Options) -> None:
    """Trains and scores all of them, prints the table and writes OUT."""
    rows = compared_rows(options)
    codecs = trained_codecs(rows[0], options)
    runs = {row.name: [trained(row, seed, codecs, options) for seed in range(options.seeds)] for row in rows}
    arms = {row.name: [scored(run, options) for run in runs[row.name]] for row in rows}
    store = Store(options.data)
    found = {
        "recipe": options.recipe,
        "rows": {row.name: described(row, arms[row.name], arms[MAIN], runs[row.name]) for row in rows},
        "protocol": {"steps": options.steps, "seeds": options.seeds, "size": options.size, "samples": options.samples,
                     "sampler_steps": options.sampler_steps, "split": "val", "cases": len(arms[MAIN][0].groups)},
        "data": {"name": store.name, "hash": store.hash, "scheme": options.scheme or store.default_scheme},
        "git": git_revision(),
        "hardware": hardware(),
    }  # fmt: skip
    write_json(options.out, found)
    show(found["rows"])


def show(rows: dict[str, Any]) -> None:
    """Prints the table."""
    for name, row in rows.items():
        dice = np.mean([seed["dice"] for seed in row["seeds"]])
        line = f"{name:22} Dice {dice:.4f}, Brier {np.mean([seed['brier'] for seed in row['seeds']]):.4f}"
        if "minus_main" in row:
            gap = row["minus_main"]["dice"]
            seeds = ", ".join(f"{seed['dice']:+.4f}" for seed in row["minus_main_by_seed"])
            line += f", row − main {gap['mean']:+.4f} ({gap['low']:+.4f} – {gap['high']:+.4f}), seeds {seeds}"
        print(line)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
