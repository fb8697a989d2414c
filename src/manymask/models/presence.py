"""The probability that a rater marks anything at all, learnt apart from the outline.

A rater who marks nothing leaves an empty mask. A diffusion model that learns such masks among the others draws the right
share of them on average, but too many where all raters marked and too few where none did. Here p(any | image) is learnt
separately, and a separate draw decides whether each mask is empty.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Presence(nn.Module):
    """A head on the denoiser's image features that predicts p(anything is marked).

    Args:
        channels: of each feature map.
        shift: what `probability` takes off the logits.
        width: of the hidden layer.
    """

    def __init__(self, channels: Sequence[int], shift: float = 0.0, width: int = 64) -> None:
        super().__init__()
        self.shift = shift
        self.head = nn.Sequential(nn.Linear(2 * sum(channels), width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Feature maps (B, channels[i], h_i, w_i) → logits (B,), float32."""
        pooled = [pool(f.float()) for f in features for pool in (_mean, _largest)]
        result: Tensor = self.head(torch.cat(pooled, dim=1))[:, 0].float()
        return result

    def probability(self, features: Sequence[Tensor]) -> Tensor:
        """The probability that masks are drawn by, (B,) in [0, 1]; features as in `forward`."""
        logits: Tensor = self(features)
        return (logits - self.shift).sigmoid()

    def loss(self, features: Sequence[Tensor], marked: Tensor) -> Tensor:
        """Binary cross-entropy, a scalar.

        Args:
            features: as in `forward`.
            marked: whether each of an image's masks holds anything, or their share, (N,) in [0, 1], image by image.

        Returns:
            The mean over images.
        """
        logits = self(features)
        return F.binary_cross_entropy_with_logits(logits, marked.reshape(len(logits), -1).mean(dim=1))


def _mean(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3))


def _largest(x: Tensor) -> Tensor:
    return x.amax(dim=(2, 3))


def mean_over_marked(errors: Tensor, marked: Tensor) -> Tensor:
    """The mean of errors over rows whose mask is not empty.

    Args:
        errors: (N,).
        marked: whether the mask of each row holds anything, (N,) bool.

    Returns:
        A scalar; 0 if all masks are empty.
    """
    weight = marked.to(errors)
    return (errors * weight).sum() / weight.sum().clamp(min=1)


def mean_marked_mask(masks: Tensor, marked: Tensor, images: int) -> Tensor:
    """The mean of each image's masks that are not empty.

    Args:
        masks: (N, 1, H, W), image by image.
        marked: whether each holds anything, (N,) bool.
        images: B.

    Returns:
        (B, 1, H, W); 0 where all masks are empty.
    """
    share = marked.to(masks).reshape(images, -1, 1, 1)
    share = share / share.sum(dim=1, keepdim=True).clamp(min=1)
    return (masks.reshape(images, -1, *masks.shape[2:]) * share).sum(dim=1, keepdim=True)
