"""Image features at several resolutions: an encoder bottom-up, a feature pyramid (Lin et al. 2017) top-down."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from manymask.nn.blocks import Attention, ResBlock, Upsample, downsample


class BottomUp(nn.Module):
    """An encoder that returns the features of its coarsest levels.

    Args:
        inputs: image channels.
        channels: channels of each level, finest first.
        blocks_per_level: residual blocks at each level.
        patch_size: p, the factor by which the first layer shrinks the image.
        given: number of coarsest levels that are returned.

    Attributes:
        finer: channels of the levels that are not returned, finest first.
    """

    finer: tuple[int, ...]

    def __init__(
        self, inputs: int, channels: Sequence[int], blocks_per_level: int, patch_size: int, given: int
    ) -> None:
        super().__init__()
        self.given = given
        self.finer = tuple(channels[:-given])
        self.stem = nn.Sequential(
            nn.PixelUnshuffle(patch_size), nn.Conv2d(inputs * patch_size**2, channels[0], 3, padding=1)
        )
        self.levels = nn.ModuleList()
        for level, width in enumerate(channels):
            down = [downsample(channels[level - 1], width)] if level else []
            self.levels.append(nn.Sequential(*down, *(ResBlock(width, width) for _ in range(blocks_per_level))))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Images (B, inputs, H, W) → the last `given` of the maps at H/p, H/2p, …, finest first."""
        return self.split(image)[1]

    def split(self, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The maps of all levels, finest first.

        Args:
            image: (B, inputs, H, W).

        Returns:
            Maps of the levels in `finer`, and the maps that `forward` returns.
        """
        x = self.stem(image)
        features = []
        for level in self.levels:
            x = level(x)
            features.append(x)
        return features[: -self.given], features[-self.given :]


class TopDown(nn.Module):
    """A feature pyramid (Lin et al. 2017): every level also receives the features of the coarser ones.

    Args:
        inputs: channels of the given maps, finest first; each map has half the side of the one before.
        outputs: channels of the returned maps, finest first; at most as many as `inputs`.
    """

    def __init__(self, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        super().__init__()
        self.context = Attention(inputs[-1])
        self.up = nn.ModuleList(Upsample(inputs[i + 1], inputs[i]) for i in range(len(inputs) - 1))
        self.merge = nn.ModuleList(ResBlock(2 * inputs[i], inputs[i]) for i in range(len(inputs) - 1))
        self.heads = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(inputs, outputs, strict=False))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, inputs[i], h_i, w_i) → the finest len(outputs) of them, (B, outputs[i], h_i, w_i)."""
        merged = [self.context(features[-1])]
        for i in reversed(range(len(self.up))):
            coarser = self.up[i](merged[0])
            merged.insert(0, self.merge[i](torch.cat([coarser, features[i]], dim=1)))
        return [head(feature) for head, feature in zip(self.heads, merged, strict=False)]
