"""MedSegDiff's denoiser, version 1 (Wu et al. 2022): dynamic conditional encoding and the feature-frequency parser.

ε̂ = D(E^I_t + E^x_t, t). The image is encoded again at every step: at every level the image encoder attends to the features
of the noisy mask, which the FF-Parser filters by frequency (their Eq. 3 and 4).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymask.models.autoencoder import Coder
from manymask.nn.blocks import ResBlock, downsample
from manymask.nn.unet import UNet


@dataclass(frozen=True)
class MedSegDiff:
    """MedSegDiff-V1.

    Attributes:
        channels: of the U-Net and of the image encoder, one entry per resolution, finest first.
        blocks_per_level: residual blocks at each resolution.
        size: side of the noisy mask. The FF-Parser learns one weight per channel and frequency of this size, and
            interpolates them for other sizes.
    """

    channels: tuple[int, ...] = (64, 128, 256)
    blocks_per_level: int = 2
    size: int = 64

    def build(self, image_channels: int, image_codec: Coder, mask_codec: Coder) -> "MedSegDiffDenoiser":
        """The untrained denoiser for the latents of these codecs."""
        return MedSegDiffDenoiser(self, image_codec.latent_channels, mask_codec.latent_channels)


class FFParser(nn.Module):
    """m' = F⁻¹(A ⊙ F(m)): a learnt complex weight A for each channel and frequency (their Eq. 4), initially the identity.

    The parameter `weight` (C, 2, size, size/2 + 1) holds real and imaginary parts, with frequency 0 of the rows in the
    middle, so that it can be interpolated for features of another size.

    Args:
        channels: C, of the features.
        size: side of the features.
    """

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        weight = torch.zeros(channels, 2, size, size // 2 + 1)
        weight[:, 0] = 1
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        """Filter features (B, C, h, w)."""
        with torch.autocast(x.device.type, enabled=False):  # there is no Fourier transform in bf16
            frequencies = torch.fft.rfft2(x.float(), norm="ortho")
            weight: Tensor = self.weight
            if weight.shape[-2:] != frequencies.shape[-2:]:
                weight = F.interpolate(weight, frequencies.shape[-2:], mode="bilinear", align_corners=False)
            real, imaginary = torch.fft.ifftshift(weight, dim=-2).unbind(1)
            filtered = torch.fft.irfft2(frequencies * torch.complex(real, imaginary), s=x.shape[-2:], norm="ortho")
        result: Tensor = filtered.to(x.dtype)
        return result


class Attend(nn.Module):
    """A(m_I, m_x) = (LN(m_I) ⊙ LN(FF(m_x))) ⊙ m_I, then a residual block (their Eq. 3).

    The image's features are strengthened where they agree with those of the noisy mask.

    Args:
        width: channels of both.
        size: side of both.
    """

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.parser = FFParser(width, size)
        self.norm_image = nn.LayerNorm(width)
        self.norm_mask = nn.LayerNorm(width)
        self.mix = ResBlock(width, width)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """Features of image and noisy mask, both (B, width, h, w) → features of the image, (B, width, h, w)."""
        affinity = _over_channels(self.norm_image, image) * _over_channels(self.norm_mask, self.parser(mask))
        result: Tensor = self.mix(affinity * image)
        return result


def _over_channels(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    result: Tensor = norm(x.movedim(1, -1)).movedim(-1, 1)
    return result


class MedSegDiffDenoiser(nn.Module):
    """See `MedSegDiff`. Only the image's first convolution is shared by all steps.

    Args:
        setting: its configuration.
        image_latent: channels of the image latent.
        mask_latent: channels of the mask latent.
    """

    def __init__(self, setting: MedSegDiff, image_latent: int, mask_latent: int) -> None:
        super().__init__()
        widths = setting.channels
        self.unet = UNet(mask_latent, mask_latent, widths, setting.blocks_per_level)
        self.stem = nn.Conv2d(image_latent, widths[0], 3, padding=1)
        self.levels = nn.ModuleList()
        self.attend = nn.ModuleList()
        for level, width in enumerate(widths):
            down = [downsample(widths[level - 1], width)] if level else []
            self.levels.append(nn.Sequential(*down, *(ResBlock(width, width) for _ in range(setting.blocks_per_level))))
            self.attend.append(Attend(width, max(1, setting.size >> level)))

    def condition(self, image: Tensor, z_image: Tensor) -> list[Tensor]:
        """The first convolution of the image latent, (B, channels[0], h, w)."""
        return [self.stem(z_image)]

    def forward(self, z: Tensor, t: Tensor, condition: list[Tensor]) -> Tensor:
        """Noisy latents (B, c, h, w) → the prediction (B, c, h, w) at times t (B,) in [0, 1000]."""
        e = self.unet.time(t)
        image = condition[0]
        mask = self.unet.stem(z)
        skips = []
        for level, (encode, attend) in enumerate(zip(self.levels, self.attend, strict=True)):
            mask = self.unet.descend(level, mask, e)
            image = attend(encode(image), mask)
            skips.append(mask)
        skips[-1] = skips[-1] + image  # E^x_t + E^I_t
        return self.unet.ascend(skips, e)
