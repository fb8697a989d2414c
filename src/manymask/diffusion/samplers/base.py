"""What every sampler is, the registry that it enters, and whether it fits a process."""

from collections.abc import Callable
from typing import Any, ClassVar, Protocol, TypeVar

from torch import Tensor

from manymask.choices import sampler_name
from manymask.diffusion.process import Process
from manymask.errors import ConfigError

Denoise = Callable[
    [Tensor, Any], tuple[Tensor, Tensor]
]  # the time is an int for GaussianDiffusion, a float for RectifiedFlow


class NoiseSource(Protocol):
    """Anything that draws standard normal numbers for all rows of the batch."""

    def normal(self, *shape: int) -> Tensor: ...


class SamplerLike(Protocol):
    """A frozen dataclass that runs a process backwards; its fields are settings, and `steps` is one of them."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    label: ClassVar[str]
    """The name on the page and in reports."""
    serves: ClassVar[tuple[type[Process], ...]]
    """The processes that it can run backwards; the report compares it on the first of them."""
    deterministic: ClassVar[bool]
    """Whether its default settings draw no noise between the steps."""

    @property
    def steps(self) -> int:
        """Intervals of time; most samplers evaluate the network once in each."""
        ...

    def __call__(self, denoise: Denoise, process: Any, z: Tensor, noise: NoiseSource) -> Tensor: ...


SAMPLERS: dict[str, type[SamplerLike]] = {}
"""Every sampler by its name on the command line, which is the name of its file with hyphens: `dpm_solver.py`, `dpm-solver`."""

_Kind = TypeVar("_Kind", bound=type[SamplerLike])


def register(kind: _Kind) -> _Kind:
    """Decorator: enters a sampler under the name of the file that defines it."""
    SAMPLERS[sampler_name(kind.__module__)] = kind
    return kind


def samplers_for(process: type) -> tuple[type[SamplerLike], ...]:
    """Those that can run a process of this class backwards."""
    return tuple(kind for kind in SAMPLERS.values() if issubclass(process, kind.serves))


def check_fit(sampler: SamplerLike, process: Process) -> None:
    """`ConfigError` if the sampler cannot run this process backwards, or takes more steps than it has."""
    if not isinstance(process, sampler.serves):
        fitting = ", ".join(kind.__name__ for kind in samplers_for(type(process)))
        raise ConfigError(f"{type(sampler).__name__} cannot sample a {type(process).__name__}: choose {fitting}")
    if not 1 <= sampler.steps <= process.steps:
        raise ConfigError(
            f"the sampler takes {sampler.steps} steps, the process has 1 … {process.steps}", parameter="steps"
        )
