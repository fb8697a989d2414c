"""What a segmenter returns: masks as they are drawn, and the finished result with what it promises."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from manymask.calibration.calibration import Assessment, Calibration, worst
from manymask.ensemble import MaskEnsemble, cut
from manymask.errors import InputError
from manymask.inference.preprocess import Region
from manymask.io.image import PromisedOutlines
from manymask.io.record import Record
from manymask.models.conditioning import ImageTraits


@dataclass(frozen=True)
class Segmentation(MaskEnsemble):
    """The result of `Segmenter.segment`, at the image's own size: the masks, and the maps (H, W) of `MaskEnsemble`.

    Attributes:
        masks: probabilities, float32 (n, H, W) in [0, 1]; without those that were left out.
        image: uint8 (H, W, C), for display.
        seconds: wall time, of drawing (`predict`) and in total.
        regions: the regions of a crop model; outside of them probabilities are 0.
        warnings: sentences to read before trusting the result.
        record: how the result was made.
        assessments: what is to be expected of the result, one entry per region (of a whole image: one); empty if the
            result is not calibrated.
        calibration: what these come from; None if the result is not calibrated.
        uncalibrated: why not, in a sentence; empty if it is.
    """

    masks: Tensor
    image: np.ndarray
    seconds: dict[str, float]
    regions: tuple[Region, ...] = ()
    warnings: tuple[str, ...] = ()
    record: Record | None = None
    assessments: tuple[Assessment, ...] = ()
    calibration: Calibration | None = None
    uncalibrated: str = ""

    @property
    def numbers(self) -> tuple[int, ...]:
        """The number of each mask, from 1; there are gaps where masks were left out."""
        return tuple(range(1, len(self.masks) + 1)) if self.record is None else self.record.kept

    def outer(self, alpha: float = 0.1) -> Tensor:
        """The outer outline, which at most a share alpha of the lesion's pixels lies outside of.

        The promise holds on average over images like those of the calibration.

        Args:
            alpha: one of `calibration.alphas`.

        Returns:
            bool (H, W).

        Raises:
            InputError: the result is not calibrated, or not for this share.
        """
        return self._inside(self._calibrated().risk(alpha).outer)

    def inner(self, alpha: float = 0.1) -> Tensor:
        """The inner outline, of whose pixels at most a share alpha is no lesion.

        The promise holds on average over images like those of the calibration.

        Args:
            alpha: one of `calibration.alphas`.

        Returns:
            bool (H, W).

        Raises:
            InputError: the result is not calibrated, or not for this share.
        """
        return self._inside(self._calibrated().risk(alpha).inner)

    @property
    def probability(self) -> Tensor:
        """The calibrated confidence, float32 (H, W): of such pixels, this share is marked by a rater.

        Raises:
            InputError: the result is not calibrated.
        """
        mapped = self._calibrated().confidence(self.confidence.numpy())
        return torch.from_numpy(mapped.astype(np.float32)) * self._looked_at()

    @property
    def expected(self) -> Assessment | None:
        """The assessment of the whole result: that of its most doubtful region; None if it is not calibrated."""
        return worst(self.assessments)

    def outlines(self, alpha: float) -> PromisedOutlines:
        """Both outlines with what is predicted of the consensus, as they are written.

        Args:
            alpha: one of `calibration.alphas`.

        Returns:
            The outlines.

        Raises:
            InputError: the result is not calibrated, or not for this share.
        """
        origin = self._calibrated().origin
        expected = self.expected
        assert expected is not None
        dice = (expected.dice, expected.dice_low, expected.dice_high)
        made = f"{origin.data_hash} {origin.created}"
        return PromisedOutlines(alpha, self.inner(alpha).numpy(), self.outer(alpha).numpy(), dice, made)

    def _calibrated(self) -> Calibration:
        if self.calibration is None:
            raise InputError(self.uncalibrated)
        return self.calibration

    def _inside(self, threshold: float) -> Tensor:
        return cut(self.confidence, threshold) & self._looked_at()

    def _looked_at(self) -> Tensor:
        """The pixels that the model saw, bool (H, W)."""
        seen = torch.full_like(self.consensus, not self.regions)
        for region in self.regions:
            seen[region.top : region.bottom, region.left : region.right] = True
        return seen

    def promises(self) -> dict[str, Any]:
        """JSON-able, as in result.json: the assessments, and thresholds and areas of the outlines.

        `regions` has one assessment per region (of a whole image: one), `worst` stands for all of them. They are of the
        consensus at `dice_threshold`, wherever this result was cut.
        """
        if self.calibration is None:
            return {"calibrated": False, "why_not": self.uncalibrated}
        outlines = [
            {"alpha": risk.alpha, "outer_threshold": risk.outer, "outer_area": int(self.outer(risk.alpha).sum()),
             "inner_threshold": risk.inner, "inner_area": int(self.inner(risk.alpha).sum())}
            for risk in self.calibration.risks
        ]  # fmt: skip
        regions = [asdict(each) for each in self.assessments]
        expected = self.expected
        assert expected is not None
        return {**self.calibration.summary(), "worst": asdict(expected), "regions": regions, "outlines": outlines}


class Drawing:
    """Masks of one view, drawn as they are asked for, and what the model computed of the image before.

    Args:
        masks: yields probabilities (regions, ≤ every, S, S), float32 on the CPU.
        traits: of the regions.

    Attributes:
        traits: of the regions.
    """

    traits: ImageTraits

    def __init__(self, masks: Iterator[Tensor], traits: ImageTraits) -> None:
        self._masks = masks
        self.traits = traits

    def __iter__(self) -> Iterator[Tensor]:
        return self._masks
