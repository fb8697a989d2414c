"""Heun's method along the velocity of a `RectifiedFlow`."""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from manymask.diffusion.process import Process, RectifiedFlow
from manymask.diffusion.samplers.base import Denoise, NoiseSource, register


@register
@dataclass(frozen=True)
class Heun:
    """The mean of the velocities at both ends of an Euler step: second order, two evaluations a step."""

    label: ClassVar[str] = "Heun"
    serves: ClassVar[tuple[type[Process], ...]] = (RectifiedFlow,)
    deterministic: ClassVar[bool] = True
    steps: int = 10

    def __call__(self, denoise: Denoise, process: RectifiedFlow, z: Tensor, noise: NoiseSource) -> Tensor:
        for t, s in pairwise(process.timesteps(self.steps)):
            z0, epsilon = denoise(z, t)
            here = epsilon - z0
            z0, epsilon = denoise(z + (s - t) * here, s)
            z = z + (s - t) * (here + epsilon - z0) / 2
        return z
