"""Reconstruction losses. Each is called with raw decoder output and target in [0, 1], both (B, C, H, W), and gives the
mean over elements; `probability` maps raw output to what the loss takes it to mean."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss, FocalLoss
from torch import Tensor


@dataclass(frozen=True)
class MSE:
    """Mean squared error (Eq. 7); for masks the output passes a sigmoid first."""

    sigmoid: bool = False

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(self.probability(output), target)

    def probability(self, output: Tensor) -> Tensor:
        return torch.sigmoid(output) if self.sigmoid else output


@dataclass(frozen=True)
class WeightedCE:
    """Binary cross-entropy on logits with `weight` on positive pixels (Section III-B).

    The weight w moves the optimum from p to wp / (wp + 1 − p); `unbias` subtracts ln w from the logits when decoding,
    so that 0.5 means p = 0.5 again.
    """

    weight: float = 5.0
    unbias: bool = False

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        weight = torch.tensor(self.weight, device=output.device, dtype=output.dtype)
        return F.binary_cross_entropy_with_logits(output, target, pos_weight=weight)

    def probability(self, output: Tensor) -> Tensor:
        return torch.sigmoid(output - math.log(self.weight) if self.unbias else output)


@dataclass(frozen=True)
class Focal:
    """Focal loss (Lin et al. 2017) on logits, as in MONAI."""

    gamma: float = 2.0

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        return FocalLoss(gamma=self.gamma)(output, target)

    def probability(self, output: Tensor) -> Tensor:
        return torch.sigmoid(output)


@dataclass(frozen=True)
class Dice:
    """Soft Dice loss (Milletari et al. 2016) on logits, as in MONAI; an empty prediction of an empty mask costs nothing.

    `cross_entropy` adds that share of plain cross-entropy, which keeps a gradient where Dice has none.
    """

    cross_entropy: float = 0.0

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        dice = DiceLoss(sigmoid=True, smooth_nr=1.0, smooth_dr=1.0)(output, target)
        if not self.cross_entropy:
            return dice
        return dice + self.cross_entropy * F.binary_cross_entropy_with_logits(output, target)

    def probability(self, output: Tensor) -> Tensor:
        return torch.sigmoid(output)


Loss = MSE | WeightedCE | Focal | Dice
