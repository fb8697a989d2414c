"""What a model of crops loses where the object does not lie in the middle of the region.

python benchmarks/off_centre.py --model models/lidc_idri --data stores/lidc_idri --out docs/results/lidc_idri/off-centre.json

Windows of real pixels, 96² out of each crop of 128², moved so that the object lies 0, 4, 8, 12 or 16 px off the middle in
both directions; the four diagonals take orientations. Nothing is filled in. Only images whose consensus lies within all of the
windows count, so that every row is of the same masks.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from level_sets import BATCH, context

from manymask.data.case import Batch
from manymask.data.raters import raters_consensus
from manymask.data.store import Store
from manymask.ensemble import fuse
from manymask.evaluation.held_out import evenly_spaced, held_out_cases
from manymask.hub.model_folder import load_model
from manymask.io.atomic import write_json
from manymask.metrics import overlap, summary

WINDOW = 96
OFFSETS = (0, 4, 8, 12, 16)
DIAGONALS = ((1, 1), (1, -1), (-1, 1), (-1, -1))


@dataclass(frozen=True)
class Options:
    """A model of crops, its store, and where the results go."""

    model: Path
    data: Path
    out: Path
    images: int = 100
    masks: int = 5
    seed: int = 0


def window(size: int, offset: int, diagonal: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the window in which the middle of the crop lies `offset` px off the window's middle."""
    first = (size - WINDOW) // 2
    starts = [first - sign * offset for sign in diagonal]
    return slice(starts[0], starts[0] + WINDOW), slice(starts[1], starts[1] + WINDOW)


def cut(batch: Batch, offset: int, diagonals: list[tuple[int, int]]) -> Batch:
    """The windows of a batch; each image keeps its name, so its noise is the same at every offset."""
    size, masks = batch.image.shape[-1], batch.truth()
    places = [window(size, offset, diagonal) for diagonal in diagonals]
    image = torch.stack([batch.image[i, :, rows, columns] for i, (rows, columns) in enumerate(places)])
    raters = torch.stack([masks[i, :, rows, columns] for i, (rows, columns) in enumerate(places)])
    return Batch(list(batch.ids), image, raters)


def inside(truth: np.ndarray, diagonal: tuple[int, int]) -> bool:
    """Whether the whole mask (H, W) lies in every window."""
    return all(truth[window(len(truth), offset, diagonal)].sum() == truth.sum() for offset in OFFSETS)


def run(options: Options) -> dict[str, Any]:
    """Draws at every offset, scores, and returns what the file holds."""
    trained, store = load_model(options.model), Store(options.data)
    ids = evenly_spaced(held_out_cases(trained, store, "test"), options.images)
    trained.model.eval()
    rows: list[dict[str, Any]] = []
    for start in range(0, len(ids), BATCH):
        batch = store.batch(ids[start : start + BATCH])
        diagonals = [DIAGONALS[(start + i) % len(DIAGONALS)] for i in range(len(batch.ids))]
        truth = raters_consensus(batch.truth())[:, 0].numpy() > 0
        kept = [i for i, diagonal in enumerate(diagonals) if inside(truth[i], diagonal)]
        filled = (batch.truth().flatten(2).amax(dim=2) > 0).sum(dim=1)
        found = [{"id": batch.ids[i], "raters": int(filled[i]), "dice": {}} for i in kept]
        for offset in OFFSETS:
            seen = cut(batch, offset, diagonals)
            answers = fuse(trained.model.sample_all(seen, options.masks, options.seed)).consensus.numpy()
            asked = raters_consensus(seen.truth())[:, 0].numpy() > 0
            for row, i in zip(found, kept, strict=True):
                row["dice"][str(offset)] = overlap(answers[i], asked[i])[0]
        rows += found
        print(f"{start + len(batch.ids)} of {len(ids)}", flush=True)
    full = [row for row in rows if row["raters"] == store.raters]
    return {"all": _table(rows, store), "all_raters_marked": _table(full, store), "window": WINDOW,
            **context(trained, store, options), "rows": rows}  # fmt: skip


def _table(rows: list[dict[str, Any]], store: Store) -> dict[str, Any]:
    """By offset: Dice with its interval, its paired difference from offset 0, and the share that was missed entirely."""
    groups, table = [store.groups[row["id"]] for row in rows], {}
    for offset in map(str, OFFSETS):
        dice = [row["dice"][offset] for row in rows]
        lost = [row["dice"][offset] - row["dice"]["0"] for row in rows]
        table[offset] = {
            "dice": dict(summary(dice, groups)),
            "dice_minus_centred": dict(summary(lost, groups)),
            "missed": float(np.mean([value == 0 for value in dice])),
        }
    return table


if __name__ == "__main__":
    chosen = tyro.cli(Options)
    write_json(chosen.out, run(chosen))
