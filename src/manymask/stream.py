"""What every segmenter offers: masks as they are drawn, and all of them at once."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from manymask.data.case import Batch
from manymask.samplers import Sampler

# told the share of the sampling that is done, in [0, 1], before each pass of the network; may raise to end it
Watch = Callable[[float], None]


class Streaming(nn.Module, ABC):
    """A segmenter. Sample k depends on the seed, the case's id and k alone, so any way to ask gives the same masks."""

    @abstractmethod
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

    def predict(self, batch: Batch, n: int, seed: int, sampler: Sampler | None = None) -> Tensor:
        """n masks for each image: probabilities (B, n, H, W)."""
        return torch.cat(list(self.stream(batch, n, seed, sampler, every=n)), dim=1)
