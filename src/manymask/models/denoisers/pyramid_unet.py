"""A light denoiser under a heavy condition: Eq. 11, and features of the image at every level besides.

The pyramid sees the pixels themselves and runs once an image; the U-Net runs samples × steps times.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from manymask.errors import ConfigError
from manymask.models.autoencoder import Coder
from manymask.nn.efficientnet_lite import ImageNetBottomUp
from manymask.nn.pyramid import BottomUp, TopDown
from manymask.nn.unet import UNet

Backbone = Literal["own", "efficientnet-lite0"]


@dataclass(frozen=True)
class PyramidUNet:
    """A U-Net that receives image features at every level.

    Attributes:
        channels: of the U-Net, one entry per resolution.
        blocks_per_level: of the U-Net.
        encoder_channels: of the image encoder, whose last levels match the U-Net's. Of a pretrained backbone: what its
            features are projected to, from latent resolution on.
        encoder_blocks_per_level: of our own encoder; a pretrained backbone ignores it.
        backbone: our own encoder, or EfficientNet-Lite0 with ImageNet weights.
    """

    channels: tuple[int, ...] = (32, 48, 64)
    blocks_per_level: int = 1
    encoder_channels: tuple[int, ...] = (32, 64, 128, 192)
    encoder_blocks_per_level: int = 2
    backbone: Backbone = "own"

    def build(self, image_channels: int, image_codec: Coder, mask_codec: Coder) -> "PyramidDenoiser":
        return PyramidDenoiser(
            self, image_channels, image_codec.latent_channels, mask_codec.latent_channels, mask_codec.factor
        )


class PyramidDenoiser(nn.Module):
    """See `PyramidUNet`."""

    def __init__(
        self, setting: PyramidUNet, image_channels: int, image_latent: int, mask_latent: int, factor: int
    ) -> None:
        super().__init__()
        levels = len(setting.channels) if setting.backbone == "own" else len(setting.encoder_channels)
        seen = bottom_up(
            setting.backbone, image_channels, setting.encoder_channels, setting.encoder_blocks_per_level, factor, levels
        )
        self.pyramid = nn.Sequential(seen, TopDown(setting.encoder_channels[-levels:], setting.channels))
        self.features = setting.channels
        self.unet = UNet(
            mask_latent + image_latent, mask_latent, setting.channels, setting.blocks_per_level, setting.channels
        )

    def condition(self, image: Tensor, z_image: Tensor) -> list[Tensor]:
        return [z_image, *self.pyramid(image)]

    def forward(self, z: Tensor, t: Tensor, condition: list[Tensor]) -> Tensor:
        return self.unet(torch.cat([z, condition[0]], dim=1), t, condition[1:])


def bottom_up(
    backbone: Backbone,
    channels: int,
    encoder_channels: tuple[int, ...],
    blocks_per_level: int,
    factor: int,
    levels: int,
) -> nn.Module:
    """(B, channels, H, W) → features at H/factor, H/2factor, …: the last `levels` of an encoder of our own, or one started
    from ImageNet, which has no other levels."""
    if backbone != "own":
        return ImageNetBottomUp(factor, encoder_channels)
    patch_size = factor // 2 ** (len(encoder_channels) - levels)
    if patch_size < 1:
        raise ConfigError(f"a pyramid of {len(encoder_channels)} levels is too deep for f = {factor}")
    return BottomUp(channels, encoder_channels, blocks_per_level, patch_size, levels)
