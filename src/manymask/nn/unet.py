"""The denoising U-Net (Ho et al. 2020), conditioned on time and on image features."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from manymask.nn.blocks import Attention, ResBlock, Upsample, downsample, output_head, step_embedding


class UNet(nn.Module):
    """The denoising U-Net (Ho et al. 2020), conditioned on the time step and, if built so, on maps at every level.

    Args:
        inputs: input channels.
        outputs: output channels.
        channels: channels of each level, finest first; each level has half the side of the one before.
        blocks_per_level: residual blocks at each level, on the way down and on the way up.
        features: channels of the condition maps that are concatenated where each level begins; None for no maps.
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
        embedding = 4 * channels[0]
        self.embedding_width = embedding
        self.embed = nn.Sequential(nn.Linear(embedding, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.stem = nn.Conv2d(inputs, channels[0], 3, padding=1)
        self.down = nn.ModuleList()
        self.shrink = nn.ModuleList()
        self.up = nn.ModuleList()
        self.grow = nn.ModuleList()
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
        """Predict from noisy inputs.

        Args:
            x: noisy inputs (B, inputs, h, w), whose side is a multiple of 2^(levels − 1).
            t: time steps (B,) in [0, 1000].
            features: condition maps, one per level, (B, features[i], h / 2^i, w / 2^i).

        Returns:
            The prediction (B, outputs, h, w).
        """
        e = self.time(t)
        x = self.stem(x)
        skips = []
        for level in range(len(self.down)):
            x = self.descend(level, x, e, features[level] if features else None)
            skips.append(x)
        return self.ascend(skips, e)

    def time(self, t: Tensor) -> Tensor:
        """Time steps (B,) in [0, 1000] → the embedding (B, E) that modulates the blocks."""
        result: Tensor = self.embed(step_embedding(t, self.embedding_width))
        return result

    def descend(self, level: int, x: Tensor, e: Tensor, feature: Tensor | None = None) -> Tensor:
        """One level of the way down.

        Args:
            level: 0 … levels − 1, from finest to coarsest.
            x: features of the next finer level; for level 0, of the stem.
            e: embedding (B, E) from `time`.
            feature: condition map of this level, (B, features[level], h / 2^level, w / 2^level).

        Returns:
            Features of this level, (B, channels[level], h / 2^level, w / 2^level).
        """
        x = self.shrink[level - 1](x) if level else x
        x = x if feature is None else torch.cat([x, feature], dim=1)
        for block in self.down[level]:  # type: ignore[attr-defined]
            x = block(x, e)
        return x

    def ascend(self, skips: Sequence[Tensor], e: Tensor) -> Tensor:
        """The whole way up.

        Args:
            skips: the features that `descend` returned at all levels, finest first.
            e: embedding (B, E) from `time`.

        Returns:
            The output (B, outputs, h, w).
        """
        x = self.middle(skips[-1])
        for level in reversed(range(len(self.up))):
            if level < len(self.up) - 1:
                x = torch.cat([self.grow[level](x), skips[level]], dim=1)
            for block in self.up[level]:  # type: ignore[attr-defined]
                x = block(x, e)
        result: Tensor = self.head(x)
        return result
