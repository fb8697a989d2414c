"""Reconstruction losses.

Each is called with the raw decoder output and the target in [0, 1], both (B, C, H, W), and returns the mean over elements,
a scalar. `probability` maps raw output to the values in [0, 1] that the loss compares with the target.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class MSE:
    """Mean squared error (Eq. 7).

    Attributes:
        sigmoid: whether the raw output passes a sigmoid first, as it does for masks.
    """

    sigmoid: bool = False

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean squared error of `probability(output)`."""
        return F.mse_loss(self.probability(output), target)

    def probability(self, output: Tensor) -> Tensor:
        """Raw output (B, C, H, W) → values; in (0, 1) with a sigmoid, unbounded without."""
        return torch.sigmoid(output) if self.sigmoid else output


@dataclass(frozen=True)
class WeightedCE:
    """Binary cross-entropy on logits with a weight on positive pixels (Section III-B).

    The weight w moves the optimum from p to wp / (wp + 1 − p).

    Attributes:
        weight: w.
        unbias: whether ln w is subtracted from the logits when decoding, so that 0.5 means p = 0.5 again.
    """

    weight: float = 5.0
    unbias: bool = False

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Weighted cross-entropy of logits."""
        weight = torch.tensor(self.weight, device=output.device, dtype=output.dtype)
        return F.binary_cross_entropy_with_logits(output, target, pos_weight=weight)

    def probability(self, output: Tensor) -> Tensor:
        """Logits (B, C, H, W) → probabilities in [0, 1]."""
        return torch.sigmoid(output - math.log(self.weight) if self.unbias else output)


@dataclass(frozen=True)
class Focal:
    """Focal loss (Lin et al. 2017) on logits, as in MONAI.

    Attributes:
        gamma: the focusing exponent γ.
    """

    gamma: float = 2.0

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Focal loss of logits."""
        from monai.losses import FocalLoss

        result: Tensor = FocalLoss(gamma=self.gamma)(output, target)
        return result

    def probability(self, output: Tensor) -> Tensor:
        """Logits (B, C, H, W) → probabilities in [0, 1]."""
        return torch.sigmoid(output)


@dataclass(frozen=True)
class Dice:
    """Soft Dice loss (Milletari et al. 2016) on logits, as in MONAI; an empty prediction of an empty mask costs nothing.

    Attributes:
        cross_entropy: weight of an added binary cross-entropy, which keeps a gradient where Dice has none.
    """

    cross_entropy: float = 0.0

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Soft Dice loss of logits, with cross-entropy where it has a weight."""
        from monai.losses import DiceLoss

        dice: Tensor = DiceLoss(sigmoid=True, smooth_nr=1.0, smooth_dr=1.0)(output, target)
        if not self.cross_entropy:
            return dice
        result: Tensor = dice + self.cross_entropy * F.binary_cross_entropy_with_logits(output, target)
        return result

    def probability(self, output: Tensor) -> Tensor:
        """Logits (B, C, H, W) → probabilities in [0, 1]."""
        return torch.sigmoid(output)


Loss = MSE | WeightedCE | Focal | Dice
