"""Guidance: a `denoise` wrapped into one that leans further towards what the image asks for.

Classifier-free (Ho & Salimans 2022): a model that now and then is trained without its image is asked twice, with the
image and without, and the difference is stretched. Classifier guidance (Dhariwal & Nichol 2021): a small network that
tells true pairs of (noisy mask, image) from shuffled ones pulls the sample to where it finds a true pair likelier.

The best logit of such a network is log p(x | z) − log p(x), whose gradient in z is ∇ log p(z | x) − ∇ log p(z).
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymask.diffusion.process import Process
from manymask.diffusion.samplers import Denoise
from manymask.nn.blocks import ResBlock, downsample, normalise, step_embedding


def classifier_free(with_image: Denoise, without: Denoise, scale: float) -> Denoise:
    """ẑ = ẑ_null + scale (ẑ_image − ẑ_null), of ẑ_0 and ε̂ alike; 0 never hears the image, 1 is unguided."""

    def denoise(z: Tensor, t: float) -> tuple[Tensor, Tensor]:
        (z0, epsilon), (z0_null, epsilon_null) = with_image(z, t), without(z, t)
        return z0_null + scale * (z0 - z0_null), epsilon_null + scale * (epsilon - epsilon_null)

    return denoise


class NullLatent(nn.Module):
    """The learnt latent (c, 1, 1) that stands for "no image"."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.latent = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, image: Tensor, z_image: Tensor, dropped: Tensor) -> tuple[Tensor, Tensor]:
        """Image and latent as they are, but a black image and the learnt latent in rows that are `dropped` (B,)."""
        rows = dropped.to(image.device)[:, None, None, None]
        return image.masked_fill(rows, 0.0), torch.where(rows, self.latent.to(z_image.dtype), z_image)


@dataclass(frozen=True)
class PairClassifier:
    """A classifier of (noisy mask, image) pairs that guides sampling.

    Attributes:
        channels: one entry per resolution.
        scale: guidance strength when masks are drawn; 0 is unguided.

    At 1 a denoiser that never saw the image would sample p(z | x), by Bayes' rule. Ours has seen the
    image, so a scale of s goes as far beyond it as classifier-free guidance of 1 + s.
    """

    channels: tuple[int, ...] = (32, 64)
    scale: float = 1.0

    def build(self, image_latent: int, mask_latent: int) -> "PairNetwork":
        return PairNetwork(self, image_latent + mask_latent)


class PairNetwork(nn.Module):
    """See `PairClassifier`: (z_t, t, z_X) → the logit (B,) that z_t is a noisy mask of this very image."""

    trained_apart = True  # its gradients are clipped by themselves

    def __init__(self, setting: PairClassifier, inputs: int) -> None:
        super().__init__()
        widths = setting.channels
        self.embedding_width = embedding = 4 * widths[0]
        self.embed = nn.Sequential(nn.Linear(embedding, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.stem = nn.Conv2d(inputs, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(ResBlock(width, width, embedding) for width in widths)
        self.shrink = nn.ModuleList(downsample(a, b) for a, b in pairwise(widths))
        self.norm, self.head = normalise(widths[-1]), nn.Linear(widths[-1], 1)

    def forward(self, z: Tensor, t: Tensor, z_image: Tensor) -> Tensor:
        e = self.embed(step_embedding(t, self.embedding_width))
        x = self.stem(torch.cat([z, z_image], dim=1))
        for level, block in enumerate(self.blocks):
            x = block(self.shrink[level - 1](x) if level else x, e)
        return self.head(F.silu(self.norm(x)).mean(dim=(2, 3)))[:, 0].float()

    def loss(self, z: Tensor, t: Tensor, z_image: Tensor) -> Tensor:
        """Cross-entropy of telling the pairs as they are from those with the images moved on by one row."""
        true, shuffled = self(z, t, z_image), self(z, t, z_image.roll(1, dims=0))
        return (F.softplus(-true) + F.softplus(shuffled)).mean() / 2

    def gradient(self, z: Tensor, t: Tensor, z_image: Tensor) -> Tensor:
        """∇_z of the logit, (B, c, h, w)."""
        with torch.inference_mode(False), torch.enable_grad():
            free, z_image = z.clone().requires_grad_(), z_image.clone()
            return torch.autograd.grad(self(free, t.clone(), z_image).sum(), free)[0]


def classifier_guided(
    plain: Denoise, classifier: PairNetwork, z_image: Tensor, process: Process, scale: float
) -> Denoise:
    """ε̂ − scale · s_t ∇ℓ with ℓ the classifier's logit, and ẑ_0 with it. Where a_t = 0 the sample is all noise, and
    nothing can be guided."""

    def denoise(z: Tensor, t: float) -> tuple[Tensor, Tensor]:
        z0, epsilon = plain(z, t)
        a, s = process.alpha_sigma(t)  # type: ignore[arg-type]
        if a == 0:
            return z0, epsilon
        times = process.time_input(torch.full((len(z),), t, device=z.device))
        pull = scale * s * classifier.gradient(z, times, z_image)
        return z0 + s / a * pull, epsilon - pull

    return denoise
