"""A light denoiser with a heavy image encoder: Eq. 11, and features of the image at every level.

The pyramid encodes the pixels and runs once per image. The U-Net runs samples × steps times.
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

Backbone = Literal["own", "efficientnet-lite0", "efficientnet-lite2"]


@dataclass(frozen=True)
class PyramidUNet:
    """A U-Net that receives image features at every level.

    Attributes:
        channels: of the U-Net, one entry per resolution, finest first.
        blocks_per_level: residual blocks of the U-Net at each resolution.
        encoder_channels: of the image encoder, whose last levels match the U-Net's. The features of a pretrained
            backbone are projected to these, from latent resolution on.
        encoder_blocks_per_level: residual blocks of our own encoder; a pretrained backbone ignores it.
        backbone: our own encoder, or an EfficientNet-Lite with ImageNet weights.
    """

    channels: tuple[int, ...] = (32, 48, 64)
    blocks_per_level: int = 1
    encoder_channels: tuple[int, ...] = (32, 64, 128, 192)
    encoder_blocks_per_level: int = 2
    backbone: Backbone = "own"

    def build(self, image_channels: int, image_codec: Coder, mask_codec: Coder) -> "PyramidDenoiser":
        """The untrained denoiser for images with so many channels and the latents of these codecs."""
        return PyramidDenoiser(
            self, image_channels, image_codec.latent_channels, mask_codec.latent_channels, mask_codec.factor
        )


class PyramidDenoiser(nn.Module):
    """See `PyramidUNet`.

    Args:
        setting: its configuration.
        image_channels: channels of the image.
        image_latent: channels of the image latent.
        mask_latent: channels of the mask latent.
        factor: f of the codecs.
    """

    def __init__(
        self, setting: PyramidUNet, image_channels: int, image_latent: int, mask_latent: int, factor: int
    ) -> None:
        super().__init__()
        levels = len(setting.channels) if setting.backbone == "own" else len(setting.encoder_channels)
        encoder = bottom_up(
            setting.backbone, image_channels, setting.encoder_channels, setting.encoder_blocks_per_level, factor, levels
        )
        self.pyramid = nn.Sequential(encoder, TopDown(setting.encoder_channels[-levels:], setting.channels))
        self.features = setting.channels
        self.finer: tuple[int, ...] = encoder.finer
        self.unet = UNet(
            mask_latent + image_latent, mask_latent, setting.channels, setting.blocks_per_level, setting.channels
        )

    def condition(self, image: Tensor, z_image: Tensor) -> list[Tensor]:
        """The image latent (B, c, h, w), then features (B, channels[i], h / 2^i, w / 2^i) of each level."""
        return [z_image, *self.encode(image)[1]]

    def encode(self, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """All that the encoder computes of images.

        Args:
            image: (B, C, H, W) in [0, 1].

        Returns:
            The encoder's maps at resolutions above the latents', (B, finer[i], …), finest first, and the features of
            `condition`.
        """
        encoder, top_down = self.pyramid
        finer, levels = encoder.split(image)  # type: ignore[operator]
        return finer, top_down(levels)

    def forward(self, z: Tensor, t: Tensor, condition: list[Tensor]) -> Tensor:
        """Noisy latents (B, c, h, w) → the prediction (B, c, h, w) at times t (B,) in [0, 1000]."""
        z_image, *features = condition
        result: Tensor = self.unet(torch.cat([z, z_image], dim=1), t, features)
        return result


def bottom_up(
    backbone: Backbone,
    channels: int,
    encoder_channels: tuple[int, ...],
    blocks_per_level: int,
    factor: int,
    levels: int,
) -> BottomUp | ImageNetBottomUp:
    """An image encoder with features at H/f, H/2f, ….

    Args:
        backbone: our own encoder, or an EfficientNet-Lite, which starts at H/f.
        channels: image channels.
        encoder_channels: of each level, finest first.
        blocks_per_level: residual blocks of our own encoder at each level.
        factor: f.
        levels: number of coarsest levels that our own encoder returns.

    Returns:
        A network from images (B, channels, H, W) to a list of maps, finest first.

    Raises:
        ConfigError: there are more levels than f has factors of two.
    """
    if backbone != "own":
        return ImageNetBottomUp(backbone, factor, encoder_channels)
    patch_size = factor // 2 ** (len(encoder_channels) - levels)
    if patch_size < 1:
        raise ConfigError(f"a pyramid of {len(encoder_channels)} levels is too deep for f = {factor}")
    return BottomUp(channels, encoder_channels, blocks_per_level, patch_size, levels)
