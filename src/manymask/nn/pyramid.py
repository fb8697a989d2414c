"""Image features at several resolutions: bottom-up as an encoder, top-down as in feature pyramid networks (Lin et al. 2017)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from manymask.nn.blocks import Attention, ResBlock, Upsample, downsample


class BottomUp(nn.Module):
    """(B, C, H, W) → features at H/p, H/2p, …, one of each of `channels`; the last `given` of them are given out."""

    def __init__(
        self, inputs: int, channels: Sequence[int], blocks_per_level: int, patch_size: int, given: int
    ) -> None:
        super().__init__()
        self.given = given
        self.stem = nn.Sequential(
            nn.PixelUnshuffle(patch_size), nn.Conv2d(inputs * patch_size**2, channels[0], 3, padding=1)
        )
        self.levels = nn.ModuleList()
        for level, width in enumerate(channels):
            down = [downsample(channels[level - 1], width)] if level else []
            self.levels.append(nn.Sequential(*down, *(ResBlock(width, width) for _ in range(blocks_per_level))))

    def forward(self, image: Tensor) -> list[Tensor]:
        x, features = self.stem(image), []
        for level in self.levels:
            x = level(x)
            features.append(x)
        return features[-self.given :]


class TopDown(nn.Module):
    """Features of `inputs` channels, finest first, each half the size of the one before → the finest len(outputs) of
    them with `outputs` channels, each told what the coarser ones saw (feature pyramid, Lin et al. 2017)."""

    def __init__(self, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        super().__init__()
        self.context = Attention(inputs[-1])
        self.up = nn.ModuleList(Upsample(inputs[i + 1], inputs[i]) for i in range(len(inputs) - 1))
        self.merge = nn.ModuleList(ResBlock(2 * inputs[i], inputs[i]) for i in range(len(inputs) - 1))
        self.heads = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(inputs, outputs, strict=False))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        told = [self.context(features[-1])]
        for i in reversed(range(len(self.up))):
            told.insert(0, self.merge[i](torch.cat([self.up[i](told[0]), features[i]], dim=1)))
        return [head(feature) for head, feature in zip(self.heads, told, strict=False)]
