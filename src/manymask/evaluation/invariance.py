"""How well a codec commutes with flips, shifts, rotations and noise (a limitation that the paper names).

For a transform T and an input x, the reconstruction of T x is compared with T of the reconstruction of x, both through the
bottleneck. Images are compared by PSNR, capped at 100 dB, masks by Dice, since a rotated mask has grey edges. The latents
that diffuse are compared too, before quantisation: encode(T x) with T encode(x), where T acts on the coarser grid.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from statistics import mean

import torch
import torch.nn.functional as F
from torch import Tensor

from manymask.data.case import Batch
from manymask.data.raters import raters_consensus
from manymask.metrics import overlap, psnr
from manymask.models.autoencoder import Codec
from manymask.rng import SampleNoise

SHIFT = 3  # pixels: no multiple of any f
ANGLE = 15.0  # degrees
SIGMA = 0.05  # of the noise
INNER = 0.7  # share of the side that is compared: the part that every transform keeps inside the image


def flip(x: Tensor, factor: int) -> Tensor:
    """Mirror (…, H, W) left–right; `factor` does not matter."""
    return x.flip(-1)


def shift(x: Tensor, factor: int) -> Tensor:
    """Move by three pixels to the right and down.

    Args:
        x: (B, C, H, W), pixels or latents.
        factor: pixels per point of x; the shift is 3 / factor points.

    Returns:
        The same shape.
    """
    return _warp(x, 0.0, 2 * SHIFT / (factor * x.shape[-1]))


def rotate(x: Tensor, factor: int) -> Tensor:
    """Rotate (B, C, H, W) by fifteen degrees around the middle; `factor` does not matter."""
    return _warp(x, math.radians(ANGLE), 0.0)


def _warp(x: Tensor, angle: float, offset: float) -> Tensor:
    """Rotate and shift bilinearly; `offset` is in units in which the side is 2."""
    cos = math.cos(angle)
    sin = math.sin(angle)
    theta = torch.tensor([[cos, -sin, -offset], [sin, cos, -offset]], device=x.device).expand(len(x), 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def same(x: Tensor, factor: int) -> Tensor:
    """Return x as it is: added noise should not change a reconstruction."""
    return x


TRANSFORMS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "flip": flip,
    "shift": shift,
    "rotation": rotate,
    "noise": same,
}


def commute(codec: Codec, x: Tensor, name: str, noise: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Apply a transform before and after a codec; a transformed mask is made binary again.

    Args:
        codec: the codec.
        x: images or masks (B, C, H, W) in [0, 1].
        name: of the transform T in `TRANSFORMS`.
        noise: standard normal, shaped as x.

    Returns:
        The inner part of the reconstruction of T x, T of the reconstruction of x, encode(T x) and T encode(x).
    """
    transform = TRANSFORMS[name]
    moved = (x + SIGMA * noise).clamp(0, 1) if name == "noise" else transform(x, 1)
    if codec.setting.subject == "mask" and name != "noise":
        moved = (moved >= 0.5).to(x)
    four = (codec.round_trip(moved), transform(codec.round_trip(x), 1),
            codec.encode(moved), transform(codec.encode(x), codec.factor))  # fmt: skip
    return tuple(_inner(t) for t in four)  # type: ignore[return-value]


def _inner(x: Tensor) -> Tensor:
    """The middle of a map (…, side, side), never less than one point."""
    side = x.shape[-1]
    margin = min(math.ceil(side * (1 - INNER) / 2), (side - 1) // 2)
    return x[..., margin : side - margin, margin : side - margin]


@torch.inference_mode()
def invariance(codec: Codec, batches: Iterable[Batch], seed: int = 0) -> dict[str, dict[str, float]]:
    """How well a codec commutes with every transform.

    Args:
        codec: the codec.
        batches: the cases.
        seed: of the noise.

    Returns:
        Means over cases for every transform: `psnr` in dB of images or `dice` of masks between the two orders, and
        `latent_error`, the root mean square difference of the standardised latents.
    """
    codec.eval()
    of_masks = codec.setting.subject == "mask"
    found = defaultdict[str, list[dict[str, float]]](list)
    for batch in batches:
        x = raters_consensus(batch.truth()) if of_masks else batch.image
        noise = SampleNoise(seed, batch.noise_names, 1).normal(*x.shape[1:]).to(x)
        for name in TRANSFORMS:
            last, first, z_last, z_first = (t.cpu() for t in commute(codec, x, name, noise))
            for i in range(len(x)):
                if of_masks:
                    alike = {"dice": overlap(last[i].numpy() >= 0.5, first[i].numpy() >= 0.5)[0]}
                else:
                    alike = {"psnr": psnr(last[i], first[i])}
                found[name].append(alike | {"latent_error": rms(z_last[i] - z_first[i])})
    return {name: {k: mean(row[k] for row in rows) for k in rows[0]} for name, rows in found.items()}


def rms(x: Tensor) -> float:
    """Root mean square of all elements."""
    return float(x.cpu().double().square().mean().sqrt())
