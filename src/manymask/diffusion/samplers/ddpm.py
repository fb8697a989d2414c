"""The paper's reverse process (Eq. 12)."""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from manymask.diffusion.process import GaussianDiffusion, Process
from manymask.diffusion.samplers.base import Denoise, NoiseSource, register


@register
@dataclass(frozen=True)
class DDPM:
    """The paper's reverse process, Eq. 12 corrected; with fewer steps than T, the same posterior between the chosen times."""

    label: ClassVar[str] = "DDPM"
    serves: ClassVar[tuple[type[Process], ...]] = (GaussianDiffusion,)
    deterministic: ClassVar[bool] = False
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
