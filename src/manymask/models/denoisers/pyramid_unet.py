"""A light denoiser under a heavy condition: Eq. 11, and features of the image at every level besides.

The pyramid sees the pixels themselves and runs once an image; the U-Net runs samples × steps times.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from manymask.errors import UserError
from manymask.models.autoencoder import Coder
from manymask.nn.efficientnet_lite import ImageNetBottomUp
from manymask.nn.pyramid import BottomUp, TopDown
from manymask.nn.unet import UNet

Backbone = Literal["own", "efficientnet-lite0"]


@dataclass(frozen=True)
class PyramidUNet:
    """widths, blocks: of the U-Net; encoder, encoder_blocks: of the pyramid, whose last levels match the U-Net's.

    backbone: an encoder of our own, or EfficientNet-Lite0 started from ImageNet's weights; of the latter `encoder` are
    the widths it is brought to from latent resolution on, and `encoder_blocks` means nothing.
    """

    widths: tuple[int, ...] = (32, 48, 64)
    blocks: int = 1
    encoder: tuple[int, ...] = (32, 64, 128, 192)
    encoder_blocks: int = 2
    backbone: Backbone = "own"

    def build(self, image_channels: int, image_codec: Coder, mask_codec: Coder) -> "PyramidDenoiser":
        return PyramidDenoiser(self, image_channels, image_codec.latent, mask_codec.latent, mask_codec.factor)


class PyramidDenoiser(nn.Module):
    """See `PyramidUNet`."""

    def __init__(
        self, setting: PyramidUNet, image_channels: int, image_latent: int, mask_latent: int, factor: int
    ) -> None:
        super().__init__()
        levels = len(setting.widths) if setting.backbone == "own" else len(setting.encoder)
        seen = bottom_up(setting.backbone, image_channels, setting.encoder, setting.encoder_blocks, factor, levels)
        self.pyramid = nn.Sequential(seen, TopDown(setting.encoder[-levels:], setting.widths))
        self.features = setting.widths
        self.unet = UNet(mask_latent + image_latent, mask_latent, setting.widths, setting.blocks, setting.widths)

    def condition(self, image: Tensor, z_image: Tensor) -> list[Tensor]:
        return [z_image, *self.pyramid(image)]

    def forward(self, z: Tensor, t: Tensor, condition: list[Tensor]) -> Tensor:
        return self.unet(torch.cat([z, condition[0]], dim=1), t, condition[1:])


def bottom_up(
    backbone: Backbone, channels: int, widths: tuple[int, ...], blocks: int, factor: int, levels: int
) -> nn.Module:
    """(B, channels, H, W) → features at H/factor, H/2factor, …: the last `levels` of an encoder of our own, or one started
    from ImageNet, which has no other levels."""
    if backbone != "own":
        return ImageNetBottomUp(factor, widths)
    stem = factor // 2 ** (len(widths) - levels)
    if stem < 1:
        raise UserError(f"a pyramid of {len(widths)} levels is too deep for f = {factor}")
    return BottomUp(channels, widths, blocks, stem, levels)
