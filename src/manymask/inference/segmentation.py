"""What a segmenter returns: masks as they are drawn, and the finished result with what it promises."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from manymask.calibration.calibration import Assessment, Calibration
from manymask.ensemble import MaskEnsemble, cut
from manymask.errors import InputError
from manymask.inference.preprocess import Region
from manymask.io.record import Record
from manymask.models.conditioning import ImageTraits


@dataclass(frozen=True)
class Segmentation(MaskEnsemble):
    """The result of `Segmenter.segment`, at the image's own size: the masks, and the maps (H, W) of `MaskEnsemble`.

    Attributes:
        masks: probabilities, float32 (n, H, W) in [0, 1].
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
        """JSON-able, as in result.json: the assessments, and thresholds and areas of the outlines."""
        if self.calibration is None:
            return {"calibrated": False, "why_not": self.uncalibrated}
        outlines = [
            {"alpha": risk.alpha, "outer_threshold": risk.outer, "outer_area": int(self.outer(risk.alpha).sum()),
             "inner_threshold": risk.inner, "inner_area": int(self.inner(risk.alpha).sum())}
            for risk in self.calibration.risks
        ]  # fmt: skip
        origin = self.calibration.origin
        return {
            "calibrated": True, "on": f"{len(origin.cases)} cases of {origin.data} ({origin.split} of {origin.scheme})",
            "data_hash": origin.data_hash, "regions": [asdict(each) for each in self.assessments], "outlines": outlines,
        }  # fmt: skip


class Drawing:
    """Masks of one view, drawn as they are asked for, and what the model computed of the image before.

    Args:
        masks: yields probabilities (regions, ≤ every, S, S), float32 on the CPU.
        traits: of the regions.

    Attributes:
        traits: of the regions.
    """

    def __init__(self, masks: Iterator[Tensor], traits: ImageTraits) -> None:
        self._masks = masks
        self.traits = traits

    def __iter__(self) -> Iterator[Tensor]:
        return self._masks
