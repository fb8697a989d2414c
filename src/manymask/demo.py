"""The whole way on the phantom set, whose truth is known: do the drawn masks disagree as often as the readers do?"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from manymask.data import phantom
from manymask.data.store import Store, prepare
from manymask.evaluate import Protocol, Scores, evaluate, held_out_cases, results
from manymask.files.atomic import write_json
from manymask.hub import Segmenter, load_model
from manymask.recipes import Recipe, Stage, recipe
from manymask.show import draw_grid, segmentation_row
from manymask.train import Job, fit

# shares of the training time: the codecs are soon good, the segmenter is what has to learn
SHARES: dict[Stage, float] = {"image-codec": 0.12, "mask-codec": 0.18, "segmenter": 0.55}
UNET_SHARE = 0.15
CASES = 96
SAMPLES_FOR_SHARE = 24


def run(out: Path, minutes: float = 4.0, seed: int = 0) -> dict[str, Any]:
    """Prepares, trains, evaluates and draws; leaves figure.png, results.json and model/ in `out`."""
    work, console = out / "work", Console()
    store = Store(work / "data") if (work / "data").exists() else _prepare(work / "data")
    row = recipe("phantom")
    for stage, share in SHARES.items():
        _train(row, stage, store, work / "manymask", minutes * share)
    _train(recipe("phantom-unet"), "segmenter", store, work / "unet", minutes * UNET_SHARE)
    trained = load_model(work / "manymask" / "segmenter" / "model")
    unet = load_model(work / "unet" / "segmenter" / "model")
    ids = held_out_cases(trained, store, "test")[:CASES]
    protocol = Protocol(seed=seed)
    scores = evaluate(trained.model, store, ids, protocol)
    found = results(trained, store, "test", protocol, scores)
    found["halo"] = {"manymask": halo_agreement(trained.model, store, ids, SAMPLES_FOR_SHARE, seed),
                     "unet": halo_agreement(unet.model, store, ids, 1, seed)}  # fmt: skip
    found["halo"]["best_single_answer"] = best_single_answer(ids)
    found["unet"] = evaluate(unet.model, store, ids, replace(protocol, samples=1, ged_samples=1)).metrics
    write_json(out / "results.json", found)
    _draw(trained.model, store, _spread_over_halo(ids, 5), out / "figure.png", seed)
    shutil.copytree(work / "manymask" / "segmenter" / "model", out / "model", dirs_exist_ok=True)
    console.print(_table(found, scores))
    console.print(f"figure.png, results.json, model/ → {out}")
    Segmenter.from_pretrained(str(out / "model"))
    return found


def _prepare(folder: Path) -> Store:
    row = recipe("phantom")
    return prepare(phantom.read(channels=row.channels), folder, row.size, row.channels)


def _train(row: Recipe, stage: Stage, store: Store, run: Path, minutes: float) -> None:
    if not (run / stage / "model").exists():
        fit(Job(row, stage, store, run), minutes)


def halo_agreement(model: Any, store: Store, ids: list[str], samples: int, seed: int) -> dict[str, float]:
    """The share of drawn masks that include the halo (more than half of its ring) against the true probability."""
    shares, truths = [], []
    for start in range(0, len(ids), 16):
        some = ids[start : start + 16]
        drawn = model.predict(store.batch(some), samples, seed) >= 0.5
        for case, masks in zip(some, drawn.numpy(), strict=True):
            truth = phantom.draw(phantom.case_index(case))
            shares.append(float((masks[:, truth.halo_ring].mean(axis=1) > 0.5).mean()))
            truths.append(truth.halo_probability)
    error = float(np.abs(np.subtract(shares, truths)).mean())
    rank = spearmanr(shares, truths).statistic if len(set(shares)) > 1 else 0.0
    undecided = [s for s, t in zip(shares, truths, strict=True) if 0.2 < t < 0.8]
    both = float(np.mean([0 < s < 1 for s in undecided])) if undecided else 0.0
    return {"mean_absolute_error": error, "rank_correlation": float(rank), "undecided_with_both_answers": both}


def best_single_answer(ids: list[str]) -> dict[str, float]:
    """What is open to a model that answers once and knows the truth: the halo where more than half of the readers mark it."""
    truths = np.array([phantom.draw(phantom.case_index(case)).halo_probability for case in ids])
    answers = truths > 0.5
    rank = float(spearmanr(answers, truths).statistic)
    error = float(np.abs(answers - truths).mean())
    return {"mean_absolute_error": error, "rank_correlation": rank, "undecided_with_both_answers": 0.0}


def _spread_over_halo(ids: list[str], count: int) -> list[str]:
    """Cases from the least to the most visible halo."""
    ordered = sorted(ids, key=lambda case: phantom.draw(phantom.case_index(case)).halo_probability)
    return [ordered[round(i * (len(ordered) - 1) / (count - 1))] for i in range(count)]


def _draw(model: Any, store: Store, ids: list[str], path: Path, seed: int) -> None:
    batch = store.batch(ids)
    drawn = model.predict(batch, 5, seed)
    rows = []
    for i, case in enumerate(ids):
        row = segmentation_row(batch.image[i], batch.truth()[i], drawn[i])
        truth = torch.from_numpy(phantom.draw(phantom.case_index(case)).pixel_probability)
        rows.append([*row[:5], ("true probability", truth.numpy(), "viridis"), *row[5:]])
    draw_grid(rows, path)


def _table(found: dict[str, Any], scores: Scores) -> Table:
    table = Table(title=f"{len(scores.cases)} held-out phantoms, four simulated readers each")
    for name in ("", "manymask", "plain U-Net", "the best single answer"):
        table.add_column(name, justify="left" if not name else "right")
    many, one, best = (found["halo"][name] for name in ("manymask", "unet", "best_single_answer"))
    table.add_row(
        "Dice of the consensus", f"{found['metrics']['dice']['mean']:.3f}", f"{found['unet']['dice']['mean']:.3f}"
    )
    table.add_row(
        "GED² (lower is better)", f"{found['metrics']['ged']['mean']:.3f}", f"{found['unet']['ged']['mean']:.3f}"
    )
    for key, label in (
        ("mean_absolute_error", "share of masks with the halo: error against the truth"),
        ("rank_correlation", "… and its rank correlation"),
        ("undecided_with_both_answers", "cases with true share 0.2 – 0.8 that got both answers"),
    ):
        table.add_row(label, f"{many[key]:.3f}", f"{one[key]:.3f}", f"{best[key]:.3f}")
    return table
