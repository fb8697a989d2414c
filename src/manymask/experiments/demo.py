"""The whole way on the phantom set, whose truth is known: do the drawn masks disagree as often as the raters do?"""

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from manymask.data.case import Batch
from manymask.data.datasets import phantom
from manymask.data.store import Store, prepare
from manymask.ensemble import level_sets
from manymask.evaluation.calibrate import CalibrationConfig, calibrate
from manymask.evaluation.evaluator import THRESHOLD, EvalConfig, evaluate, results
from manymask.evaluation.held_out import held_out_cases
from manymask.evaluation.plots import Panel, draw_grid, segmentation_row
from manymask.experiments.true_calibration import includes_halo, rows_of, true_calibration
from manymask.extras import require_training
from manymask.hub.model_folder import load_model, save_calibration
from manymask.inference.segmenter import Segmenter
from manymask.io.atomic import write_json
from manymask.metrics import ged, summary
from manymask.models.base import MaskSampler
from manymask.recipes import Recipe, Stage, get_recipe
from manymask.training.checkpoint import progress_of
from manymask.training.initialization import TrainConfig
from manymask.training.trainer import fit

# shares of the training time: the codecs are soon good, the segmenter is what has to learn
SHARES: dict[Stage, float] = {Stage.IMAGE_CODEC: 0.12, Stage.MASK_CODEC: 0.18, Stage.SEGMENTER: 0.55}
RIVAL, RIVAL_SHARE = "phantom-random-reader", 0.15
CASES = 96
BATCH = 16  # images
SAMPLES_FOR_SHARE = 24
CALIBRATED_ON = 40  # validation cases

Masks = Callable[[Batch, int], np.ndarray]  # a batch → bool (B, n, H, W)


def run_demo(out: Path, minutes: float = 4.0, seed: int = 0) -> dict[str, Any]:
    """Prepares, trains, evaluates and draws; leaves figure.png, results.json and model/ in `out`."""
    require_training()
    work, console = out / "work", Console()
    store = Store(work / "data") if (work / "data").exists() else _prepare(work / "data")
    training = {stage: _train(get_recipe("phantom"), stage, store, work / "manymask", minutes * share)
                for stage, share in SHARES.items()}  # fmt: skip
    rival_training = _train(get_recipe(RIVAL), Stage.SEGMENTER, store, work / "rival", minutes * RIVAL_SHARE)
    trained = load_model(work / "manymask" / "segmenter" / "model")
    rival = load_model(work / "rival" / "segmenter" / "model")
    ids = held_out_cases(trained, store, "test")[:CASES]
    protocol = EvalConfig(seed=seed)
    trained.calibration = calibrate(trained, store, CalibrationConfig(protocol.samples, seed), limit=CALIBRATED_ON)
    scores = evaluate(trained.model, store, ids, protocol)
    found = results(trained, store, "test", protocol, scores).to_dict()
    found["training"] = training
    drawn, validation = (
        probabilities(trained.segmenter, store, some, seed) for some in (ids, list(trained.calibration.origin.cases))
    )
    found["halo"] = halo_agreement(
        lambda batch, _: np.stack([drawn[case] for case in batch.ids]) >= THRESHOLD, store, ids
    )
    found["true_calibration"] = true_calibration(trained.calibration.confidence, drawn, validation, protocol.samples)
    found["rival"] = {"recipe": RIVAL, "training": rival_training, **score_rival(rival.segmenter, store, ids, protocol)}
    found["best_single_mask"] = {"halo": best_single_mask(ids)}
    write_json(out / "results.json", found)
    _draw(trained.segmenter, store, _spread_over_halo(ids, 5), out / "figure.png", seed)
    shutil.copytree(work / "manymask" / "segmenter" / "model", out / "model", dirs_exist_ok=True)
    save_calibration(trained, out / "model", trained.calibration)
    console.print(_table(found))
    console.print(f"figure.png, results.json, model/ → {out}")
    Segmenter.from_pretrained(str(out / "model"))
    return found


def _prepare(folder: Path) -> Store:
    row = get_recipe("phantom")
    return prepare(phantom.read(channels=row.channels), folder, row.size, row.channels)


def _train(row: Recipe, stage: Stage, store: Store, run: Path, minutes: float) -> dict[str, float]:
    """Trains a stage unless it has left its model. Optimiser steps, seconds by the clock, and seconds of a processor,
    which are fewer where other work shares it (of this call alone: 0 where the model was there)."""
    start = time.process_time()
    if not (run / stage / "model").exists():
        fit(TrainConfig(row, stage, store, run), minutes)
    busy = time.process_time() - start
    done = progress_of(run / stage)
    return {"steps": done.step, "seconds": round(done.seconds, 1), "processor_seconds": round(busy, 1)}


def probabilities(model: MaskSampler, store: Store, ids: list[str], seed: int) -> dict[str, np.ndarray]:
    """The masks (`SAMPLES_FOR_SHARE`, H, W) of each case, before they are cut."""
    found: dict[str, np.ndarray] = {}
    for start in range(0, len(ids), BATCH):
        batch = store.batch(ids[start : start + BATCH])
        found |= dict(zip(batch.ids, model.sample_all(batch, SAMPLES_FOR_SHARE, seed).numpy(), strict=True))
    return found


def nested_masks(model: MaskSampler) -> Masks:
    """What a network gives that answers once: the level sets of its map."""
    return lambda batch, count: level_sets(model.sample_all(batch, 1, 0)[:, 0], count).numpy() > 0


def score_rival(model: MaskSampler, store: Store, ids: list[str], protocol: EvalConfig) -> dict[str, Any]:
    """Dice of its map at 0.5; GED² of as many level sets as the other model draws masks; the halo."""
    masks = nested_masks(model)
    scores = evaluate(model, store, ids, replace(protocol, samples=1, ged_samples=1))
    batches = (store.batch(ids[i : i + BATCH]) for i in range(0, len(ids), BATCH))
    distances = [
        ged(nested, raters)
        for batch in batches
        for nested, raters in zip(masks(batch, protocol.ged_samples), batch.truth().numpy() > 0, strict=True)
    ]
    metrics = {"dice": scores.metrics["dice"], "ged": dict(summary(distances, ids))}
    return {"metrics": metrics, "halo": halo_agreement(masks, store, ids)}


def halo_agreement(masks: Masks, store: Store, ids: list[str]) -> dict[str, float]:
    """The share of masks that include the halo (more than half of its ring) against the true probability."""
    shares, truths = [], []
    for start in range(0, len(ids), BATCH):
        some = ids[start : start + BATCH]
        for case, drawn in zip(some, masks(store.batch(some), SAMPLES_FOR_SHARE), strict=True):
            truth = phantom.draw(phantom.case_index(case))
            shares.append(float(includes_halo(drawn, truth).mean()))
            truths.append(truth.halo_probability)
    return _agreement(shares, truths)


def best_single_mask(ids: list[str]) -> dict[str, float]:
    """What is open to a single *mask* of a model that knows the truth: the halo where more than half of the raters mark
    it. A single *map* may come closer, see `score_rival`."""
    truths = [phantom.draw(phantom.case_index(case)).halo_probability for case in ids]
    return _agreement([float(truth > 0.5) for truth in truths], truths)


def _agreement(shares: list[float], truths: list[float]) -> dict[str, float]:
    """Shares of masks with the halo against the probabilities that they estimate."""
    error = float(np.abs(np.subtract(shares, truths)).mean())
    rank = spearmanr(shares, truths).statistic if len(set(shares)) > 1 else 0.0
    undecided = [s for s, t in zip(shares, truths, strict=True) if 0.2 < t < 0.8]
    both = float(np.mean([0 < s < 1 for s in undecided])) if undecided else 0.0
    return {"mean_absolute_error": error, "rank_correlation": float(rank), "undecided_with_both_answers": both}


def _spread_over_halo(ids: list[str], count: int) -> list[str]:
    """Cases from the least to the most visible halo."""
    ordered = sorted(ids, key=lambda case: phantom.draw(phantom.case_index(case)).halo_probability)
    return [ordered[round(i * (len(ordered) - 1) / (count - 1))] for i in range(count)]


def _draw(model: MaskSampler, store: Store, ids: list[str], path: Path, seed: int) -> None:
    batch = store.batch(ids)
    drawn = model.sample_all(batch, 5, seed)
    rows = []
    for i, case in enumerate(ids):
        row = segmentation_row(batch.image[i], batch.truth()[i], drawn[i])
        truth = torch.from_numpy(phantom.draw(phantom.case_index(case)).pixel_probability)
        rows.append([*row[:5], Panel("true probability", truth.numpy(), "viridis"), *row[5:]])
    draw_grid(rows, path)


def _table(found: Mapping[str, Any]) -> Table:
    table = Table(title=f"{len(found['cases'])} held-out phantoms, four simulated raters each")
    for name in ("", "manymask", "random-reader ResUNet", "best single mask"):
        table.add_column(name, justify="left" if not name else "right")
    for row in table_rows(found):
        table.add_row(*row)
    return table


def table_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """The rows of the table, also of the page of results: label, manymask, its rival, the best single mask."""
    rival, best = found["rival"], found["best_single_mask"]
    took = found["training"].values()
    steps, seconds = found["training"]["segmenter"]["steps"], sum(stage["seconds"] for stage in took)
    rows = [
        ["optimiser steps of the segmenter", f"{steps}", f"{rival['training']['steps']}", "–"],
        ["seconds of training, codecs included", f"{seconds:.0f}", f"{rival['training']['seconds']:.0f}", "–"],
    ]
    for key, label in (("dice", "Dice of the consensus"), ("ged", "GED² of 16 masks (lower is better)")):
        rows.append([label, *(f"{part['metrics'][key]['mean']:.3f}" for part in (found, rival)), "–"])
    for key, label in (
        ("mean_absolute_error", "share of 24 masks with the halo: mean absolute error"),
        ("rank_correlation", "… and its rank correlation"),
        ("undecided_with_both_answers", "cases with true share 0.2 – 0.8 that got both answers"),
    ):
        rows.append([label, *(f"{part['halo'][key]:.3f}" for part in (found, rival, best))])
    return (
        rows + [[*row, "–", "–"] for row in rows_of(found["true_calibration"])] if "true_calibration" in found else rows
    )
