"""`calibrate`: what a model's masks promise."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from manymask.cli import flags
from manymask.cli.folder import FolderFlags
from manymask.cli.wording import at_least_one
from manymask.errors import ConfigError

if TYPE_CHECKING:
    from manymask.calibration.calibration import Calibration


def calibrate(
    *,
    model: Annotated[str, flags.MODEL],
    data: Annotated[Path, flags.DATA],
    out: Annotated[Path | None, flags.OUT] = None,
    split: Literal["val", "test", "all"] | None = None,
    scheme: str | None = None,
    samples: Annotated[int, flags.SAMPLES] = 5,
    seed: int = 0,
    alphas: Annotated[tuple[float, ...], tyro.conf.arg(metavar="SHARE…")] = (0.05, 0.1, 0.2),
    limit: int | None = None,
    folder: Annotated[FolderFlags, tyro.conf.OmitArgPrefixes] = FolderFlags(),
) -> None:
    """Measure on labelled images what a model's masks promise, and keep it with the model.

    Results then tell the Dice to expect, whether there is a lesion at all, whether the image is unlike the training
    images, and an inner and an outer outline. All of it holds for images like the calibration's, drawn in the same way.

    Args:
        model: a model folder, which gets calibration.json and a section in its card; or a model as `evaluate` takes it.
        data: the prepared store; or a folder of images and masks, which is read as `prepare folder` reads it.
        out: gets a calibrated copy of the model, which itself stays as it is. Needed for a model by name.
        split: which of its images: val of a store, all of a folder. Images that the model was trained on are refused.
        scheme: the split of the store; by default the one that the model was trained with.
        samples: how many masks are drawn for each image. The calibration holds for this number alone.
        seed: of the drawn masks.
        alphas: the shares of missed and of false pixels that outlines promise.
        limit: use so many cases only, evenly spaced.
        folder: how a folder of images and masks is read.
    """
    from manymask import api
    from manymask.cli.data import print_survey
    from manymask.evaluation.external import data_to_score
    from manymask.hub.catalogue import find_model, is_shared
    from manymask.hub.model_folder import OURS, load_model, save_calibration
    from manymask.io.atomic import check_replaceable

    for flag, value in (("--samples", samples), ("--limit", limit)):
        at_least_one(flag, value)
    if out is None and is_shared(model):
        raise ConfigError(f"{model} is an installed model: say where its calibrated copy goes", parameter="out")
    if out is not None:
        check_replaceable(out, OURS)
    trained = load_model(model)
    with data_to_score(data, trained.recipe, None if split == "all" else split, scheme, folder.reading) as scored:
        if scored.temporary:
            print_survey(scored.store)
        found = api.calibrate(
            trained, scored, split=split, scheme=scheme, samples=samples, seed=seed, alphas=alphas, limit=limit
        )
    kept_in = out or find_model(model)
    save_calibration(trained, kept_in, found, find_model(model))
    _print(found)
    print(f"calibration.json → {kept_in}")


def _print(found: "Calibration") -> None:
    from rich.console import Console
    from rich.table import Table

    origin = found.origin
    title = (
        f"{origin.data} · {origin.split} of split {origin.scheme} · {len(origin.cases)} cases of {origin.groups} groups"
    )
    table = Table("promised share", "outer outline from", "inner outline from", title=title)
    for risk in found.risks:
        table.add_row(
            f"≤ {100 * risk.alpha:g} %", f"{risk.outer:.4g}", "nothing" if risk.inner > 1 else f"{risk.inner:.4g}"
        )
    Console().print(table)
    print(f"confidence: {type(found.confidence).__name__.lower()}; {origin.failures} cases with a Dice below 0.7")
    if found.held_out.get("presence_auroc") is not None:
        print(f"presence: AUROC {found.held_out['presence_auroc']:.3f} on cases left out ({found.held_out['without']})")
    for note in found.notes:
        print(note)
