"""Networks that predict one mask per image: images (B, C, H, W) → logits (B, 1, H, W), several under deep supervision.

Most are MONAI's; `channels` are its `features`, `channels` or `filters`. The sides of the image must be multiples of 16
(ResUNet: 8).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
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
    """U-Net (Ronneberger et al. 2015) as MONAI's `BasicUNet`.

    Attributes:
        channels: of five levels, finest first, and of the last features.
    """

    channels: tuple[int, ...] = (32, 32, 64, 128, 256, 32)

    def build(self, channels: int) -> nn.Module:
        """The untrained network for images with so many channels."""
        from monai.networks import nets

        result: nn.Module = nets.BasicUNet(2, channels, 1, features=self.channels)
        return result


@dataclass(frozen=True)
class UNetPlusPlus:
    """U-Net++ (Zhou et al. 2018) as MONAI's `BasicUNetPlusPlus`, its four nested outputs supervised with equal weight.

    The deepest output is the prediction (the "fast mode" of its paper, not pruned).

    Attributes:
        channels: of five levels, finest first, and of the last features.
    """

    channels: tuple[int, ...] = (32, 32, 64, 128, 256, 32)

    def build(self, channels: int) -> nn.Module:
        """The untrained network for images with so many channels."""
        from monai.networks import nets

        result: nn.Module = nets.BasicUNetPlusPlus(2, channels, 1, features=self.channels, deep_supervision=True)
        return result


@dataclass(frozen=True)
class ResUNet:
    """A U-Net of residual units (Zhang et al. 2018) as MONAI's `UNet`.

    The paper under reproduction cites ResUNet-a (Diakogiannis et al. 2020), which adds atrous convolutions and pyramid
    pooling; "ResUNet" is taken by its name.

    Attributes:
        channels: one entry per resolution, finest first.
        units: residual units per level.
    """

    channels: tuple[int, ...] = (32, 64, 128, 256)
    units: int = 2

    def build(self, channels: int) -> nn.Module:
        """The untrained network for images with so many channels."""
        from monai.networks import nets

        strides = [2] * (len(self.channels) - 1)
        result: nn.Module = nets.UNet(2, channels, 1, channels=self.channels, strides=strides, num_res_units=self.units)
        return result


@dataclass(frozen=True)
class NNUNet:
    """The *network* of nnU-Net (Isensee et al. 2021) as MONAI's `DynUNet`, deeply supervised, and its loss, Dice + CE.

    It is not nnU-Net's pipeline: no fingerprint of the data plans patch, depth and spacing, and its augmentation,
    optimiser, folds, ensembles and post-processing are not used. These are as for every other model here. The outputs
    of all but the two lowest resolutions are supervised, each with half the weight of the one above it. MONAI enlarges
    an output to the size of the mask, where nnU-Net shrinks the mask.

    Attributes:
        channels: one entry per resolution, finest first.
    """

    channels: tuple[int, ...] = (32, 64, 128, 256, 512)

    def build(self, channels: int) -> nn.Module:
        """The untrained network for images with so many channels."""
        from monai.networks import nets

        strides = [1] + [2] * (len(self.channels) - 1)
        net = nets.DynUNet(2, channels, 1, [3] * len(strides), strides, strides[1:], filters=self.channels,
                           deep_supervision=True, deep_supr_num=max(1, len(self.channels) - 3))  # fmt: skip
        # all blocks are registered a second time in `skip_layers`; safetensors refuses one tensor under two names
        del net.input_block, net.downsamples, net.bottleneck, net.upsamples, net.deep_supervision_heads
        result: nn.Module = net
        return result


@dataclass(frozen=True)
class Pyramid:
    """The image encoder of a `PyramidUNet` with a plain mask head.

    It shows what the network of a latent segmenter predicts in one pass, without codecs and diffusion. Logits are
    predicted at H/factor and enlarged bilinearly.

    Attributes:
        encoder_channels: as in `PyramidUNet`, of all levels from H/factor on.
        encoder_blocks_per_level: as in `PyramidUNet`.
        backbone: as in `PyramidUNet`.
        factor: ratio of the image's side to that of the finest features.
        head_channels: channels of the mask head.
    """

    encoder_channels: tuple[int, ...] = (64, 96, 128, 192)
    encoder_blocks_per_level: int = 2
    backbone: Backbone = "own"
    factor: int = 4
    head_channels: int = 64

    def build(self, channels: int) -> nn.Module:
        """The untrained network for images with so many channels."""
        levels = len(self.encoder_channels)
        seen = bottom_up(
            self.backbone, channels, self.encoder_channels, self.encoder_blocks_per_level, self.factor, levels
        )
        return nn.Sequential(
            seen, TopDown(self.encoder_channels, (self.head_channels,)), MaskHead(self.head_channels, self.factor)
        )


class MaskHead(nn.Module):
    """A mask head on the finest of several feature maps.

    Args:
        width: channels of the features.
        factor: by which the logits are enlarged.
    """

    def __init__(self, width: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), normalise(width), nn.SiLU(), nn.Conv2d(width, 1, 3, padding=1)
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """Maps, the finest of them (B, width, h, w) → logits (B, 1, factor · h, factor · w)."""
        return F.interpolate(self.body(features[0]), scale_factor=self.factor, mode="bilinear", align_corners=False)


def answer(output: Tensor | list[Tensor]) -> Tensor:
    """The prediction of a network in evaluation mode.

    Args:
        output: logits (B, 1, H, W), or a list of such, the best last.

    Returns:
        Logits (B, 1, H, W), float32.
    """
    return (output[-1] if isinstance(output, list) else output).float()


def supervised(loss: Callable[[Tensor, Tensor], Tensor], output: Tensor | list[Tensor], mask: Tensor) -> Tensor:
    """The loss of a network's output in training mode, with deep supervision where there are several outputs.

    Args:
        loss: called with logits and mask, both (B, 1, H, W).
        output: logits (B, 1, H, W), which count as they are; a list of such (U-Net++), which is averaged; or a stack
            (B, outputs, 1, H, W) (nnU-Net), weighted 1, ½, ¼, … from the finest on, divided by their sum.
        mask: (B, 1, H, W) in {0, 1}.

    Returns:
        A scalar.
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
    """A segmenter that predicts one mask per image.

    Attributes:
        network: its network.
        loss: on logits; by default Dice + cross-entropy.
        target: which mask is learnt where there are several raters.
    """

    network: Network = UNet()
    loss: Loss = Dice(cross_entropy=1.0)
    target: Target = "consensus"

    def build(self, channels: int, image_codec: CodecSetting, mask_codec: CodecSetting) -> "NetworkSegmenter":
        """The untrained segmenter of images with so many channels; the codecs are not used."""
        return NetworkSegmenter(self, channels)


class NetworkSegmenter(MaskSampler):
    """See `OneToOne`.

    Its n samples are the predictions for n of the eight flips and quarter turns. The number of masks alone then gives
    sampling models no advantage.

    Args:
        setting: its configuration.
        channels: image channels.

    Attributes:
        setting: its configuration.
    """

    setting: OneToOne

    def __init__(self, setting: OneToOne, channels: int) -> None:
        super().__init__()
        self.setting = setting
        self.network = setting.network.build(channels)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`loss`, a scalar, on images (B, C, H, W) and masks (B, R, H, W)."""
        mask = training_target(batch.truth(), self.setting.target, batch.noise.uniform(len(batch.image)), batch.read_by)
        return {"loss": supervised(self.setting.loss, self.network(batch.image), mask)}

    def validation_metric(self, raters: int) -> str:
        """1 − Brier score where one rater at random is learnt: its map is the share of raters, and its views draw no masks."""
        return "1 - brier" if raters > 1 and self.setting.target == "rater" else "dice"

    def prepare(self, batch: Batch, n: int, sampling: SamplingConfig) -> None:
        """Nothing: every orientation of an image is a separate pass."""

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
