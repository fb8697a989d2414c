"""`ensemble`: several models as one."""

from pathlib import Path
from typing import Annotated

import tyro

from manymask.cli import flags

RUNS = tyro.conf.arg(metavar="RUN…", help_behavior_hint="")


def ensemble(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, RUNS], /, *, out: Annotated[Path, flags.OUT]
) -> None:
    """Make one model folder of several trained segmenters; it draws its masks from all of them in turn.

    Args:
        runs: run folders or model folders of one recipe and one store, such as the folds of `train FOLDER --folds 5`.
        out: the model folder; use it like any other.
    """
    from manymask.hub.ensembling import ensemble as combine

    combined = combine(runs, out)
    print(f"{len(runs)} models that saw {len(combined.training_ids)} cases → {out}")
