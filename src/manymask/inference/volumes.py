"""Volumes in ml of what was drawn slice by slice: of each mask, which is one hypothesis of the volume, and of the consensus."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from manymask.inference.outputs import SeriesResult
from manymask.io.image import NiftiSlice, Picture

INTERVAL = (5, 95)  # percentiles of the drawn masks: the interval that is given for areas and volumes
_GAP = 1.5  # of the usual distance: more is a slice that is missing
_EVEN = 1.02  # largest over smallest distance of slices that lie evenly
_SEVERAL, _FEW = 9, 1 / 3  # gaps, and the share of them that may be wider than usual
_CUBIC_MM = 1000.0  # in a ml


def spread(values: Sequence[float] | np.ndarray, unit: str, name: str = "volume") -> dict[str, float]:
    """Mean, standard deviation (n − 1) and interval over the masks, as entries of result.json.

    Args:
        values: one per mask.
        unit: such as "ml", the end of the entries' names; may be empty.
        name: the beginning of their names.

    Returns:
        `volume_mean_ml`, `volume_std_ml`, `volume_low_ml` and `volume_high_ml`.
    """
    low, high = np.percentile(values, INTERVAL)
    found = {"mean": np.mean(values), "std": np.std(values, ddof=min(1, len(values) - 1)), "low": low, "high": high}
    ending = f"_{unit}" if unit else ""
    return {f"{name}_{key}{ending}": float(value) for key, value in found.items()}


def volume_records(
    pictures: Sequence[Picture], results: Sequence[SeriesResult]
) -> tuple[list[dict[str, Any]], list[str]]:
    """What the slices of a series hold together.

    Args:
        pictures: the slices, in any order; those of a file of several volumes may come together.
        results: one per slice.

    Returns:
        For each volume: `slices`, `volumes_ml` of the masks with their mean, standard deviation and interval,
        `volume_consensus_ml`, and `pairwise_iou` of the masks in three dimensions. And sentences: why there are no volumes in
        ml, or what they leave out.
    """
    found, notes = [], list[str]()
    for members in _volumes(pictures):
        slices = [(pictures[i], results[i]) for i in members]
        voxels, remark = _voxel_volumes([picture for picture, _ in slices])
        record: dict[str, Any] = {"slices": len(slices)}
        if voxels is not None:
            areas = np.array([result.masks.sum(axis=(1, 2)) for _, result in slices])  # slices, n
            agreed = np.array([result.consensus.sum() for _, result in slices])
            each = voxels @ areas / _CUBIC_MM
            record |= {"volumes_ml": each.tolist(), **spread(each, "ml"),
                       "volume_consensus_ml": float(voxels @ agreed / _CUBIC_MM)}  # fmt: skip
        found.append(record | {"pairwise_iou": _agreement([result.masks for _, result in slices])})
        if remark and remark not in notes:
            notes.append(remark)
    return found, notes


def _volumes(pictures: Sequence[Picture]) -> list[list[int]]:
    """The pictures of each volume: a NIfTI file may hold several, one after the other."""
    groups: dict[int, list[int]] = {}
    for i, picture in enumerate(pictures):
        origin = picture.origin
        which = origin.index // (*origin.shape[2:], 1)[0] if isinstance(origin, NiftiSlice) else 0
        groups.setdefault(which, []).append(i)
    return list(groups.values())


def _voxel_volumes(pictures: Sequence[Picture]) -> tuple[np.ndarray | None, str]:
    """mm³ of a pixel of each slice, half way to its neighbours on either side; None and the reason if that is not known."""
    pixels = [picture.spacing[0] * picture.spacing[1] for picture in pictures if picture.spacing is not None]
    depths = [picture.slice.depth for picture in pictures if picture.slice and picture.slice.depth is not None]
    if len(pixels) < len(pictures) or len(depths) < len(pictures):
        what = "size of a pixel" if len(pixels) < len(pictures) else "distance between slices"
        return None, f"The {what} is not known: no volumes in ml are given."
    order = np.argsort(depths)
    gaps = np.diff(np.array(depths)[order])
    if len(gaps) == 0:
        return None, "There is a single slice: no volume in ml is given."
    if gaps.min() < 1e-3:
        return None, "Several images lie at one position: no volumes in ml are given."
    numbers = np.array([picture.slice.number for picture in pictures if picture.slice])[order]
    usual = _usual(gaps, np.abs(np.diff(numbers)))
    missing = int((gaps > _GAP * usual).sum())
    if len(gaps) >= _SEVERAL and missing > _FEW * len(gaps):
        return None, (
            f"{missing} of {len(gaps)} distances between slices are longer than usual, as where two stacks lie between each "
            "other: no volumes in ml are given."
        )
    halves = np.where(gaps > _GAP * usual, usual, gaps) / 2
    reach = np.concatenate([halves[:1], halves]) + np.concatenate([halves, halves[-1:]])
    thickness = np.empty(len(pictures))
    thickness[order] = reach
    note = f"Slices are missing at {missing} place(s): nothing is counted there." if missing else ""
    return thickness * np.array(pixels), note


def _usual(gaps: np.ndarray, jumps: np.ndarray) -> float:
    """The distance of neighbouring slices, some of which may be left out.

    By their numbers, where these say the same everywhere; else the distance in the middle, of one or two the smaller.

    Args:
        gaps: mm from slice to slice, (N,).
        jumps: how many numbers lie between them, (N,), 1 for neighbours.

    Returns:
        In mm.
    """
    each = gaps / np.maximum(jumps, 1)
    if (len(gaps) == 1 or jumps.min() != jumps.max()) and each.max() <= _EVEN * each.min():
        return float(np.median(each))
    return float(np.median(gaps) if len(gaps) > 2 else gaps.min())


def _agreement(masks: Sequence[np.ndarray]) -> float | None:
    """Mean IoU in three dimensions over all pairs of masks, given slice by slice as bool (n, H, W); None for one mask."""
    count = len(masks[0])
    if count < 2:
        return None
    both = np.zeros((count, count))
    for some in masks:
        flat = some[:, some.any(axis=0)].astype(np.float32)  # only pixels that a mask holds
        both += flat @ flat.T
    sizes = np.diag(both)
    either = sizes[:, None] + sizes[None, :] - both
    iou = np.where(either > 0, both / np.maximum(either, 1), 1.0)
    return float(iou[np.triu_indices(count, 1)].mean())
