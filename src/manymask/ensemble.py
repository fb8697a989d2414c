"""Combine many masks into one consensus with its uncertainty (Section III-C, end)."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

_BLOCK = 1 << 18  # values that are computed at once, so that large images need little memory beside their maps


@dataclass(frozen=True)
class MaskEnsemble:
    """Maps (…, H, W) over n drawn masks.

    Attributes:
        confidence: mean probability, float in [0, 1].
        consensus: confidence ≥ threshold, bool.
        votes: share of masks that hold the pixel (probability ≥ 0.5), float in [0, 1].
        disagreement: standard deviation over the masks, float in [0, 0.5].
        entropy: predictive entropy of the confidence in bits, float in [0, 1].
    """

    confidence: Tensor
    consensus: Tensor
    votes: Tensor
    disagreement: Tensor
    entropy: Tensor


def cut(confidence: Tensor, threshold: float) -> Tensor:
    """The consensus of a confidence map.

    No other code applies the threshold, so results, files and page all have the same area.

    Args:
        confidence: (…, H, W) in [0, 1].
        threshold: in (0, 1).

    Returns:
        confidence ≥ threshold, bool (…, H, W).
    """
    return confidence >= threshold


def fuse(masks: Tensor, threshold: float = 0.5) -> MaskEnsemble:
    """Combine masks into their consensus and maps of uncertainty.

    Args:
        masks: probabilities (…, n, H, W) in [0, 1].
        threshold: of the consensus, in (0, 1); the paper cuts the mean at 0.5.

    Returns:
        Maps (…, H, W).
    """
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


def fuse_each(masks: Iterable[Tensor], threshold: float = 0.5) -> MaskEnsemble:
    """`fuse` for masks that come one by one and are not kept, so that memory does not grow with their number.

    Args:
        masks: probabilities (H, W) in [0, 1], at least one.
        threshold: of the consensus, in (0, 1).

    Returns:
        Maps (H, W).
    """
    count = 0
    for count, mask in enumerate(masks, start=1):  # Welford 1962: mean and sum of squared deviations in one pass
        if count == 1:
            mean, squares, votes = mask.clone(), torch.zeros_like(mask), (mask >= 0.5).to(mask.dtype)
            continue
        step = mask - mean
        mean.add_(step, alpha=1 / count)
        squares.addcmul_(step, mask - mean)
        votes += mask >= 0.5
    return MaskEnsemble(
        confidence=mean,
        consensus=cut(mean, threshold),
        votes=votes.div_(count),
        disagreement=squares.div_(count).clamp_(min=0).sqrt_(),
        entropy=_entropy(mean),
    )


def _entropy(confidence: Tensor) -> Tensor:
    """Entropy in bits, element by element."""
    entropy = torch.empty_like(confidence, memory_format=torch.contiguous_format)
    for bits, part in zip(
        torch.split(entropy.flatten(), _BLOCK), torch.split(confidence.flatten(), _BLOCK), strict=True
    ):
        p = part.clamp(1e-7, 1 - 1e-7)
        bits.copy_(-(p * p.log2() + (1 - p) * (1 - p).log2()))
    return entropy


def level_sets(confidence: Tensor, count: int) -> Tensor:
    """Nested masks from one probability map, cut at the levels (k + ½)/count.

    A pixel of probability p belongs to a share p of the masks, up to rounding. They are what one map can offer in place
    of many drawn masks.

    Args:
        confidence: (…, H, W) in [0, 1].
        count: number of masks.

    Returns:
        Masks (…, count, H, W) in {0, 1}, typed as the map.
    """
    levels = (torch.arange(count, device=confidence.device) + 0.5) / count
    return (confidence.unsqueeze(-3) >= levels[:, None, None]).to(confidence.dtype)
