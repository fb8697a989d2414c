"""What is written of a result, whatever class holds it."""

from typing import Any, Protocol

from torch import Tensor

from manymask.calibration.calibration import Assessment, Calibration
from manymask.inference.preprocess import PastedMasks
from manymask.io.image import PromisedOutlines
from manymask.io.record import Record


class Result(Protocol):
    """What is written of a result: `Segmentation`, which builds on this module."""

    @property
    def drawn(self) -> PastedMasks:
        """The masks one by one."""

    @property
    def confidence(self) -> Tensor:
        """Mean probability, (H, W)."""

    @property
    def consensus(self) -> Tensor:
        """Bool (H, W)."""

    @property
    def probability(self) -> Tensor:
        """The calibrated confidence, (H, W)."""

    @property
    def calibration(self) -> Calibration | None:
        """None if the result is not calibrated."""

    @property
    def uncalibrated(self) -> str:
        """Why not; empty if it is."""

    @property
    def record(self) -> Record | None:
        """How it was made."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences to read before trusting it."""

    @property
    def expected(self) -> Assessment | None:
        """What is to be expected of it; None if it is not calibrated."""

    @property
    def numbers(self) -> tuple[int, ...]:
        """The number of each mask, from 1."""

    def outlines(self, alpha: float) -> PromisedOutlines:
        """Both outlines for a share."""

    def promises(self) -> dict[str, Any]:
        """JSON-able, as in result.json."""
