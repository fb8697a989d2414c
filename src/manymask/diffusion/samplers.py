"""From noise to a latent: the reverse process (Eq. 12) and its faster relatives.

A sampler is called with `denoise(z, t) → (ẑ_0, ε̂)`, the process (for its levels and knots) and the source of noise; it
returns z_0. Every step goes from a time t to an earlier one, s, and ends where no noise is left. DDPM and PLMS are
written in γ and belong to `Diffusion`, Euler and Heun follow the velocity of a `Flow`, the others serve both.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, Protocol, get_args

from torch import Tensor

from manymask.choices import SamplerName
from manymask.diffusion.process import Diffusion, Flow, Process
from manymask.errors import UserError

Denoise = Callable[[Tensor, Any], tuple[Tensor, Tensor]]  # the time is an int for Diffusion, a float for Flow


class NoiseSource(Protocol):
    """Anything that draws standard normal numbers for all rows of the batch."""

    def normal(self, *shape: int) -> Tensor: ...


@dataclass(frozen=True)
class DDPM:
    """The paper's reverse process, Eq. 12 corrected; with fewer steps than T, the same posterior between the knots."""

    serves: ClassVar = (Diffusion,)
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
    """Song et al. 2020. `eta` = 0 is deterministic given the noise (and on a `Flow` the same as Euler), 1 is ancestral."""

    serves: ClassVar = (Diffusion, Flow)
    steps: int = 50
    eta: float = 0.0

    def __call__(self, denoise: Denoise, process: Process, z: Tensor, noise: NoiseSource) -> Tensor:
        for t, s in pairwise(process.knots(self.steps)):
            (a_t, s_t), (a_s, s_s) = process.level(t), process.level(s)  # type: ignore[arg-type]
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

    serves: ClassVar = (Diffusion,)
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
        """z_s = √γ_s ẑ_0 + √(1−γ_s) ε̂ (Song et al. 2020, Eq. 12 with η = 0)."""
        z0 = (z - (1 - gamma_t) ** 0.5 * epsilon) / gamma_t**0.5
        return gamma_s**0.5 * z0 + (1 - gamma_s) ** 0.5 * epsilon


@dataclass(frozen=True)
class DPMSolver:
    """DPM-Solver++(2M) (Lu et al. 2022): second order in λ = ln(a/s) on ẑ_0; first order at both ends."""

    serves: ClassVar = (Diffusion, Flow)
    steps: int = 20

    def __call__(self, denoise: Denoise, process: Process, z: Tensor, noise: NoiseSource) -> Tensor:
        knots: list[Any] = list(process.knots(self.steps))
        knots[0] = min(knots[0], process.latest)  # λ must be finite
        if knots[1] == knots[0]:
            del knots[0]
        past: tuple[float, Tensor] | None = None
        for t, s in pairwise(knots):
            (a_t, s_t), (a_s, s_s) = process.level(t), process.level(s)
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
    """z_s = z_t + (s − t) v with the velocity v = ε̂ − ẑ_0 of a `Flow`; first order."""

    serves: ClassVar = (Flow,)
    steps: int = 20

    def __call__(self, denoise: Denoise, process: Flow, z: Tensor, noise: NoiseSource) -> Tensor:
        for t, s in pairwise(process.knots(self.steps)):
            z0, epsilon = denoise(z, t)
            z = z + (s - t) * (epsilon - z0)
        return z


@dataclass(frozen=True)
class Heun:
    """The mean of the velocities at both ends of an Euler step: second order, two evaluations a step."""

    serves: ClassVar = (Flow,)
    steps: int = 10

    def __call__(self, denoise: Denoise, process: Flow, z: Tensor, noise: NoiseSource) -> Tensor:
        for t, s in pairwise(process.knots(self.steps)):
            z0, epsilon = denoise(z, t)
            here = epsilon - z0
            z0, epsilon = denoise(z + (s - t) * here, s)
            z = z + (s - t) * (here + epsilon - z0) / 2
        return z


Sampler = DDPM | DDIM | PLMS | DPMSolver | Euler | Heun


def check_fit(sampler: Sampler, process: Process) -> None:
    """`UserError` if the sampler cannot run this process backwards, or takes more steps than it has."""
    if not isinstance(process, sampler.serves):
        fitting = [kind.__name__ for kind in get_args(Sampler) if isinstance(process, kind.serves)]
        raise UserError(
            f"{type(sampler).__name__} cannot sample a {type(process).__name__}: choose {', '.join(fitting)}"
        )
    if not 1 <= sampler.steps <= process.steps:
        raise UserError(f"the sampler takes {sampler.steps} steps, the process has 1 … {process.steps}")


KINDS: dict[SamplerName, type] = {
    "ddpm": DDPM,
    "ddim": DDIM,
    "plms": PLMS,
    "dpm-solver": DPMSolver,
    "euler": Euler,
    "heun": Heun,
}


def choose(name: SamplerName | None, steps: int | None, model: Any) -> Sampler | None:
    """The sampler asked for, by its name in `KINDS`; what is not given stays as the model has it. None for a model that
    samples nothing.

    `UserError` for steps outside of the process.
    """
    own = getattr(model.setting, "sampler", None)
    if own is None or (name is None and steps is None):
        return None
    longest = model.setting.process.steps
    if steps is not None and not 1 <= steps <= longest:
        raise UserError(f"--steps must lie in 1 … {longest}, not {steps}")
    kind: Any = KINDS[name] if name else type(own)
    chosen = own if kind is type(own) else kind()
    chosen = replace(chosen, steps=steps or min(chosen.steps, longest))
    check_fit(chosen, model.setting.process)
    return chosen
