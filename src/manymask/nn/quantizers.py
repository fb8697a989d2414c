"""What stands between encoder and decoder: vector quantisation (Eq. 8–9), a Gaussian (KL), or finite scalars (FSQ).

Each is built for c latent channels and offers: `forward(h) → (z, loss, logs)` for training, `latent(h)`, the continuous
latent, and `quantize(z)`, the nearest latent that the decoder was trained on. `inputs` is how many channels h has.
"""

import math
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

Bottled = tuple[Tensor, Tensor, dict[str, Tensor]]


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
        return VectorQuantizer(self, channels)


def _of_all_processes(rows: Tensor) -> Tensor:
    """The rows that all processes see in this step, in the order of one process with the whole batch."""
    if not (dist.is_available() and dist.is_initialized()):
        return rows
    gathered = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, rows.contiguous())
    return torch.cat(gathered)


class VectorQuantizer(nn.Module):
    """See `VQ`. `idle` counts the steps since each code was last used; −1 everywhere before the first batch."""

    idle: Tensor

    def __init__(self, setting: VQ, channels: int) -> None:
        super().__init__()
        self.setting, self.inputs = setting, channels
        self.codebook = nn.Parameter(torch.randn(setting.codebook_size, channels) * 0.1)
        self.register_buffer("idle", torch.full((setting.codebook_size,), -1, dtype=torch.int64))

    def nearest(self, vectors: Tensor) -> Tensor:
        """Indices (N,) of the codes nearest to vectors (N, c); ‖v‖² is the same for all codes and left out."""
        with torch.autocast(vectors.device.type, enabled=False):  # in half precision the wrong code would win
            codebook = self.codebook.float()
            return (codebook.square().sum(1) - 2 * vectors.float() @ codebook.T).argmin(1)

    def _lookup(self, h: Tensor) -> tuple[Tensor, Tensor]:
        vectors = h.movedim(1, -1)
        index = self.nearest(vectors.reshape(-1, h.shape[1]).detach())
        return self.codebook[index].reshape(vectors.shape).movedim(-1, 1), index

    def forward(self, h: Tensor) -> Bottled:
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
        """Give every dead code (all of them at the first batch) an encoder output drawn at random."""
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
        return h

    def quantize(self, z: Tensor) -> Tensor:
        """The nearest codebook entry at each position, z̄ = Q(z)."""
        return self._lookup(z.float())[0].to(z.dtype)


@dataclass(frozen=True)
class KL:
    """A diagonal Gaussian posterior (Kingma & Welling 2013) with a light pull of `weight` towards N(0, I)."""

    weight: float = 1e-4

    def build(self, channels: int) -> "GaussianBottleneck":
        return GaussianBottleneck(self, channels)


class GaussianBottleneck(nn.Module):
    """See `KL`: h holds mean and log-variance; the latent is the mean."""

    def __init__(self, setting: KL, channels: int) -> None:
        super().__init__()
        self.setting, self.inputs = setting, 2 * channels

    def forward(self, h: Tensor) -> Bottled:
        mean, log_variance = h.float().chunk(2, dim=1)
        log_variance = log_variance.clamp(-20, 10)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        noise = torch.randn_like(mean) if self.training else torch.zeros_like(mean)
        return mean + (0.5 * log_variance).exp() * noise, self.setting.weight * kl, {"kl": kl.detach()}

    def latent(self, h: Tensor) -> Tensor:
        return h.chunk(2, dim=1)[0]

    def quantize(self, z: Tensor) -> Tensor:
        return z


@dataclass(frozen=True)
class FSQ:
    """Finite scalar quantisation (Mentzer et al. 2023): every channel is bounded and rounded to `levels` values."""

    levels: int = 8

    def build(self, channels: int) -> "ScalarQuantizer":
        return ScalarQuantizer(self, channels)


class ScalarQuantizer(nn.Module):
    """See `FSQ`: latents lie in [−1, 1], a grid of `levels` values on every channel; no loss of its own."""

    def __init__(self, setting: FSQ, channels: int) -> None:
        super().__init__()
        self.setting, self.inputs = setting, channels

    def forward(self, h: Tensor) -> Bottled:
        bounded = self.latent(h.float())
        z = bounded + (self.quantize(bounded) - bounded).detach()
        return z, h.new_zeros(()), {"bits": h.new_tensor(h.shape[1] * math.log2(self.setting.levels))}

    def latent(self, h: Tensor) -> Tensor:
        return torch.tanh(h)

    def quantize(self, z: Tensor) -> Tensor:
        half = (self.setting.levels - 1) / 2
        return torch.round((z.clamp(-1, 1) + 1) * half) / half - 1


Bottleneck = VQ | KL | FSQ
