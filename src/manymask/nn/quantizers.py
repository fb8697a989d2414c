"""Bottlenecks between encoder and decoder: vector quantisation (Eq. 8–9), a Gaussian (KL), or finite scalars (FSQ).

Each is built for c latent channels and offers three methods. `forward(h)` returns `(z, loss, logs)` for training,
`latent(h)` the continuous latent, and `quantize(z)` the nearest latent that the decoder was trained on. Encoder outputs h
are (B, inputs, h, w), where the attribute `inputs` is a multiple of c; latents z are (B, c, h, w).
"""

import math
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

Bottled = tuple[Tensor, Tensor, dict[str, Tensor]]  # latent, loss of the bottleneck, values to log


@dataclass(frozen=True)
class VQ:
    """Vector quantisation (van den Oord et al. 2017).

    The codebook starts from encoder outputs, and unused codes are replaced by encoder outputs drawn at random. Without
    these a mask codebook collapses to a handful of codes.

    Attributes:
        codebook_size: number of codes, K.
        commitment_weight: β of Eq. 9.
        revive_after: steps after which an unused code is replaced.
    """

    codebook_size: int = 512
    commitment_weight: float = 0.25
    revive_after: int = 50

    def build(self, channels: int) -> "VectorQuantizer":
        """The bottleneck of latents with so many channels."""
        return VectorQuantizer(self, channels)


def _of_all_processes(rows: Tensor) -> Tensor:
    """The rows of all processes in this step, in the order of one process with the whole batch."""
    if not (dist.is_available() and dist.is_initialized()):
        return rows
    gathered = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, rows.contiguous())
    return torch.cat(gathered)


class VectorQuantizer(nn.Module):
    """See `VQ`.

    Args:
        setting: its configuration.
        channels: c, latent channels.

    Attributes:
        idle: steps since each code was last used, (K,) int64; −1 everywhere before the first batch.
    """

    idle: Tensor

    def __init__(self, setting: VQ, channels: int) -> None:
        super().__init__()
        self.setting = setting
        self.inputs = channels
        self.codebook = nn.Parameter(torch.randn(setting.codebook_size, channels) * 0.1)
        self.register_buffer("idle", torch.full((setting.codebook_size,), -1, dtype=torch.int64))

    def nearest(self, vectors: Tensor) -> Tensor:
        """Indices of the nearest codes by Euclidean distance.

        Args:
            vectors: (N, c).

        Returns:
            (N,) int64 in [0, K).
        """
        with torch.autocast(vectors.device.type, enabled=False):  # in half precision the wrong code would win
            codebook = self.codebook.float()
            # ‖v‖² is the same for all codes and left out
            return (codebook.square().sum(1) - 2 * vectors.float() @ codebook.T).argmin(1)

    def _lookup(self, h: Tensor) -> tuple[Tensor, Tensor]:
        vectors = h.movedim(1, -1)
        index = self.nearest(vectors.reshape(-1, h.shape[1]).detach())
        return self.codebook[index].reshape(vectors.shape).movedim(-1, 1), index

    def forward(self, h: Tensor) -> Bottled:
        """Quantise with a straight-through gradient.

        Args:
            h: encoder outputs (B, c, h, w).

        Returns:
            The quantised latent (B, c, h, w), float32; the loss of Eq. 8 and 9, a scalar; and the perplexity of the codes.
        """
        h = h.float()
        if self.training:
            self._revive(_of_all_processes(h.detach().movedim(1, -1).reshape(-1, h.shape[1])))
        quantized, index = self._lookup(h)
        codebook_loss = F.mse_loss(quantized, h.detach())  # Eq. 8
        commitment = F.mse_loss(h, quantized.detach())  # Eq. 9
        if self.training:
            index = _of_all_processes(index)
        share = torch.bincount(index, minlength=self.setting.codebook_size) / len(index)
        if self.training:
            self.idle.add_(1).masked_fill_(share > 0, 0)
        perplexity = torch.exp(-(share * (share + 1e-10).log()).sum())
        straight_through = h + (quantized - h).detach()
        return straight_through, codebook_loss + self.setting.commitment_weight * commitment, {"perplexity": perplexity}

    @torch.no_grad()
    def _revive(self, vectors: Tensor) -> None:
        """Give every unused code (all of them at the first batch) an encoder output drawn at random."""
        first = bool((self.idle < 0).all())
        dead = torch.ones_like(self.idle, dtype=torch.bool) if first else self.idle >= self.setting.revive_after
        count = int(dead.sum())
        if not count:
            return
        drawn = torch.randint(len(vectors), (count,), device="cpu").to(vectors.device)
        jitter = 1e-3 * vectors.std() * torch.randn(count, vectors.shape[1]).to(vectors)
        self.codebook[dead] = (vectors[drawn] + jitter).to(self.codebook.dtype)
        self.idle[dead] = 0

    def latent(self, h: Tensor) -> Tensor:
        """The encoder output itself, (B, c, h, w)."""
        return h

    def quantize(self, z: Tensor) -> Tensor:
        """The nearest codebook entry at each position, z̄ = Q(z), shaped and typed as z."""
        quantized, _ = self._lookup(z.float())
        return quantized.to(z.dtype)


@dataclass(frozen=True)
class KL:
    """A diagonal Gaussian posterior (Kingma & Welling 2013).

    Attributes:
        weight: of the KL divergence from N(0, I), averaged over elements.
    """

    weight: float = 1e-4

    def build(self, channels: int) -> "GaussianBottleneck":
        """The bottleneck of latents with so many channels."""
        return GaussianBottleneck(self, channels)


class GaussianBottleneck(nn.Module):
    """See `KL`. Encoder outputs (B, 2c, h, w) hold mean and log-variance; the latent is the mean.

    Args:
        setting: its configuration.
        channels: c, latent channels.
    """

    def __init__(self, setting: KL, channels: int) -> None:
        super().__init__()
        self.setting = setting
        self.inputs = 2 * channels

    def forward(self, h: Tensor) -> Bottled:
        """A sample of the posterior in training mode, else its mean.

        Args:
            h: encoder outputs (B, 2c, h, w).

        Returns:
            The latent (B, c, h, w), float32; the weighted KL divergence, a scalar; and the KL divergence to log.
        """
        mean, log_variance = h.float().chunk(2, dim=1)
        log_variance = log_variance.clamp(-20, 10)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        noise = torch.randn_like(mean) if self.training else torch.zeros_like(mean)
        z = mean + (0.5 * log_variance).exp() * noise
        return z, self.setting.weight * kl, {"kl": kl.detach()}

    def latent(self, h: Tensor) -> Tensor:
        """The mean (B, c, h, w)."""
        return h.chunk(2, dim=1)[0]

    def quantize(self, z: Tensor) -> Tensor:
        """The latent as it is: there is no grid."""
        return z


@dataclass(frozen=True)
class FSQ:
    """Finite scalar quantisation (Mentzer et al. 2023): every channel is bounded and rounded.

    Attributes:
        levels: number of values on each channel.
    """

    levels: int = 8

    def build(self, channels: int) -> "ScalarQuantizer":
        """The bottleneck of latents with so many channels."""
        return ScalarQuantizer(self, channels)


class ScalarQuantizer(nn.Module):
    """See `FSQ`. Latents lie in [−1, 1], a grid of `levels` values on every channel; there is no loss.

    Args:
        setting: its configuration.
        channels: c, latent channels.
    """

    def __init__(self, setting: FSQ, channels: int) -> None:
        super().__init__()
        self.setting = setting
        self.inputs = channels

    def forward(self, h: Tensor) -> Bottled:
        """Round with a straight-through gradient.

        Args:
            h: encoder outputs (B, c, h, w).

        Returns:
            The rounded latent (B, c, h, w), float32; a loss of 0; and the bits per position to log.
        """
        bounded = self.latent(h.float())
        z = bounded + (self.quantize(bounded) - bounded).detach()
        bits = h.new_tensor(h.shape[1] * math.log2(self.setting.levels))
        return z, h.new_zeros(()), {"bits": bits}

    def latent(self, h: Tensor) -> Tensor:
        """The encoder output bounded to (−1, 1)."""
        return torch.tanh(h)

    def quantize(self, z: Tensor) -> Tensor:
        """The nearest of the values in [−1, 1] on each channel, shaped as z."""
        half = (self.setting.levels - 1) / 2
        return torch.round((z.clamp(-1, 1) + 1) * half) / half - 1


Bottleneck = VQ | KL | FSQ
