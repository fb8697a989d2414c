"""The noise that masks are drawn from: of each image its own, or for windows a cut of one field over the whole image."""

from collections.abc import Sequence

import torch
from torch import Tensor

from manymask.data.case import Batch
from manymask.data.dihedral import dihedral
from manymask.diffusion.samplers import NoiseSource
from manymask.rng import SampleNoise, coupled, seed_of


def noise_of(batch: Batch, seed: int, which: range, orientations: Sequence[int] = ()) -> NoiseSource:
    """The noise of some masks of each image.

    Args:
        batch: images or windows (B, C, H, W).
        seed: of the random numbers.
        which: indices of the samples.
        orientations: in which the model sees the image, one per sample; as it is if empty.

    Returns:
        A source of noise for B · len(which) rows, image by image.
    """
    if batch.places is None:
        return SampleNoise(seed, batch.noise_names, len(which), which.start)
    return FieldNoise(batch, seed, which, orientations)


class FieldNoise:
    """Noise that overlapping windows of an image share, for each sample.

    The field has no end and is never held: it consists of blocks of the size of a window, each drawn from a seed of its own.
    Sample k of all windows so comes from the same noise, whatever the size of the image.

    Args:
        batch: windows with their places.
        seed: of the random numbers.
        which: indices of the samples.
        orientations: as in `noise_of`; the field lies on the image as it is, and is turned with it.
    """

    def __init__(self, batch: Batch, seed: int, which: range, orientations: Sequence[int] = ()) -> None:
        assert batch.places is not None
        self.seed = seed
        self.side = batch.image.shape[-1]
        turns = list(orientations) or [0] * len(which)
        self.rows = [
            (name, k, place, turn)
            for name, place in zip(batch.noise_names, batch.places, strict=True)
            for k, turn in zip(which, turns, strict=True)
        ]
        self.draws = 0

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers (rows, *shape); those without height and width are equal in all windows of an image."""
        self.draws += 1
        if len(shape) < 2:
            return torch.stack([self._block(name, k, (), shape) for name, k, _, _ in self.rows])
        return torch.stack([dihedral(self._cut(name, k, place, shape), turn) for name, k, place, turn in self.rows])

    def _cut(self, name: str, k: int, place: tuple[int, int], shape: tuple[int, ...]) -> Tensor:
        """The part of the field that a window covers, from the up to four blocks that it lies on."""
        side = shape[-1]
        top, left = (at * side // self.side for at in place)
        blocks = [
            torch.cat([self._block(name, k, (row, column), shape) for column in _touched(left, side)], dim=-1)
            for row in _touched(top, side)
        ]
        return torch.cat(blocks, dim=-2)[..., top % side :, left % side :][..., :side, :side]

    def _block(self, name: str, k: int, at: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
        source, sign = coupled(k)
        seed = seed_of("field", self.seed, name, source, self.draws, *at)
        return sign * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _touched(start: int, side: int) -> range:
    """The indices of the blocks that start … start + side lies on."""
    return range(start // side, (start + side - 1) // side + 1)
