"""Denoising diffusion implicit models (Song et al. 2020)."""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from manymask.diffusion.process import GaussianDiffusion, Process, RectifiedFlow
from manymask.diffusion.samplers.base import Denoise, NoiseSource, register


@register
@dataclass(frozen=True)
class DDIM:
    """Song et al. 2020. `eta` = 0 is deterministic given the noise (on a `RectifiedFlow` the same as Euler), 1 is ancestral."""

    label: ClassVar[str] = "DDIM"
    serves: ClassVar[tuple[type[Process], ...]] = (GaussianDiffusion, RectifiedFlow)
    deterministic: ClassVar[bool] = True
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
