"""Pseudo linear multistep (Liu et al. 2022)."""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from manymask.diffusion.process import GaussianDiffusion, Process
from manymask.diffusion.samplers.base import Denoise, NoiseSource, register


@register
@dataclass(frozen=True)
class PLMS:
    """Pseudo linear multistep (Liu et al. 2022): Adams–Bashforth on ε̂, started by one Heun step, no Runge–Kutta.

    Not for fewer than five steps: where γ_T is next to 0, the Heun step moves z_s by −½ γ_s / (√γ_T √(1−γ_s)) of what ẑ_0
    changes between its ends, 6.3 times that with two steps, 0.1 times with five, whatever the network predicts.
    """

    label: ClassVar[str] = "PLMS"
    serves: ClassVar[tuple[type[Process], ...]] = (GaussianDiffusion,)
    deterministic: ClassVar[bool] = True
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
        z_s: Tensor = gamma_s**0.5 * z0 + (1 - gamma_s) ** 0.5 * epsilon
        return z_s
