"""The forward process in latent space (Eq. 2–3) and the targets of the network.

Either process is z_t = a_t z_0 + s_t ε, and `alpha_sigma(t)` returns (a_t, s_t). Times run from T (or 1), where z_t is pure
noise, to 0. `t_max` is the last time with a_t > 0, `steps` the largest number of steps of a sampler. Latents and noise are
(B, c, h, w), times (B,).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import torch
from torch import Tensor

from manymask.rng import TrainingNoise


@dataclass(frozen=True)
class GaussianDiffusion:
    """The variance-preserving process of DDPM with a linear β schedule, and the network's target: ε, x₀ or v.

    a_t = √γ_t and s_t = √(1−γ_t) with γ_t = ∏_{i≤t} α_i, t = 1 … T, and γ_0 = 1.

    Attributes:
        prediction: the network's target, ε, x₀ or v.
        steps: T.
        beta_start: β_1.
        beta_end: β_T.
        min_snr: cap of the loss weights by signal-to-noise ratio (Min-SNR-γ, Hang et al. 2023); None weights all times
            alike.
    """

    prediction: Literal["epsilon", "x0", "v"] = "epsilon"
    steps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    min_snr: float | None = None

    @property
    def t_max(self) -> int:
        """T."""
        return self.steps

    @cached_property
    def gamma(self) -> Tensor:
        """γ_0 … γ_T, (T + 1,), float64 on the CPU."""
        beta = torch.linspace(self.beta_start, self.beta_end, self.steps, dtype=torch.float64)
        return torch.cat([torch.ones(1, dtype=torch.float64), (1 - beta).cumprod(0)])

    def alpha_sigma(self, t: int) -> tuple[float, float]:
        """(√γ_t, √(1−γ_t)) in double precision."""
        gamma = float(self.gamma[t])
        return gamma**0.5, (1 - gamma) ** 0.5

    def time_input(self, t: Tensor) -> Tensor:
        """Time input of the network, in [0, 1000]."""
        return t

    @cached_property
    def _tables(self) -> dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]]:
        """√γ and √(1−γ), once for each device and type, so that no step waits for a transfer."""
        return {}

    def _scales(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """√γ_t and √(1−γ_t) for t (B,) on the device of `like` (B, …), shaped and typed to multiply it."""
        key = (like.device, like.dtype)
        if key not in self._tables:
            self._tables[key] = (self.gamma.sqrt().to(like), (1 - self.gamma).sqrt().to(like))
        shape = (-1, *[1] * (like.dim() - 1))
        signal, sigma = self._tables[key]
        return signal[t].reshape(shape), sigma[t].reshape(shape)

    def draw_times(self, noise: TrainingNoise, images: int, levels: int = 1) -> Tensor:
        """Draw time steps for training.

        Args:
            noise: source of random numbers.
            images: B.
            levels: noise levels per image.

        Returns:
            (B · levels,) int64 in 1 … T, image by image.
        """
        u = stratified(noise, images, levels)
        return 1 + (self.steps * u).long().clamp(max=self.steps - 1)

    def add_noise(self, z0: Tensor, epsilon: Tensor, t: Tensor) -> Tensor:
        """z_t of Eq. 3, from z_0 and ε (B, c, h, w) at times t (B,)."""
        signal, sigma = self._scales(t, z0)
        return signal * z0 + sigma * epsilon

    def target(self, z0: Tensor, epsilon: Tensor, t: Tensor) -> Tensor:
        """The network's target: ε (Eq. 4), z_0, or v = √γ ε − √(1−γ) z_0 (Salimans & Ho 2022).

        Args:
            z0: latents (B, c, h, w).
            epsilon: noise (B, c, h, w).
            t: times (B,) int64.

        Returns:
            (B, c, h, w).
        """
        if self.prediction == "epsilon":
            return epsilon
        if self.prediction == "x0":
            return z0
        signal, sigma = self._scales(t, z0)
        return signal * epsilon - sigma * z0

    def loss_weight(self, t: Tensor) -> Tensor:
        """The weight of the square error at each time.

        With `min_snr` it is that of an error of x₀ of min(SNR, `min_snr`), SNR = γ / (1 − γ), whatever is predicted: an
        error of ε is one of x₀ times √SNR, one of v times √(SNR + 1).

        Args:
            t: times (B,) int64.

        Returns:
            (B,), float32.
        """
        if self.min_snr is None:
            return torch.ones(t.shape, device=t.device)
        signal, sigma = self._scales(t, torch.ones(len(t), device=t.device))
        snr = (signal / sigma).square()
        per_unit = {"epsilon": snr, "x0": torch.ones_like(snr), "v": snr + 1}[self.prediction]
        return snr.clamp(max=self.min_snr) / per_unit

    def to_x0_eps(self, output: Tensor, z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Invert Eq. 3 for whatever the network did not predict.

        Args:
            output: of the network, (B, c, h, w).
            z: z_t (B, c, h, w).
            t: times (B,) int64.

        Returns:
            ẑ_0 and ε̂, both (B, c, h, w).
        """
        signal, sigma = self._scales(t, z)
        if self.prediction == "epsilon":
            return (z - sigma * output) / signal, output
        if self.prediction == "x0":
            return output, (z - signal * output) / sigma
        return signal * z - sigma * output, sigma * z + signal * output

    def timesteps(self, steps: int) -> list[int]:
        """Times of a sampler with `trailing` spacing, which starts at T (Lin et al. 2024).

        Args:
            steps: number of steps, 1 … T.

        Returns:
            T = t_0 > … > t_steps = 0, where γ = 1.

        Raises:
            ValueError: the number of steps is out of range.
        """
        if not 1 <= steps <= self.steps:
            raise ValueError(f"steps must lie in 1 … {self.steps}, not {steps}")
        return [round(self.steps * (steps - i) / steps) for i in range(steps + 1)]


@dataclass(frozen=True)
class RectifiedFlow:
    """Flow matching along straight lines (Lipman et al. 2022; Liu et al. 2022): z_t = (1−t) z_0 + t ε, t in [0, 1].

    The network predicts the velocity dz/dt = ε − z_0; a sampler follows it from t = 1 to 0.

    Attributes:
        prediction: the network's target.
        steps: largest number of steps of a sampler.
        t_max: last time at which a sampler that needs a_t > 0 may start.
    """

    prediction: ClassVar[str] = "velocity"
    steps: ClassVar[int] = 1000
    t_max: ClassVar[float] = 0.999

    def alpha_sigma(self, t: float) -> tuple[float, float]:
        """(1 − t, t)."""
        return 1 - t, t

    def time_input(self, t: Tensor) -> Tensor:
        """Time input of the network, in [0, 1000]."""
        return 1000 * t

    def draw_times(self, noise: TrainingNoise, images: int, levels: int = 1) -> Tensor:
        """Draw times for training.

        Args:
            noise: source of random numbers.
            images: B.
            levels: noise levels per image.

        Returns:
            (B · levels,), uniform on [0, 1), image by image.
        """
        return stratified(noise, images, levels)

    def add_noise(self, z0: Tensor, epsilon: Tensor, t: Tensor) -> Tensor:
        """z_t, from z_0 and ε (B, c, h, w) at times t (B,)."""
        t = _beside(t, z0)
        return (1 - t) * z0 + t * epsilon

    def target(self, z0: Tensor, epsilon: Tensor, t: Tensor) -> Tensor:
        """ε − z_0 (B, c, h, w), at any time."""
        return epsilon - z0

    def loss_weight(self, t: Tensor) -> Tensor:
        """1 at each of the times t (B,)."""
        return torch.ones(t.shape, device=t.device)

    def to_x0_eps(self, output: Tensor, z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """ẑ_0 = z_t − t v and ε̂ = z_t + (1 − t) v.

        Args:
            output: the velocity v, (B, c, h, w).
            z: z_t (B, c, h, w).
            t: times (B,).

        Returns:
            ẑ_0 and ε̂, both (B, c, h, w).
        """
        t = _beside(t, z)
        return z - t * output, z + (1 - t) * output

    def timesteps(self, steps: int) -> list[float]:
        """Times of a sampler, equally spaced.

        Args:
            steps: number of steps, 1 … 1000.

        Returns:
            1 = t_0 > … > t_steps = 0.

        Raises:
            ValueError: the number of steps is out of range.
        """
        if not 1 <= steps <= self.steps:
            raise ValueError(f"steps must lie in 1 … {self.steps}, not {steps}")
        return [(steps - i) / steps for i in range(steps + 1)]


def stratified(noise: TrainingNoise, images: int, levels: int) -> Tensor:
    """Uniform numbers that are evenly spread for each image.

    Every image is then trained with high and low noise at every step.

    Args:
        noise: source of random numbers.
        images: B.
        levels: numbers per image.

    Returns:
        (B · levels,) in [0, 1), image by image, each uniformly distributed.
    """
    return ((noise.uniform(images)[:, None] + torch.arange(levels) / levels) % 1).flatten()


def _beside(t: Tensor, like: Tensor) -> Tensor:
    """Times (B,) shaped and typed to multiply `like` (B, …)."""
    return t.to(like).reshape(-1, *[1] * (like.dim() - 1))


Process = GaussianDiffusion | RectifiedFlow
