"""How masks are drawn from a trained model, as one frozen value."""

from dataclasses import dataclass, replace
from typing import Any

from manymask.choices import SamplerName
from manymask.config import to_dict
from manymask.diffusion.process import Process
from manymask.diffusion.samplers import SAMPLERS, Sampler, check_fit
from manymask.errors import ConfigError

MOST_ORIENTATIONS = 8  # of the dihedral group: four quarter turns, each with and without a flip


@dataclass(frozen=True)
class SamplingConfig:
    """How masks are drawn. A field that is None keeps the default of the model.

    Attributes:
        sampler: the reverse process, by name (`"ddim"`) or as an object (`DDIM(20)`).
        steps: network evaluations of the sampler, 1 … T of the process.
        orientations: number of the eight flips and quarter turns of the image that samples are spread over, 1 … 8.
        guidance_scale: of classifier-free guidance (1 is unguided), or of the classifier of a model that was trained with
            one (0 is unguided).
        head_share: share of an auxiliary mask head's map in each mask, 0 … 1 (`LatentDiffusion.head_share`).

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """

    sampler: Sampler | SamplerName | None = None
    steps: int | None = None
    orientations: int | None = None
    guidance_scale: float | None = None
    head_share: float | None = None

    def __post_init__(self) -> None:
        if (
            self.sampler is not None
            and self.sampler not in SAMPLERS
            and not isinstance(self.sampler, tuple(SAMPLERS.values()))
        ):
            raise ConfigError(
                f"sampler: {self.sampler!r} is none of {', '.join(SAMPLERS)}, and no object such as DDIM(10)",
                parameter="sampler",
            )
        for name, value, most in (("steps", self.steps, None), ("orientations", self.orientations, MOST_ORIENTATIONS)):
            _check_count(name, value, most)
        for name, number in (("guidance_scale", self.guidance_scale), ("head_share", self.head_share)):
            if isinstance(number, bool) or not isinstance(number, int | float | None):
                raise ConfigError(f"{name} must be a number, not {number!r}", parameter=name)
        if self.head_share is not None and not 0 <= self.head_share <= 1:
            raise ConfigError(f"head_share must lie in 0 … 1, not {self.head_share}", parameter="head_share")

    def over(self, default: "SamplingConfig") -> "SamplingConfig":
        """These settings where they are given, else those of `default`.

        A given sampler comes with its own number of steps.

        Args:
            default: for fields that are None here.

        Returns:
            The combined settings.
        """
        given = {name: value for name, value in vars(self).items() if value is not None}
        if "sampler" in given:
            default = replace(default, steps=None)
        return replace(default, **given)

    def record(self, samples: int) -> dict[str, Any]:
        """JSON-able: these settings with a number of masks. Of equal records, masks are comparable.

        `head_share` is there only where a head has one.
        """
        settings = {"sampler": self.sampler, "orientations": min(self.orientations or 1, samples)}
        return (
            {"samples": samples}
            | {k: to_dict(v) for k, v in settings.items()}
            | {"guidance_scale": self.guidance_scale}
            | ({"head_share": self.head_share} if self.head_share else {})
        )

    def resolved(self, default: "SamplingConfig", process: Process) -> "SamplingConfig":
        """Complete the settings for a diffusion model.

        Args:
            default: settings of the model.
            process: its forward process.

        Returns:
            Settings with every field given, the sampler as an object with its steps.

        Raises:
            ConfigError: the sampler does not fit the process, or takes more steps than it has.
        """
        chosen = self.over(default)
        own: Any = default.sampler
        wanted: Any = SAMPLERS[chosen.sampler] if isinstance(chosen.sampler, str) else type(chosen.sampler)
        if isinstance(chosen.sampler, str):
            sampler = own if isinstance(own, wanted) else wanted()
            sampler = replace(sampler, steps=min(sampler.steps, process.steps))
        else:
            sampler = chosen.sampler
        if chosen.steps is not None:
            sampler = replace(sampler, steps=chosen.steps)
        check_fit(sampler, process)
        return replace(chosen, sampler=sampler, steps=sampler.steps)


def _check_count(name: str, value: Any, most: int | None) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{name} must be a whole number, not {value!r}", parameter=name)
    if value < 1 or (most is not None and value > most):
        raise ConfigError(
            f"{name} must lie in 1 … {most}, not {value}" if most else f"{name} must be at least 1, not {value}",
            parameter=name,
        )
