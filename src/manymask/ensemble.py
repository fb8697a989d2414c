"""From many masks to one answer and its uncertainty (Section III-C, end)."""

from dataclasses import dataclass

import torch
from torch import Tensor

_BLOCK = 1 << 18  # values that are computed at once, so that large images need little memory beside their maps


@dataclass(frozen=True)
class MaskEnsemble:
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


def fuse(masks: Tensor, threshold: float = 0.5) -> MaskEnsemble:
    """Masks (…, n, H, W) with probabilities in [0, 1] → their consensus; the mean at 0.5 as in the paper."""
    confidence = masks.mean(dim=-3)
    votes = torch.zeros_like(confidence)
    for mask in masks.unbind(dim=-3):
        votes += mask >= 0.5
    return MaskEnsemble(
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


def level_sets(confidence: Tensor, count: int) -> Tensor:
    """A probability map (…, H, W) cut at the levels (k + ½)/count: nested masks (…, count, H, W), of which a pixel of
    probability p belongs to a share p, but for rounding. What one map can give in place of many drawn masks."""
    levels = (torch.arange(count, device=confidence.device) + 0.5) / count
    return (confidence.unsqueeze(-3) >= levels[:, None, None]).to(confidence.dtype)
