"""What `segment` leaves for one image: the masks, the maps, an overlay, and one JSON."""

from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion

from manymask.files.atomic import atomic_folder, write_json
from manymask.files.raster import write_png
from manymask.metrics import pairwise_iou

# Okabe and Ito's palette, told apart by colour-blind eyes too
PALETTE = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))


def outline(mask: np.ndarray, thickness: int = 1) -> np.ndarray:
    """The inner border of a bool mask (H, W), `thickness` pixels wide; the image's edge counts as outside."""
    return mask & ~binary_erosion(mask, iterations=thickness, border_value=0)


def overlay(image: np.ndarray, masks: np.ndarray, consensus: np.ndarray) -> np.ndarray:
    """The image (H, W, C) with the outline of every mask in its colour and the consensus in white on black."""
    canvas = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image.copy()
    thick = max(1, round(min(canvas.shape[:2]) / 256))
    for k, mask in enumerate(masks):
        canvas[outline(mask, thick)] = PALETTE[k % len(PALETTE)]
    line = outline(consensus, thick)
    canvas[binary_dilation(line, iterations=thick) & ~line] = 0
    canvas[line] = 255
    return canvas


def pairwise_agreement(masks: np.ndarray) -> float | None:
    """Mean IoU over all pairs of bool masks (n, H, W); None for a single mask."""
    if len(masks) < 2:
        return None
    return float(pairwise_iou(masks, masks)[np.triu_indices(len(masks), 1)].mean())


def measured(areas: list[int], consensus: int, spacing: tuple[float, float] | None) -> dict[str, Any]:
    """Areas of the masks in mm², with mean and standard deviation, where the spacing (mm) is known; else nothing."""
    if spacing is None:
        return {}
    pixel = spacing[0] * spacing[1]
    square = np.asarray(areas) * pixel
    return {"spacing_mm": list(spacing), "areas_mm2": square.tolist(), "area_mean_mm2": float(square.mean()),
            "area_std_mm2": float(square.std(ddof=min(1, len(square) - 1))), "area_consensus_mm2": consensus * pixel}  # fmt: skip


def write_result(
    folder: Path,
    image: np.ndarray,
    masks: np.ndarray,
    confidence: np.ndarray,
    consensus: np.ndarray,
    facts: dict[str, Any],
    spacing: tuple[float, float] | None = None,
    show: bool = True,
) -> None:
    """Writes mask-01.png …, confidence.png (16 bit, 65535 = 1), consensus.png, overlay.png, result.json, all or none.

    masks (n, H, W) and confidence (H, W) are probabilities; consensus (H, W) is bool; `facts` go into the JSON, areas
    in mm² with them where `spacing` (mm between rows, between columns) is known. Without `show` there is no overlay,
    the one file in which the image itself can be seen.
    """
    drawn = masks >= 0.5
    areas, agreed = drawn.sum(axis=(1, 2)).tolist(), int(consensus.sum())
    content = {**facts, "areas": areas, "area_consensus": agreed, "pixels": int(consensus.size),
               "pairwise_iou": pairwise_agreement(drawn), **measured(areas, agreed, spacing)}  # fmt: skip
    with atomic_folder(folder, ours="result.json") as beside:
        for k, mask in enumerate(drawn, start=1):
            write_png(beside / f"mask-{k:02}.png", mask)
        write_png(beside / "confidence.png", np.round(confidence * 65535).astype(np.uint16))
        write_png(beside / "consensus.png", consensus)
        if show:
            write_png(beside / "overlay.png", overlay(image, drawn, consensus))
        write_json(beside / "result.json", content)
