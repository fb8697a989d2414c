"""The small parts of optimisation: learning rate, averaged weights, the order of cases, precision."""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from manymask.recipes import Training
from manymask.rng import seed_of


def learning_rate(step: int, training: Training) -> float:
    """Linear warm-up, then constant, then 1/√step beyond `decay_after`. `step` counts from 0."""
    warm = min(1.0, (step + 1) / max(training.warmup, 1))
    return training.learning_rate * warm / math.sqrt(max(1.0, step / max(training.decay_after, 1)))


def warm_started_ema(decay: float) -> Callable[[Any, Any, Any], None]:
    """θ̄ ← θ̄ + (1 − d)(θ − θ̄) with d = min(decay, (1 + n)/(10 + n)), so that early weights are soon forgotten."""

    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        n = int(count)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + n) / (10 + n)))

    return update


def clipping_groups(model: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters whose gradients are clipped together: one group per part that is `trained_apart`, and the rest."""
    apart = [list(part.parameters()) for part in model.modules() if getattr(part, "trained_apart", False)]
    taken = {id(p) for group in apart for p in group}
    return [[p for p in model.parameters() if id(p) not in taken], *apart]


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed_of("order", seed, epoch)).permutation(count)


def batch_ids(ids: list[str], seed: int, step: int, size: int) -> list[str]:
    """The cases of a step: one endless row of shuffled epochs, cut into batches. A function of its arguments alone."""
    places = (divmod(p, len(ids)) for p in range(step * size, (step + 1) * size))
    return [ids[_permutation(seed, epoch, len(ids))[place]] for epoch, place in places]
