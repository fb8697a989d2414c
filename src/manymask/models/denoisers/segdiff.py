"""SegDiff's denoiser (Amit et al. 2021): the image, encoded by a convolutional encoder, is *added* to the noisy mask.

ε̂ = D(E(F(x_t) + G(I), t), t): F one convolution, G residual-in-residual dense blocks, D ∘ E a U-Net.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymask.models.autoencoder import Coder
from manymask.nn.unet import UNet


@dataclass(frozen=True)
class SegDiff:
    """SegDiff's U-Net and image encoder.

    Attributes:
        channels: of the U-Net, one entry per resolution, finest first; both encodings have the first of them.
        blocks_per_level: residual blocks at each resolution.
        dense_blocks: residual-in-residual dense blocks of the image encoder, 10 or more in their paper.
        growth: channels that each dense layer adds.
    """

    channels: tuple[int, ...] = (64, 128, 256)
    blocks_per_level: int = 2
    dense_blocks: int = 3
    growth: int = 32

    def build(self, image_channels: int, image_codec: Coder, mask_codec: Coder) -> "SegDiffDenoiser":
        """The untrained denoiser for the latents of these codecs."""
        return SegDiffDenoiser(self, image_codec.latent_channels, mask_codec.latent_channels)


class DenseBlock(nn.Module):
    """Five convolutions, each on all maps before it; 0.2 times the last output is added to the input.

    Args:
        width: input and output channels.
        growth: channels of the first four convolutions.
    """

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        inner = [nn.Conv2d(width + i * growth, growth, 3, padding=1) for i in range(4)]
        self.layers = nn.ModuleList([*inner, nn.Conv2d(width + 4 * growth, width, 3, padding=1)])

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, width, H, W) → features of the same shape."""
        maps = [x]
        for layer in self.layers[:-1]:
            maps.append(F.leaky_relu(layer(torch.cat(maps, dim=1)), 0.2))
        result: Tensor = x + 0.2 * self.layers[-1](torch.cat(maps, dim=1))
        return result


class RRDB(nn.Sequential):
    """Residual-in-residual dense block (Wang et al. 2018, ESRGAN): three dense blocks and a second skip.

    Args:
        width: input and output channels.
        growth: as in `DenseBlock`.
    """

    def __init__(self, width: int, growth: int) -> None:
        super().__init__(*(DenseBlock(width, growth) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, width, H, W) → features of the same shape."""
        inner = x
        for block in self:
            inner = block(inner)
        return x + 0.2 * inner


class ImageEncoder(nn.Module):
    """G: a convolution, RRDBs with one skip, and two convolutions.

    Args:
        inputs: input channels.
        width: output channels.
        blocks: number of RRDBs.
        growth: as in `DenseBlock`.
    """

    def __init__(self, inputs: int, width: int, blocks: int, growth: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, width, 3, padding=1)
        self.dense = nn.Sequential(*(RRDB(width, growth) for _ in range(blocks)), nn.Conv2d(width, width, 3, padding=1))
        self.last = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, image: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, width, H, W)."""
        x = self.first(image)
        result: Tensor = self.last(x + self.dense(x))
        return result


class SegDiffDenoiser(nn.Module):
    """See `SegDiff`. G runs once per image, F and the U-Net at every step.

    Args:
        setting: its configuration.
        image_latent: channels of the image latent.
        mask_latent: channels of the mask latent.
    """

    def __init__(self, setting: SegDiff, image_latent: int, mask_latent: int) -> None:
        super().__init__()
        width = setting.channels[0]
        self.image_encoder = ImageEncoder(image_latent, width, setting.dense_blocks, setting.growth)
        self.mask_encoder = nn.Conv2d(mask_latent, width, 3, padding=1)
        self.unet = UNet(width, mask_latent, setting.channels, setting.blocks_per_level)

    def condition(self, image: Tensor, z_image: Tensor) -> list[Tensor]:
        """The encoded image latent, (B, channels[0], h, w)."""
        return [self.image_encoder(z_image)]

    def forward(self, z: Tensor, t: Tensor, condition: list[Tensor]) -> Tensor:
        """Noisy latents (B, c, h, w) → the prediction (B, c, h, w) at times t (B,) in [0, 1000]."""
        result: Tensor = self.unet(self.mask_encoder(z) + condition[0], t)
        return result
