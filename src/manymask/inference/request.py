"""What a run of `segment` or `triage` is asked for."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from manymask.choices import Form
from manymask.diffusion.sampling import SamplingConfig
from manymask.inference.preprocess import Point
from manymask.io.dicom.deidentify import Anonymiser
from manymask.io.window import Window


def unpublished(names: Sequence[str]) -> None:
    """Results stay where they are."""


@dataclass(frozen=True)
class Request:
    """How to segment and what to write; see `manymask segment --help`.

    Attributes:
        out: output folder.
        samples: number of masks per image.
        seed: of the random numbers.
        sampling: how masks are drawn; the model's default if None.
        threshold: of the consensus, in (0, 1).
        rois: centres of regions of interest, for a model of crops.
        window: intensity window; the model's or the file's own if None.
        anonymiser: for results without file names and patient data.
        store: whether DICOM objects are stored in the archive that the series came from.
        fractional: whether the confidence is also written as a FRACTIONAL SEG.
        alpha: share of the inner and the outer outline; see `Segmenter.outline_alpha`.
        forms: what is written; PNG and the form of the input if empty.
        resume: whether results of an earlier run stay if they would be drawn again in the same way.
        batch: images that are drawn in one pass. If None, 1 on the CPU, where more save nothing, and 16 on an accelerator.
            Masks do not depend on it.
        tile: side of the windows that larger images are drawn in; see `Segmenter.segment`.
        publish: called after each image and series with the names of its results in `out`.
    """

    out: Path
    samples: int = 5
    seed: int = 0
    sampling: SamplingConfig | None = None
    threshold: float = 0.5
    rois: Sequence[Point] = ()
    window: Window | None = None
    anonymiser: Anonymiser | None = None
    store: bool = False
    fractional: bool = False
    alpha: float | None = None
    forms: tuple[Form, ...] = ()
    resume: bool = False
    batch: int | None = None
    tile: int | None = None
    publish: Callable[[Sequence[str]], None] = unpublished

    def output(self) -> dict[str, Any]:
        """What was requested beside the settings of `Record`, as in result.json."""
        return {
            "forms": sorted(self.forms),
            "window": None if self.window is None else asdict(self.window),
            "alpha": self.alpha,
            "anonymised": self.anonymiser is not None,
            "fractional": self.fractional,
        }
