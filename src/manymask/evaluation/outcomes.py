"""Labelled images as promises are checked on them: all that a calibration sees of them, and what it does not need."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Self

import numpy as np
import torch

from manymask.calibration.confidence import PixelCounts
from manymask.calibration.evidence import NAMES, evidence
from manymask.calibration.risk import areas
from manymask.data.case import Batch
from manymask.data.resize import resize_map
from manymask.diffusion.process import RectifiedFlow
from manymask.diffusion.samplers import DDIM, Euler
from manymask.diffusion.sampling import SamplingConfig
from manymask.evaluation.observations import Drawn, Observations
from manymask.metrics import near_lesion
from manymask.models.base import MaskSampler
from manymask.models.latent_diffusion import DiffusionSegmenter


@dataclass
class Outcomes(Observations):
    """What was seen of labelled images, a row each; see `Observations`.

    Attributes:
        near: pixels by confidence near the lesion, as `near_lesion` defines it.
        doubt: pixels by confidence near the lesion or near anything that a mask marks, so that a lesion is no likelier
            there because of how the region was chosen.
        area: pixels of the confidence map at or above each of `THRESHOLDS`.
        one_pass: entropy of a single pass, as `one_pass_entropy` returns it; None where it was not measured.
    """

    near: list[PixelCounts] = field(default_factory=list)
    doubt: list[PixelCounts] = field(default_factory=list)
    area: list[np.ndarray] = field(default_factory=list)
    one_pass: list[float | None] = field(default_factory=list)

    def add(
        self, case: str, group: str, drawn: Drawn, truths: np.ndarray, every_rater: bool, one_pass: float | None = None
    ) -> None:
        """Add an image.

        Args:
            case: its id.
            group: its patient or sequence.
            drawn: its masks.
            truths: bool (R, H, W), the raters' masks at native size.
            every_rater: whether risks are means over raters, else against their consensus.
            one_pass: entropy of a single pass.
        """
        super().add(case, group, drawn, truths, every_rater)
        confidence = resize_map(drawn.masks.mean(axis=0), truths.shape[1:])
        frequency = truths.mean(axis=0)
        marked = resize_map(drawn.masks.max(axis=0), truths.shape[1:]) >= 0.5
        near = near_lesion(truths)
        doubt = near | near_lesion(marked[None])
        self.near.append(PixelCounts.of(confidence[near], frequency[near]))
        self.doubt.append(PixelCounts.of(confidence[doubt], frequency[doubt]))
        self.area.append(areas(confidence))
        self.one_pass.append(one_pass)

    def rows(self, index: Sequence[int]) -> Self:
        """Some of the images.

        Args:
            index: their rows.

        Returns:
            Their outcomes, in this order.
        """
        return type(self)(**{f.name: [getattr(self, f.name)[i] for i in index] for f in fields(self)})


@torch.inference_mode()
def one_pass_entropy(model: MaskSampler, batch: Batch, seed: int) -> list[float | None]:
    """Entropy of one mask that is drawn in a single network pass, from the image as it is: doubt without many masks.

    Args:
        model: the segmenter.
        batch: images (B, C, S, S) in [0, 1].
        seed: of the random numbers.

    Returns:
        Bits per expected pixel of the lesion, one number per image; None for models that need no sampler.
    """
    if not isinstance(model, DiffusionSegmenter):
        return [None] * len(batch.ids)
    sampler = Euler(1) if isinstance(model.setting.process, RectifiedFlow) else DDIM(1)
    once = model.resolve(SamplingConfig(sampler, orientations=1))
    common = replace(model.prepare(batch, 1, once), presence=None)  # which would empty some masks at random
    masks = model.sample(common, batch, range(1), seed, once).float().cpu().numpy()
    return [float(evidence(mask)[NAMES.index("entropy")]) for mask in masks]
