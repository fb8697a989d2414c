"""What a segmenter returns: masks as they are drawn, and the finished result with what it promises."""

import base64
import html
import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from manymask.calibration.calibration import Assessment, Calibration, worst
from manymask.ensemble import MaskEnsemble, cut
from manymask.errors import ConfigError, InputError
from manymask.extras import require_figures
from manymask.inference.outputs import Output, overlay, pairwise_agreement, write_result
from manymask.inference.preprocess import PastedMasks, Region
from manymask.io.image import PromisedOutlines
from manymask.io.polygons import polygons
from manymask.io.record import Record
from manymask.models.conditioning import ImageTraits

if TYPE_CHECKING:
    from matplotlib.figure import Figure


SHOWN = 512  # pixels: the longer side of what a notebook shows


@dataclass(frozen=True, repr=False)
class Segmentation(MaskEnsemble):
    """The result of `Segmenter.segment`, at the image's own size: the masks, and the maps (H, W) of `MaskEnsemble`.

    Attributes:
        drawn: the masks one by one, kept at the model's own size: `drawn[k]` is (H, W); without those that were left out.
        image: uint8 (H, W, C), for display.
        seconds: wall time, of drawing (`predict`) and in total.
        regions: the regions of a crop model; outside of them probabilities are 0.
        warnings: sentences to read before trusting the result.
        record: how the result was made.
        assessments: what is to be expected of the result, one entry per region (of a whole image: one); empty if the
            result is not calibrated.
        calibration: what these come from; None if the result is not calibrated.
        uncalibrated: why not, in a sentence; empty if it is.
        spacing: mm between rows and between columns of pixels; None if it is not known.
    """

    drawn: PastedMasks
    image: np.ndarray
    seconds: dict[str, float]
    regions: tuple[Region, ...] = ()
    warnings: tuple[str, ...] = ()
    record: Record | None = None
    assessments: tuple[Assessment, ...] = ()
    calibration: Calibration | None = None
    uncalibrated: str = ""
    spacing: tuple[float, float] | None = None

    @property
    def masks(self) -> Tensor:
        """All masks at the image's size: probabilities, float32 (n, H, W) in [0, 1].

        They are made at each access. Of large images, take `drawn[k]` or the methods instead, which need little memory.
        """
        return torch.stack(list(self.drawn))

    def __len__(self) -> int:
        return len(self.drawn)

    def __repr__(self) -> str:
        height, width = self.consensus.shape
        share = float(self.consensus.float().mean())
        promised = "" if self.expected is None else f", Dice to expect {self.expected.dice:.2f}"
        warned = f", {len(self.warnings)} warning(s)" if self.warnings else ""
        return f"Segmentation({len(self)} masks of {width}×{height} pixels, consensus {share:.1%}{promised}{warned})"

    def _repr_png_(self) -> bytes:
        """The picture that notebooks show."""
        return png_bytes(thumbnail(self.overlay(), SHOWN))

    def _repr_html_(self) -> str:
        """The same with the numbers of `summary`."""
        rows = {name: value for name, value in self.summary().items() if value is not None and name != "warnings"}
        shown = "".join(f"<tr><td>{name}</td><td>{_short(value)}</td></tr>" for name, value in rows.items())
        warned = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in self.warnings)
        picture = base64.b64encode(self._repr_png_()).decode()
        return f'<img src="data:image/png;base64,{picture}"/><table>{shown}</table>{warned}'

    def areas(self, unit: str = "px") -> np.ndarray:
        """The area of each mask.

        Args:
            unit: "px", or "mm2" if the spacing of pixels is known.

        Returns:
            (n,): whole numbers of pixels, or mm².

        Raises:
            InputError: the spacing is not known.
            ConfigError: there is no such unit.
        """
        if unit not in ("px", "mm2"):
            raise ConfigError(f"unit must be px or mm2, not {unit!r}", parameter="unit")
        pixels = np.array([int(mask.sum()) for mask in self.drawn.cuts])
        if unit == "px":
            return pixels
        if self.spacing is None:
            raise InputError("the spacing of pixels is not known, so that there are no mm²", parameter="unit")
        return pixels * (self.spacing[0] * self.spacing[1])

    def summary(self) -> dict[str, Any]:
        """The result in a few numbers, as in summary.csv.

        Returns:
            `unit` of areas; `area_mean`, `area_std`, `area_consensus`; `pairwise_iou` (None of a single mask);
            `mean_entropy_bits`; of a calibrated result `dice` with `dice_low` and `dice_high`, and `failure`, the
            probability of a Dice below 0.7; `warnings`.
        """
        unit = "px" if self.spacing is None else "mm2"
        areas = self.areas(unit)
        pixel = 1 if self.spacing is None else self.spacing[0] * self.spacing[1]
        found: dict[str, Any] = {
            "unit": unit, "area_mean": float(areas.mean()), "area_std": float(areas.std(ddof=min(1, len(areas) - 1))),
            "area_consensus": int(self.consensus.sum()) * pixel, "pairwise_iou": pairwise_agreement(self.drawn.cuts),
            "mean_entropy_bits": float(self.entropy.mean()),
        }  # fmt: skip
        if self.expected is not None:
            names = ("dice", "dice_low", "dice_high", "failure")
            found |= {name: getattr(self.expected, name) for name in names}
        return found | {"warnings": list(self.warnings)}

    def contours(self, mask: int | None = None, tolerance: float = 0.0) -> list[np.ndarray]:
        """Outlines as polygons; holes are filled.

        Args:
            mask: number of the mask, from 0; the consensus if None.
            tolerance: in pixels, how far a simplified outline may lie from the mask's own; 0 keeps every corner.

        Returns:
            For each part, corners (m, 2) as (x, y), clockwise. The pixel (row, column) covers column … column + 1.
        """
        pixels = self.consensus if mask is None else self.drawn[mask] >= 0.5
        return [np.array(points, dtype=np.float64) for points in polygons(pixels.numpy(), tolerance)]

    def overlay(self) -> np.ndarray:
        """The image with the outline of every mask in its own colour, and of the consensus in white.

        Returns:
            uint8 (H, W, 3).
        """
        return overlay(self.image, self.drawn.cuts, self.consensus.numpy(), self.numbers)

    def plot(self) -> "Figure":
        """Image with outlines, confidence and disagreement side by side.

        Returns:
            A figure of matplotlib.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        require_figures()
        from matplotlib.figure import Figure

        figure = Figure(figsize=(12, 4.2), layout="constrained")
        maps = (("confidence", self.confidence, "cividis", 1.0), ("disagreement", self.disagreement, "inferno", 0.5))
        first, *others = figure.subplots(1, 3)
        first.imshow(self.overlay())
        first.set_title(f"{len(self)} masks, consensus in white")
        for axes, (name, values, colours, most) in zip(others, maps, strict=True):
            figure.colorbar(axes.imshow(values.numpy(), cmap=colours, vmin=0, vmax=most), ax=axes, shrink=0.8)
            axes.set_title(name)
        for axes in (first, *others):
            axes.axis("off")
        return figure

    def save(self, folder: Path | str, alpha: float | None = None) -> Path:
        """Write the files of `manymask segment`: masks, maps, overlay and result.json, completely or not at all.

        Args:
            folder: a new folder, or that of an earlier result, which is replaced.
            alpha: of the inner and outer outline; without it there are none.

        Returns:
            The folder.

        Raises:
            InputError: there is something other than a result, or no outline for `alpha`.
        """
        height, width = self.consensus.shape
        facts = {**(self.record.facts() if self.record else {}), "warnings": list(self.warnings), "width": width,
                 "height": height, "mean_entropy_bits": float(self.entropy.mean()), "seconds": self.seconds}  # fmt: skip
        write_result(Path(folder), Output(self, self.image, facts, self.spacing, alpha))
        return Path(folder)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The number of each mask, from 1; there are gaps where masks were left out."""
        return tuple(range(1, len(self) + 1)) if self.record is None else self.record.kept

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


def thumbnail(pixels: np.ndarray, side: int) -> np.ndarray:
    """A picture of at most `side` pixels along its longer side, uint8 (h, w, 3)."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side))
    return np.asarray(picture)


def png_bytes(pixels: np.ndarray) -> bytes:
    """A picture as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else html.escape(str(value))
