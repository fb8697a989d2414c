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
from manymask.nn.blocks import Decoder, Encoder
from manymask.nn.losses import MSE, Loss
from manymask.nn.quantizers import VQ, Bottleneck

Subject = Literal["image", "mask"]


class Coder(Protocol):
    """What a segmenter needs of a codec."""

    latent_channels: int
    factor: int

    def encode(self, x: Tensor) -> Tensor: ...

    def decode(self, z: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Autoencoder:
    """A VQ-VAE by default (Eq. 7–10), for one `subject`.

    Attributes:
        subject: what it codes: images or masks.
        in_channels: of the subject.
        latent_channels: of the latent.
        channels: one entry per resolution.
        blocks_per_level: residual blocks at each resolution.
        patch_size: the factor by which the first layer already shrinks; f = patch_size · 2^(len(channels) − 1).
        bottleneck: between encoder and decoder.
        loss: of the reconstruction.
        quantized: which latent diffuses: z̄ (the paper's), or the continuous z.
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
        """f, how many pixels a latent spans."""
        return self.patch_size * 2 ** (len(self.channels) - 1)

    def build(self) -> "Codec":
        return Codec(self)


class Codec(nn.Module):
    """Encoder, bottleneck, decoder. `mean` and `std` (c, 1, 1) standardise the latents; `calibrate_latents` measures them."""

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
        """From now on only the decoder learns: what an image's latent is, and what it is standardised by, stays."""
        self.latents_kept = True
        for part in (self.encoder, self.bottleneck):
            part.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Codec":
        super().train(mode)
        self.bottleneck.train(mode and not self.latents_kept)  # a quantiser in training replaces idle codes
        return self

    def same_latents(self, other: "Codec") -> bool:
        """Whether a latent of the one is a latent of the other."""
        mine, theirs = (
            {name: tensor for name, tensor in codec.state_dict().items() if not name.startswith("decoder.")}
            for codec in (self, other)
        )
        return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The training loss of Eq. 10: reconstruction plus what the bottleneck asks (Eq. 8 and 9)."""
        x = self._subject(batch)
        z, bottleneck_loss, logs = self.bottleneck(self.encoder(x))
        reconstruction = self.setting.loss(self.decoder(z).float(), x)
        return {"loss": reconstruction + bottleneck_loss, "reconstruction": reconstruction, **logs}

    def _subject(self, batch: Batch, target: Target | None = None) -> Tensor:
        """What is coded: the image, or the mask of a target, the setting's own if None."""
        if self.setting.subject == "image":
            return batch.image
        choice = batch.noise.uniform(len(batch.image))
        return training_target(batch.truth(), target or self.setting.target, choice, batch.read_by)

    def raw_latent(self, x: Tensor) -> Tensor:
        """The latent that diffuses, before standardising; gradients pass the quantiser straight through."""
        z = self.bottleneck.latent(self.encoder(x)).float()
        return z + (self.bottleneck.quantize(z) - z).detach() if self.setting.quantized else z

    def encode(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] → standardised latents (B, c, h, w)."""
        return (self.raw_latent(x) - self.mean) / self.std

    def decode(self, z: Tensor) -> Tensor:
        """Standardised latents → (B, C, H, W) in [0, 1] (Eq. 13)."""
        z = z * self.std + self.mean
        return self._pixels(self.bottleneck.quantize(z) if self.setting.quantize_on_decode else z)

    @property
    def decodes_unquantized(self) -> bool:
        """Whether a segmenter's masks are decoded from other latents than those a reconstruction is."""
        return not (self.setting.quantized or self.setting.quantize_on_decode)

    def reconstruct(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(original, reconstruction), both (B, C, H, W); a mask is the raters' consensus."""
        x = batch.image if self.setting.subject == "image" else raters_consensus(batch.truth())
        return x, self.round_trip(x)

    def round_trip(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] through encoder, bottleneck and decoder, as in training: latents are quantised."""
        return self._pixels(self.bottleneck.quantize(self.bottleneck.latent(self.encoder(x)).float()))

    def _pixels(self, z: Tensor) -> Tensor:
        """Latents as the decoder takes them → (B, C, H, W) in [0, 1]."""
        return self.setting.loss.probability(self.decoder(z).float()).clamp(0, 1)

    @torch.no_grad()
    def calibrate_latents(self, batches: Iterable[Batch], target: Target | None = None) -> None:
        """Measures mean and standard deviation of every latent channel over these batches, unless they are kept.

        target: the masks that the segmenter will learn, so that what diffuses has mean 0 and deviation 1.
        """
        if self.latents_kept:
            return
        count, total, squares = 0, torch.zeros_like(self.mean).double(), torch.zeros_like(self.mean).double()
        for batch in batches:
            z = self.raw_latent(self._subject(batch, target)).double()
            count += z.numel() // z.shape[1]
            total += z.sum(dim=(0, 2, 3))[:, None, None]
            squares += z.square().sum(dim=(0, 2, 3))[:, None, None]
        mean = total / count
        self.mean.copy_(mean)
        self.std.copy_((squares / count - mean.square()).clamp(min=1e-8).sqrt())


@dataclass(frozen=True)
class Pixels:
    """No compression: diffusion in pixel space, as the baselines do it."""

    channels: int
    factor = 1

    @property
    def latent_channels(self) -> int:
        return self.channels

    def build(self) -> "PixelCodec":
        return PixelCodec(self)


class PixelCodec(nn.Module):
    """See `Pixels`: [0, 1] ↔ [−1, 1], f = 1."""

    def __init__(self, setting: Pixels) -> None:
        super().__init__()
        self.setting = setting
        self.latent_channels = setting.latent_channels
        self.factor = setting.factor

    def encode(self, x: Tensor) -> Tensor:
        return 2 * x - 1

    def decode(self, z: Tensor) -> Tensor:
        return ((z + 1) / 2).clamp(0, 1)


CodecSetting = Autoencoder | Pixels


def same_codec(given: CodecSetting, wanted: CodecSetting, place: Path) -> None:
    """Weights that fit may still mean something else, as logits of a loss with another weight do: then a `ConfigError`."""
    changed = difference(to_dict(given), to_dict(wanted))
    if changed:
        raise ConfigError(f"{place} was trained with other settings ({changed[0]}): give the same to every stage")
