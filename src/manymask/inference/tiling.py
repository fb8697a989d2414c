"""Large images drawn in overlapping windows, at a scale that the user chooses: `tile` pixels of the image fill the model.

The whole image is scaled so that a window of `tile` pixels has the model's side S. Windows overlap by half. Mask k of every
window comes from one field of noise over the whole image, and mask k of the image is their mean, weighted by a Gaussian.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from manymask.data.case import Batch
from manymask.diffusion.sampling import SamplingConfig
from manymask.inference.preprocess import View
from manymask.models.base import MaskSampler, StepCallback

OVERLAP = 0.5  # of neighbouring windows, see docs/results/tiling
_AT_ONCE = 16  # masks of windows that are drawn at a time
MOST_KEPT = 256_000_000  # bytes of what is computed of windows once for all masks; the windows beyond are encoded again


def draw_in_windows(
    model: MaskSampler,
    view: View,
    size: int,
    samples: int,
    seed: int,
    sampling: SamplingConfig,
    every: int,
    callback: StepCallback | None = None,
) -> Iterator[Tensor]:
    """Draw n masks of an image in windows, a few at a time; each window is encoded once, as far as `MOST_KEPT` goes.

    Args:
        model: in evaluation mode.
        view: with `tile`.
        size: S.
        samples: n.
        seed: of the random numbers.
        sampling: as returned by `model.resolve`.
        every: masks at a time.
        callback: called before each network pass with the completed fraction of these masks; raise to cancel.

    Yields:
        Probabilities (1, ≤ every, h, w), float32 on the CPU.
    """
    from monai.inferers import sliding_window_inference

    grid = torch.from_numpy(view.seen[0])[None].float().div(255)
    device = next(model.parameters()).device
    total = math.prod(windows_along(side, size) for side in grid.shape[-2:])
    kept, room = dict[Any, Any](), [MOST_KEPT]
    together = max(1, _AT_ONCE // min(every, samples))  # the same windows for all masks

    def drawn(windows: Tensor, where: Sequence[Sequence[slice]], which: range, done: list[int]) -> Tensor:
        places = [(rows.start, columns.start) for *_, rows, columns in where]
        batch = Batch(view.names * len(places), windows, places=places)
        key = tuple(places)
        common = kept.get(key)
        if common is None:
            common = model.prepare(batch, samples, sampling)
            size_of = _bytes(common)
            if every < samples and room[0] >= size_of:
                kept[key], room[0] = common, room[0] - size_of
        watch = None if callback is None else lambda share: callback((done[0] + share * len(places)) / total)
        masks = model.sample(common, batch, which, seed, sampling, watch).float()
        done[0] += len(places)
        return masks

    for first in range(0, samples, every):
        which = range(first, min(first + every, samples))
        with torch.inference_mode():
            masks = sliding_window_inference(
                grid, (size, size), together, partial(drawn, which=which, done=[0]), OVERLAP,
                "gaussian", padding_mode="replicate", sw_device=device, device="cpu", with_coord=True,
            )  # fmt: skip
        yield masks


def _bytes(common: Any) -> int:
    """The size of all tensors in what `MaskSampler.prepare` returned."""
    if isinstance(common, Tensor):
        return common.nbytes
    if isinstance(common, (list, tuple)):
        return sum(map(_bytes, common))
    return sum(map(_bytes, vars(common).values())) if is_dataclass(common) else 0


def windows_along(side: int, size: int) -> int:
    """The number of windows along one side of an image.

    Args:
        side: of the image at the scale of the model.
        size: S.

    Returns:
        At least 1.
    """
    return max(0, math.ceil((side - size) / int(size * (1 - OVERLAP)))) + 1
