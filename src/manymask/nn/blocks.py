"""Residual blocks and the stacks built from them. Feature maps are (B, C, H, W); channel counts are multiples of 8."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def normalise(channels: int) -> nn.GroupNorm:
    """Group normalisation in groups of eight channels; `channels` is a multiple of 8."""
    return nn.GroupNorm(channels // 8, channels)


def step_embedding(t: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding of time steps (Ho et al. 2020).

    Args:
        t: time steps (B,) in [0, 1000].
        width: length of the embedding, an even number.

    Returns:
        The embedding (B, width), cosines first, float32.
    """
    half = width // 2
    frequency = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device) / half)
    angle = t.float()[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=1)


class ResBlock(nn.Module):
    """Norm–SiLU–conv twice around a skip; an embedding, if any, scales and shifts the second norm.

    The second convolution starts at zero, so the block starts as its skip.

    Args:
        inputs: input channels.
        outputs: output channels.
        embedding: length E of the embedding; 0 for a block without one.
    """

    def __init__(self, inputs: int, outputs: int, embedding: int = 0) -> None:
        super().__init__()
        self.norm1 = normalise(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = normalise(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * outputs) if embedding else None
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Apply the block.

        Args:
            x: features (B, inputs, H, W).
            embedding: (B, E); required if the block was built with an embedding.

        Returns:
            Features (B, outputs, H, W).
        """
        h = self.norm2(self.conv1(F.silu(self.norm1(x))))
        if self.modulation is not None:
            assert embedding is not None
            scale, shift = self.modulation(F.silu(embedding))[:, :, None, None].chunk(2, dim=1)
            h = h * (1 + scale) + shift
        result: Tensor = self.skip(x) + self.conv2(F.silu(h))
        return result


class Attention(nn.Module):
    """Residual self-attention over all positions, one head per 32 channels.

    Args:
        channels: input and output channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // 32)
        self.norm = normalise(channels)
        self.project_in = nn.Conv2d(channels, 3 * channels, 1)
        self.project_out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.project_out.weight)
        nn.init.zeros_(self.project_out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, C, H, W) → features of the same shape."""
        b, c, h, w = x.shape
        qkv = self.project_in(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, h * w).transpose(-1, -2)
        query, key, value = qkv.unbind(1)
        attended = F.scaled_dot_product_attention(query, key, value)
        result: Tensor = x + self.project_out(attended.transpose(-1, -2).reshape(b, c, h, w))
        return result


class Upsample(nn.Module):
    """Nearest-neighbour doubling, then a 3×3 convolution.

    Args:
        inputs: input channels.
        outputs: output channels.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, 2H, 2W)."""
        result: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return result


def downsample(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3×3 convolution of stride 2: (B, inputs, H, W) → (B, outputs, ⌈H/2⌉, ⌈W/2⌉)."""
    return nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)


def output_head(inputs: int, outputs: int) -> nn.Sequential:
    """Norm–SiLU–conv, from features (B, inputs, H, W) to the output (B, outputs, H, W) of a stack."""
    return nn.Sequential(normalise(inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))


class Encoder(nn.Sequential):
    """Images (B, inputs, H, W) → latents (B, outputs, H/f, W/f) with f = patch_size · 2^(levels − 1).

    Args:
        inputs: image channels.
        outputs: latent channels.
        channels: channels of each level, finest first.
        blocks_per_level: residual blocks at each level.
        patch_size: side of the square patches whose pixels become channels before the first convolution.
    """

    def __init__(
        self, inputs: int, outputs: int, channels: Sequence[int], blocks_per_level: int, patch_size: int
    ) -> None:
        layers: list[nn.Module] = [
            nn.PixelUnshuffle(patch_size),
            nn.Conv2d(inputs * patch_size**2, channels[0], 3, padding=1),
        ]
        for level, width in enumerate(channels):
            if level:
                layers.append(downsample(channels[level - 1], width))
            layers += [ResBlock(width, width) for _ in range(blocks_per_level)]
        super().__init__(*layers, output_head(channels[-1], outputs))


class Decoder(nn.Sequential):
    """The mirror of `Encoder`: latents (B, inputs, h, w) → (B, outputs, f·h, f·w).

    Args:
        inputs: latent channels.
        outputs: image channels.
        channels: channels of each level, finest first, as in `Encoder`.
        blocks_per_level: residual blocks at each level.
        patch_size: side of the square patches that the last convolution predicts, as in `Encoder`.
    """

    def __init__(
        self, inputs: int, outputs: int, channels: Sequence[int], blocks_per_level: int, patch_size: int
    ) -> None:
        layers: list[nn.Module] = [nn.Conv2d(inputs, channels[-1], 3, padding=1)]
        for level in reversed(range(len(channels))):
            layers += [ResBlock(channels[level], channels[level]) for _ in range(blocks_per_level)]
            if level:
                layers.append(Upsample(channels[level], channels[level - 1]))
        super().__init__(*layers, output_head(channels[0], outputs * patch_size**2), nn.PixelShuffle(patch_size))
