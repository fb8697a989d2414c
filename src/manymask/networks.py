"""One-to-one networks from MONAI, each image → logits (B, 1, H, W)."""

from dataclasses import dataclass

from monai.networks.nets import BasicUNet
from torch import nn


@dataclass(frozen=True)
class UNet:
    """U-Net (Ronneberger et al. 2015) as MONAI's `BasicUNet`."""

    features: tuple[int, ...] = (32, 32, 64, 128, 256, 32)

    def build(self, channels: int) -> nn.Module:
        return BasicUNet(2, channels, 1, features=self.features)


Network = UNet
