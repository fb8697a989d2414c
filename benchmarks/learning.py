"""How fast models learn: the validation Dice of their runs against minutes of training, in one table and one figure.

python benchmarks/learning.py --runs "manymask=runs/ours" "SegDiff=runs/segdiff" --out docs/results/paper/learning

Reads what `manymask train` left in each run (metrics.jsonl) and writes OUT.json and OUT.png. All runs must be of one store. A
point's minutes are the run's, in proportion to its steps, since runs go at an even rate; a model's codecs are charged to it
before its first point.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from manymask.errors import ConfigError
from manymask.evaluation.plots import new_figure
from manymask.experiments.report.plots import house_style, save
from manymask.hub.model_folder import load_model
from manymask.io.atomic import write_json
from manymask.recipes import stages_of
from manymask.runtime import git_revision, hardware
from manymask.training.checkpoint import RunFolder, progress_of


@dataclass(frozen=True)
class Options:
    """The runs as LABEL=FOLDER, and where the table and the figure go, without an ending."""

    runs: tuple[str, ...]
    out: Path


def learnt(run: Path) -> dict[str, Any]:
    """What it learnt from, and minutes, steps and Dice of each validation of its segmenter."""
    trained = load_model(run)
    *codecs, last = stages_of(trained.recipe)
    before, done = sum(progress_of(run / stage).seconds for stage in codecs), progress_of(run / last)
    lines = [line for line in RunFolder(run / last, writes=False).lines() if "val/dice" in line]
    return {
        "data": trained.provenance.data_hash,
        "scheme": trained.provenance.scheme,
        "git": trained.provenance.git,
        "minutes": [(before + done.seconds * (line["step"] / done.step)) / 60 for line in lines],
        "steps": [line["step"] for line in lines],
        "dice": [line["val/dice"] for line in lines],
    }


def draw(runs: dict[str, dict[str, Any]], path: Path) -> None:
    """A line for each run."""
    with house_style():
        figure = new_figure(7.0, 4.2)
        axis = figure.subplots()
        for label, run in runs.items():
            axis.plot(run["minutes"], run["dice"], marker="o", markersize=3, label=label)
        axis.set(
            xlabel="minutes of training, codecs included", ylabel="Dice on validation", xlim=(0, None), ylim=(0, 1)
        )
        axis.legend(fontsize=7, loc="lower right")
        figure.tight_layout()
        save(figure, path)


def labelled(runs: Sequence[str]) -> dict[str, Path]:
    """Folders given as LABEL=FOLDER, by their labels; `ConfigError` if two have one."""
    folders = {label: Path(folder) for label, _, folder in (each.partition("=") for each in runs)}
    if len(folders) < len(runs):
        raise ConfigError("two runs have one label", parameter="runs")
    return folders


def main(options: Options) -> None:
    """Reads the runs, prints where each ended, and writes OUT.json and OUT.png."""
    runs = {label: learnt(folder) for label, folder in labelled(options.runs).items()}
    if len({(run["data"], run["scheme"]) for run in runs.values()}) > 1:
        raise ConfigError("these runs learnt from different data, so their curves do not compare", parameter="runs")
    for label, run in runs.items():
        print(f"{label:32} {run['minutes'][-1]:5.1f} min, {run['steps'][-1]:6,} steps, Dice {run['dice'][-1]:.3f}")
    write_json(options.out.with_suffix(".json"), {"runs": runs, "git": git_revision(), "hardware": hardware()})
    draw(runs, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
