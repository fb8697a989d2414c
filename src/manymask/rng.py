"""Every random number that a result depends on, drawn on the CPU from a seed that names what it is for.

A draw therefore depends neither on the device, nor on the batch size, nor on what was drawn before: a resumed run goes
on exactly, several processes see what one would have seen, and sample k of a case is the same whether 5 or 30 are drawn.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


def seed_of(*parts: object) -> int:
    """A 63-bit seed from any printable parts, the same on every machine."""
    digest = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@dataclass(eq=False)
class TrainingNoise:
    """The randomness of one training step, a stream: every call returns the next numbers.

    Drawn for the global batch, of which this process keeps its own rows.
    """

    seed: int
    step: int
    rank: int = 0
    world: int = 1

    @cached_property
    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(seed_of("train", self.seed, self.step))

    def _mine(self, drawn: Tensor) -> Tensor:
        rows = len(drawn) // self.world
        return drawn[self.rank * rows : (self.rank + 1) * rows]

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers of `shape`, whose first axis is this process's share of the batch."""
        return self._mine(torch.randn(shape[0] * self.world, *shape[1:], generator=self.generator))

    def uniform(self, *shape: int) -> Tensor:
        """Numbers in [0, 1) of `shape`."""
        return self._mine(torch.rand(shape[0] * self.world, *shape[1:], generator=self.generator))


COUPLED = 8  # samples; so many are independent, the next so many are their opposites, and so on


def coupled(k: int) -> tuple[int, int]:
    """Whose noise sample k takes, and with which sign: antithetic variates (Hammersley & Morton 1956).

    Samples 8 … 15 are drawn from the negated noise of samples 0 … 7, samples 24 … 31 from that of 16 … 23. Each by itself is
    drawn as before, but together they cover what is plausible more evenly. Where the number of orientations of the
    image divides eight, opposites see the same one.

    Args:
        k: index of the sample.

    Returns:
        The sample whose noise it is, `k` itself or `k − 8`, and 1 or −1.
    """
    return (k - COUPLED, -1) if k // COUPLED % 2 else (k, 1)


def independent_pairs(count: int) -> list[tuple[int, int]]:
    """Those pairs i < j of the first `count` samples whose noise is independent."""
    return [(i, j) for j in range(count) for i in range(j) if coupled(i)[0] != coupled(j)[0]]


class SampleNoise:
    """The randomness of inference: one generator for each (image, sample), in image-major order; see `coupled`.

    names: of the images, which are hashes of their pixels (`Batch.noise_names`); samples: how many of each image, counted
    from `first`.
    """

    def __init__(self, seed: int, names: Sequence[str], samples: int, first: int = 0) -> None:
        sources = [(name, *coupled(k)) for name in names for k in range(first, first + samples)]
        self.generators = [torch.Generator().manual_seed(seed_of("sample", seed, name, k)) for name, k, _ in sources]
        self.signs = [sign for *_, sign in sources]

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers of `shape` (per sample), stacked to (cases · samples, *shape)."""
        drawn = [torch.randn(shape, generator=generator) for generator in self.generators]
        return torch.stack([sign * each for sign, each in zip(self.signs, drawn, strict=True)])


LEVELS = 16  # of halving: the first 2^16 samples of an image are spread evenly


def strata(seed: int, names: Sequence[str], which: range) -> Tensor:
    """Uniform numbers in [0, 1), (names, which): each by itself is uniform, but the first 2^m samples of an image lie in the
    2^m equal parts of [0, 1), one in each. Sample k is the same however many are drawn.

    Van der Corput's sequence, scrambled bit by bit (Owen 1995) for each image anew.
    """
    return torch.tensor([[_stratum(seed, name, k) for k in which] for name in names])


def _stratum(seed: int, name: str, k: int) -> float:
    value = seed_of("stratum", seed, name, "rest", k) / 2**63 / 2**LEVELS
    for level in range(LEVELS):
        before = k % 2**level  # samples that share all bits so far are flipped alike
        flip = seed_of("stratum", seed, name, level, before) & 1
        value += ((k >> level & 1) ^ flip) / 2 ** (level + 1)
    result: float = value
    return result
