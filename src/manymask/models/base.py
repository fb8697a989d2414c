"""What every segmenter offers: masks as they are drawn, and all of them at once."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from manymask.data.case import Batch
from manymask.diffusion.sampling import MOST_ORIENTATIONS, SamplingConfig
from manymask.errors import ConfigError

StepCallback = Callable[[float], None]
"""Called before each network pass with the completed fraction of the sampling, in [0, 1]; raise to cancel."""


class MaskSampler(nn.Module, ABC):
    """A segmenter: `forward(batch)` gives the training loss, the other methods draw masks.

    Sample k depends on the seed, the image's pixels and k alone, so the masks do not depend on how they are requested.
    """

    setting: Any

    def resolve(self, sampling: SamplingConfig | None = None) -> SamplingConfig:
        """What the model draws with when `sampling` is requested, every applicable field given.

        By default for networks that answer once: their samples are the eight orientations in order.

        Raises:
            ConfigError: the model cannot draw so.
        """
        if sampling is not None and (sampling.sampler or sampling.steps or sampling.guidance_scale is not None):
            raise ConfigError(f"{type(self.setting).__name__} draws its masks without a sampler, steps or guidance")
        return SamplingConfig(orientations=MOST_ORIENTATIONS)

    @abstractmethod
    def prepare(self, batch: Batch, n: int, sampling: SamplingConfig) -> Any:
        """What n masks per image have in common, computed once; `sampling` is resolved."""

    @abstractmethod
    def sample(
        self,
        common: Any,
        batch: Batch,
        which: range,
        seed: int,
        sampling: SamplingConfig,
        callback: StepCallback | None = None,
    ) -> Tensor:
        """Samples `which` of each image: probabilities (B, len(which), H, W), given what `prepare` returned."""

    @torch.inference_mode()
    def iter_samples(
        self,
        batch: Batch,
        n: int,
        seed: int,
        sampling: SamplingConfig | None = None,
        every: int = 1,
        callback: StepCallback | None = None,
    ) -> Iterator[Tensor]:
        """n masks per image, at most `every` at a time: probabilities (B, ≤ every, H, W)."""
        resolved = self.resolve(sampling)
        common = self.prepare(batch, n, resolved)
        for first in range(0, n, every):
            yield self.sample(common, batch, range(first, min(first + every, n)), seed, resolved, callback)

    def sample_all(self, batch: Batch, n: int, seed: int, sampling: SamplingConfig | None = None) -> Tensor:
        """n masks per image: probabilities (B, n, H, W)."""
        return torch.cat(list(self.iter_samples(batch, n, seed, sampling, every=n)), dim=1)
