"""Is there anything to outline? Answered first, by a number; the outline is then drawn of what is there.

A rater who marks nothing leaves an empty mask. A diffusion model that learns such masks among the others draws the right
share of them on average, but too many where all raters marked and too few where none did. Here p(any | image) is learnt by
itself and each mask is empty by a draw of its own.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Presence(nn.Module):
    """Features of an image, maps (B, c_i, h_i, w_i) of `channels` channels → the logit (B,) of p(anything is marked)."""

    def __init__(self, channels: Sequence[int], width: int = 64) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Linear(2 * sum(channels), width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        pooled = [pool(f.float()) for f in features for pool in (_mean, _largest)]
        return self.head(torch.cat(pooled, dim=1))[:, 0].float()

    def loss(self, features: Sequence[Tensor], marked: Tensor) -> Tensor:
        """Cross-entropy against the share of raters (B,) who marked anything."""
        return F.binary_cross_entropy_with_logits(self(features), marked)


def _mean(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3))


def _largest(x: Tensor) -> Tensor:
    return x.amax(dim=(2, 3))


def mean_over_marked(errors: Tensor, marked: Tensor) -> Tensor:
    """The mean of errors (N,) over rows whose mask holds anything, `marked` (N,) bool; 0 where no row does."""
    weight = marked.to(errors)
    return (errors * weight).sum() / weight.sum().clamp(min=1)
