"""The files that `segment` writes for one image: the masks, the maps, an overlay, and one JSON."""

import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion

from manymask.calibration.calibration import Assessment, Calibration
from manymask.inference.correction import AcceptedMask
from manymask.inference.result import Result
from manymask.io.atomic import Ours, atomic_folder, write_json
from manymask.io.image import PromisedOutlines
from manymask.io.palette import colour_of
from manymask.io.raster import write_png
from manymask.io.record import Record

ROWS = 64  # of a map at a time


def outline(mask: np.ndarray, thickness: int = 1) -> np.ndarray:
    """The inner border of a mask; the image's edge counts as outside.

    Args:
        mask: bool (H, W).
        thickness: in pixels.

    Returns:
        bool (H, W).
    """
    result: np.ndarray = mask & ~binary_erosion(mask, iterations=thickness, border_value=0)
    return result


def overlay(
    image: np.ndarray, masks: Collection[np.ndarray], consensus: np.ndarray, numbers: Sequence[int] | None = None
) -> np.ndarray:
    """The image with the outline of every mask in its own colour, and of the consensus in white on black.

    Args:
        image: uint8 (H, W, 1 or 3).
        masks: bool (n, H, W), or n of (H, W).
        consensus: bool (H, W).
        numbers: of the masks, from 1, which decide their colours; without gaps if not given.

    Returns:
        uint8 (H, W, 3).
    """
    canvas = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image.copy()
    thick = max(1, round(min(canvas.shape[:2]) / 256))
    for number, mask in zip(numbers or range(1, len(masks) + 1), masks, strict=True):
        canvas[outline(mask, thick)] = colour_of(number)
    line = outline(consensus, thick)
    canvas[binary_dilation(line, iterations=thick) & ~line] = 0
    canvas[line] = 255
    return canvas


def pairwise_agreement(masks: Collection[np.ndarray]) -> float | None:
    """Mean IoU over all pairs of bool masks (n, H, W); None for a single mask. Of two empty masks it is 1.

    They are kept as bits: fifty masks of a large image would not fit into memory otherwise.
    """
    bits = [np.packbits(mask) for mask in masks]
    areas = [int(_ONES[each].sum(dtype=np.int64)) for each in bits]
    pairs = []
    for i, j in itertools.combinations(range(len(bits)), 2):
        both = int(_ONES[bits[i] & bits[j]].sum(dtype=np.int64))
        union = areas[i] + areas[j] - both
        pairs.append(both / union if union else 1.0)
    return float(np.mean(pairs)) if pairs else None


_ONES = np.array([number.bit_count() for number in range(256)], dtype=np.uint8)  # in a byte


def sixteen_bits(confidence: np.ndarray) -> np.ndarray:
    """A map (H, W) in [0, 1] as uint16, 65535 = 1."""
    # a few rows at a time: floats of the whole map would take four times the memory
    deep = np.empty(confidence.shape, np.uint16)
    for top in range(0, len(deep), ROWS):
        deep[top : top + ROWS] = np.round(confidence[top : top + ROWS] * 65535)
    return deep


def area_record(areas: list[int], consensus: int, spacing: tuple[float, float] | None) -> dict[str, Any]:
    """Areas in mm², with mean and standard deviation, as entries of result.json.

    Args:
        areas: of the masks, in pixels.
        consensus: area of the consensus, in pixels.
        spacing: mm between rows and between columns, if known.

    Returns:
        The entries; none if the spacing is not known.
    """
    if spacing is None:
        return {}
    pixel = spacing[0] * spacing[1]
    square = np.asarray(areas) * pixel
    return {"spacing_mm": list(spacing), "areas_mm2": square.tolist(), "area_mean_mm2": float(square.mean()),
            "area_std_mm2": float(square.std(ddof=min(1, len(square) - 1))), "area_consensus_mm2": consensus * pixel}  # fmt: skip


@dataclass(frozen=True)
class Output:
    """What is written of one result.

    Attributes:
        found: the result.
        image: as people see it, uint8 (H, W, 1 or 3).
        facts: entries of result.json; those of `Record.facts` also become the text of each PNG.
        spacing: mm between rows and between columns, if known; areas are then given in mm² too.
        alpha: share of the outlines; without it, or if the result is not calibrated, there are none.
        show: whether there is an overlay, the only file that shows the image itself.
        accepted: the mask that a person accepted, if one did.
    """

    found: Result
    image: np.ndarray
    facts: Mapping[str, Any]
    spacing: tuple[float, float] | None = None
    alpha: float | None = None
    show: bool = True
    accepted: AcceptedMask | None = None

    @property
    def outlines(self) -> PromisedOutlines | None:
        """Both outlines for `alpha`; None if there are none."""
        return None if self.alpha is None or self.found.calibration is None else self.found.outlines(self.alpha)

    @property
    def drawn(self) -> Collection[np.ndarray]:
        """The n masks, cut at ½, bool (H, W) each."""
        return self.found.drawn.cuts

    def content(self) -> dict[str, Any]:
        """The content of result.json."""
        outlines, consensus = self.outlines, self.found.consensus.numpy()
        drawn = self.drawn
        areas = [int(mask.sum()) for mask in drawn]
        agreed = int(consensus.sum())
        promises = self.found.promises() | ({"alpha": outlines.alpha} if outlines else {})
        content = {**self.facts, "areas": areas, "area_consensus": agreed, "pixels": int(consensus.size),
                "area_mean": float(np.mean(areas)), "area_std": float(np.std(areas, ddof=min(1, len(areas) - 1))),
                "pairwise_iou": pairwise_agreement(drawn), **area_record(areas, agreed, self.spacing),
                "promises": promises}  # fmt: skip
        if self.accepted:
            content["accepted"] = self.accepted.facts(self.spacing)
        return content


def write_result(folder: Path, output: Output) -> None:
    """Write a result to a folder, completely or not at all; an earlier result there is replaced.

    Args:
        folder: the folder.
        output: what is written.
    """
    with atomic_folder(folder, Ours("result.json")) as beside:
        fill_result(beside, output)


def fill_result(folder: Path, output: Output) -> None:
    """Write mask-01.png …, confidence.png (16 bit, 65535 = 1), consensus.png, overlay.png and result.json.

    A calibrated result also has inner.png, outer.png, and probability.png (16 bit), the calibrated confidence; an accepted
    mask is in accepted.png. Masks keep their numbers where others were left out.

    Args:
        folder: an existing folder.
        output: what is written.
    """
    found, outlines = output.found, output.outlines
    drawn, consensus = output.drawn, found.consensus.numpy()
    content = output.content()
    text = png_text(output.facts)
    for number, mask in zip(found.numbers, drawn, strict=True):
        write_png(folder / f"mask-{number:02}.png", mask, text)
    write_png(folder / "confidence.png", sixteen_bits(found.confidence.numpy()), text)
    write_png(folder / "consensus.png", consensus, text)
    if found.calibration is not None:
        write_png(folder / "probability.png", sixteen_bits(found.probability.numpy()), text)
    if outlines:
        of_share = png_text(output.facts, outlines.alpha)
        write_png(folder / "inner.png", outlines.inner, of_share)
        write_png(folder / "outer.png", outlines.outer, of_share)
    if output.accepted:
        write_png(folder / "accepted.png", output.accepted.mask, text)
    if output.show:
        write_png(folder / "overlay.png", overlay(output.image, drawn, consensus, found.numbers), text)
    write_json(folder / "result.json", content)


@dataclass(frozen=True)
class SeriesResult:
    """The part of a result that is kept until its series is complete.

    Attributes:
        masks: bool (n, H, W).
        confidence: float32 (H, W) in [0, 1].
        consensus: bool (H, W).
        folder: of the picture's own result.
        record: how the result was made.
        warnings: of this result.
        outlines: None if the result is not calibrated.
        expected: what is to be expected of the result; None if it is not calibrated.
        uncalibrated: why not; empty if it is.
        content: of result.json, if that is not written yet.
    """

    masks: np.ndarray
    confidence: np.ndarray
    consensus: np.ndarray
    folder: Path = Path()
    record: Record | None = None
    warnings: tuple[str, ...] = ()
    outlines: PromisedOutlines | None = None
    expected: Assessment | None = None
    uncalibrated: str = ""
    content: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, output: Output, folder: Path = Path()) -> "SeriesResult":
        """The part of a written result.

        Args:
            output: what was written.
            folder: where.

        Returns:
            The part that is kept.
        """
        found = output.found
        return cls(
            np.stack(list(output.drawn)), found.confidence.numpy(), found.consensus.numpy(), folder,
            found.record, found.warnings, output.outlines, found.expected, found.uncalibrated,
        )  # fmt: skip


def series_promises(
    names: Sequence[str], results: Sequence[SeriesResult], calibration: Calibration | None
) -> dict[str, Any]:
    """What the slices of a series promise, as in its result.json.

    Args:
        names: of the slices.
        results: one per slice.
        calibration: of the model.

    Returns:
        Of calibrated results: `worst`, the most doubtful slice, and `images`, all slices in order.
    """
    slices = [(name, r.expected) for name, r in zip(names, results, strict=True) if r.expected is not None]
    if calibration is None or not slices:
        return {"calibrated": False, "why_not": results[0].uncalibrated}
    rows = [{"image": name, **asdict(expected)} for name, expected in slices]
    doubt = [expected.doubt for _, expected in slices]
    outlines = results[0].outlines
    alpha = {} if outlines is None else {"alpha": outlines.alpha}
    return {**calibration.summary(), **alpha, "worst": rows[doubt.index(max(doubt))], "images": rows}


_RECORDED = (
    "source",
    "model",
    "manymask",
    "created",
    "samples",
    "seed",
    "threshold",
    "sampler",
    "orientations",
    "rois",
    "left_out",
    "tile",
)


def png_text(facts: Mapping[str, Any], alpha: float | None = None) -> dict[str, str]:
    """The provenance of a picture, as text of a PNG: its standard keywords, and in full as JSON under `manymask`.

    Args:
        facts: as returned by `Record.facts`.
        alpha: of the outline that the picture shows, if it shows one.

    Returns:
        Text by keyword; empty for facts without a record.
    """
    if "manymask" not in facts:
        return {}
    version = facts["manymask"]["version"]
    git = facts["manymask"]["git"]
    recorded = {name: facts[name] for name in _RECORDED if name in facts} | ({} if alpha is None else {"alpha": alpha})
    return {
        "Software": f"manymask {version}" + (f" ({git})" if git else ""),
        "Creation Time": str(facts.get("created", "")),
        "Description": f"Drawn by the model {facts['model']['name']}. For research, not for diagnosis or treatment.",
        "manymask": json.dumps(recorded),
    }
