"""progress.png: how a stage went, from its metrics.jsonl."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manymask.evaluation.plots import new_figure
from manymask.io.atomic import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOSS, VALIDATION, TRAINING, RATE = "#0072b2", "#d55e00", "#009e73", "#555555"
SMOOTH = 9  # lines of the log


def draw_progress(lines: Sequence[Mapping[str, Any]], batch_size: int, metric: str, title: str, path: Path) -> None:
    """Write loss, validation and training scores, and learning rate against the step, with the images seen above.

    Args:
        lines: of metrics.jsonl.
        batch_size: images of a step.
        metric: the score that checkpoints are compared by.
        title: of the figure.
        path: of the PNG, written whole or not at all.
    """
    figure = new_figure(7, 7.5)
    loss, score, rate = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1.6))
    _draw_loss(loss, [line for line in lines if "loss" in line])
    _draw_scores(score, [line for line in lines if "score" in line], metric)
    steps, rates = _column([line for line in lines if "lr" in line], "lr")
    rate.plot(steps, rates, color=RATE)
    rate.set(xlabel="step", ylabel="learning rate", ylim=(0, None))
    above = loss.secondary_xaxis("top", functions=(lambda step: step * batch_size, lambda seen: seen / batch_size))
    above.set_xlabel("images seen")
    figure.suptitle(title, fontsize=11)
    figure.tight_layout()
    with atomic_file(path) as beside:
        figure.savefig(beside, dpi=110, format="png")


def _column(lines: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of the lines that hold a value."""
    found = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
    steps, values = np.array(found, dtype=float).reshape(-1, 2).T
    return steps, values


def _draw_loss(axis: "Axes", lines: Sequence[Mapping[str, Any]]) -> None:
    steps, losses = _column(lines, "loss")
    axis.plot(steps, losses, color=LOSS, alpha=0.3, linewidth=1)
    if len(losses) >= SMOOTH:
        mean = np.convolve(losses, np.ones(SMOOTH) / SMOOTH, mode="valid")
        axis.plot(steps[SMOOTH // 2 : SMOOTH // 2 + len(mean)], mean, color=LOSS, label=f"mean of {SMOOTH}")
        axis.legend(loc="upper right", frameon=False)
    if len(losses) and losses.min() > 0:
        axis.set_yscale("log")
    axis.set_ylabel("training loss")


def _draw_scores(axis: "Axes", lines: Sequence[Mapping[str, Any]], metric: str) -> None:
    """Dice (PSNR of images) on both parts; and the score that decides, where it is another one."""
    own = "psnr" if metric == "psnr" else "dice"
    unit = "PSNR (dB)" if own == "psnr" else "Dice"
    for name, label, colour in ((f"val/{own}", "validation", VALIDATION), ("train/score", "training", TRAINING)):
        axis.plot(*_column(lines, name), "o-", color=colour, markersize=4, label=f"{label} {unit}")
    if metric != own:
        axis.plot(*_column(lines, "score"), "s--", color=RATE, markersize=3, label=f"validation {metric}")
    if lines:
        best = max(lines, key=lambda line: line["score"])
        axis.axvline(best["step"], color=VALIDATION, alpha=0.3, linestyle=":")
        axis.set_title(f"best {metric} {best['score']:.4f} at step {best['step']}", fontsize=9)
    axis.set_ylabel(unit)
    axis.legend(loc="lower right", frameon=False)
