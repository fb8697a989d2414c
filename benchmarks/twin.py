"""Many masks against the deterministic twin: same encoder, data, augmentation, batches and steps, several training seeds.

python benchmarks/twin.py --data stores/isic --recipe isic2018-imagenet --steps 600 --out docs/results/twin/isic2018

The twin is the same encoder with a plain mask head, trained with Dice and cross-entropy (recipes `…-twin`). Both codecs are
trained once and serve all seeds; their minutes come on top of ours. Each is scored on the test part: ours with --samples
masks, the twin with one pass and with as many flips and quarter turns. Where ours has an auxiliary mask head, both of which the
masks are made stand beside them: what is drawn without the head's share, and the head's map in as many views. Differences are
ours − another, of means over the seeds, with 95 % bootstrap intervals over groups. Interrupted, the same command goes on.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from manymask import api
from manymask.calibration.confidence import PixelCounts
from manymask.calibration.evidence import NAMES
from manymask.calibration.quality import FAILURE
from manymask.data.store import Store
from manymask.diffusion.sampling import SamplingConfig
from manymask.evaluation.evaluator import EvalConfig, evaluate
from manymask.evaluation.held_out import held_out_cases, matched_store
from manymask.evaluation.outcomes import Outcomes
from manymask.evaluation.promises import reliability
from manymask.experiments.matrix import sampling_of
from manymask.hub.model_folder import load_model
from manymask.io.atomic import write_json
from manymask.metrics import auroc, resamples
from manymask.recipes import CODECS, Recipe, Stage, get_recipe
from manymask.runtime import git_revision, hardware
from manymask.training.checkpoint import progress_of

Split = Literal["val", "test"]


@dataclass(frozen=True)
class Options:
    """A store, a recipe that has a twin, and where runs and results go."""

    data: Path
    recipe: str
    out: Path
    runs: Path = Path("runs/twin")
    steps: int = 600
    codec_minutes: float = 5.0
    seeds: int = 3
    samples: int = 5


@dataclass(frozen=True)
class Arm:
    """What one model of one seed showed on each case, a row each: group, Dice, Brier, two scores of doubt, pixels in doubt."""

    groups: list[str]
    dice: np.ndarray
    brier: np.ndarray
    entropy: np.ndarray
    disagreement: np.ndarray
    doubt: list[PixelCounts]


def trained_codecs(row: Recipe, data: Path, run: Path, codec_minutes: float, scheme: str | None = None) -> Path:
    """The run folder of both codecs, trained where they are missing."""
    for stage in CODECS:
        if not (run / stage / "model").exists():
            api.train(row, data, run, stage=stage, max_minutes=codec_minutes, scheme=scheme)
    return run


def segmenter(
    row: Recipe, seed: int, steps: int, codecs: Path | None, data: Path, run: Path, scheme: str | None = None
) -> Path:
    """The run folder of a segmenter of so many steps, of which the last weights are kept; of no codecs if they are None."""
    training = replace(row.training, seed=seed, steps=steps, validate_every=steps)
    if not (run / Stage.SEGMENTER / "model").exists():
        for stage in CODECS if codecs else ():
            shutil.copytree(codecs / stage / "model", run / stage / "model", dirs_exist_ok=True)
        api.train(replace(row, training=training), data, run, stage=Stage.SEGMENTER, scheme=scheme)
    return run


def scored(
    run: Path,
    samples: int,
    data: Path,
    split: Split = "test",
    scheme: str | None = None,
    steps: int | None = None,
    head_share: float | None = None,
) -> Arm:
    """A part as the masks show it: as the recipe draws, or in so many steps on the image as it is, or with another share of
    the mask head."""
    trained = load_model(run)
    store = matched_store(trained.recipe, Store(data))
    sampling = SamplingConfig(head_share=head_share) if steps is None else sampling_of(trained.recipe, steps)
    ids, seen = held_out_cases(trained, store, split, scheme), Outcomes()
    found = evaluate(trained.model, store, ids, EvalConfig(samples, 1, sampling=sampling), outcomes=seen)
    return arm_of(found.cases, seen)


def arm_of(cases: Sequence[dict[str, Any]], seen: Outcomes) -> Arm:
    """What an evaluation gave and what was seen meanwhile."""
    evidence = np.array(seen.evidence)
    return Arm(
        groups=seen.groups,
        dice=np.array(seen.dice),
        brier=np.array([case["brier"] for case in cases]),
        entropy=evidence[:, NAMES.index("entropy")],
        disagreement=1 - evidence[:, NAMES.index("agreement")],
        doubt=seen.doubt,
    )


def figures(arms: Sequence[Arm], rows: np.ndarray) -> dict[str, float]:
    """Means over the seeds of what these cases give; an AUROC where there is a failure and a success."""
    found: dict[str, list[float]] = {}
    for arm in arms:
        failed = arm.dice[rows] < FAILURE
        own = {
            "dice": float(arm.dice[rows].mean()),
            "brier": float(arm.brier[rows].mean()),
            "ece_in_doubt": reliability(PixelCounts.total([arm.doubt[k] for k in rows])).error,
            "auroc_entropy": auroc(arm.entropy[rows], failed),
            "auroc_disagreement": auroc(arm.disagreement[rows], failed),
        }
        for name, value in own.items():
            found.setdefault(name, []).append(np.nan if value is None else value)
    return {name: float(np.mean(values)) for name, values in found.items()}


def known(found: dict[str, float]) -> dict[str, float]:
    """Without what is no number: the AUROC where nothing failed, or everything."""
    return {name: value for name, value in found.items() if np.isfinite(value)}


def compared(ours: Sequence[Arm], theirs: Sequence[Arm]) -> dict[str, Any]:
    """Ours − theirs, figure by figure: the mean over seeds, and the 95 % interval over resampled groups."""
    groups = ours[0].groups
    whole = [figures(arms, np.arange(len(groups))) for arms in (ours, theirs)]
    drawn = [(figures(ours, rows), figures(theirs, rows)) for rows in resamples(groups)]
    found = {}
    for name in whole[0]:
        gaps = np.array([a[name] - b[name] for a, b in drawn])
        if not np.isfinite(gaps).any():  # nothing failed, or everything: there is no AUROC
            continue
        low, high = np.nanpercentile(gaps, [2.5, 97.5])
        found[name] = {"mean": whole[0][name] - whole[1][name], "low": float(low), "high": float(high)}
    return found


def main(options: Options) -> None:
    """Trains and scores all of them, prints the table and writes OUT/twin.json."""
    row, twin = get_recipe(options.recipe), f"{options.recipe}-twin"
    codecs = trained_codecs(row, options.data, options.runs / "codecs", options.codec_minutes)

    def trained(name: str, seed: int) -> Path:
        own = codecs if name == options.recipe else None
        run = options.runs / f"{name}-{seed}"
        return segmenter(get_recipe(name), seed, options.steps, own, options.data, run)

    runs = {name: [trained(name, seed) for seed in range(options.seeds)] for name in (options.recipe, twin)}
    passes: dict[str, tuple[str, int, float | None]] = {
        "ours": (options.recipe, options.samples, None),
        "twin": (twin, 1, None),
        f"twin, {options.samples} views": (twin, options.samples, None),
    }
    if getattr(row.segmenter, "head_share", 0):
        passes["ours, drawn alone"] = (options.recipe, options.samples, 0.0)
        passes[f"our mask head alone, {options.samples} views"] = (options.recipe, options.samples, 1.0)
    arms = {
        label: [scored(run, samples, options.data, head_share=share) for run in runs[name]]
        for label, (name, samples, share) in passes.items()
    }
    store = Store(options.data)
    everything = np.arange(len(arms["ours"][0].groups))
    found = {
        "recipe": options.recipe,
        "steps": options.steps,
        "data": {"name": store.name, "hash": store.hash, "cases": len(everything)},
        "minutes": {name: [minutes(run) for run in each] for name, each in runs.items()},
        "seeds": {label: [known(figures([arm], everything)) for arm in each] for label, each in arms.items()},
        "means": {label: known(figures(each, everything)) for label, each in arms.items()},
        "ours_minus": {label: compared(arms["ours"], each) for label, each in arms.items() if label != "ours"},
        "git": git_revision(),
        "hardware": hardware(),
    }
    write_json(options.out / "twin.json", found)
    show(found)


def minutes(run: Path) -> float:
    """How long its segmenter was trained."""
    return progress_of(run / Stage.SEGMENTER).seconds / 60


def show(found: dict[str, Any]) -> None:
    """Prints the table."""
    for label, each in found["means"].items():
        print(f"{label:16}", *(f"{name} {value:.4f}" for name, value in each.items()))
    for label, each in found["ours_minus"].items():
        print(f"ours − {label}:")
        for name, gap in each.items():
            print(f"    {name:20} {gap['mean']:+.4f} ({gap['low']:+.4f} – {gap['high']:+.4f})")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
