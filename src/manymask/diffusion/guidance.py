"""Guidance: functions that wrap `denoise` so that samples depend more strongly on the image.

Classifier-free guidance (Ho & Salimans 2022) needs a model that was sometimes trained without its image. The model runs
with the image and without, and the difference is scaled. Classifier guidance (Dhariwal & Nichol 2021) uses a small network
that separates true pairs of (noisy mask, image) from shuffled ones. Its gradient moves the sample towards a likelier pair.

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
    """Classifier-free guidance, ẑ = ẑ_null + scale (ẑ_image − ẑ_null), of both ẑ_0 and ε̂.

    Args:
        with_image: the denoising function with the image.
        without: the denoising function without the image.
        scale: 0 ignores the image, 1 is unguided.

    Returns:
        The guided denoising function.
    """

    def denoise(z: Tensor, t: float) -> tuple[Tensor, Tensor]:
        z0, epsilon = with_image(z, t)
        z0_null, epsilon_null = without(z, t)
        return z0_null + scale * (z0 - z0_null), epsilon_null + scale * (epsilon - epsilon_null)

    return denoise


class NullLatent(nn.Module):
    """The learnt latent (c, 1, 1) that stands for "no image".

    Args:
        channels: c, of the image latent.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.latent = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, image: Tensor, z_image: Tensor, dropped: Tensor) -> tuple[Tensor, Tensor]:
        """Replace some images by "no image": a black image and the learnt latent.

        Args:
            image: (B, C, H, W) in [0, 1].
            z_image: its latent (B, c, h, w).
            dropped: the rows to replace, (B,) bool.

        Returns:
            Image and latent, shaped as they were.
        """
        rows = dropped.to(image.device)[:, None, None, None]
        return image.masked_fill(rows, 0.0), torch.where(rows, self.latent.to(z_image.dtype), z_image)


@dataclass(frozen=True)
class PairClassifier:
    """A classifier of (noisy mask, image) pairs that guides sampling.

    At a scale of 1 an unconditional denoiser would sample p(z | x), by Bayes' rule. Ours is conditioned on the image
    already, so a scale of s corresponds to classifier-free guidance of 1 + s.

    Attributes:
        channels: one entry per resolution, finest first.
        scale: guidance strength when masks are drawn; 0 is unguided.
    """

    channels: tuple[int, ...] = (32, 64)
    scale: float = 1.0

    def build(self, image_latent: int, mask_latent: int) -> "PairNetwork":
        """The untrained classifier for latents with so many channels."""
        return PairNetwork(self, image_latent + mask_latent)


class PairNetwork(nn.Module):
    """See `PairClassifier`.

    Args:
        setting: its configuration.
        inputs: channels of the noisy mask latent and the image latent together.

    Attributes:
        trained_apart: marks modules whose gradients are clipped separately.
    """

    trained_apart = True

    def __init__(self, setting: PairClassifier, inputs: int) -> None:
        super().__init__()
        widths = setting.channels
        embedding = 4 * widths[0]
        self.embedding_width = embedding
        self.embed = nn.Sequential(nn.Linear(embedding, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.stem = nn.Conv2d(inputs, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(ResBlock(width, width, embedding) for width in widths)
        self.shrink = nn.ModuleList(downsample(a, b) for a, b in pairwise(widths))
        self.norm = normalise(widths[-1])
        self.head = nn.Linear(widths[-1], 1)

    def forward(self, z: Tensor, t: Tensor, z_image: Tensor) -> Tensor:
        """Logits that noisy masks belong to their images.

        Args:
            z: noisy mask latents (B, c, h, w).
            t: time input (B,) in [0, 1000].
            z_image: image latents (B, c', h, w).

        Returns:
            (B,), float32.
        """
        e = self.embed(step_embedding(t, self.embedding_width))
        x = self.stem(torch.cat([z, z_image], dim=1))
        for level, block in enumerate(self.blocks):
            x = block(self.shrink[level - 1](x) if level else x, e)
        result: Tensor = self.head(F.silu(self.norm(x)).mean(dim=(2, 3)))[:, 0].float()
        return result

    def loss(self, z: Tensor, t: Tensor, z_image: Tensor) -> Tensor:
        """Cross-entropy between true pairs and pairs with the images moved by one row.

        Args:
            z: as in `forward`.
            t: as in `forward`.
            z_image: as in `forward`.

        Returns:
            The mean over both, a scalar.
        """
        true = self(z, t, z_image)
        shuffled = self(z, t, z_image.roll(1, dims=0))
        return (F.softplus(-true) + F.softplus(shuffled)).mean() / 2

    def gradient(self, z: Tensor, t: Tensor, z_image: Tensor) -> Tensor:
        """∇_z of the logit.

        Args:
            z: as in `forward`.
            t: as in `forward`.
            z_image: as in `forward`.

        Returns:
            (B, c, h, w).
        """
        with torch.inference_mode(False), torch.enable_grad():
            free = z.clone().requires_grad_()  # tensors of inference mode take no gradient, their copies do
            logits = self(free, t.clone(), z_image.clone())
            (gradient,) = torch.autograd.grad(logits.sum(), free)
            return gradient


def classifier_guided(
    plain: Denoise, classifier: PairNetwork, z_image: Tensor, process: Process, scale: float
) -> Denoise:
    """Classifier guidance, ε̂ − scale · s_t ∇ℓ with ℓ the classifier's logit, and the ẑ_0 that follows.

    Where a_t = 0 the sample is pure noise and is not guided.

    Args:
        plain: the denoising function without this guidance.
        classifier: the network whose logit is ℓ.
        z_image: image latents (B, c, h, w), one per sample.
        process: the forward process.
        scale: guidance strength.

    Returns:
        The guided denoising function.
    """

    def denoise(z: Tensor, t: float) -> tuple[Tensor, Tensor]:
        z0, epsilon = plain(z, t)
        a, s = process.alpha_sigma(t)  # type: ignore[arg-type]
        if a == 0:
            return z0, epsilon
        times = process.time_input(torch.full((len(z),), t, device=z.device))
        pull = scale * s * classifier.gradient(z, times, z_image)
        return z0 + s / a * pull, epsilon - pull

    return denoise
