"""A segmenter as one function of images and noise, which other engines can run: no loop, no generator, no branch."""

import numpy as np
import torch
from torch import Tensor, nn

from manymask.data.datasets import phantom
from manymask.data.dihedral import dihedral, dihedral_inverse
from manymask.diffusion.sampling import SamplingConfig
from manymask.ensemble import cut
from manymask.errors import InputError
from manymask.models.auxiliary import blend
from manymask.models.conditioning import Conditioning
from manymask.models.latent_diffusion import DiffusionSegmenter


class GivenNoise:
    """Noise that was drawn before, in place of a generator.

    Args:
        drawn: (rows, draws, c, h, w), one entry per call of `normal`.
    """

    def __init__(self, drawn: Tensor) -> None:
        self.drawn = drawn
        self.calls = 0

    def normal(self, *shape: int) -> Tensor:
        """The next draw, (rows, *shape)."""
        self.calls += 1
        return self.drawn[:, self.calls - 1]


class MaskGraph(nn.Module):
    """Encoder, sampler unrolled over its steps, and decoder; orientations are turned and turned back inside.

    Args:
        model: the segmenter.
        sampling: as returned by its `resolve`.
        samples: n, the number of masks per image.

    Attributes:
        draws: how many normal numbers each latent value takes: the start, and what the sampler adds between steps.
        outputs: names of what `forward` returns.

    Raises:
        InputError: the sampler follows a gradient, which only torch computes.
    """

    draws: int
    outputs: list[str]

    def __init__(self, model: DiffusionSegmenter, sampling: SamplingConfig, samples: int) -> None:
        super().__init__()
        if model.classifier is not None:
            raise InputError("a model that a classifier guides follows a gradient, and only torch computes gradients")
        self.model = model
        self.sampling = sampling
        self.samples = samples
        self.draws = 1 + _draws_between_steps(model, sampling)
        self.outputs = ["masks", "confidence", "consensus"]
        self.outputs += ["presence"] if model.presence is not None else []
        self.outputs += ["features"] if getattr(model.denoiser, "features", None) else []

    @property
    def orientations(self) -> int:
        """How many orientations of an image are encoded."""
        return min(self.sampling.orientations or 1, self.samples)

    def forward(self, image: Tensor, noise: Tensor, uniform: Tensor | None = None) -> tuple[Tensor, ...]:
        """Draw n masks of each image.

        Args:
            image: (B, C, S, S) in [0, 1].
            noise: standard normal numbers (B, n, draws, c, S/f, S/f).
            uniform: numbers in [0, 1) that decide which masks are empty, (B, n), for models with a presence head.

        Returns:
            What `outputs` names: masks (B, n, S, S) and their mean (B, S, S) in [0, 1], the mean from 0.5 on as uint8
            (B, S, S), p(anything is marked) (B,), the features of the images (B, d).
        """
        images, size = image.shape[0], image.shape[-2:]
        turned = torch.cat([dihedral(image, k) for k in range(self.orientations)])
        encoded = self.model.encode_condition(turned, self.sampling)
        traits = encoded.traits(images)
        rows = self._rows(encoded, images)
        drawn = blend(self._draw(rows, noise.flatten(0, 1)), rows.head, self.sampling.head_share)
        drawn = drawn.reshape(images, self.samples, *size)
        if traits.presence is not None:
            assert uniform is not None
            drawn = drawn * (uniform < traits.presence[:, None]).to(drawn)[..., None, None]
        upright = [dihedral_inverse(drawn[:, k], k % self.orientations) for k in range(self.samples)]
        masks = torch.stack(upright, dim=1)
        confidence = masks.mean(dim=1)
        extra = [x for x in (traits.presence, traits.embedding) if x is not None]
        return (masks, confidence, cut(confidence, 0.5).to(torch.uint8), *extra)

    def _rows(self, encoded: Conditioning, images: Tensor | int) -> Conditioning:
        """One row per mask, image by image, of a conditioning with one row per image and orientation."""

        def spread(x: Tensor) -> Tensor:
            each = x.reshape(self.orientations, images, *x.shape[1:])  # type: ignore[arg-type]
            return torch.stack([each[k % self.orientations] for k in range(self.samples)], dim=1).flatten(0, 1)

        uncond = None if encoded.uncond is None else [spread(x) for x in encoded.uncond]
        head = None if encoded.head is None else spread(encoded.head)
        return Conditioning([spread(x) for x in encoded.cond], uncond, head=head)

    def _draw(self, rows: Conditioning, noise: Tensor) -> Tensor:
        given = GivenNoise(noise)
        denoise = self.model.denoise(rows, self.sampling)
        process = self.model.setting.process
        z = self.sampling.sampler(denoise, process, given.normal(), given)  # type: ignore[operator, misc]
        return self.model.mask_codec.decode(z)


def _draws_between_steps(model: DiffusionSegmenter, sampling: SamplingConfig) -> int:
    """How often the sampler draws noise, counted on a latent of one value."""
    counted = GivenNoise(torch.zeros(1, model.setting.process.steps + 1, 1))
    sampler = sampling.sampler
    sampler(lambda z, t: (z, z), model.setting.process, torch.zeros(1, 1), counted)  # type: ignore[operator, misc]
    return counted.calls


def simulated_images(images: int, channels: int, size: int, seed: int = 0) -> Tensor:
    """Simulated lesions (images, channels, size, size) in [0, 1] to compare engines on. On images without anything to
    outline a model is sure of nothing, and what little engines differ grows from step to step."""
    drawn = [phantom.draw(index, seed, channels).image for index in range(images)]
    small = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).float() / 255
    return nn.functional.interpolate(small, size=(size, size), mode="bicubic").clamp(0, 1)


def example(graph: MaskGraph, channels: int, size: int, images: int = 2, seed: int = 0) -> dict[str, Tensor]:
    """Simulated lesions with noise, to trace a graph with and to compare engines on.

    Args:
        graph: the graph.
        channels: C.
        size: S.
        images: B.
        seed: of the images and of the noise.

    Returns:
        The arguments of `MaskGraph.forward` by name.
    """
    generator = torch.Generator().manual_seed(seed)
    codec = graph.model.mask_codec
    side = size // codec.factor
    shape = (images, graph.samples, graph.draws, codec.latent_channels, side, side)
    inputs = {
        "image": simulated_images(images, channels, size, seed),
        "noise": torch.randn(shape, generator=generator),
    }
    if graph.model.presence is not None:
        inputs["uniform"] = torch.rand(images, graph.samples, generator=generator)
    return inputs
