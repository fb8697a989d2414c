"""How well drawn masks represent several raters, compared with baselines that need no sampling.

level_sets   the mean of the same masks cut at the levels (k + ½)/n: nested masks from one probability map
blanks       the same masks, a quarter of them replaced by empty ones, whatever the image
disk         a disk in the middle that does not depend on the image
"""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch

from manymask.data.raters import consensus_mask
from manymask.data.store import Store
from manymask.ensemble import level_sets
from manymask.metrics import ged, hungarian_iou, overlap, pairwise_iou
from manymask.rng import independent_pairs

DISK_RADIUS = 4  # px; the blind disk that results on LIDC crops are compared with
BLANK_SHARE = 4  # one mask in so many is emptied

Row = dict[str, Any]
Summarise = Callable[[list[Row], Sequence[str]], dict[str, Any]]  # rows and names of scores → means with intervals


def set_scores(drawn: np.ndarray, raters: np.ndarray, presence: float | None = None) -> Row:
    """Scores of drawn masks against raters' masks, empty masks included.

    Distances are 1 − IoU. `sample_distance` is the mean d of two masks that are drawn independently, and `ged_unbiased` the
    score of infinitely many masks: GED² with d in place of the mean over all pairs, each mask with itself included. For
    independent masks that is GED² − d/n.

    Args:
        drawn: probabilities (n, H, W) in [0, 1].
        raters: bool (R, H, W).
        presence: p(anything is marked), by which strata decide which of the masks are empty; None where nothing does.

    Returns:
        `ged`, `hm_iou`, `ged_unbiased`, `sample_distance`, `rater_distance`, and `ged` and `hm_iou` of the baselines
        `level_sets` and `blanks`.
    """
    masks = drawn >= 0.5
    count = len(drawn)
    nested = level_sets(torch.from_numpy(drawn.mean(axis=0)), count).numpy() > 0
    emptied = masks.copy()
    emptied[count - count // BLANK_SHARE :] = False
    apart = 1 - pairwise_iou(masks, masks)
    distance = _independent_distance(apart, np.array([mask.any() for mask in masks]), presence)
    own = _against(masks, raters)
    return own | {
        "ged_unbiased": own["ged"] + float(apart.mean()) - distance,
        "sample_distance": distance,
        "rater_distance": _mean_of(1 - pairwise_iou(raters, raters), list(combinations(range(len(raters)), 2))),
        "level_sets": _against(nested, raters),
        "blanks": _against(emptied, raters),
    }


def _against(masks: np.ndarray, raters: np.ndarray) -> Row:
    return {"ged": ged(masks, raters), "hm_iou": hungarian_iou(masks, raters)}


def _independent_distance(apart: np.ndarray, marked: np.ndarray, presence: float | None) -> float:
    """The expected distance of two masks that are drawn independently.

    Masks from opposite noise differ more, so their pairs are left out. Where strata decide which masks are empty, these are
    as many as they should be, and never by chance more or fewer. The distance then is p² times that of marked masks, and
    2 p (1 − p) times 1, that of a mask and an empty one.
    """
    pairs = independent_pairs(len(apart))
    if presence is None:
        return _mean_of(apart, pairs)
    both = _mean_of(apart, [(i, j) for i, j in pairs if marked[i] and marked[j]])
    return presence**2 * both + 2 * presence * (1 - presence)


def _mean_of(table: np.ndarray, pairs: Sequence[tuple[int, int]]) -> float:
    """The mean of these entries of a table; 0 without any."""
    return float(np.mean([table[pair] for pair in pairs])) if pairs else 0.0


def rivals(rows: list[Row], summarise: Summarise) -> dict[str, Any]:
    """Summaries of level sets and blanks, and of the images by the number of raters who marked anything.

    Args:
        rows: `set_scores` of each image, with `id`, `dice` and the number of `raters` who marked anything.
        summarise: means with intervals of named scores.

    Returns:
        `level_sets` and `blanks`, with paired differences from the drawn masks, and `marked_by_N` for each number.
    """
    found = {}
    for name in ("level_sets", "blanks"):
        paired = [
            row[name] | {f"{k}_minus_drawn": row[name][k] - row[k] for k in ("ged", "hm_iou")} | {"id": row["id"]}
            for row in rows
        ]
        found[name] = summarise(paired, ("ged", "ged_minus_drawn", "hm_iou", "hm_iou_minus_drawn"))
    for marked in sorted({row["raters"] for row in rows}):
        some = [row for row in rows if row["raters"] == marked]
        found[f"marked_by_{marked}"] = summarise(some, ("dice", "ged", "hm_iou", "sample_distance", "rater_distance"))
    return found


def blind_and_human(store: Store, ids: Sequence[str], summarise: Summarise) -> dict[str, Any]:
    """Reference values of Dice on these images: a blind disk in the middle, and one rater against the others.

    Args:
        store: the data.
        ids: the cases.
        summarise: means with intervals of named scores.

    Returns:
        `disk`, and `one_rater_against_the_others` if three or more raters all marked something in any image.
    """
    disk_rows = []
    rater_rows = []
    for case in ids:
        native = store.native_masks(case)
        truth = consensus_mask(native)
        y, x = np.ogrid[: truth.shape[0], : truth.shape[1]]
        centre = (truth.shape[0] // 2, truth.shape[1] // 2)
        disk = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= DISK_RADIUS**2
        disk_rows.append({"id": case, "dice": overlap(disk, truth)[0]})
        if native.any(axis=(1, 2)).all() and len(native) > 2:
            left_out = [_rater_against_rest(native, k) for k in range(len(native))]
            rater_rows.append({"id": case, "dice": float(np.mean(left_out))})
    found = {"disk": summarise(disk_rows, ("dice",))}
    if rater_rows:
        found["one_rater_against_the_others"] = summarise(rater_rows, ("dice",))
    return found


def _rater_against_rest(native: np.ndarray, k: int) -> float:
    rest = np.delete(native, k, axis=0)
    return overlap(native[k], rest.sum(axis=0) * 2 > len(rest))[0]
