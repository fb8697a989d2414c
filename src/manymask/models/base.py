"""The interface of every segmenter: masks as they are drawn, or all of them at once."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from manymask.data.case import Batch
from manymask.data.raters import Target
from manymask.diffusion.sampling import MOST_ORIENTATIONS, SamplingConfig
from manymask.errors import ConfigError
from manymask.models.conditioning import ImageTraits

StepCallback = Callable[[float], None]
"""Called before each network pass with the completed fraction of the sampling, in [0, 1]; raise to cancel."""


class TrainableModel(nn.Module):
    """The interface of any model for training and evaluation; `forward(batch)` returns `loss` and its terms.

    Attributes:
        setting: the configuration that it was built from.
    """

    setting: Any

    def validation_metric(self, raters: int) -> str:
        """Name of the score by which checkpoints are compared, for data with so many raters; higher is better."""
        return "dice"

    def after_training(self, batches: Iterable[Batch], target: Target) -> None:
        """Called once before the model is exported, with unaugmented training batches and the segmenter's target."""


class MaskSampler(TrainableModel, ABC):
    """A segmenter: `forward(batch)` gives the training loss, the other methods draw masks.

    Sample k depends on the seed, the image's pixels and k alone, so the masks do not depend on how they are requested.
    """

    def validation_metric(self, raters: int) -> str:
        """1 − GED² if one of several raters is learnt, else Dice."""
        learns_raters = getattr(self.setting, "target", None) == "rater"
        return "1 - ged" if raters > 1 and learns_raters else "dice"

    def resolve(self, sampling: SamplingConfig | None = None) -> SamplingConfig:
        """Complete a request with the defaults of the model.

        This is the rule of deterministic networks, whose samples are the eight orientations in order.

        Args:
            sampling: the requested sampling; all defaults if None.

        Returns:
            The sampling that is used, every applicable field given.

        Raises:
            ConfigError: the model does not support the request.
        """
        if sampling is not None and (
            sampling.sampler or sampling.steps or sampling.guidance_scale is not None or sampling.head_share
        ):
            raise ConfigError(
                f"{type(self.setting).__name__} draws its masks without a sampler, steps, guidance or a head's share"
            )
        return SamplingConfig(orientations=MOST_ORIENTATIONS)

    @abstractmethod
    def prepare(self, batch: Batch, n: int, sampling: SamplingConfig) -> Any:
        """Compute once what n masks per image have in common.

        Args:
            batch: images (B, C, H, W) in [0, 1].
            n: number of masks per image.
            sampling: as returned by `resolve`.

        Returns:
            The argument `common` of `sample`.
        """

    def traits(self, common: Any, images: int) -> ImageTraits:
        """What is known of the images beside their masks.

        Args:
            common: as returned by `prepare`.
            images: B.

        Returns:
            Presence and features; neither by default.
        """
        return ImageTraits()

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
        """Draw some of the masks of each image.

        Args:
            common: as returned by `prepare`.
            batch: the same images (B, C, H, W).
            which: indices of the samples, 0 … n − 1.
            seed: of the random numbers.
            sampling: as returned by `resolve`.
            callback: called before each network pass.

        Returns:
            Probabilities (B, len(which), H, W) in [0, 1].
        """

    @torch.inference_mode()
    def iter_samples(
        self,
        batch: Batch,
        n: int,
        seed: int,
        sampling: SamplingConfig | None = None,
        every: int = 1,
        callback: StepCallback | None = None,
        common: Any = None,
    ) -> Iterator[Tensor]:
        """Draw n masks per image, a few at a time.

        Args:
            batch: images (B, C, H, W) in [0, 1].
            n: number of masks per image.
            seed: of the random numbers.
            sampling: how masks are drawn; the model's default if None.
            every: masks per image at a time.
            callback: called before each network pass.
            common: as returned by `prepare` for the same arguments; computed here if None.

        Yields:
            Probabilities (B, ≤ every, H, W) in [0, 1], in the order of the samples.
        """
        resolved = self.resolve(sampling)
        common = self.prepare(batch, n, resolved) if common is None else common
        for first in range(0, n, every):
            yield self.sample(common, batch, range(first, min(first + every, n)), seed, resolved, callback)

    def sample_all(self, batch: Batch, n: int, seed: int, sampling: SamplingConfig | None = None) -> Tensor:
        """Draw n masks per image at once.

        Args:
            batch: images (B, C, H, W) in [0, 1].
            n: number of masks per image.
            seed: of the random numbers.
            sampling: how masks are drawn; the model's default if None.

        Returns:
            Probabilities (B, n, H, W) in [0, 1].
        """
        return torch.cat(list(self.iter_samples(batch, n, seed, sampling, every=n)), dim=1)
