"""`reproduce` and `report`: the paper's experiments."""

from pathlib import Path
from typing import Annotated

import tyro

from manymask.choices import Precision
from manymask.cli import flags
from manymask.cli.wording import at_least_one
from manymask.errors import ConfigError


def reproduce(
    recipes: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE…", help_behavior_hint="")],
    /,
    *,
    out: Annotated[Path, flags.OUT],
    data: Path | None = None,
    source: Path | None = None,
    scheme: str | None = None,
    size: int | None = None,
    budget_minutes: float | None = None,
    cases: int | None = None,
    sweep_cases: int = 32,
    only: Annotated[tuple[str, ...], flags.NAMES] = (),
    codecs_only: bool = False,
    precision: Precision = "auto",
) -> None:
    """Run the paper's experiments on a data set: all baselines, ablations and sweeps, from data to report. The same
    command again goes on where it stopped.

    Args:
        recipes: of the main models, e.g. `phantom` or `cvc_clinicdb`.
        out: gets a folder for each recipe, and report/.
        data: the prepared store, or a folder with one store for each recipe.
        source: the data set as downloaded, prepared below `out` if no store is given (the phantom needs none).
        scheme: the split scheme (the store's default if not given).
        size: side of the images in pixels, which the store must have; the store's if not given.
        budget_minutes: of wall time to train each model, its codecs included; all steps of the recipes if not given.
        cases: how many test cases are scored; all if not given.
        sweep_cases: how many of them under every sampler, step count and guidance scale.
        only: tables or rows to run, e.g. `models`, `factor-8`; all if not given. The report names what was not run.
        codecs_only: train and score codecs alone (Table I).
        precision: of training, one for all models; `auto` takes what is faster here.
    """
    from manymask.experiments.matrix import Budget
    from manymask.experiments.runner import ReproduceConfig
    from manymask.experiments.runner import reproduce as run

    for flag, value in (("--cases", cases), ("--sweep-cases", sweep_cases), ("--size", size)):
        at_least_one(flag, value)
    if budget_minutes is not None and budget_minutes <= 0:
        raise ConfigError(f"--budget-minutes must be above 0, not {budget_minutes:g}")
    if not recipes:
        raise ConfigError("name a recipe: manymask reproduce RECIPE… --out DIR")
    budget = Budget(minutes=budget_minutes, cases=cases, sweep_cases=sweep_cases)
    run(ReproduceConfig(recipes, out, data, source, scheme, size, only, codecs_only, budget, precision))


def report(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUNS…", help_behavior_hint="")],
    /,
    *,
    out: Annotated[Path, flags.OUT],
    model: Annotated[str | None, flags.MODEL] = None,
    data: Annotated[Path | None, flags.DATA] = None,
) -> None:
    """Write the paper's tables and figures from what `reproduce` left: Markdown, CSV and PNG.

    Args:
        runs: folders that `reproduce` wrote to; that of a GPU check (`gpu.json`) adds its section.
        out: gets report.md with tables and figures.
        model: a model that Figures 1, 2 and 4 are drawn from, instead of those of the runs.
        data: the prepared store for `model`.
    """
    from manymask.experiments.report.write import write_report

    if (model is None) != (data is None):
        raise ConfigError(
            "--model and --data go together: the model and the store that Figures 1, 2 and 4 are drawn from"
        )
    if not runs:
        raise ConfigError("name a folder that `manymask reproduce` wrote to")
    print(f"report → {write_report(runs, out, model, data)}")
