"""The eight flips and quarter turns of a square image: the dihedral group D₄."""

from torch import Tensor


def dihedral(x: Tensor, k: int) -> Tensor:
    """Turn by k mod 4 quarter turns counter-clockwise, and from k = 4 on mirror left–right afterwards.

    Args:
        x: (…, H, W).
        k: orientation, 0 … 7; 0 leaves x as it is.

    Returns:
        (…, H, W), or (…, W, H) for odd k.
    """
    turned = _quarter_turns(x, k % 4)
    return turned.flip(-1) if k % 8 >= 4 else turned


def dihedral_inverse(x: Tensor, k: int) -> Tensor:
    """The inverse of `dihedral`.

    Args:
        x: (…, H, W) in orientation k.
        k: orientation, 0 … 7.

    Returns:
        (…, H, W), or (…, W, H) for odd k.
    """
    unmirrored = x.flip(-1) if k % 8 >= 4 else x
    return _quarter_turns(unmirrored, -k % 4)


def _quarter_turns(x: Tensor, k: int) -> Tensor:
    """`torch.rot90` in operations that ONNX has too, k = 0 … 3."""
    if k == 2:
        return x.flip(-2, -1)
    return x.transpose(-2, -1).flip(-1 if k == 3 else -2) if k else x
