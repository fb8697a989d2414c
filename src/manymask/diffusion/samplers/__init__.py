"""From noise to a latent: the reverse process (Eq. 12) and its faster relatives, a file each.

A sampler is called with `denoise(z, t) → (ẑ_0, ε̂)`, the process (for its levels and time steps) and the source of noise; it
returns z_0. Every step goes from a time t to an earlier one, s, and ends where no noise is left. DDPM and PLMS are
written in γ and belong to `GaussianDiffusion`, Euler and Heun follow the velocity of a `RectifiedFlow`, the others serve both.

Every module of this package is imported here, so a new file with a `@register`ed class is all that a new sampler needs.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Union

from manymask.diffusion.samplers.base import (
    SAMPLERS,
    Denoise,
    NoiseSource,
    SamplerLike,
    check_fit,
    register,
    samplers_for,
)
from manymask.diffusion.samplers.ddim import DDIM
from manymask.diffusion.samplers.ddpm import DDPM
from manymask.diffusion.samplers.dpm_solver import DPMSolver
from manymask.diffusion.samplers.euler import Euler
from manymask.diffusion.samplers.heun import Heun
from manymask.diffusion.samplers.plms import PLMS

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

if TYPE_CHECKING:
    Sampler = SamplerLike
else:  # configs and the command line choose among the members
    Sampler = Union[tuple(SAMPLERS.values())]  # noqa: UP007

__all__ = [
    "DDIM",
    "DDPM",
    "PLMS",
    "SAMPLERS",
    "DPMSolver",
    "Denoise",
    "Euler",
    "Heun",
    "NoiseSource",
    "Sampler",
    "SamplerLike",
    "check_fit",
    "register",
    "samplers_for",
]
