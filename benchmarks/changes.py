"""What one change of the main recipe is worth: the same codecs, data and steps, several training seeds, on validation.

python benchmarks/changes.py --data stores/cvc64 --recipe cvc_clinicdb --size 64 --scheme pranet --only training \\
    --steps 800 --out docs/results/changes/cvc_clinicdb.json

The rows are those of the experiment's matrix (`manymask experiment`), of a table or by name. Both codecs are trained once and
serve all. Each row is trained with every seed and scored on all validation cases, with masks of the image as it is.
Differences are row − main recipe, of means over the seeds, with 95 % bootstrap intervals over groups; the same difference of
each seed stands beside, since an interval over cases says nothing of another training. Interrupted, the same command goes on.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from twin import Arm, compared, figures, known, minutes, scored, segmenter, trained_codecs

from manymask.data.store import Store
from manymask.errors import ConfigError
from manymask.experiments.matrix import MAIN, Variant, matrix, selected
from manymask.io.atomic import write_json
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
    rows, data, scheme = compared_rows(options), options.data, options.scheme
    folder = options.codecs or options.runs / "codecs"
    codecs = trained_codecs(rows[0].recipe, data, folder, options.codec_minutes, scheme)

    def trained(row: Variant, seed: int) -> Path:
        run = options.runs / f"{row.run_id}-{seed}"
        return segmenter(row.recipe, seed, options.steps, codecs, data, run, scheme)

    def arm(run: Path) -> Arm:
        return scored(run, options.samples, data, "val", scheme, options.sampler_steps)

    runs = {row.name: [trained(row, seed) for seed in range(options.seeds)] for row in rows}
    arms = {row.name: [arm(run) for run in runs[row.name]] for row in rows}
    store = Store(data)
    found = {
        "recipe": options.recipe,
        "rows": {row.name: described(row, arms[row.name], arms[MAIN], runs[row.name]) for row in rows},
        "protocol": {"steps": options.steps, "seeds": options.seeds, "size": options.size, "samples": options.samples,
                     "sampler_steps": options.sampler_steps, "split": "val", "cases": len(arms[MAIN][0].groups)},
        "data": {"name": store.name, "hash": store.hash, "scheme": scheme or store.default_scheme},
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
