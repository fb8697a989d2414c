"""`evaluate`, `curves` and `publish`: what a model is worth."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from manymask.choices import Engine, SamplerName
from manymask.cli import flags
from manymask.cli.folder import FolderFlags
from manymask.cli.wording import at_least_one

if TYPE_CHECKING:
    from torch import Tensor

    from manymask.data.case import Part
    from manymask.diffusion.sampling import SamplingConfig
    from manymask.evaluation.external import FolderReading, Scored
    from manymask.evaluation.records import EvaluationRecord
    from manymask.hub.model_folder import TrainedModel

WORST = 10  # failures that are named


def evaluate(
    *,
    model: Annotated[str, flags.MODEL],
    data: Annotated[Path, flags.DATA],
    out: Annotated[Path | None, flags.OUT] = None,
    split: Literal["train", "val", "test"] | None = None,
    scheme: str | None = None,
    offsets: Annotated[tuple[int, ...], tyro.conf.arg(metavar="PIXELS…")] = (),
    samples: Annotated[int, flags.SAMPLES] = 5,
    ged_samples: int = 16,
    sampler: SamplerName | None = None,
    steps: int | None = None,
    orientations: int | None = None,
    head_share: float | None = None,
    seed: int = 0,
    limit: int | None = None,
    tile: Annotated[int | None, tyro.conf.arg(metavar="PIXELS")] = None,
    folder: Annotated[FolderFlags, tyro.conf.OmitArgPrefixes] = FolderFlags(),
    engine: Engine = "torch",
) -> None:
    """Score a model on a part of the split it was trained with, or on all images of any folder of images and masks.

    Prints a table and the failures; leaves results.json and a figure. Of a calibrated model a second table holds what is
    promised against what happened, unless masks are drawn unlike the calibration's, or it was fitted on the same cases.

    Args:
        model: a name of `manymask models`, a model folder or run folder, or hf://ORG/NAME.
        data: the prepared store; or a folder of images and masks, which is read as `prepare folder` reads it.
        out: gets results.json and figure.png, and promises.png of a calibrated model.
        split: the part, test of a store; cases that the model was trained on are refused unless it is `train`.
        scheme: the split of the store; by default the one that the model was trained with.
        offsets: also score windows whose middle lies so many pixels down and right of the crop's, for models of crops.
        samples: how many masks make the consensus.
        ged_samples: how many are held against several raters, for GED² and HM-IoU.
        sampler: the model's own if not given.
        steps: of the sampler; the model's own number if not given.
        orientations: number of flipped or rotated views of the image used for sampling (default: the model's setting).
        head_share: of the model's auxiliary mask head in each drawn mask, 0 … 1; the model's own if not given.
        seed: of the drawn masks.
        limit: score so many cases only, evenly spaced over the part.
        tile: of a folder: side of the windows, in pixels of the image, that larger images are drawn in.
        folder: how a folder of images and masks is read.
        engine: what runs the networks, as in `segment`; published figures are torch's.
    """
    from manymask.diffusion.sampling import SamplingConfig

    sampling = SamplingConfig(sampler, steps, orientations, head_share=head_share)
    protocol = _Protocol(samples, ged_samples, seed, limit, offsets, sampling, tile, engine)
    _score(model, _Asked(data, split, scheme, folder.reading), protocol, out)


@dataclass(frozen=True)
class _Asked:
    """The flags that say what is scored."""

    data: Path
    split: "Part | None"
    scheme: str | None
    how: "FolderReading"


@dataclass(frozen=True)
class _Protocol:
    """The flags that say how masks are drawn and scored."""

    samples: int
    ged_samples: int
    seed: int
    limit: int | None
    offsets: tuple[int, ...]
    sampling: "SamplingConfig"
    tile: int | None
    engine: Engine

    def __post_init__(self) -> None:
        for flag, value in (("--samples", self.samples), ("--ged-samples", self.ged_samples), ("--limit", self.limit)):
            at_least_one(flag, value)


def _score(model: str, what: _Asked, asked: _Protocol, out: Path | None) -> None:
    from manymask import api
    from manymask.cli.data import print_survey
    from manymask.evaluation.external import data_to_score
    from manymask.extras import require_figures
    from manymask.hub.model_folder import load_model
    from manymask.io.atomic import check_place

    if out is not None:
        require_figures()
        check_place(out, {"results.json": "protocol"})
    trained = load_model(model)
    with data_to_score(what.data, trained.recipe, what.split, what.scheme, what.how) as scored:
        if scored.temporary:
            print_survey(scored.store)
        found = api.evaluate(
            trained, scored, samples=asked.samples, ged_samples=asked.ged_samples, seed=asked.seed, limit=asked.limit,
            sampling=asked.sampling, offsets=asked.offsets, tile=asked.tile, engine=asked.engine,
        )  # fmt: skip
        _print_tables(found)
        if out is not None:
            _write(out, found, trained, scored, asked)


def _print_tables(found: "EvaluationRecord") -> None:
    """The model's metrics, those of the baselines on the same cases, and those off the middle."""
    from rich.console import Console

    from manymask.evaluation.plots import metrics_table

    protocol = found.protocol
    part = "all images" if protocol["split"] == "all" else f"{protocol['split']} of split {found.data.scheme}"
    title = f"{found.data.name} · {part} · {len(found.cases)} case{'s' * (len(found.cases) != 1)}"
    tables = {f"{title} · {protocol['samples']} masks": found.metrics}
    tables |= {f"on the same cases: {name.replace('_', ' ')}": each for name, each in found.baselines.items()}
    tables |= {f"{n} pixels off the middle": each for n, each in (found.off_centre or {}).items()}
    for heading, metrics in tables.items():
        Console().print(metrics_table(metrics, heading))
    _print_failures(found)
    _print_promises(found.promises)


def _print_failures(found: "EvaluationRecord") -> None:
    """The cases that failed, the worst first, and what is left without images that the model was trained on."""
    from manymask.calibration.quality import FAILURE

    dice = {case["id"]: case["dice"] for case in found.cases if "dice" in case}
    failed = sorted((case for case, value in dice.items() if value < FAILURE), key=lambda case: dice[case])
    if dice:
        shown = ", ".join(f"{case} ({dice[case]:.2f})" for case in failed[:WORST])
        more = f" and {len(failed) - WORST} more" if len(failed) > WORST else ""
        print(
            f"failures (Dice below {FAILURE:g}): {len(failed)} of {len(dice)}" + (f": {shown}{more}" if failed else "")
        )
    leak = found.leak
    if not leak["checked"] and leak["tested"]:
        print(
            "The model does not say what its training images look like: nobody can tell whether these are among them."
        )
    elif leak["cases"]:
        unseen = leak.get("unseen_dice")
        rest = f"Dice of the others {unseen['mean']:.3f} ({unseen['low']:.3f} – {unseen['high']:.3f})" if unseen else ""
        print(f"{len(leak['cases'])} of {leak['tested']} images look like training images." + f" {rest}".rstrip())


def _print_promises(promises: "dict[str, Any] | None") -> None:
    """What the calibration promises against what happened, or why that was not tested; nothing for codecs."""
    from rich.console import Console

    from manymask.evaluation.promises_table import promises_table

    if promises is None:
        return
    if "why_not" in promises:
        print(promises["why_not"])
        return
    Console().print(promises_table(promises))
    if not promises["home"]:
        print("The promises hold for images like those of the calibration; these are of another data set.")


def _write(out: Path, found: "EvaluationRecord", trained: "TrainedModel", scored: "Scored", asked: _Protocol) -> None:
    from manymask.data.case import evenly_spaced
    from manymask.evaluation.held_out import matched_store
    from manymask.evaluation.plots import draw_batch
    from manymask.experiments.report.promises import draw_promises
    from manymask.io.atomic import write_json

    write_json(out / "results.json", found.to_dict())
    few = evenly_spaced([case["id"] for case in found.cases], 6)
    batch = matched_store(trained.recipe, scored.store).batch(few)
    samples = min(asked.samples, 8)
    drawn = None if asked.tile is None else _in_windows(trained, scored, asked, few, samples)
    draw_batch(trained.model, batch, out / "figure.png", samples, asked.seed, asked.sampling, drawn)
    if found.promises is None or "why_not" in found.promises:
        (out / "promises.png").unlink(missing_ok=True)  # of an earlier call, whose results these replace
        print(f"results.json and figure.png → {out}")
        return
    draw_promises(found.promises, out / "promises.png")
    print(f"results.json, figure.png and promises.png → {out}")


def _in_windows(
    trained: "TrainedModel", scored: "Scored", asked: _Protocol, few: Sequence[str], samples: int
) -> "Tensor":
    """The masks of a few cases (B, n, S, S), drawn in windows."""
    import torch

    from manymask.data.resize import enlarge
    from manymask.inference.windowed_cases import WindowedCases

    assert asked.tile is not None
    draw = WindowedCases(trained, scored.cases, samples, asked.seed, asked.sampling, asked.tile)
    return torch.stack([enlarge(torch.from_numpy(draw(case)), scored.store.stored) for case in few])


def curves(
    *,
    model: Annotated[str, flags.MODEL],
    data: Annotated[Path, flags.DATA],
    out: Annotated[Path, flags.OUT],
    cases: int | None = None,
) -> None:
    """Draw how a model's answers depend on their use: calibration, Dice against the number of masks, steps and time.

    Args:
        model: a segmenter, as `evaluate` takes it.
        data: the prepared store; its test part is scored.
        out: gets curves.json and curves.png.
        cases: score so many test cases, evenly spaced; all if not given.
    """
    from manymask.experiments.report.curves import curves as draw

    at_least_one("--cases", cases)
    draw(model, data, out, cases)
    print(f"{out / 'curves.png'} and {out / 'curves.json'} written")


def publish(
    *,
    run: Annotated[Path, tyro.conf.arg(metavar="RUN")],
    data: Annotated[Path, flags.DATA],
    model: Annotated[Path, tyro.conf.arg(metavar="DIR")],
    out: Annotated[Path, flags.OUT],
    seeds: int = 1,
    cases: int | None = None,
    orientations: int | None = None,
    sampler: SamplerName | None = None,
    steps: int | None = None,
    mask_codec: Path | None = None,
    head_share: float | None = None,
    presence_shift: float | None = None,
) -> None:
    """Turn a run into what is shipped: half-precision weights, scored on test as shipped, with card and licence.

    Args:
        run: the run folder with all stages.
        data: the prepared store.
        model: the model folder that is written.
        out: gets results.json of segmenter and codecs, and a figure where the pictures may be shown.
        seeds: how many seeds the masks are drawn with.
        cases: score so many test cases, evenly spaced; all if not given.
        orientations: number of flipped or rotated views that the published model samples with (default: as trained).
        sampler: that the shipped model draws with; as trained if not given.
        steps: of that sampler.
        mask_codec: the run's mask codec after more training of its decoder alone (`--recipe.codec-training.part decoder`).
        head_share: of the model's auxiliary mask head in each drawn mask, 0 … 1; as trained if not given.
        presence_shift: taken off the logit of the model's presence, chosen on validation; as trained if not given.
    """
    from manymask.diffusion.sampling import SamplingConfig
    from manymask.evaluation.publish import publish as write

    for flag, value in (("--seeds", seeds), ("--cases", cases)):
        at_least_one(flag, value)
    sampling = SamplingConfig(sampler, steps, orientations, head_share=head_share)
    found = write(run, data, model, out, seeds, cases, sampling, mask_codec, presence_shift)
    dice = found["segmenter"][0]["metrics"]["dice"]
    print(f"test Dice {dice['mean']:.4f} ({dice['low']:.4f} – {dice['high']:.4f}); {model} and {out} written")
