"""From many masks to one answer and its uncertainty (Section III-C, end)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Target = Literal["consensus", "reader"]
_BLOCK = 1 << 18  # values that are computed at once, so that large images need little memory beside their maps


@dataclass(frozen=True)
class Consensus:
    """What n drawn masks say together; every map is (…, H, W)."""

    confidence: Tensor  # mean probability, [0, 1]
    consensus: Tensor  # confidence ≥ threshold, bool
    votes: Tensor  # share of masks that hold the pixel (probability ≥ 0.5), [0, 1]
    disagreement: Tensor  # standard deviation over the masks, [0, 0.5]
    entropy: Tensor  # predictive entropy of the confidence, bits, [0, 1]


def cut(confidence: Tensor, threshold: float) -> Tensor:
    """The consensus: confidence ≥ threshold, any number in (0, 1), as bool. The one place where a confidence map is cut, so
    that every answer, file and page has the same area."""
    return confidence >= threshold


def fuse(masks: Tensor, threshold: float = 0.5) -> Consensus:
    """Masks (…, n, H, W) with probabilities in [0, 1] → their consensus; the mean at 0.5 as in the paper."""
    confidence = masks.mean(dim=-3)
    votes = torch.zeros_like(confidence)
    for mask in masks.unbind(dim=-3):
        votes += mask >= 0.5
    return Consensus(
        confidence=confidence,
        consensus=cut(confidence, threshold),
        votes=votes.div_(masks.shape[-3]),
        disagreement=masks.std(dim=-3, correction=0),
        entropy=_entropy(confidence),
    )


def _entropy(confidence: Tensor) -> Tensor:
    """Bits, element by element."""
    entropy = torch.empty_like(confidence, memory_format=torch.contiguous_format)
    for bits, part in zip(entropy.flatten().split(_BLOCK), confidence.flatten().split(_BLOCK), strict=True):
        p = part.clamp(1e-7, 1 - 1e-7)
        bits.copy_(-(p * p.log2() + (1 - p) * (1 - p).log2()))
    return entropy


def readers_consensus(masks: Tensor) -> Tensor:
    """Readers' masks (B, R, H, W) in {0, 1} → (B, 1, H, W): the mean of the non-empty ones ≥ 0.5, empty if all are.

    The paper "averages" four LIDC readers; over all four slots a third of its targets would be empty.
    """
    present = masks.flatten(2).amax(dim=2) > 0
    filled = present.sum(dim=1).clamp(min=1)[:, None, None]
    return (masks.sum(dim=1) / filled >= 0.5).to(masks.dtype)[:, None]


def level_sets(confidence: Tensor, count: int) -> Tensor:
    """A probability map (…, H, W) cut at the levels (k + ½)/count: nested masks (…, count, H, W), of which a pixel of
    probability p belongs to a share p, but for rounding. What one map can give in place of many drawn masks."""
    levels = (torch.arange(count, device=confidence.device) + 0.5) / count
    return (confidence.unsqueeze(-3) >= levels[:, None, None]).to(confidence.dtype)


def majority(masks: Tensor) -> Tensor:
    """All slots, empty ones included: (B, R, H, W) → (B, 1, H, W), the mean ≥ 0.5."""
    return (masks.mean(dim=1, keepdim=True) >= 0.5).to(masks.dtype)


def random_reader(masks: Tensor, choice: Tensor, read_by: Tensor | None = None) -> Tensor:
    """One slot of each row: masks (B, R, H, W), uniform numbers (B,) in [0, 1) → (B, 1, H, W).

    read_by: bool (B, R), the slots to choose from; all if None.
    """
    slot = (choice.to(masks.device) * masks.shape[1]).long()
    if read_by is not None:
        own = read_by.to(masks.device)
        first = (~own).long().argsort(dim=1, stable=True)  # the slots of those who read come first
        slot = first.gather(1, (choice.to(own.device) * own.sum(dim=1)).long()[:, None])[:, 0]
    return masks[torch.arange(len(masks), device=masks.device), slot][:, None]


def training_target(masks: Tensor, target: Target, choice: Tensor, read_by: Tensor | None = None) -> Tensor:
    """The mask to learn from, (B, 1, H, W): the readers' consensus, or one reader's slot at random, empty ones included.

    `choice` (B,) holds uniform numbers in [0, 1); `read_by` (B, R) tells who read an image: others are never drawn.
    """
    return readers_consensus(masks) if target == "consensus" else random_reader(masks, choice, read_by)
