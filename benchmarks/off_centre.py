"""What a model of crops loses where the object does not lie in the middle of the region.

python benchmarks/off_centre.py --model models/lidc_idri --data stores/lidc_idri --out docs/results/lidc_idri/off-centre.json

Windows of real pixels, 96² out of each crop of 128², moved so that the object lies 0, 4, 8, 12 or 16 px off the middle in
both directions, a quarter of the images along each diagonal. Nothing is filled in. Only images whose consensus lies within all
of the windows count, so that every row is of the same masks.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from manymask.data.case import evenly_spaced
from manymask.data.raters import consensus_mask
from manymask.data.store import Store
from manymask.ensemble import fuse
from manymask.evaluation.held_out import held_out_cases, matched_store, split_of
from manymask.hub.model_folder import load_model
from manymask.io.atomic import write_json
from manymask.metrics import overlap, summary
from manymask.runtime import default_device, git_revision, hardware

BATCH = 4  # images
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
    """Rows and columns of the window whose middle lies `offset` px along a diagonal off the middle of the crop."""
    first = (size - WINDOW) // 2
    starts = [first + sign * offset for sign in diagonal]
    return slice(starts[0], starts[0] + WINDOW), slice(starts[1], starts[1] + WINDOW)


def inside(truth: np.ndarray, diagonal: tuple[int, int]) -> bool:
    """Whether the whole mask (H, W) lies in every window."""
    return all(truth[window(len(truth), offset, diagonal)].sum() == truth.sum() for offset in OFFSETS)


def run(options: Options) -> dict[str, Any]:
    """Draws at every offset, scores, and returns what the file holds."""
    trained, store = load_model(options.model), Store(options.data)
    ids = evenly_spaced(held_out_cases(trained, matched_store(trained.recipe, store), "test"), options.images)
    trained.model.eval()
    rows: list[dict[str, Any]] = []
    for k, diagonal in enumerate(DIAGONALS):
        kept = [case for case in ids[k :: len(DIAGONALS)] if inside(consensus(store, case), diagonal)]
        found = {case: {"id": case, "raters": filled(store, case), "dice": {}} for case in kept}
        for offset in OFFSETS:
            stretched = trained.recipe.margin > 0 and trained.recipe.stretch
            windows = store.window(WINDOW, (offset * diagonal[0], offset * diagonal[1]), stretched)
            for batch in windows.batches(kept, BATCH, default_device()):
                answers = fuse(trained.model.sample_all(batch, options.masks, options.seed)).consensus.cpu().numpy()
                for case, answer in zip(batch.ids, answers, strict=True):
                    found[case]["dice"][str(offset)] = overlap(answer, consensus(windows, case))[0]
        rows += found.values()
        print(f"{k + 1} of {len(DIAGONALS)} diagonals", flush=True)
    full = [row for row in rows if row["raters"] == store.raters]
    return {
        "all": _table(rows, store),
        "all_raters_marked": _table(full, store),
        "window": WINDOW,
        "protocol": {"images": options.images, "masks": options.masks, "seed": options.seed, "split": "test"},
        "data": {"name": store.name, "hash": store.hash, "scheme": split_of(trained, store)},
        "model": options.model.name,
        "git": git_revision(),
        "hardware": hardware(),
        "rows": rows,
    }


def consensus(store: Store, case: str) -> np.ndarray:
    """Of the raters who marked anything: bool (H, W)."""
    return consensus_mask(store.native_masks(case))


def filled(store: Store, case: str) -> int:
    """How many raters marked anything."""
    return int(store.native_masks(case).any(axis=(1, 2)).sum())


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
