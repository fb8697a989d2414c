"""Euler's method along the velocity of a `RectifiedFlow`."""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from manymask.diffusion.process import Process, RectifiedFlow
from manymask.diffusion.samplers.base import Denoise, NoiseSource, register


@register
@dataclass(frozen=True)
class Euler:
    """z_s = z_t + (s − t) v with the velocity v = ε̂ − ẑ_0 of a `RectifiedFlow`; first order."""

    label: ClassVar[str] = "Euler"
    serves: ClassVar[tuple[type[Process], ...]] = (RectifiedFlow,)
    deterministic: ClassVar[bool] = True
    steps: int = 20

    def __call__(self, denoise: Denoise, process: RectifiedFlow, z: Tensor, noise: NoiseSource) -> Tensor:
        for t, s in pairwise(process.timesteps(self.steps)):
            z0, epsilon = denoise(z, t)
            z = z + (s - t) * (epsilon - z0)
        return z
