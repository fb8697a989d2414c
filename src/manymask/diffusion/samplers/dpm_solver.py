"""DPM-Solver++ of second order (Lu et al. 2022)."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

from torch import Tensor

from manymask.diffusion.process import GaussianDiffusion, Process, RectifiedFlow
from manymask.diffusion.samplers.base import Denoise, NoiseSource, register


@register
@dataclass(frozen=True)
class DPMSolver:
    """DPM-Solver++(2M) (Lu et al. 2022): second order in λ = ln(a/s) on ẑ_0; first order at both ends."""

    label: ClassVar[str] = "DPM-Solver++"
    serves: ClassVar[tuple[type[Process], ...]] = (GaussianDiffusion, RectifiedFlow)
    deterministic: ClassVar[bool] = True
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
