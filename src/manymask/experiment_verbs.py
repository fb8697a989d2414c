"""The verbs `publish`, `reproduce` and `report`, as `cli` has its own: torch is imported only when they run."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from manymask.errors import UserError, at_least_one


def publish(*, run: Path, data: Path, model: Path, out: Path, seeds: int = 1, cases: int | None = None) -> None:
    """Turn a run into what is shipped: half-precision weights, scored on test as shipped, with card and licence.

    Args:
        run: the run folder with all stages.
        data: the prepared store.
        model: the model folder that is written.
        out: gets results.json of segmenter and codecs, and a figure where the pictures may be shown.
        seeds: how many seeds the masks are drawn with.
        cases: score so many test cases, evenly spaced; all if not given.
    """
    from manymask.publish import publish as write

    for flag, value in (("--seeds", seeds), ("--cases", cases)):
        at_least_one(flag, value)
    dice = write(run, data, model, out, seeds, cases)["segmenter"][0]["metrics"]["dice"]
    print(f"test Dice {dice['mean']:.4f} ({dice['low']:.4f} – {dice['high']:.4f}); {model} and {out} written")


def reproduce(
    recipes: Annotated[tuple[str, ...], tyro.conf.Positional],
    /,
    *,
    out: Path,
    data: Path | None = None,
    source: Path | None = None,
    scheme: str | None = None,
    size: int | None = None,
    budget_minutes: float | None = None,
    cases: int | None = None,
    sweep_cases: int = 32,
    only: tuple[str, ...] = (),
    codecs_only: bool = False,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
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
        only: tables or rows to run, e.g. `models`, `factor-8`; all if not given. The report says `not run` of the rest.
        codecs_only: train and score codecs alone (Table I).
        precision: of training, one for all models; `auto` takes what is faster here.
    """
    from manymask.experiments import Rules
    from manymask.reproduce import Plan
    from manymask.reproduce import reproduce as run

    for flag, value in (("--cases", cases), ("--sweep-cases", sweep_cases), ("--size", size)):
        at_least_one(flag, value)
    if budget_minutes is not None and budget_minutes <= 0:
        raise UserError(f"--budget-minutes must be above 0, not {budget_minutes:g}")
    if not recipes:
        raise UserError("name a recipe: manymask reproduce RECIPE… --out DIR")
    rules = Rules(minutes=budget_minutes, cases=cases, sweep_cases=sweep_cases)
    run(Plan(recipes, out, data, source, scheme, size, only, codecs_only, rules, precision))


def report(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional],
    /,
    *,
    out: Path,
    model: Path | None = None,
    data: Path | None = None,
) -> None:
    """Write the paper's tables and figures from what `reproduce` left: Markdown, CSV and PNG.

    Args:
        runs: folders that `reproduce` wrote to.
        out: gets report.md with tables and figures.
        model: a model that Figures 1, 2 and 4 are drawn from, instead of those of the runs.
        data: the prepared store for `model`.
    """
    from manymask.report.write import write_report

    if (model is None) != (data is None):
        raise UserError(
            "--model and --data go together: the model and the store that Figures 1, 2 and 4 are drawn from"
        )
    if not runs:
        raise UserError("name a folder that `manymask reproduce` wrote to")
    print(f"report → {write_report(runs, out, model, data)}")
