"""Several raters of one image: their consensus, and the mask that a network is trained on."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

Target = Literal["consensus", "rater"]


def raters_consensus(masks: Tensor) -> Tensor:
    """The mean of the non-empty masks ≥ 0.5; empty if all masks are.

    The paper "averages" four LIDC raters; over all four slots a third of its targets would be empty.

    Args:
        masks: (B, R, H, W) in {0, 1}.

    Returns:
        (B, 1, H, W) in {0, 1}.
    """
    present = masks.flatten(2).amax(dim=2) > 0
    filled = present.sum(dim=1).clamp(min=1)[:, None, None]
    return (masks.sum(dim=1) / filled >= 0.5).to(masks.dtype)[:, None]


def consensus_mask(masks: np.ndarray) -> np.ndarray:
    """`raters_consensus` of one image: bool (R, H, W) → bool (H, W)."""
    filled = masks[masks.any(axis=(1, 2))]
    return filled.mean(axis=0) >= 0.5 if len(filled) else np.zeros(masks.shape[1:], dtype=bool)


def majority_mask(masks: np.ndarray) -> np.ndarray:
    """`majority` of one image: bool (R, H, W) → bool (H, W)."""
    result: np.ndarray = masks.mean(axis=0) >= 0.5
    return result


def majority(masks: Tensor) -> Tensor:
    """The mean of all slots ≥ 0.5, empty masks included: (B, R, H, W) in {0, 1} → (B, 1, H, W) in {0, 1}."""
    return (masks.mean(dim=1, keepdim=True) >= 0.5).to(masks.dtype)


def random_rater(masks: Tensor, choice: Tensor, read_by: Tensor | None = None) -> Tensor:
    """One rater of each image.

    Args:
        masks: (B, R, H, W).
        choice: uniform random numbers (B,) in [0, 1).
        read_by: bool (B, R), the slots to choose from; all if None.

    Returns:
        (B, 1, H, W).
    """
    slot = (choice.to(masks.device) * masks.shape[1]).long()
    if read_by is not None:
        own = read_by.to(masks.device)
        first = (~own).long().argsort(dim=1, stable=True)  # the slots of those who read come first
        slot = first.gather(1, (choice.to(own.device) * own.sum(dim=1)).long()[:, None])[:, 0]
    return masks[torch.arange(len(masks), device=masks.device), slot][:, None]


def training_target(masks: Tensor, target: Target, choice: Tensor, read_by: Tensor | None = None) -> Tensor:
    """The mask to learn from: the raters' consensus, or one rater at random, empty masks included.

    Args:
        masks: (B, R, H, W) in {0, 1}.
        target: which of the two.
        choice: uniform random numbers (B,) in [0, 1), by which a rater is chosen.
        read_by: bool (B, R), the raters who read each image; all if None. Others are never chosen.

    Returns:
        (B, 1, H, W) in {0, 1}.
    """
    return raters_consensus(masks) if target == "consensus" else random_rater(masks, choice, read_by)
