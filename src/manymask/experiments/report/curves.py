"""How one trained model's answers depend on how it is used: calibration, number of masks, steps and time."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manymask.data.case import evenly_spaced
from manymask.data.store import Store
from manymask.errors import ConfigError
from manymask.evaluation.evaluator import EvalConfig, evaluate, results
from manymask.evaluation.held_out import held_out_cases, matched_store
from manymask.evaluation.plots import new_figure
from manymask.experiments.matrix import Budget, sampling_of
from manymask.experiments.report.plots import band, calibration_line, house_style, logarithmic, reliability_axes, save
from manymask.experiments.sweeps import sample_curve, under
from manymask.extras import require_figures
from manymask.hub.model_folder import load_model
from manymask.io.atomic import check_place, write_json
from manymask.recipes import Stage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STEPS = (1, 2, 3, 5, 10, 20, 50)


def curves(model: Path | str, data: Path, out: Path, cases: int | None = None) -> dict[str, Any]:
    """Scores the model on at most `cases` test cases, evenly spaced, under 1 … 30 masks and under 1 … 50 steps of the
    first sampler without noise that serves its process; writes curves.json and curves.png.

    Returns what curves.json holds. Raises `ConfigError` for a model that is no diffusion model.
    """
    require_figures()
    check_place(out, {"curves.json": "curve"})
    trained, budget = load_model(model), Budget()
    store = matched_store(trained.recipe, Store(data))
    family: Any = sampling_of(trained.recipe, 1).sampler
    if trained.stage != Stage.SEGMENTER or family is None:
        raise ConfigError(f"{model} has no sampler, so there is no curve to draw of it")
    ids = evenly_spaced(held_out_cases(trained, store, "test"), cases)
    protocol = EvalConfig(budget.samples)
    scores = evaluate(trained.model, store, ids, protocol)
    found = results(trained, store, "test", protocol, scores).to_dict()
    del found["cases"]
    found["curve"] = sample_curve(trained.segmenter, store, ids, protocol, range(1, budget.most_samples + 1))
    found["steps"] = [under(replace(family, steps=n), trained.segmenter, store, ids, budget) for n in STEPS]
    write_json(out / "curves.json", found)
    draw_curves(found, out / "curves.png")
    return found


def draw_curves(found: dict[str, Any], path: Path) -> None:
    """Three panels: reliability, Dice against the number of masks, Dice against seconds with the steps written beside."""
    with house_style():
        figure = new_figure(8.6, 2.7)
        axes = figure.subplots(1, 3)
        _reliability(axes[0], found)
        band(axes[1], [row["n"] for row in found["curve"]], [row["dice"] for row in found["curve"]], "", 0)
        orientations = found["model"]["recipe"]["segmenter"].get("orientations", 1)
        over = f", over {orientations} orientations of the image" if orientations > 1 else ""
        axes[1].set(xlabel=f"masks n{over}", ylabel="Dice of the consensus (95 % interval)")
        _front(axes[2], found["steps"], found["protocol"]["samples"])
        figure.tight_layout(w_pad=1.5)
        save(figure, path)


def _reliability(axis: "Axes", found: dict[str, Any]) -> None:
    reliability_axes(axis, "share of raters")
    for k, (region, label) in enumerate((("everywhere", "all pixels"), ("near_lesion", "near the lesion"))):
        error = found["metrics"]["ece"]["mean" if region == "everywhere" else region]
        calibration_line(axis, found["reliability"][region], f"{label} (ECE {error:.3f})", k)
    axis.legend(fontsize=6)


def _front(axis: "Axes", rows: list[dict[str, Any]], samples: int) -> None:
    """Every point is a number of steps."""
    rows = sorted(rows, key=lambda row: row["latency_s"])
    band(axis, [row["latency_s"] for row in rows], [row["dice"] for row in rows], "", 1)
    for row in rows:
        place = row["latency_s"], row["dice"]["mean"]
        axis.annotate(str(row["steps"]), place, (0, -9), textcoords="offset points", fontsize=6, ha="center")
    logarithmic(axis)
    axis.set(xlabel=f"seconds, {samples} masks (labels: steps of {rows[0]['sampler']})", ylabel="Dice (95 % interval)")
