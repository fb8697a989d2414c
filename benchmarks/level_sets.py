"""What the drawn masks are worth: their GED² and HM-IoU beside those of answers that need no drawing.

python benchmarks/level_sets.py --model models/lidc_idri --data stores/lidc_idri --out docs/results/lidc_idri/level-sets.json

`drawn`        as many masks as --masks
`level_sets`   the mean of the same masks cut at the levels (k + ½)/n: a nested family that one probability map gives
`blank_K`      the drawn masks with K of them replaced by empty ones, the same K on every image
Each is given over all images and by the number of raters who marked the image.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from manymask.data.store import Store
from manymask.ensemble import level_sets
from manymask.evaluation.held_out import evenly_spaced, held_out_cases, split_of
from manymask.hub.model_folder import TrainedModel, load_model
from manymask.io.atomic import write_json
from manymask.metrics import ged, hungarian_iou, summary
from manymask.runtime import git_revision, hardware

BATCH = 4  # images
BLANKS = (2, 4, 6, 8)  # of 16 masks


@dataclass(frozen=True)
class Options:
    """A segmenter, a store with several raters, and where the results go."""

    model: Path
    data: Path
    out: Path
    images: int = 200
    masks: int = 16
    seed: int = 0


def rivals(drawn: np.ndarray) -> dict[str, np.ndarray]:
    """Sets of bool masks (n, H, W) that n drawn probability masks (n, H, W) are compared with, and themselves."""
    count = len(drawn)
    masks, nested = drawn >= 0.5, level_sets(torch.from_numpy(drawn.mean(axis=0)), count)
    sets = {"drawn": masks, "level_sets": nested.numpy() > 0}
    for blank in BLANKS:
        emptied = masks.copy()
        emptied[count - blank :] = False
        sets[f"blank_{blank}"] = emptied
    return sets


def score(case: str, drawn: np.ndarray, raters: np.ndarray) -> dict[str, Any]:
    """GED² and HM-IoU of each set of masks against the raters' masks, bool (R, H, W)."""
    row: dict[str, Any] = {"id": case, "raters": int(raters.any(axis=(1, 2)).sum())}
    for name, masks in rivals(drawn).items():
        row[name] = {"ged": ged(masks, raters), "hm_iou": hungarian_iou(masks, raters)}
    return row


def compare(rows: list[dict[str, Any]], store: Store) -> dict[str, Any]:
    """Means of each set with their 95 % intervals, and of the paired difference from `drawn`."""
    groups = [store.groups[row["id"]] for row in rows]
    found: dict[str, Any] = {}
    for name in (key for key in rows[0] if key not in ("id", "raters")):
        found[name] = {}
        for metric in ("ged", "hm_iou"):
            values = [row[name][metric] for row in rows]
            paired = [row[name][metric] - row["drawn"][metric] for row in rows]
            found[name][metric] = dict(summary(values, groups))
            found[name][f"{metric}_minus_drawn"] = dict(summary(paired, groups))
    return found


def run(options: Options) -> dict[str, Any]:
    """Draws, scores, and returns what the file holds."""
    trained, store = load_model(options.model), Store(options.data)
    ids = evenly_spaced(held_out_cases(trained, store, "test"), options.images)
    trained.model.eval()
    rows = []
    for start in range(0, len(ids), BATCH):
        batch = store.batch(ids[start : start + BATCH])
        drawn = trained.model.sample_all(batch, options.masks, options.seed).numpy()
        raters = batch.truth().numpy() > 0
        rows += [score(case, drawn[i], raters[i]) for i, case in enumerate(batch.ids)]
        print(f"{len(rows)} of {len(ids)}", flush=True)
    by_raters = {str(k): [row for row in rows if row["raters"] == k] for k in range(1, store.raters + 1)}
    return {
        "all": compare(rows, store),
        "by_raters": {k: compare(some, store) for k, some in by_raters.items() if some},
        **context(trained, store, options),
        "images": rows,
    }


def context(trained: TrainedModel, store: Store, options: Any) -> dict[str, Any]:
    """What is needed to get the results again; `options` are those of the script."""
    return {
        "protocol": {"images": options.images, "masks": options.masks, "seed": options.seed, "split": "test"},
        "data": {"name": store.name, "hash": store.hash, "scheme": split_of(trained, store)},
        "model": options.model.name,
        "git": git_revision(),
        "hardware": hardware(),
    }


if __name__ == "__main__":
    chosen = tyro.cli(Options)
    write_json(chosen.out, run(chosen))
