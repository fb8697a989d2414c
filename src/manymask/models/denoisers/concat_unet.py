"""The paper's denoiser (Eq. 11): a U-Net on the noisy mask latent with the image latent concatenated."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from manymask.models.autoencoder import Coder
from manymask.nn.unet import UNet


@dataclass(frozen=True)
class ConcatUNet:
    """`widths` channels at one resolution each, `blocks` residual blocks at each."""

    widths: tuple[int, ...] = (64, 128, 256)
    blocks: int = 2

    def build(self, image_channels: int, image_codec: Coder, mask_codec: Coder) -> "ConcatDenoiser":
        return ConcatDenoiser(self, image_codec.latent, mask_codec.latent)


class ConcatDenoiser(nn.Module):
    """See `ConcatUNet`."""

    def __init__(self, setting: ConcatUNet, image_latent: int, mask_latent: int) -> None:
        super().__init__()
        self.unet = UNet(mask_latent + image_latent, mask_latent, setting.widths, setting.blocks)

    def condition(self, image: Tensor, z_image: Tensor) -> list[Tensor]:
        return [z_image]

    def forward(self, z: Tensor, t: Tensor, condition: list[Tensor]) -> Tensor:
        return self.unet(torch.cat([z, condition[0]], dim=1), t)  # z_t^cond = z_t ⊕ z_X (Eq. 11)
