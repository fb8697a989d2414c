"""The denoising U-Net (Ho et al. 2020), conditioned on time and on image features."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from manymask.nn.blocks import Attention, ResBlock, Upsample, downsample, output_head, step_embedding


class UNet(nn.Module):
    """The denoising U-Net (Ho et al. 2020): (B, in, h, w), t (B,) → (B, out, h, w), conditioned on the time step.

    `features`, if given, are the channel counts of condition maps that are concatenated where each level begins.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        channels: Sequence[int],
        blocks_per_level: int,
        features: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        extra = list(features) if features else [0] * len(channels)
        self.embedding_width = embedding = 4 * channels[0]
        self.embed = nn.Sequential(nn.Linear(embedding, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.stem = nn.Conv2d(inputs, channels[0], 3, padding=1)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(channels):
            first = ResBlock(width + extra[level], width, embedding)
            self.down.append(
                nn.ModuleList([first, *(ResBlock(width, width, embedding) for _ in range(blocks_per_level - 1))])
            )
            if level:
                self.shrink.append(downsample(channels[level - 1], width))
                self.grow.append(Upsample(width, channels[level - 1]))
            first = ResBlock(2 * width if level < len(channels) - 1 else width, width, embedding)
            self.up.append(
                nn.ModuleList([first, *(ResBlock(width, width, embedding) for _ in range(blocks_per_level - 1))])
            )
        self.middle = Attention(channels[-1])
        self.head = output_head(channels[0], outputs)

    def forward(self, x: Tensor, t: Tensor, features: Sequence[Tensor] | None = None) -> Tensor:
        e = self.time(t)
        x, skips = self.stem(x), []
        for level in range(len(self.down)):
            x = self.descend(level, x, e, features[level] if features else None)
            skips.append(x)
        return self.ascend(skips, e)

    def time(self, t: Tensor) -> Tensor:
        """The embedding (B, E) of time steps (B,) that the blocks are modulated by."""
        return self.embed(step_embedding(t, self.embedding_width))

    def descend(self, level: int, x: Tensor, e: Tensor, feature: Tensor | None = None) -> Tensor:
        """From the features of the level above (of the stem, for level 0) to those of this level."""
        x = self.shrink[level - 1](x) if level else x
        x = x if feature is None else torch.cat([x, feature], dim=1)
        for block in self.down[level]:  # type: ignore[attr-defined]
            x = block(x, e)
        return x

    def ascend(self, skips: Sequence[Tensor], e: Tensor) -> Tensor:
        """From the features of all levels, the finest first, to the output."""
        x = self.middle(skips[-1])
        for level in reversed(range(len(self.up))):
            if level < len(self.up) - 1:
                x = torch.cat([self.grow[level](x), skips[level]], dim=1)
            for block in self.up[level]:  # type: ignore[attr-defined]
                x = block(x, e)
        return self.head(x)
