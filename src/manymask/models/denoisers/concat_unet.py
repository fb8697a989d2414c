"""The paper's denoiser (Eq. 11): a U-Net on the noisy mask latent with the image latent concatenated."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from manymask.models.autoencoder import Coder
from manymask.nn.unet import UNet


@dataclass(frozen=True)
class ConcatUNet:
    """The paper's U-Net.

    Attributes:
        channels: one entry per resolution, finest first.
        blocks_per_level: residual blocks at each resolution.
    """

    channels: tuple[int, ...] = (64, 128, 256)
    blocks_per_level: int = 2

    def build(self, image_channels: int, image_codec: Coder, mask_codec: Coder) -> "ConcatDenoiser":
        """The untrained denoiser for the latents of these codecs."""
        return ConcatDenoiser(self, image_codec.latent_channels, mask_codec.latent_channels)


class ConcatDenoiser(nn.Module):
    """See `ConcatUNet`.

    Args:
        setting: its configuration.
        image_latent: channels of the image latent.
        mask_latent: channels of the mask latent.
    """

    def __init__(self, setting: ConcatUNet, image_latent: int, mask_latent: int) -> None:
        super().__init__()
        self.unet = UNet(mask_latent + image_latent, mask_latent, setting.channels, setting.blocks_per_level)

    def condition(self, image: Tensor, z_image: Tensor) -> list[Tensor]:
        """The image latent (B, c, h, w) alone."""
        return [z_image]

    def forward(self, z: Tensor, t: Tensor, condition: list[Tensor]) -> Tensor:
        """Noisy latents (B, c, h, w) → the prediction (B, c, h, w) at times t (B,) in [0, 1000]."""
        result: Tensor = self.unet(torch.cat([z, condition[0]], dim=1), t)  # z_t^cond = z_t ⊕ z_X (Eq. 11)
        return result
