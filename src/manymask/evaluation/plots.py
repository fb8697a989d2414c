"""Tables for the terminal and pictures of cases."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from rich.table import Table

from manymask.data.case import Batch
from manymask.diffusion.sampling import SamplingConfig
from manymask.ensemble import fuse
from manymask.extras import require_figures
from manymask.io.atomic import atomic_file
from manymask.models.autoencoder import Codec
from manymask.models.base import MaskSampler, TrainableModel

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Panel(NamedTuple):
    """One picture of a grid.

    Attributes:
        title: above the first row.
        pixels: (H, W) or (H, W, 3).
        colours: colour map of matplotlib.
        top: value that gets the last colour; 0 gets the first.
    """

    title: str
    pixels: np.ndarray
    colours: str = "gray"
    top: float = 1.0


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of this size in inches. Without pyplot, so the backend of the process stays what it is."""
    require_figures()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def picture(image: torch.Tensor) -> np.ndarray:
    """An image for matplotlib: (C, H, W) in [0, 1] → (H, W) for one channel, (H, W, 3) for three."""
    array = image.detach().float().cpu().clamp(0, 1).numpy()
    return array[0] if len(array) == 1 else array.transpose(1, 2, 0)


def draw_grid(rows: Sequence[Sequence[Panel]], path: Path, cell: float = 1.25) -> None:
    """Write rows of panels as one PNG, with titles above the first row.

    Args:
        rows: panels of each row.
        path: of the PNG.
        cell: side of a panel in inches.
    """
    columns = max(len(row) for row in rows)
    figure = new_figure(cell * columns, cell * (len(rows) + 0.3))
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for i, row in enumerate(rows):
        for axis, panel in zip(axes[i], row, strict=False):
            axis.imshow(panel.pixels, cmap=panel.colours, vmin=0, vmax=panel.top, interpolation="nearest")
            if i == 0:
                axis.set_title(panel.title, fontsize=7)
    figure.tight_layout(pad=0.2, w_pad=0.15, h_pad=0.15)
    with atomic_file(path) as beside:
        figure.savefig(beside, dpi=160)


def segmentation_row(image: torch.Tensor, raters: torch.Tensor, drawn: torch.Tensor) -> list[Panel]:
    """The panels of one case.

    Args:
        image: (C, H, W) in [0, 1].
        raters: (R, H, W) in {0, 1}.
        drawn: probabilities (n, H, W) in [0, 1].

    Returns:
        Image, raters, masks, confidence, consensus and disagreement.
    """
    fused = fuse(drawn.float().cpu())
    row = [Panel("image", picture(image))]
    names = [f"rater {k + 1}" for k in range(len(raters))] if len(raters) > 1 else ["truth"]
    row += [Panel(name, mask.cpu().numpy()) for name, mask in zip(names, raters, strict=True)]
    row += [Panel(f"mask {k + 1}", mask.float().cpu().numpy()) for k, mask in enumerate(drawn)]
    row += [Panel("confidence", fused.confidence.numpy(), "viridis"), Panel("consensus", fused.consensus.numpy())]
    return [*row, Panel("disagreement", fused.disagreement.numpy(), "magma", top=0.5)]


@torch.inference_mode()
def draw_batch(
    model: TrainableModel,
    batch: Batch,
    path: Path,
    samples: int = 5,
    seed: int = 0,
    sampling: SamplingConfig | None = None,
    drawn: torch.Tensor | None = None,
) -> None:
    """Write a picture of a model's output: reconstructions of a codec, drawn masks of a segmenter.

    Args:
        model: a codec or a segmenter.
        batch: images (B, C, H, W) and masks (B, R, H, W).
        path: of the PNG.
        samples: number of masks per image.
        seed: of the random numbers.
        sampling: how masks are drawn; the model's default if None.
        drawn: masks (B, n, H, W) to show in place of those that the model would draw.
    """
    if isinstance(model, Codec):
        pairs = zip(*model.reconstruct(batch), strict=True)
        draw_grid([[Panel("original", picture(x)), Panel("reconstruction", picture(y))] for x, y in pairs], path)
        return
    assert isinstance(model, MaskSampler)
    drawn = model.sample_all(batch, samples, seed, sampling) if drawn is None else drawn
    rows = [segmentation_row(batch.image[i], batch.truth()[i], drawn[i]) for i in range(len(batch.ids))]
    draw_grid(rows, path)


def metrics_table(metrics: dict[str, Any], title: str) -> Table:
    """Mean, interval and pooled value of every metric, as a table for the terminal."""
    table = Table(title=title)
    for name in ("metric", "mean", "95 % interval", "pooled", "cases"):
        table.add_column(name, justify="left" if name == "metric" else "right")
    for name, value in metrics.items():
        interval = f"{value['low']:.4f} – {value['high']:.4f}" if "low" in value else ""
        pooled = f"{value['pooled']:.4f}" if "pooled" in value else ""
        mean = f"{value['mean']:.4f}" if "mean" in value else "–"
        table.add_row(name, mean, interval, pooled, _cases(value))
    return table


def _cases(value: dict[str, Any]) -> str:
    """The number of cases in a mean, the number of all cases, and why the others are missing."""
    if "n" not in value:
        return ""
    of = f" of {value['n'] + value['skipped']}" if "skipped" in value else ""
    return f"{value['n']}{of}" + "".join(f", {value[why]} {why}" for why in ("missed", "false") if value.get(why))
