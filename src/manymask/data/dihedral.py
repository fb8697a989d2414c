"""The eight flips and quarter turns of a square image: the dihedral group D₄."""

import torch
from torch import Tensor


def dihedral(x: Tensor, k: int) -> Tensor:
    """(…, H, W) in orientation k, 0 … 7; 0 leaves it as it is, from 4 on it is also mirrored."""
    turned = torch.rot90(x, k % 4, dims=(-2, -1))
    return turned.flip(-1) if k % 8 >= 4 else turned


def dihedral_inverse(x: Tensor, k: int) -> Tensor:
    """The inverse of `dihedral`."""
    return torch.rot90(x.flip(-1) if k % 8 >= 4 else x, -(k % 4), dims=(-2, -1))
