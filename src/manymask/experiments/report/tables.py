"""The tables of the report: the paper's Tables I–III, the ablations, and the sweeps over one trained model."""

from typing import Any

from manymask.diffusion.process import GaussianDiffusion, RectifiedFlow
from manymask.experiments.matrix import TITLES, compared_samplers
from manymask.experiments.report import paper
from manymask.experiments.report.collect import Experiment, Line, RunResult
from manymask.experiments.report.table import (
    Column,
    Table,
    decibel,
    format_count,
    format_seconds,
    format_share,
    gibibytes,
    millions,
)

ONE_TO_ONE = ("unet", "unetpp", "resunet", "nnunet")
OURS = ("ours", "imagenet", "paper")

_DICE, _IOU = Column("Dice (95 %)", format_share, True), Column("IoU (95 %)", format_share, True)
_PAPER = (Column("paper: Dice", format_share), Column("paper: IoU", format_share))
_COSTS = (
    Column("parameters, M", millions), Column("s per image", format_seconds), Column("peak memory, GiB", gibibytes),
    Column("optimiser steps", format_count), Column("images seen", format_count),
)  # fmt: skip
_RATERS = (Column("GED²", format_share, True), Column("HM-IoU", format_share, True))
_CALIBRATION = (Column("ECE", format_share), Column("ECE near the lesion", format_share))


def all_tables(experiments: list[Experiment]) -> list[Table]:
    """Every table, with the rows that were not run."""
    tables = [table_1(experiments)]
    for e in experiments:
        tables += [table_2(e), table_3(e), budget(e)]
        tables += [ablation(e, name) for name in TITLES if name != "models" and e.table(name)]
        tables += [steps(e), samples(e), guidance(e), invariance_table(e)]
    return tables


def table_1(experiments: list[Experiment]) -> Table:
    """Codecs: how well masks and images survive compression, by loss and data set."""
    columns = [
        Column("data"),
        Column("input (loss)"),
        _DICE,
        _IOU,
        Column("SSIM", format_share, True),
        Column("PSNR, dB", decibel, True),
    ]
    columns += [
        Column(f"paper: {name}", f)
        for name, f in (("Dice", format_share), ("IoU", format_share), ("SSIM", format_share), ("PSNR", decibel))
    ]
    rows = [row for e in experiments for row in _codec_rows(e)]
    note = (
        "Mask codecs trained with a weight w are cut at 0.5 of the weighted probability, as the paper seems to, and again "
        "with ln w taken off the logits, so that 0.5 means p = 0.5 (same weights)."
    )
    return Table("table-1", "Table I: codecs", [*columns, *_COSTS[3:]], rows, note)


def _codec_rows(e: Experiment) -> list[list[Any]]:
    rows = []
    for line in [*e.table("loss"), *e.table("narrow")]:
        codec, (table, _, key) = line.codecs["mask-codec"], line.name.partition("-")
        subject = "mask" if table == "loss" else "mask, 1 latent channel"
        if key != "wce":
            rows.append(_codec_row(e, f"{subject} ({line.label})", codec, key, ("metrics",)))
            continue
        weight = codec.get("task", "recipe", "mask_codec", "loss", "weight")
        label = "weighted CE" if isinstance(weight, str) else f"weighted CE, w = {weight:g}"
        rows.append(_codec_row(e, f"{subject} ({label})", codec, key, ("threshold", "biased")))
        rows.append(_codec_row(e, f"{subject} ({label}, ln w taken off)", codec, "", ("threshold", "unbiased")))
    return [*rows, _codec_row(e, "image (MSE)", e.lines[0].codecs["image-codec"], "image", ("metrics",))]


def _codec_row(e: Experiment, label: str, codec: RunResult, key: str, where: tuple[str, ...]) -> list[Any]:
    ours = [codec.get(*where, metric) for metric in ("dice", "iou", "ssim", "psnr")]
    theirs = paper.TABLE_1.get(e.paper_name, {}).get(key, (None,) * 4)
    return [e.dataset, label, *ours, *theirs, codec.get("training", "steps"), codec.get("training", "images")]


def table_2(e: Experiment) -> Table:
    """Ours against networks that answer once; each also with as many passes as ours has samples."""
    n = e.facts["budget"]["samples"]
    rows = []
    for line in e.table("models"):
        if line.name in ONE_TO_ONE:
            rows.append([f"{line.label}, one pass", *_once(e, line)])
        if line.name in ONE_TO_ONE or line.name in OURS:
            rows.append([f"{line.label}, {n} {'passes' if line.name in ONE_TO_ONE else 'samples'}", *_model(e, line)])
        orientations = line.model.get("oriented", "orientations")
        if not isinstance(orientations, str):
            rows.append([f"{line.label}, {n} samples over {orientations} orientations", *_oriented(e, line)])
    note = (
        f"{n} passes: that many of the eight flips and quarter turns, so that samples win nothing by their count alone. "
        "Samples see the image as it is except in the rows “over orientations”, which is how the shipped models draw them."
    )
    return Table(f"table-2-{e.name}", f"Table II on {e.name}: one-to-one", _columns(e), rows, note)


def table_3(e: Experiment) -> Table:
    """Ours against models that draw many masks."""
    rows = [[line.label, *_model(e, line)] for line in e.table("models") if line.name not in ONE_TO_ONE]
    note = "All samples see the image as it is."
    return Table(f"table-3-{e.name}", f"Table III on {e.name}: one-to-many", _columns(e), rows, note)


def _columns(e: Experiment, first: str = "model", paper_too: bool = True) -> list[Column]:
    raters = _RATERS if e.several_raters else ()
    return [Column(first), _DICE, _IOU, *(_PAPER if paper_too else ()), *raters, *_CALIBRATION, *_COSTS]


def _model(e: Experiment, line: Line, paper_too: bool = True) -> list[Any]:
    return [*_scores(e, line, paper_too), *_costs(line.model, "latency_s")]


def _oriented(e: Experiment, line: Line) -> list[Any]:
    """The same model with its samples spread over orientations of the image."""
    return [*_scores(e, line, True, "oriented"), *_costs(line.model, "oriented", "latency_s")]


def _scores(e: Experiment, line: Line, paper_too: bool, *part: str) -> list[Any]:
    def get(*keys: str) -> Any:
        return line.model.get(*part, "metrics", *keys)

    theirs = paper.MODELS.get(line.name, {}).get(e.paper_name, (None, None)) if paper_too else ()
    many = [get("ged"), get("hm_iou")] if e.several_raters else []
    return [get("dice"), get("iou"), *theirs, *many, get("ece", "mean"), get("ece", "near_lesion")]


def _once(e: Experiment, line: Line) -> list[Any]:
    """The same network answering once: Dice and IoU off the curve at n = 1."""
    curve = line.model.get("curve")
    one = {"dice": curve, "iou": curve} if isinstance(curve, str) else curve[0]
    nothing = line.model.get("no such score")
    many = [nothing, nothing] if e.several_raters else []
    theirs = paper.MODELS.get(line.name, {}).get(e.paper_name, (None, None))
    return [one["dice"], one["iou"], *theirs, *many, nothing, nothing, *_costs(line.model, "latency_one_mask_s")]


def _costs(model: RunResult, *time: str) -> list[Any]:
    memory = model.get("peak_memory")
    return [
        model.get("model", "parameters"), model.get(*time),
        memory if isinstance(memory, str) else memory.get("gpu", memory["process"]),
        model.get("training", "steps"), model.get("training", "images"),
    ]  # fmt: skip


def budget(e: Experiment) -> Table:
    """What each model's time went to; shared codecs are charged to every model that builds on them."""
    stages = ("image-codec", "mask-codec")
    columns = [Column("model")]
    for part in ("image codec", "mask codec", "segmenter"):
        columns += [Column(f"{part}: min", decibel), Column("steps", format_count), Column("images", format_count)]
    columns += [Column("total, min", decibel), Column("peak memory in training, GiB", gibibytes)]
    rows = []
    for line in e.table("models"):
        parts = [line.codecs.get(stage) for stage in stages] + [line.model]
        took = [
            [None] * 3 if p is None else [p.get("training", k) for k in ("minutes", "steps", "images")] for p in parts
        ]
        spent = [part[0] for part in took if part[0] is not None]
        memory = line.model.get("training", "peak_memory")
        total = next((m for m in spent if isinstance(m, str)), None) or sum(m for m in spent if not isinstance(m, str))
        peak = memory if isinstance(memory, str) else memory.get("gpu", memory["process"])
        rows.append([line.label, *(v for part in took for v in part), total, peak])
    return Table(f"budget-{e.name}", f"Where the time went on {e.name}", columns, rows)


def ablation(e: Experiment, name: str) -> Table:
    """One property of the main model changed, everything else as it was."""
    rows = [
        [line.label + (" (ours)" if line.run_id == e.lines[0].run_id else ""), *_model(e, line, False)]
        for line in e.table(name)
    ]
    return Table(f"ablation-{name}-{e.name}", f"{TITLES[name]} on {e.name}", _columns(e, name, False), rows, least=2)


def steps(e: Experiment) -> Table:
    """The main model under every sampler and number of steps, and the flow under its own."""
    budget = e.facts["budget"]
    columns = [Column("sampler"), Column("steps", format_count), _DICE, *(_RATERS if e.several_raters else ()),
               *_CALIBRATION, Column("relative std", format_share), Column("s per image", format_seconds),
               Column("cases", format_count)]  # fmt: skip
    rows: list[list[Any]] = []
    wanted = (
        (_compared(GaussianDiffusion), "ours"),
        ("as the paper: DDPM", "paper"),
        (f"flow: {_compared(RectifiedFlow)}", "prediction-flow"),
    )
    for label, name in wanted:
        model = e.model(name)
        found = model.get("steps")
        if isinstance(found, str):
            rows.append([label, *[found] * (len(columns) - 1)])
            continue
        start = label.partition(":")[0] + ": " if ":" in label else ""
        rows += [[start + row["sampler"], row["steps"], row["dice"], *_many(e, row), *_ece(row), row["relative_std"]["mean"],
                  row["latency_s"], row["cases"]] for row in found]  # fmt: skip
    note = (
        f"{budget['samples']} samples{'; GED² and HM-IoU of as many' if e.several_raters else ''}. Spread: standard deviation "
        "over the samples, summed over pixels, divided by the area of their mean."
    )
    return Table(f"steps-{e.name}", f"Samplers and steps on {e.name}", columns, rows, note)


def _compared(process: type) -> str:
    return ", ".join(type(sampler).__name__ for sampler in compared_samplers(process))


def samples(e: Experiment) -> Table:
    """Dice and IoU of the consensus of n samples (Figure 3)."""
    found, theirs = e.main().get("curve"), paper.FIGURE_3.get(e.paper_name, {})
    columns = [Column("n", format_count), _DICE, _IOU, Column("paper: Dice", format_share)]
    if isinstance(found, str):
        return Table(f"samples-{e.name}", f"Dice against n on {e.name}", columns, [["all", found, found, None]])
    rows = [[row["n"], row["dice"], row["iou"], theirs.get(row["n"])] for row in found]
    return Table(f"samples-{e.name}", f"Dice against n on {e.name}", columns, rows)


def guidance(e: Experiment) -> Table:
    """The models trained for guidance, under every scale."""
    columns = [Column("guidance"), Column("scale", lambda v: f"{v:g}"), _DICE, *(_RATERS if e.several_raters else ()),
               *_CALIBRATION, Column("cases", format_count)]  # fmt: skip
    rows: list[list[Any]] = []
    for name, label in (("guidance-free", "classifier-free"), ("guidance-classifier", "classifier")):
        found = e.model(name).get("guidance")
        if isinstance(found, str):
            rows.append([label, *[found] * (len(columns) - 1)])
            continue
        rows += [[label, row["scale"], row["dice"], *_many(e, row), *_ece(row), row["cases"]] for row in found]
    note = "Classifier-free: 0 never hears the image, 1 is unguided. Classifier: 0 is unguided."
    return Table(f"guidance-{e.name}", f"Guidance scale on {e.name}", columns, rows, note)


def _many(e: Experiment, row: dict[str, Any]) -> list[Any]:
    return [row["ged"], row["hm_iou"]] if e.several_raters else []


def _ece(row: dict[str, Any]) -> list[Any]:
    return [row["ece"]["mean"], row["ece"].get("near_lesion", "–")]


def invariance_table(e: Experiment) -> Table:
    """Whether the codecs of each bottleneck commute with what should not matter."""
    columns = [Column("bottleneck"), Column("codec"), Column("under"), Column("Dice", format_share), Column("PSNR, dB", decibel),
               Column("latent error", format_share)]  # fmt: skip
    rows: list[list[Any]] = []
    for line in e.table("bottleneck"):
        for stage, codec in line.codecs.items():
            for change in ("flip", "shift", "rotation", "noise"):
                found = [codec.get("invariance", change, k) for k in ("dice", "psnr", "latent_error")]
                rows.append([line.label, stage.partition("-")[0], change, *found])
    note = (
        "The reconstruction of T x against T of the reconstruction of x, through the bottleneck, and encode(T x) against "
        "T encode(x) (root mean square of standardised latents, before any code is snapped to), for T a flip, a shift by 3 px, "
        "a rotation by 15°; for noise (σ = 0.05) against the codec of the clean input."
    )
    return Table(f"invariance-{e.name}", f"Invariance of the codecs on {e.name}", columns, rows, note)
