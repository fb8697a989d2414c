"""One figure of promises against what happened: bars of the shares, reliability before and after, risk against coverage."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manymask.evaluation.plots import new_figure
from manymask.experiments.report.plots import (
    COLOURS,
    FEWEST_PIXELS,
    calibration_line,
    house_style,
    reliability_axes,
    save,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_promises(found: Mapping[str, Any], path: Path) -> None:
    """Writes the figure of the entry `promises` of results.json."""
    with house_style():
        figure = new_figure(12.4, 3.0)
        axes = figure.subplots(1, 4)
        _shares(axes[0], found)
        _reliability(axes[1], found["reliability"]["everywhere"], "all pixels")
        _reliability(axes[2], found["reliability"]["near_lesion"], "pixels near the lesion")
        _risk_coverage(axes[3], found["ranking"])
        figure.tight_layout(w_pad=1.5)
        save(figure, path)


def _shares(axis: "Axes", found: Mapping[str, Any]) -> None:
    """A bar for each outline and α with its interval, and the promised share as a line across it."""
    entries = found["outlines"]
    for k, (side, label) in enumerate((("outer", "missed outside the outer"), ("inner", "false in the inner"))):
        shares = [entry[side]["share"] for entry in entries]
        x = np.arange(len(entries)) + 0.4 * k - 0.2
        mean = np.array([100 * share["mean"] for share in shares])
        ends = np.array([[100 * share["low"], 100 * share["high"]] for share in shares]).T
        error = np.abs(ends - mean)
        axis.bar(x, mean, 0.36, yerr=error, color=COLOURS[k], alpha=0.75, label=label, error_kw={"elinewidth": 0.8})
    for i, entry in enumerate(entries):
        legend = "promised, at most" if i == 0 else None
        axis.plot([i - 0.45, i + 0.45], [100 * entry["alpha"]] * 2, color="black", linewidth=1.4, label=legend)
    axis.set_xticks(range(len(entries)), [f"α = {entry['alpha']:g}" for entry in entries])
    axis.set(ylabel="mean share of pixels, %")
    axis.grid(axis="x", visible=False)
    _legend_above(axis)


def _reliability(axis: "Axes", diagrams: Mapping[str, Any], pixels: str) -> None:
    reliability_axes(axis, f"share of raters, {pixels}")
    for k, (when, label) in enumerate((("before", "raw"), ("after", "calibrated"))):
        diagram = {name: diagrams[when][name] for name in ("count", "confidence", "frequency")}
        if max(diagram["count"]) >= FEWEST_PIXELS:
            calibration_line(axis, diagram, f"{label} (ECE {diagrams[when]['ece']:.3f})", 1 - k)
    axis.legend(fontsize=6.5)


def _risk_coverage(axis: "Axes", ranking: Mapping[str, Any]) -> None:
    risk = ranking["risk_coverage"]
    coverage = np.arange(1, len(risk) + 1) / len(risk)
    label = f"by predicted failure (AURC {ranking['aurc']:.3f})"
    axis.plot(coverage, risk, color=COLOURS[0], label=label)
    best = ranking["aurc"] - ranking["excess_aurc"]
    axis.plot(
        coverage, ranking["best_risk_coverage"], color=COLOURS[2], linestyle="--", label=f"best order ({best:.3f})"
    )
    whole = ranking["aurc_of_random_order"]
    axis.axhline(whole, color="0.6", linewidth=0.8, label=f"random order ({whole:.3f})")
    axis.set(xlabel="coverage: share of cases kept", ylabel="1 − Dice, mean of those kept", xlim=(0, 1))
    _legend_above(axis)


def _legend_above(axis: "Axes") -> None:
    """A legend at the top, with room for it above what is drawn."""
    axis.set_ylim(0, 1.35 * axis.get_ylim()[1])
    axis.legend(fontsize=6.5, loc="upper left")
