"""What smoothing an enlarged mask does to its Dice, and how ragged its outline is without.

python benchmarks/smoothing.py --model models/isic2018 --data stores/isic2018 --out docs/results/smoothing/isic2018.json

The masks of a model of S × S pixels are enlarged to the size of the image in several ways, and cut at 0.5. Each row has the
Dice of the consensus with the mask at its native size, the paired difference from bilinear enlargement, also of the quarter of
the images with the smallest lesions, and the length of the outline against that of the truth (1 is as smooth as drawn).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from skimage.measure import perimeter

from manymask.data.case import Part, evenly_spaced
from manymask.data.raters import consensus_mask
from manymask.data.resize import enlarge
from manymask.data.store import Store
from manymask.evaluation.held_out import held_out_cases, split_of
from manymask.hub.model_folder import load_model
from manymask.io.atomic import write_json
from manymask.metrics import overlap, summary
from manymask.runtime import git_revision, hardware

BATCH = 4  # images

WAYS = [("bilinear", 0.0), ("bicubic", 0.0), ("bicubic", 0.5), ("bicubic", 0.7), ("bicubic", 1.0), ("bicubic", 1.5)]


@dataclass(frozen=True)
class Options:
    """A model, a store whose native masks are larger than the model, and where the results go."""

    model: Path
    data: Path
    out: Path
    split: Part = "val"
    scheme: str | None = None
    images: int = 200
    masks: int = 5
    seed: int = 0


def name_of(way: tuple[str, float]) -> str:
    """`bicubic 0.7`."""
    return f"{way[0]} {way[1]:g}"


def score(drawn: torch.Tensor, truth: np.ndarray) -> dict[str, dict[str, float | None]]:
    """Dice and relative length of the outline, for each way; drawn: probabilities (n, S, S), truth: bool (H, W)."""
    found = {}
    for way in WAYS:
        shown = enlarge(drawn, truth.shape, *way).mean(dim=0).numpy() >= 0.5
        both = truth.any() and shown.any()
        ragged = float(perimeter(shown) / max(perimeter(truth), 1)) if both else None
        found[name_of(way)] = {"dice": overlap(shown, truth)[0], "outline": ragged}
    return found


def compare(rows: list[dict[str, Any]], groups: list[str]) -> dict[str, Any]:
    """Means with 95 % intervals, and of the paired difference from bilinear."""
    found: dict[str, Any] = {}
    first = name_of(WAYS[0])
    smallest = np.argsort([row["share"] for row in rows])[: len(rows) // 4]
    for name in map(name_of, WAYS):
        dice = [row[name]["dice"] for row in rows]
        paired = [row[name]["dice"] - row[first]["dice"] for row in rows]
        lengths = [row[name]["outline"] for row in rows if row[name]["outline"] is not None]
        small = summary([paired[i] for i in smallest], [groups[i] for i in smallest])
        found[name] = {"dice": dict(summary(dice, groups)), "dice_minus_bilinear": dict(summary(paired, groups)),
                       "dice_minus_bilinear_smallest_quarter": dict(small), "outline": float(np.mean(lengths))}  # fmt: skip
    return found


def run(options: Options) -> dict[str, Any]:
    """Draws, scores, and returns what the file holds."""
    trained, store = load_model(options.model), Store(options.data)
    ids = evenly_spaced(held_out_cases(trained, store, options.split, options.scheme), options.images)
    trained.model.eval()
    rows: list[dict[str, Any]] = []
    for start in range(0, len(ids), BATCH):
        batch = store.batch(ids[start : start + BATCH])
        drawn = trained.model.sample_all(batch, options.masks, options.seed)
        for case, masks in zip(batch.ids, drawn, strict=True):
            truth = consensus_mask(store.native_masks(case))
            rows.append({"id": case, "share": float(truth.mean()), **score(masks, truth)})
        print(f"{len(rows)} of {len(ids)}", flush=True)
    found = compare(rows, [store.groups[row["id"]] for row in rows])
    return {
        "ways": found,
        "protocol": {"images": len(ids), "masks": options.masks, "seed": options.seed, "split": options.split},
        "data": {"name": store.name, "hash": store.hash, "scheme": split_of(trained, store, options.scheme)},
        "model": options.model.name,
        "git": git_revision(),
        "hardware": hardware(),
        "images": rows,
    }


if __name__ == "__main__":
    chosen = tyro.cli(Options)
    write_json(chosen.out, run(chosen))
