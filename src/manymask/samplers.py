"""From noise to a latent: the reverse process (Eq. 12) and its faster relatives.

A sampler is called with `denoise(z, t) → (ẑ_0, ε̂)`, the process (for γ and the knots) and the source of noise; it
returns z_0. All steps are written in γ: for a step from t to s < t, γ_t < γ_s, and γ = 1 at the end.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal, Protocol

from torch import Tensor

from manymask.errors import UserError
from manymask.process import Diffusion

Denoise = Callable[[Tensor, int], tuple[Tensor, Tensor]]


class NoiseSource(Protocol):
    """Anything that draws standard normal numbers for all rows of the batch."""

    def normal(self, *shape: int) -> Tensor: ...


def _ddim(gamma_s: float, z0: Tensor, epsilon: Tensor) -> Tensor:
    """z_s = √γ_s ẑ_0 + √(1−γ_s) ε̂ (Song et al. 2020, Eq. 12 with η = 0)."""
    return gamma_s**0.5 * z0 + (1 - gamma_s) ** 0.5 * epsilon


@dataclass(frozen=True)
class DDPM:
    """The paper's reverse process, Eq. 12 corrected; with fewer steps than T, the same posterior between the knots."""

    steps: int = 1000

    def __call__(self, denoise: Denoise, process: Diffusion, z: Tensor, noise: NoiseSource) -> Tensor:
        gamma = process.gamma.tolist()
        for t, s in pairwise(process.knots(self.steps)):
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
    """Song et al. 2020. `eta` = 0 is deterministic given the noise, 1 is ancestral."""

    steps: int = 50
    eta: float = 0.0

    def __call__(self, denoise: Denoise, process: Diffusion, z: Tensor, noise: NoiseSource) -> Tensor:
        gamma = process.gamma.tolist()
        for t, s in pairwise(process.knots(self.steps)):
            z0, epsilon = denoise(z, t)
            variance = self.eta**2 * (1 - gamma[s]) / (1 - gamma[t]) * (1 - gamma[t] / gamma[s])
            z = gamma[s] ** 0.5 * z0 + max(1 - gamma[s] - variance, 0.0) ** 0.5 * epsilon
            if variance > 0:
                z = z + variance**0.5 * noise.normal(*z.shape[1:]).to(z)
        return z


@dataclass(frozen=True)
class PLMS:
    """Pseudo linear multistep (Liu et al. 2022): Adams–Bashforth on ε̂, started by one Heun step, no Runge–Kutta."""

    steps: int = 50

    def __call__(self, denoise: Denoise, process: Diffusion, z: Tensor, noise: NoiseSource) -> Tensor:
        gamma, past = process.gamma.tolist(), list[Tensor]()
        for t, s in pairwise(process.knots(self.steps)):
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
        return _ddim(gamma_s, (z - (1 - gamma_t) ** 0.5 * epsilon) / gamma_t**0.5, epsilon)


@dataclass(frozen=True)
class DPMSolver:
    """DPM-Solver++(2M) (Lu et al. 2022): second order in λ = ½ ln(γ/(1−γ)) on ẑ_0; first order at both ends."""

    steps: int = 20

    def __call__(self, denoise: Denoise, process: Diffusion, z: Tensor, noise: NoiseSource) -> Tensor:
        gamma = process.gamma
        lam = (0.5 * (gamma / (1 - gamma)).log()).tolist()
        knots = process.knots(self.steps)
        previous: tuple[int, Tensor] | None = None
        for t, s in pairwise(knots):
            z0, _ = denoise(z, t)
            data = z0
            if previous is not None and s > 0:
                # D = ẑ_0 + h/(2 h_prev) (ẑ_0 − ẑ_0,prev): the linear extrapolation to the middle of the step
                ratio = (lam[s] - lam[t]) / (lam[t] - lam[previous[0]])
                data = z0 + 0.5 * ratio * (z0 - previous[1])
            sigma_ratio = float(((1 - gamma[s]) / (1 - gamma[t])).sqrt())
            decay = float((gamma[t] / gamma[s]).sqrt()) * sigma_ratio  # e^{−h}
            z = sigma_ratio * z + float(gamma[s].sqrt()) * (1 - decay) * data
            previous = (t, z0)
        return z


Sampler = DDPM | DDIM | PLMS | DPMSolver
SamplerName = Literal["ddpm", "ddim", "plms", "dpm-solver"]


def choose(name: SamplerName | None, steps: int | None, model: Any) -> Sampler | None:
    """The sampler asked for; what is not given stays as the model has it. None for a model that samples nothing.

    `UserError` for steps outside of the process.
    """
    own = getattr(model.setting, "sampler", None)
    if own is None or (name is None and steps is None):
        return None
    longest = model.setting.process.steps
    if steps is not None and not 1 <= steps <= longest:
        raise UserError(f"--steps must lie in 1 … {longest}, not {steps}")
    kind: Any = {"ddpm": DDPM, "ddim": DDIM, "plms": PLMS, "dpm-solver": DPMSolver}[name] if name else type(own)
    chosen = own if kind is type(own) else kind()
    return replace(chosen, steps=steps or min(chosen.steps, longest))
