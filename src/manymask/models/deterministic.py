"""One-to-one networks from MONAI, each image → logits (B, 1, H, W), or several of them under deep supervision.

`channels` are MONAI's `features`, `channels` or `filters`. The side of the image must be a multiple of 16 (ResUNet: 8).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from monai.networks import nets
from torch import Tensor, nn

from manymask.data.case import Batch
from manymask.data.dihedral import dihedral, dihedral_inverse
from manymask.data.raters import Target, training_target
from manymask.diffusion.sampling import SamplingConfig
from manymask.models.autoencoder import CodecSetting
from manymask.models.base import MaskSampler, StepCallback
from manymask.models.denoisers.pyramid_unet import Backbone, bottom_up
from manymask.nn.blocks import normalise
from manymask.nn.losses import Dice, Loss
from manymask.nn.pyramid import TopDown


@dataclass(frozen=True)
class UNet:
    """U-Net (Ronneberger et al. 2015) as MONAI's `BasicUNet`: five levels, and the width of the last features."""

    channels: tuple[int, ...] = (32, 32, 64, 128, 256, 32)

    def build(self, channels: int) -> nn.Module:
        return nets.BasicUNet(2, channels, 1, features=self.channels)


@dataclass(frozen=True)
class UNetPlusPlus:
    """U-Net++ (Zhou et al. 2018) as MONAI's `BasicUNetPlusPlus`, its four nested answers all supervised alike.

    The deepest one answers (its paper's "fast mode", not pruned).
    """

    channels: tuple[int, ...] = (32, 32, 64, 128, 256, 32)

    def build(self, channels: int) -> nn.Module:
        return nets.BasicUNetPlusPlus(2, channels, 1, features=self.channels, deep_supervision=True)


@dataclass(frozen=True)
class ResUNet:
    """A U-Net of residual units (Zhang et al. 2018) as MONAI's `UNet` with `units` of them a level.

    The paper under reproduction cites ResUNet-a (Diakogiannis et al. 2020), which adds atrous convolutions and pyramid
    pooling; "ResUNet" is taken by its name.
    """

    channels: tuple[int, ...] = (32, 64, 128, 256)
    units: int = 2

    def build(self, channels: int) -> nn.Module:
        strides = [2] * (len(self.channels) - 1)
        return nets.UNet(2, channels, 1, channels=self.channels, strides=strides, num_res_units=self.units)


@dataclass(frozen=True)
class NNUNet:
    """The *network* of nnU-Net (Isensee et al. 2021) as MONAI's `DynUNet`, deeply supervised, and its loss, Dice + CE.

    It is not nnU-Net's pipeline: no fingerprint of the data plans patch, depth and spacing, none of its augmentation,
    optimiser, folds, ensembles or post-processing; all that is as for every other model here. The answers of all but
    the two lowest resolutions are supervised, each with half the weight of the one above it; MONAI enlarges an answer
    to the size of the mask where nnU-Net shrinks the mask.
    """

    channels: tuple[int, ...] = (32, 64, 128, 256, 512)

    def build(self, channels: int) -> nn.Module:
        strides = [1] + [2] * (len(self.channels) - 1)
        net = nets.DynUNet(2, channels, 1, [3] * len(strides), strides, strides[1:], filters=self.channels,
                           deep_supervision=True, deep_supr_num=max(1, len(self.channels) - 3))  # fmt: skip
        # all blocks are registered a second time in `skip_layers`; safetensors refuses one tensor under two names
        del net.input_block, net.downsamples, net.bottleneck, net.upsamples, net.deep_supervision_heads
        return net


@dataclass(frozen=True)
class Pyramid:
    """The image encoder of a `PyramidUNet` under a plain mask head: what a latent segmenter's network gives in one pass,
    without codecs and diffusion. Logits at H/factor, enlarged bilinearly.

    Attributes:
        encoder_channels: as in `PyramidUNet`, of all levels from H/factor on.
        encoder_blocks_per_level: as in `PyramidUNet`.
        backbone: as in `PyramidUNet`.
        factor: of the finest features.
        head_channels: of the mask head.
    """

    encoder_channels: tuple[int, ...] = (64, 96, 128, 192)
    encoder_blocks_per_level: int = 2
    backbone: Backbone = "own"
    factor: int = 4
    head_channels: int = 64

    def build(self, channels: int) -> nn.Module:
        levels = len(self.encoder_channels)
        seen = bottom_up(
            self.backbone, channels, self.encoder_channels, self.encoder_blocks_per_level, self.factor, levels
        )
        return nn.Sequential(
            seen, TopDown(self.encoder_channels, (self.head_channels,)), MaskHead(self.head_channels, self.factor)
        )


class MaskHead(nn.Module):
    """Features (B, width, h, w), the finest of a list → logits (B, 1, factor · h, factor · w)."""

    def __init__(self, width: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), normalise(width), nn.SiLU(), nn.Conv2d(width, 1, 3, padding=1)
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        return F.interpolate(self.body(features[0]), scale_factor=self.factor, mode="bilinear", align_corners=False)


def answer(output: Tensor | list[Tensor]) -> Tensor:
    """Logits (B, 1, H, W) of a network in evaluation mode."""
    return (output[-1] if isinstance(output, list) else output).float()


def supervised(loss: Callable[[Tensor, Tensor], Tensor], output: Tensor | list[Tensor], mask: Tensor) -> Tensor:
    """The loss of a network's output in training mode against mask (B, 1, H, W): deep supervision lives here alone.

    One answer counts as it is; a list (U-Net++) is averaged; stacked ones (B, answers, 1, H, W) (nnU-Net) are weighted
    1, ½, ¼, … from the finest on, weights summing to 1.
    """
    if isinstance(output, list):
        weighted = [(1.0, logits) for logits in output]
    elif output.dim() == 5:
        weighted = [(0.5**i, logits) for i, logits in enumerate(output.unbind(1))]
    else:
        weighted = [(1.0, output)]
    total = sum(weight for weight, _ in weighted)
    return sum((weight / total * loss(logits.float(), mask) for weight, logits in weighted), mask.new_zeros(()))


Network = UNet | UNetPlusPlus | ResUNet | NNUNet | Pyramid


@dataclass(frozen=True)
class OneToOne:
    """A network that gives one answer, trained with Dice + cross-entropy unless told otherwise."""

    network: Network = UNet()
    loss: Loss = Dice(cross_entropy=1.0)
    target: Target = "consensus"

    def build(self, channels: int, image_codec: CodecSetting, mask_codec: CodecSetting) -> "NetworkSegmenter":
        return NetworkSegmenter(self, channels)


class NetworkSegmenter(MaskSampler):
    """See `OneToOne`. For n > 1 it answers n of the eight flips and quarter turns, so that count alone wins nothing."""

    def __init__(self, setting: OneToOne, channels: int) -> None:
        super().__init__()
        self.setting = setting
        self.network = setting.network.build(channels)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        mask = training_target(batch.truth(), self.setting.target, batch.noise.uniform(len(batch.image)), batch.read_by)
        return {"loss": supervised(self.setting.loss, self.network(batch.image), mask)}

    def prepare(self, batch: Batch, n: int, sampling: SamplingConfig) -> None:
        """Nothing: every orientation of an image is a pass of its own."""

    def sample(
        self,
        common: None,
        batch: Batch,
        which: range,
        seed: int,
        sampling: SamplingConfig,
        callback: StepCallback | None = None,
    ) -> Tensor:
        """See `MaskSampler`. Deterministic: neither seed nor sampling matters."""
        return torch.cat([self._answer(batch.image, k) for k in which], dim=1)

    def _answer(self, image: Tensor, k: int) -> Tensor:
        """(B, 1, H, W), in orientation k."""
        logits = answer(self.network(dihedral(image, k)))
        return dihedral_inverse(self.setting.loss.probability(logits), k)
