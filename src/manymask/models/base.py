"""What every segmenter offers: masks as they are drawn, and all of them at once."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from manymask.data.case import Batch
from manymask.diffusion.samplers import Sampler

# told the share of the sampling that is done, in [0, 1], before each pass of the network; may raise to end it
Watch = Callable[[float], None]


class Streaming(nn.Module, ABC):
    """A segmenter. Sample k depends on the seed, the case's id and k alone, so any way to ask gives the same masks."""

    @abstractmethod
    def begin(self, batch: Batch, n: int, sampler: Sampler | None) -> Any:
        """What n masks of these images have in common, worked out once."""

    @abstractmethod
    def masks(
        self, common: Any, batch: Batch, which: range, seed: int, sampler: Sampler | None, watch: Watch | None
    ) -> Tensor:
        """Samples `which` of each image: probabilities (B, len(which), H, W)."""

    @torch.inference_mode()
    def stream(
        self,
        batch: Batch,
        n: int,
        seed: int,
        sampler: Sampler | None = None,
        every: int = 1,
        watch: Watch | None = None,
    ) -> Iterator[Tensor]:
        """n masks for each image, at most `every` at a time: probabilities (B, ≤ every, H, W)."""
        common = self.begin(batch, n, sampler)
        for first in range(0, n, every):
            yield self.masks(common, batch, range(first, min(first + every, n)), seed, sampler, watch)

    def predict(self, batch: Batch, n: int, seed: int, sampler: Sampler | None = None) -> Tensor:
        """n masks for each image: probabilities (B, n, H, W)."""
        return torch.cat(list(self.stream(batch, n, seed, sampler, every=n)), dim=1)
