"""From noise to a latent: the reverse process (Eq. 12) and its faster relatives.

A sampler is called with `denoise(z, t) → (ẑ_0, ε̂)`, the process (for its levels and time steps) and the source of noise; it
returns z_0. Every step goes from a time t to an earlier one, s, and ends where no noise is left. DDPM and PLMS are
written in γ and belong to `GaussianDiffusion`, Euler and Heun follow the velocity of a `RectifiedFlow`, the others serve both.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Protocol, get_args

from torch import Tensor

from manymask.choices import SamplerName
from manymask.diffusion.process import GaussianDiffusion, Process, RectifiedFlow
from manymask.errors import ConfigError

Denoise = Callable[
    [Tensor, Any], tuple[Tensor, Tensor]
]  # the time is an int for GaussianDiffusion, a float for RectifiedFlow


class NoiseSource(Protocol):
    """Anything that draws standard normal numbers for all rows of the batch."""

    def normal(self, *shape: int) -> Tensor: ...


@dataclass(frozen=True)
class DDPM:
    """The paper's reverse process, Eq. 12 corrected; with fewer steps than T, the same posterior between the chosen times."""

    serves: ClassVar = (GaussianDiffusion,)
    steps: int = 1000

    def __call__(self, denoise: Denoise, process: GaussianDiffusion, z: Tensor, noise: NoiseSource) -> Tensor:
        gamma = process.gamma.tolist()
        for t, s in pairwise(process.timesteps(self.steps)):
            _, epsilon = denoise(z, t)
            alpha = gamma[t] / gamma[s]
            # 1. the mean: the coefficient of ε is (1−α)/√(1−γ), not √(1−α)/√(1−γ) as printed
            z = (z - (1 - alpha) / (1 - gamma[t]) ** 0.5 * epsilon) / alpha**0.5
            # 2. the noise: σ² = β̃ = (1−γ_s)/(1−γ_t) (1−α), none at the last step, where s = 0
            if s > 0:
                sigma = ((1 - gamma[s]) / (1 - gamma[t]) * (1 - alpha)) ** 0.5
                z = z + sigma * noise.normal(*z.shape[1:]).to(z)
        return z


@dataclass(frozen=True)
class DDIM:
    """Song et al. 2020. `eta` = 0 is deterministic given the noise (and on a `RectifiedFlow` the same as Euler), 1 is ancestral."""

    serves: ClassVar = (GaussianDiffusion, RectifiedFlow)
    steps: int = 50
    eta: float = 0.0

    def __call__(self, denoise: Denoise, process: Process, z: Tensor, noise: NoiseSource) -> Tensor:
        for t, s in pairwise(process.timesteps(self.steps)):
            (a_t, s_t), (a_s, s_s) = process.alpha_sigma(t), process.alpha_sigma(s)  # type: ignore[arg-type]
            z0, epsilon = denoise(z, t)
            variance = (self.eta * s_s / s_t) ** 2 * (s_t**2 - (a_t / a_s * s_s) ** 2)  # η² β̃
            z = a_s * z0 + max(s_s**2 - variance, 0.0) ** 0.5 * epsilon
            if variance > 0:
                z = z + variance**0.5 * noise.normal(*z.shape[1:]).to(z)
        return z


@dataclass(frozen=True)
class PLMS:
    """Pseudo linear multistep (Liu et al. 2022): Adams–Bashforth on ε̂, started by one Heun step, no Runge–Kutta.

    Not for fewer than five steps: where γ_T is next to 0, the Heun step moves z_s by −½ γ_s / (√γ_T √(1−γ_s)) of what ẑ_0
    changes between its ends, 6.3 times that with two steps, 0.1 times with five, whatever the network predicts.
    """

    serves: ClassVar = (GaussianDiffusion,)
    steps: int = 50

    def __call__(self, denoise: Denoise, process: GaussianDiffusion, z: Tensor, noise: NoiseSource) -> Tensor:
        gamma, past = process.gamma.tolist(), list[Tensor]()
        for t, s in pairwise(process.timesteps(self.steps)):
            past = [denoise(z, t)[1], *past[:3]]
            if len(past) == 1 and s > 0:
                trial = self._transfer(gamma[t], gamma[s], z, past[0])
                epsilon = (past[0] + denoise(trial, s)[1]) / 2
            else:
                epsilon = self._extrapolate(past)
            z = self._transfer(gamma[t], gamma[s], z, epsilon)
        return z

    @staticmethod
    def _extrapolate(e: list[Tensor]) -> Tensor:
        """Adams–Bashforth of order 1 … 4 on equally spaced steps, newest first."""
        if len(e) == 1:
            return e[0]
        if len(e) == 2:
            return (3 * e[0] - e[1]) / 2
        if len(e) == 3:
            return (23 * e[0] - 16 * e[1] + 5 * e[2]) / 12
        return (55 * e[0] - 59 * e[1] + 37 * e[2] - 9 * e[3]) / 24

    @staticmethod
    def _transfer(gamma_t: float, gamma_s: float, z: Tensor, epsilon: Tensor) -> Tensor:
        """z_s = √γ_s ẑ_0 + √(1−γ_s) ε̂ (Song et al. 2020, Eq. 12 with η = 0)."""
        z0 = (z - (1 - gamma_t) ** 0.5 * epsilon) / gamma_t**0.5
        return gamma_s**0.5 * z0 + (1 - gamma_s) ** 0.5 * epsilon


@dataclass(frozen=True)
class DPMSolver:
    """DPM-Solver++(2M) (Lu et al. 2022): second order in λ = ln(a/s) on ẑ_0; first order at both ends."""

    serves: ClassVar = (GaussianDiffusion, RectifiedFlow)
    steps: int = 20

    def __call__(self, denoise: Denoise, process: Process, z: Tensor, noise: NoiseSource) -> Tensor:
        times: list[Any] = list(process.timesteps(self.steps))
        times[0] = min(times[0], process.t_max)  # λ must be finite
        if times[1] == times[0]:
            del times[0]
        past: tuple[float, Tensor] | None = None
        for t, s in pairwise(times):
            (a_t, s_t), (a_s, s_s) = process.alpha_sigma(t), process.alpha_sigma(s)
            z0, lam = denoise(z, t)[0], math.log(a_t / s_t)
            data = z0
            if past is not None and s_s > 0:
                # D = ẑ_0 + h/(2 h_prev) (ẑ_0 − ẑ_0,prev): the linear extrapolation to the middle of the step
                ratio = (math.log(a_s / s_s) - lam) / (lam - past[0])
                data = z0 + 0.5 * ratio * (z0 - past[1])
            decay = a_t / a_s * s_s / s_t  # e^{−h}
            z = s_s / s_t * z + a_s * (1 - decay) * data
            past = (lam, z0)
        return z


@dataclass(frozen=True)
class Euler:
    """z_s = z_t + (s − t) v with the velocity v = ε̂ − ẑ_0 of a `RectifiedFlow`; first order."""

    serves: ClassVar = (RectifiedFlow,)
    steps: int = 20

    def __call__(self, denoise: Denoise, process: RectifiedFlow, z: Tensor, noise: NoiseSource) -> Tensor:
        for t, s in pairwise(process.timesteps(self.steps)):
            z0, epsilon = denoise(z, t)
            z = z + (s - t) * (epsilon - z0)
        return z


@dataclass(frozen=True)
class Heun:
    """The mean of the velocities at both ends of an Euler step: second order, two evaluations a step."""

    serves: ClassVar = (RectifiedFlow,)
    steps: int = 10

    def __call__(self, denoise: Denoise, process: RectifiedFlow, z: Tensor, noise: NoiseSource) -> Tensor:
        for t, s in pairwise(process.timesteps(self.steps)):
            z0, epsilon = denoise(z, t)
            here = epsilon - z0
            z0, epsilon = denoise(z + (s - t) * here, s)
            z = z + (s - t) * (here + epsilon - z0) / 2
        return z


Sampler = DDPM | DDIM | PLMS | DPMSolver | Euler | Heun


def check_fit(sampler: Sampler, process: Process) -> None:
    """`ConfigError` if the sampler cannot run this process backwards, or takes more steps than it has."""
    if not isinstance(process, sampler.serves):
        matched_store = [kind.__name__ for kind in get_args(Sampler) if isinstance(process, kind.serves)]
        raise ConfigError(
            f"{type(sampler).__name__} cannot sample a {type(process).__name__}: choose {', '.join(matched_store)}"
        )
    if not 1 <= sampler.steps <= process.steps:
        raise ConfigError(
            f"the sampler takes {sampler.steps} steps, the process has 1 … {process.steps}", parameter="steps"
        )


SAMPLERS: dict[SamplerName, type] = {
    "ddpm": DDPM,
    "ddim": DDIM,
    "plms": PLMS,
    "dpm-solver": DPMSolver,
    "euler": Euler,
    "heun": Heun,
}
