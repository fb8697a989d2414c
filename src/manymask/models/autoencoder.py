"""The two autoencoders (Section III-B): one for images, one for masks, both of one class; and pixels as they are.

A codec turns (B, C, H, W) in [0, 1] into standardised latents (B, c, H/f, W/f) and back into values in [0, 1].
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from manymask.config import difference, to_dict
from manymask.data.case import Batch
from manymask.data.raters import Target, raters_consensus, training_target
from manymask.errors import ConfigError
from manymask.models.base import TrainableModel
from manymask.nn.blocks import Decoder, Encoder
from manymask.nn.losses import MSE, Loss
from manymask.nn.quantizers import VQ, Bottleneck

Subject = Literal["image", "mask"]

FOLLOWED = 0.01  # share of a batch in the moments of latents that are trained along


class Coder(Protocol):
    """What a segmenter needs of a codec.

    Attributes:
        latent_channels: c, channels of the latents.
        factor: f, side in pixels that one latent position covers.
    """

    latent_channels: int
    factor: int

    def encode(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] → standardised latents (B, c, H/f, W/f)."""
        ...

    def decode(self, z: Tensor) -> Tensor:
        """Standardised latents (B, c, h, w) → (B, C, f·h, f·w) in [0, 1]."""
        ...


@dataclass(frozen=True)
class Autoencoder:
    """A VQ-VAE by default (Eq. 7–10), for one `subject`.

    Attributes:
        subject: what is encoded, images or masks.
        in_channels: channels of the subject.
        latent_channels: channels of the latents.
        channels: channels of encoder and decoder, one entry per resolution, finest first.
        blocks_per_level: residual blocks at each resolution.
        patch_size: factor by which the first layer already shrinks; f = patch_size · 2^(len(channels) − 1).
        bottleneck: between encoder and decoder.
        loss: of the reconstruction.
        quantized: whether the quantised latent z̄ diffuses, as in the paper, or the continuous z.
        quantize_on_decode: whether `decode` first takes the nearest quantised latent.
        target: which mask is learnt where there are several raters.
    """

    subject: Subject
    in_channels: int
    latent_channels: int = 3
    channels: tuple[int, ...] = (64, 128, 256)
    blocks_per_level: int = 2
    patch_size: int = 1
    bottleneck: Bottleneck = VQ()
    loss: Loss = MSE()
    quantized: bool = True
    quantize_on_decode: bool = False
    target: Target = "rater"

    @property
    def factor(self) -> int:
        """f, the side in pixels that one latent position covers."""
        result: int = self.patch_size * 2 ** (len(self.channels) - 1)
        return result

    def build(self) -> "Codec":
        """The untrained codec."""
        return Codec(self)


class Codec(TrainableModel):
    """Encoder, bottleneck and decoder; see `Autoencoder`.

    Args:
        setting: its configuration.

    Attributes:
        setting: its configuration.
        mean: mean of each latent channel, (c, 1, 1), as measured by `calibrate_latents`; 0 before.
        std: standard deviation of each latent channel, (c, 1, 1); 1 before.
    """

    setting: Autoencoder
    mean: Tensor
    std: Tensor

    def __init__(self, setting: Autoencoder) -> None:
        super().__init__()
        self.setting = setting
        self.latent_channels = setting.latent_channels
        self.factor = setting.factor
        self.bottleneck = setting.bottleneck.build(setting.latent_channels)
        shape = (setting.channels, setting.blocks_per_level, setting.patch_size)
        self.encoder = Encoder(setting.in_channels, self.bottleneck.inputs, *shape)
        self.decoder = Decoder(setting.latent_channels, setting.in_channels, *shape)
        self.register_buffer("mean", torch.zeros(setting.latent_channels, 1, 1))
        self.register_buffer("std", torch.ones(setting.latent_channels, 1, 1))
        self.latents_kept = False

    def keep_latents(self) -> None:
        """Freeze encoder, bottleneck and standardisation, so that only the decoder learns and latents stay the same."""
        self.latents_kept = True
        for part in (self.encoder, self.bottleneck):
            part.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Codec":
        """Set the mode; a frozen bottleneck stays in evaluation mode."""
        super().train(mode)
        self.bottleneck.train(mode and not self.latents_kept)  # a quantiser in training replaces idle codes
        return self

    def same_latents(self, other: "Codec") -> bool:
        """Whether both codecs encode alike: all weights but those of the decoder are equal."""
        mine = self._without_decoder()
        theirs = other._without_decoder()
        return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)

    def _without_decoder(self) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("decoder.")}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The training loss of Eq. 10: reconstruction plus the loss of the bottleneck (Eq. 8 and 9).

        Args:
            batch: images or masks (B, C, H, W) in [0, 1].

        Returns:
            `loss` and `reconstruction`, scalars, and the values that the bottleneck logs.
        """
        x = self._subject(batch)
        z, bottleneck_loss, logs = self.bottleneck(self.encoder(x))
        reconstruction = self.setting.loss(self.decoder(z).float(), x)
        return {"loss": reconstruction + bottleneck_loss, "reconstruction": reconstruction, **logs}

    def _subject(self, batch: Batch, target: Target | None = None) -> Tensor:
        """What is encoded: the image, or the mask of a target, the setting's own if None."""
        if self.setting.subject == "image":
            return batch.image
        choice = batch.noise.uniform(len(batch.image))
        return training_target(batch.truth(), target or self.setting.target, choice, batch.read_by)

    def raw_latent(self, x: Tensor) -> Tensor:
        """The latent that diffuses, before it is standardised.

        Gradients pass straight through the quantiser.

        Args:
            x: (B, C, H, W) in [0, 1].

        Returns:
            Latents (B, c, H/f, W/f), float32.
        """
        z = self.bottleneck.latent(self.encoder(x)).float()
        if not self.setting.quantized:
            return z
        return z + (self.bottleneck.quantize(z) - z).detach()

    def encode(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] → standardised latents (B, c, H/f, W/f), float32."""
        return (self.raw_latent(x) - self.mean) / self.std

    def encode_along(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Encode while encoder and decoder are trained along with the segmenter (LDSeg, Zaman et al. 2025).

        Latents are standardised by their own moments, with gradient: else the encoder would make them easy to predict by
        making them small. `mean` and `std` follow those moments.

        Args:
            x: (B, C, H, W) in [0, 1].

        Returns:
            Standardised latents (B, c, H/f, W/f), float32, and the loss of their reconstruction, a scalar.
        """
        raw = self.raw_latent(x)
        variance, mean = torch.var_mean(raw, dim=(0, 2, 3), correction=0)
        std = variance.clamp(min=1e-8).sqrt()[:, None, None]
        with torch.no_grad():
            self.mean.lerp_(mean[:, None, None], FOLLOWED)
            self.std.lerp_(std, FOLLOWED)
        return (raw - mean[:, None, None]) / std, self.setting.loss(self.decoder(raw).float(), x)

    def decode(self, z: Tensor) -> Tensor:
        """Standardised latents (B, c, h, w) → (B, C, f·h, f·w) in [0, 1] (Eq. 13)."""
        z = z * self.std + self.mean
        return self._pixels(self.bottleneck.quantize(z) if self.setting.quantize_on_decode else z)

    @property
    def decodes_unquantized(self) -> bool:
        """Whether a segmenter's masks are decoded from unquantised latents, unlike reconstructions."""
        return not (self.setting.quantized or self.setting.quantize_on_decode)

    def reconstruct(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Reconstruct the images of a batch, or the consensus of its raters.

        Args:
            batch: images (B, C, H, W), and masks (B, R, H, W) for a codec of masks.

        Returns:
            Original and reconstruction, both (B, C, H, W) in [0, 1].
        """
        x = batch.image if self.setting.subject == "image" else raters_consensus(batch.truth())
        return x, self.round_trip(x)

    def round_trip(self, x: Tensor) -> Tensor:
        """Encode, quantise and decode, as in training: (B, C, H, W) in [0, 1] → the same shape and range."""
        z = self.bottleneck.latent(self.encoder(x)).float()
        return self._pixels(self.bottleneck.quantize(z))

    def _pixels(self, z: Tensor) -> Tensor:
        """Latents as the decoder takes them → (B, C, H, W) in [0, 1]."""
        return self.setting.loss.probability(self.decoder(z).float()).clamp(0, 1)

    def validation_metric(self, raters: int) -> str:
        """Dice of masks, PSNR of images."""
        return "dice" if self.setting.subject == "mask" else "psnr"

    def after_training(self, batches: Iterable[Batch], target: Target) -> None:
        """Measures the latents' statistics over the masks that the segmenter will learn."""
        self.calibrate_latents(batches, target)

    @torch.no_grad()
    def calibrate_latents(self, batches: Iterable[Batch], target: Target | None = None) -> None:
        """Measure mean and standard deviation of every latent channel, unless the latents are frozen.

        Args:
            batches: the training cases.
            target: the masks that the segmenter will learn, so that the latents that diffuse have mean 0 and
                standard deviation 1; the codec's own target if None.
        """
        if self.latents_kept:
            return
        count = 0
        total = torch.zeros_like(self.mean, dtype=torch.float64, device="cpu")  # MPS has no float64
        squares = torch.zeros_like(total)
        for batch in batches:
            z = self.raw_latent(self._subject(batch, target)).cpu().double()
            count += z.numel() // z.shape[1]
            total += z.sum(dim=(0, 2, 3))[:, None, None]
            squares += z.square().sum(dim=(0, 2, 3))[:, None, None]
        mean = total / count
        self.mean.copy_(mean)
        self.std.copy_((squares / count - mean.square()).clamp(min=1e-8).sqrt())


@dataclass(frozen=True)
class Pixels:
    """No compression: diffusion in pixel space, as in the baselines.

    Attributes:
        channels: of images or masks, and of their latents.
        factor: f, always 1.
    """

    channels: int
    factor = 1

    @property
    def latent_channels(self) -> int:
        """As many as the pixels have."""
        return self.channels

    def build(self) -> "PixelCodec":
        """The codec, which has no weights."""
        return PixelCodec(self)


class PixelCodec(nn.Module):
    """See `Pixels`: [0, 1] ↔ [−1, 1], f = 1.

    Args:
        setting: its configuration.
    """

    def __init__(self, setting: Pixels) -> None:
        super().__init__()
        self.setting = setting
        self.latent_channels = setting.latent_channels
        self.factor = setting.factor

    def encode(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] → the same shape in [−1, 1]."""
        return 2 * x - 1

    def decode(self, z: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape, clipped to [0, 1]."""
        return ((z + 1) / 2).clamp(0, 1)


CodecSetting = Autoencoder | Pixels


def same_codec(given: CodecSetting, wanted: CodecSetting, place: Path) -> None:
    """Check that two codecs have the same settings.

    Weights that fit may still mean something else: logits of a loss with another weight, for example.

    Args:
        given: settings of the trained codec.
        wanted: settings that are required.
        place: folder of the trained codec, for the error.

    Raises:
        ConfigError: a setting differs.
    """
    changed = difference(to_dict(given), to_dict(wanted))
    if changed:
        raise ConfigError(f"{place} was trained with other settings ({changed[0]}): give the same to every stage")
