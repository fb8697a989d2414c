"""Several trained segmenters of one recipe as one model, such as those of cross-validation folds."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from manymask.data.case import Batch
from manymask.data.raters import Target
from manymask.diffusion.sampling import SamplingConfig
from manymask.errors import ConfigError
from manymask.models.autoencoder import CodecSetting
from manymask.models.base import MaskSampler, StepCallback
from manymask.models.conditioning import ImageTraits
from manymask.models.deterministic import OneToOne
from manymask.models.latent_diffusion import LatentDiffusion
from manymask.models.prob_unet import ProbUNet
from manymask.rng import seed_of


@dataclass(frozen=True)
class Ensembled:
    """An ensemble of segmenters that differ in their weights alone.

    Attributes:
        member: the setting of each.
        members: how many there are.
    """

    member: LatentDiffusion | OneToOne | ProbUNet
    members: int = 5

    @property
    def target(self) -> Target:
        """What the members learnt of several raters."""
        return self.member.target

    def build(self, channels: int, image_codec: CodecSetting, mask_codec: CodecSetting) -> "EnsembledSegmenter":
        """The untrained members, each with codecs of its own."""
        return EnsembledSegmenter(self, channels, image_codec, mask_codec)


class EnsembledSegmenter(MaskSampler):
    """See `Ensembled`. Mask k is drawn by member k mod `members`, so that every member draws equally many.

    It is made of trained members, and not trained itself.

    Args:
        setting: its configuration.
        channels: image channels.
        image_codec: settings of every member's image codec.
        mask_codec: settings of every member's mask codec.

    Attributes:
        setting: its configuration.
        members: the segmenters.
    """

    setting: Ensembled
    members: nn.ModuleList

    def __init__(self, setting: Ensembled, channels: int, image_codec: CodecSetting, mask_codec: CodecSetting) -> None:
        super().__init__()
        self.setting = setting
        members = [setting.member.build(channels, image_codec, mask_codec) for _ in range(setting.members)]
        self.members = nn.ModuleList(members)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Refused: an ensemble is made of trained members.

        Args:
            batch: not used.

        Returns:
            Nothing.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("an ensemble is not trained itself: train its members, and ensemble them again")

    def _member(self, index: int) -> MaskSampler:
        member: MaskSampler = self.members[index]  # type: ignore[assignment]
        return member

    def resolve(self, sampling: SamplingConfig | None = None) -> SamplingConfig:
        """See `MaskSampler`; the members agree."""
        return self._member(0).resolve(sampling)

    def prepare(self, batch: Batch, n: int, sampling: SamplingConfig) -> list[Any]:
        """See `MaskSampler`: what each member computes once for its share of the masks."""
        count = len(self.members)
        shares = [-(-max(n - index, 1) // count) for index in range(count)]
        return [self._member(index).prepare(batch, share, sampling) for index, share in enumerate(shares)]

    def traits(self, common: list[Any], images: int) -> ImageTraits:
        """See `MaskSampler`: the mean presence, and the features of all members side by side."""
        found = [self._member(index).traits(each, images) for index, each in enumerate(common)]
        presences = [each.presence for each in found if each.presence is not None]
        features = [each.embedding for each in found if each.embedding is not None]
        return ImageTraits(
            torch.stack(presences).mean(dim=0) if presences else None,
            torch.cat(features, dim=1) if features else None,
        )

    def sample(
        self,
        common: list[Any],
        batch: Batch,
        which: range,
        seed: int,
        sampling: SamplingConfig,
        callback: StepCallback | None = None,
    ) -> Tensor:
        """See `MaskSampler`. A member's own masks are numbered 0, 1, …, and drawn with a seed of its own."""
        count = len(self.members)
        drawn: dict[int, Tensor] = {}
        for index in range(count):
            mine = [k for k in which if k % count == index]
            if not mine:
                continue
            own = range(mine[0] // count, mine[-1] // count + 1)
            own_seed = seed_of("member", seed, index)
            masks = self._member(index).sample(common[index], batch, own, own_seed, sampling, callback)
            drawn |= dict(zip(mine, masks.unbind(dim=1), strict=True))
        return torch.stack([drawn[k] for k in which], dim=1)


SegmenterSetting = LatentDiffusion | OneToOne | ProbUNet | Ensembled
