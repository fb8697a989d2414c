"""The plots of the report. Colours are Okabe and Ito's, which the colour-blind can tell apart; markers differ too."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manymask.diffusion.process import RectifiedFlow
from manymask.diffusion.samplers import SAMPLERS
from manymask.evaluation.plots import new_figure
from manymask.experiments.report import paper
from manymask.experiments.report.collect import Experiment
from manymask.extras import require_figures
from manymask.io.atomic import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"

RELIABILITY = ("ours", "unet", "unetpp", "resunet", "nnunet", "prob-unet", "ensemblediff")
FEWEST_PIXELS = 20  # of a bin; emptier ones say nothing

STYLE = {
    "font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6, "legend.frameon": False,
    "lines.linewidth": 1.2, "lines.markersize": 4, "axes.grid": True, "grid.alpha": 0.25, "grid.linewidth": 0.5,
    "savefig.dpi": 200,
}  # fmt: skip


def all_plots(experiments: Sequence[Experiment], folder: Path) -> dict[str, str]:
    """Every plot that there are results for: file name → title. What was not run is not drawn."""
    drawn: dict[str, str] = {}
    with house_style():
        if _samples(experiments, folder / "figure-3-samples.png"):
            drawn["figure-3-samples.png"] = "Figure 3: Dice of the consensus against the number of samples"
        for e in experiments:
            for name, title, draw in (
                ("reliability", "Reliability, all pixels", _reliability),
                ("steps", "Samplers and steps (hollow: more than 50, on fewer cases, see the table)", _steps),
                ("front", "Dice against time", _front),
                ("guidance", "Guidance scale, with 95 % intervals", _guidance),
            ):
                if draw(e, folder / f"{name}-{e.name}.png"):
                    drawn[f"{name}-{e.name}.png"] = f"{title}, {e.name}"
    return drawn


def house_style() -> AbstractContextManager[None]:
    """Within it figures are drawn in `STYLE`."""
    require_figures()
    import matplotlib

    return matplotlib.rc_context(STYLE)


def save(figure: Any, path: Path) -> bool:
    """Writes a figure."""
    with atomic_file(path) as beside:
        figure.savefig(beside, bbox_inches="tight", pad_inches=0.05)
    return True


def logarithmic(axis: "Axes") -> None:
    """Steps or seconds by powers of ten, written out."""
    from matplotlib.ticker import FuncFormatter

    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    # less than a power of ten has no other labels
    axis.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:g}"[-1] in "25" else ""))


def band(axis: "Axes", x: Sequence[float], scores: Sequence[dict[str, float]], label: str, k: int) -> None:
    """A line of means within its 95 % interval."""
    axis.plot(x, [s["mean"] for s in scores], color=COLOURS[k], marker=MARKERS[k], markersize=3, label=label)
    axis.fill_between(x, [s["low"] for s in scores], [s["high"] for s in scores], color=COLOURS[k], alpha=0.15, lw=0)


def reliability_axes(axis: "Axes", ylabel: str) -> None:
    """The unit square with its diagonal, on which a calibrated model lies."""
    axis.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
    axis.set(xlabel="confidence", ylabel=ylabel, xlim=(0, 1), ylim=(0, 1), aspect="equal")


def calibration_line(axis: "Axes", diagram: dict[str, list[float]], label: str, k: int) -> None:
    """What share of raters marked the pixels of each bin of confidence; bins of too few pixels are left out."""
    bins = {name: np.array(values) for name, values in diagram.items()}
    full = bins["count"] >= FEWEST_PIXELS
    axis.plot(bins["confidence"][full] / bins["count"][full], bins["frequency"][full] / bins["count"][full],
              color=COLOURS[k], marker=MARKERS[k], markersize=3, label=label)  # fmt: skip


def _samples(experiments: Sequence[Experiment], path: Path) -> bool:
    """Figure 3, with the paper's own values as hollow markers."""
    found = [e for e in experiments if not isinstance(e.main().get("curve"), str)]
    if not found:
        return False
    figure = new_figure(4.2, 2.8)
    axis = figure.subplots()
    for k, e in enumerate(found):
        curve = e.main().get("curve")
        band(axis, [row["n"] for row in curve], [row["dice"] for row in curve], e.name, k % len(COLOURS))
        theirs = paper.FIGURE_3.get(e.paper_name, {})
        if theirs:
            axis.plot(list(theirs), list(theirs.values()), color=COLOURS[k % len(COLOURS)], marker=MARKERS[k % len(MARKERS)],
                      markerfacecolor="none", linestyle="none", markersize=7, label=f"{e.name}, the paper")  # fmt: skip
    axis.set(xlabel="samples n", ylabel="Dice (95 % interval)")
    axis.legend(fontsize=7)
    return save(figure, path)


def _reliability(e: Experiment, path: Path) -> bool:
    found = [line for line in e.table("models") if line.name in RELIABILITY and line.model.status == "done"]
    if not found:
        return False
    figure = new_figure(3.2, 3.2)
    axis = figure.subplots()
    reliability_axes(axis, "share of raters who marked the pixel")
    for k, line in enumerate(found):
        error = line.model.get("metrics", "ece")
        label = f"{line.label} (ECE {error['mean']:.3f})"
        calibration_line(axis, line.model.get("reliability", "everywhere"), label, k)
    axis.legend(fontsize=6, title="model", title_fontsize=6, loc="center left", bbox_to_anchor=(1, 0.5))
    return save(figure, path)


def _steps(e: Experiment, path: Path) -> bool:
    """Dice, and with several raters GED² and HM-IoU, against the steps of each sampler."""
    models = [e.main().get("steps"), e.model("prediction-flow").get("steps")]
    rows = [row for found in models if not isinstance(found, str) for row in found]
    if not rows:
        return False
    shown = [
        ("dice", "Dice"),
        *([("ged", "GED², lower is better"), ("hm_iou", "HM-IoU")] if e.several_raters else []),
    ]
    figure = new_figure(2.9 * len(shown) + 0.6, 2.6)
    axes = figure.subplots(1, len(shown), squeeze=False)
    for axis, (name, label) in zip(axes[0], shown, strict=True):
        for k, sampler in enumerate(dict.fromkeys(row["sampler"] for row in rows)):
            mine = [row for row in rows if row["sampler"] == sampler]
            alike = [row for row in mine if row["cases"] == mine[0]["cases"]]
            fewer = [row for row in mine if row not in alike]
            style = {"color": COLOURS[k % len(COLOURS)], "marker": MARKERS[k % len(MARKERS)]}
            axis.plot(
                [r["steps"] for r in alike], [r[name]["mean"] for r in alike], label=_sampler_title(sampler), **style
            )
            axis.plot([r["steps"] for r in fewer], [r[name]["mean"] for r in fewer], markerfacecolor="none", linestyle="none",
                      **style)  # fmt: skip
        logarithmic(axis)
        axis.set(xlabel="steps", ylabel=label)
    axes[0, -1].legend(fontsize=6.5, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.tight_layout(w_pad=1)
    return save(figure, path)


def _sampler_title(name: str) -> str:
    """The label of a sampler by its class name as results hold it; of one that is gone, that name."""
    found = next((kind for kind in SAMPLERS.values() if kind.__name__ == name), None)
    if found is None:
        return name
    return found.label + (" (flow)" if found.serves[0] is RectifiedFlow else "")


def _front(e: Experiment, path: Path) -> bool:
    """Every model by its time for one image, and the main one along its steps."""
    found = [line for line in e.table("models") if line.model.status == "done"]
    if not found:
        return False
    figure = new_figure(5.2, 3.0)
    axis = figure.subplots()
    steps = e.main().get("steps")
    if not isinstance(steps, str):
        mine = [row for row in steps if row["sampler"] == "DDIM" and row["cases"] == steps[0]["cases"]]
        label = (
            f"{found[0].label}, DDIM with {', '.join(str(r['steps']) for r in mine)} steps, {mine[0]['cases']} cases"
        )
        times, scores = [r["latency_s"] for r in mine], [r["dice"]["mean"] for r in mine]
        axis.plot(times, scores, color="0.5", marker=".", label=label)
    for k, line in enumerate(found):
        score, time = line.model.get("metrics", "dice"), line.model.get("latency_s")
        colour, marker = COLOURS[k % len(COLOURS)], MARKERS[(k + k // len(COLOURS)) % len(MARKERS)]
        axis.errorbar(time, score["mean"], yerr=[[score["mean"] - score["low"]], [score["high"] - score["mean"]]],
                      color=colour, marker=marker, markerfacecolor=colour if k < len(COLOURS) else "white",
                      linestyle="none", elinewidth=0.7, label=line.label)  # fmt: skip
    logarithmic(axis)
    axis.set(xlabel=f"seconds per image, {e.facts['budget']['samples']} masks", ylabel="Dice (95 % interval)")
    axis.legend(fontsize=6, loc="center left", bbox_to_anchor=(1, 0.5))
    return save(figure, path)


def _guidance(e: Experiment, path: Path) -> bool:
    """Dice, and with several raters GED², against the scale."""
    names = {"guidance-free": "classifier-free", "guidance-classifier": "classifier"}
    found = {label: e.model(name).get("guidance") for name, label in names.items()}
    found = {label: rows for label, rows in found.items() if not isinstance(rows, str)}
    if not found:
        return False
    shown = [("dice", "Dice"), *([("ged", "GED², lower is better")] if e.several_raters else [])]
    figure = new_figure(2.9 * len(shown), 2.5)
    axes = figure.subplots(1, len(shown), squeeze=False)
    for axis, (name, label) in zip(axes[0], shown, strict=True):
        for k, (title, rows) in enumerate(found.items()):
            band(axis, [row["scale"] for row in rows], [row[name] for row in rows], title, k)
        axis.set(xlabel="guidance scale", ylabel=label)
    axes[0, 0].legend(fontsize=7)
    figure.tight_layout(w_pad=1)
    return save(figure, path)
