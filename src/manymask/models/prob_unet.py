"""Probabilistic U-Net (Kohl et al. 2018): a conditional VAE whose few latent numbers choose among a U-Net's masks."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymask.data.case import Batch
from manymask.data.raters import Target, training_target
from manymask.diffusion.sampling import SamplingConfig
from manymask.models.autoencoder import CodecSetting
from manymask.models.base import MaskSampler, StepCallback
from manymask.models.sample_noise import noise_of
from manymask.nn.blocks import Encoder


@dataclass(frozen=True)
class ProbUNet:
    """A U-Net whose last features are combined with a random latent vector.

    Attributes:
        channels: of the U-Net (MONAI's `BasicUNet`): five levels, and the width of the last features.
        encoder_channels: of the prior and posterior networks.
        encoder_blocks_per_level: of the prior and posterior networks.
        latent_channels: length of the latent vector.
        kl_weight: of the KL against the *summed* cross-entropy. 1 is the evidence lower bound; published code uses 10
            for LIDC.
        target: which mask is learnt where there are several raters.
    """

    channels: tuple[int, ...] = (32, 32, 64, 128, 256, 32)
    encoder_channels: tuple[int, ...] = (32, 64, 128, 192)
    encoder_blocks_per_level: int = 1
    latent_channels: int = 6
    kl_weight: float = 10.0
    target: Target = "rater"

    def build(self, channels: int, image_codec: CodecSetting, mask_codec: CodecSetting) -> "ProbUNetSegmenter":
        """The untrained segmenter of images with so many channels; the codecs are not used."""
        return ProbUNetSegmenter(self, channels)


class GaussianNet(nn.Module):
    """A network that predicts an axis-aligned Gaussian: the prior from an image, the posterior from image and mask.

    Args:
        inputs: input channels.
        latent: length of the latent vector.
        channels: of the encoder, one entry per resolution.
        blocks_per_level: residual blocks at each resolution.
    """

    def __init__(self, inputs: int, latent: int, channels: tuple[int, ...], blocks_per_level: int) -> None:
        super().__init__()
        self.encoder = Encoder(inputs, 2 * latent, channels, blocks_per_level, patch_size=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, inputs, H, W) → mean and log-variance, each (B, latent), float32."""
        mean, log_variance = self.encoder(x).float().mean(dim=(2, 3)).chunk(2, dim=1)
        return mean, log_variance.clamp(-20, 10)


def kl_divergence(mean_q: Tensor, log_variance_q: Tensor, mean_p: Tensor, log_variance_p: Tensor) -> Tensor:
    """KL(q ‖ p) of axis-aligned Gaussians in closed form.

    Args:
        mean_q: mean of q, (B, latent).
        log_variance_q: log-variance of q, (B, latent).
        mean_p: mean of p, (B, latent).
        log_variance_p: log-variance of p, (B, latent).

    Returns:
        (B,) in nats.
    """
    ratio = (log_variance_q - log_variance_p).exp()
    shift = (mean_q - mean_p).square() / log_variance_p.exp()
    return 0.5 * (ratio + shift - 1 + log_variance_p - log_variance_q).sum(dim=1)


class ProbUNetSegmenter(MaskSampler):
    """See `ProbUNet`. The latent joins the U-Net's last features at every pixel; 1×1 convolutions make the mask.

    Args:
        setting: its configuration.
        channels: image channels.

    Attributes:
        setting: its configuration.
    """

    setting: ProbUNet

    def __init__(self, setting: ProbUNet, channels: int) -> None:
        from monai.networks.nets import BasicUNet

        super().__init__()
        self.setting = setting
        width = setting.channels[-1]
        self.unet = BasicUNet(2, channels, width, features=setting.channels)
        self.prior = GaussianNet(
            channels, setting.latent_channels, setting.encoder_channels, setting.encoder_blocks_per_level
        )
        self.posterior = GaussianNet(
            channels + 1, setting.latent_channels, setting.encoder_channels, setting.encoder_blocks_per_level
        )
        self.combine = nn.Sequential(
            nn.Conv2d(width + setting.latent_channels, width, 1), nn.ReLU(),
            nn.Conv2d(width, width, 1), nn.ReLU(),
            nn.Conv2d(width, 1, 1),
        )  # fmt: skip

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The negative evidence lower bound, divided by the number of pixels to bring it to the scale of other losses.

        Args:
            batch: images (B, C, H, W) and masks (B, R, H, W).

        Returns:
            `loss`, `cross_entropy` (mean over pixels) and `kl` (mean over images, nats), scalars.
        """
        mask = training_target(batch.truth(), self.setting.target, batch.noise.uniform(len(batch.image)), batch.read_by)
        mean, log_variance = self.posterior(torch.cat([batch.image, 2 * mask - 1], dim=1))
        z = mean + (0.5 * log_variance).exp() * batch.noise.normal(*mean.shape).to(mean)
        logits = self._decode(self.unet(batch.image), z)
        cross_entropy = F.binary_cross_entropy_with_logits(logits, mask)
        kl = kl_divergence(mean, log_variance, *self.prior(batch.image)).mean()
        pixels = mask[0].numel()
        return {"loss": cross_entropy + self.setting.kl_weight * kl / pixels, "cross_entropy": cross_entropy, "kl": kl}

    def _decode(self, features: Tensor, z: Tensor) -> Tensor:
        """Features (B, C, H, W) under latents (B, latent) → logits (B, 1, H, W)."""
        tiled = z[:, :, None, None].expand(-1, -1, *features.shape[2:])
        result: Tensor = self.combine(torch.cat([features, tiled.to(features.dtype)], dim=1)).float()
        return result

    def resolve(self, sampling: SamplingConfig | None = None) -> SamplingConfig:
        """See `MaskSampler`; every sample uses the image as it is."""
        return replace(super().resolve(sampling), orientations=1)

    def prepare(self, batch: Batch, n: int, sampling: SamplingConfig) -> tuple[Tensor, Tensor, Tensor]:
        """Features (B, C, H, W), and mean and standard deviation (B, latent) of the prior."""
        mean, log_variance = self.prior(batch.image)
        return self.unet(batch.image), mean, (0.5 * log_variance).exp()

    def sample(
        self,
        common: tuple[Tensor, Tensor, Tensor],
        batch: Batch,
        which: range,
        seed: int,
        sampling: SamplingConfig,
        callback: StepCallback | None = None,
    ) -> Tensor:
        """See `MaskSampler`; latents are drawn from the prior."""
        features, mean, deviation = common
        source = noise_of(batch, seed, which)
        noise = source.normal(self.setting.latent_channels).to(mean)
        z = mean[:, None] + deviation[:, None] * noise.reshape(len(mean), len(which), -1)
        return torch.cat([torch.sigmoid(self._decode(features, each)) for each in z.unbind(1)], dim=1)
