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
    """widths, blocks: of the U-Net, whose first width both encodings have; dense_blocks: RRDBs of the image encoder
    (10 and more in the paper), growth: the width of a dense layer."""

    channels: tuple[int, ...] = (64, 128, 256)
    blocks_per_level: int = 2
    dense_blocks: int = 3
    growth: int = 32

    def build(self, image_channels: int, image_codec: Coder, mask_codec: Coder) -> "SegDiffDenoiser":
        return SegDiffDenoiser(self, image_codec.latent_channels, mask_codec.latent_channels)


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees all maps before it; a fifth of what they find is added to the input."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        inner = [nn.Conv2d(width + i * growth, growth, 3, padding=1) for i in range(4)]
        self.layers = nn.ModuleList([*inner, nn.Conv2d(width + 4 * growth, width, 3, padding=1)])

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer in self.layers[:-1]:
            maps.append(F.leaky_relu(layer(torch.cat(maps, dim=1)), 0.2))
        return x + 0.2 * self.layers[-1](torch.cat(maps, dim=1))


class RRDB(nn.Sequential):
    """Residual-in-residual dense block (Wang et al. 2018, ESRGAN): three dense blocks around a second skip."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__(*(DenseBlock(width, growth) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.2 * super().forward(x)


class ImageEncoder(nn.Module):
    """G: a convolution, RRDBs around one skip, and two convolutions; (B, in, H, W) → (B, width, H, W)."""

    def __init__(self, inputs: int, width: int, blocks: int, growth: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, width, 3, padding=1)
        self.dense = nn.Sequential(*(RRDB(width, growth) for _ in range(blocks)), nn.Conv2d(width, width, 3, padding=1))
        self.last = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image)
        return self.last(x + self.dense(x))


class SegDiffDenoiser(nn.Module):
    """See `SegDiff`. G runs once an image, F and the U-Net at every step."""

    def __init__(self, setting: SegDiff, image_latent: int, mask_latent: int) -> None:
        super().__init__()
        width = setting.channels[0]
        self.image_encoder = ImageEncoder(image_latent, width, setting.dense_blocks, setting.growth)
        self.mask_encoder = nn.Conv2d(mask_latent, width, 3, padding=1)
        self.unet = UNet(width, mask_latent, setting.channels, setting.blocks_per_level)

    def condition(self, image: Tensor, z_image: Tensor) -> list[Tensor]:
        return [self.image_encoder(z_image)]

    def forward(self, z: Tensor, t: Tensor, condition: list[Tensor]) -> Tensor:
        return self.unet(self.mask_encoder(z) + condition[0], t)
