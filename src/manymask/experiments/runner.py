"""`manymask reproduce`: the whole matrix from data to report. What is done is skipped, what was interrupted goes on, what
fails is noted and the rest goes on.

OUT/RECIPE/experiment.json   budget, data, the rows of every table and the cell that each shows
OUT/RECIPE/codecs/NAME/      a trained codec each, shared by all cells with equal codec settings; see `task`
OUT/RECIPE/cells/NAME/       a trained model each
OUT/report/                  tables and figures over all recipes
"""

import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from manymask.choices import Precision
from manymask.config import difference, to_dict
from manymask.data.datasets import DATASETS
from manymask.data.store import Store, prepare
from manymask.errors import ConfigError, InputError, ManymaskError
from manymask.experiments.cell import RunSpec, begin, run_phase
from manymask.experiments.matrix import MAIN, Budget, Variant, matrix, minutes, selected
from manymask.experiments.report.collect import find
from manymask.experiments.report.shape import EXPERIMENT, check
from manymask.experiments.report.write import write_report
from manymask.extras import require_training
from manymask.io.atomic import read_json, read_object, write_json
from manymask.recipes import Recipe, Stage, get_recipe, stages_of
from manymask.runtime import chosen_device, faster_precision, git_revision

ERROR_LENGTH = 300
START = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


@dataclass(frozen=True)
class ReproduceConfig:
    """What is run, on what, where."""

    recipes: tuple[str, ...]
    out: Path
    data: Path | None = None
    source: Path | None = None
    scheme: str | None = None
    size: int | None = None
    only: tuple[str, ...] = ()
    codecs_only: bool = False
    budget: Budget = Budget()
    precision: Precision = "auto"


RunSpecs = dict[str, RunSpec]  # folder below OUT/RECIPE → what is done there, codecs before what builds on them


def reproduce(plan: ReproduceConfig) -> Path:
    """Runs the matrix of every recipe and writes the report, whose folder is returned."""
    require_training()
    console = Console()
    precision = (
        faster_precision() if plan.precision == "auto" else plan.precision
    )  # one for all, so that none is favoured
    work = []
    for name in plan.recipes:
        get_recipe(name)
        store = find_store(plan, name)
        other = None if store.stored[0] == get_recipe(name).stored else store.stored[0]
        rows = matrix(name, store.raters, other, plan.budget)
        folder = plan.out / name
        chosen = selected(rows, plan.only)
        write_experiment(folder, rows, store, plan, precision)
        pieces = plan_pieces(rows, chosen, store, plan.scheme, plan.budget, precision)
        if plan.codecs_only:
            pieces = {place: task for place, task in pieces.items() if task.stage != Stage.SEGMENTER}
        for place, task in pieces.items():
            begin(task, folder / place)
            work.append((folder / place, task, store))
    failed = run_all(work, console)
    write_report([plan.out / name for name in plan.recipes], plan.out / "report")
    console.print(f"report → {plan.out / 'report' / 'report.md'}", soft_wrap=True)
    if failed:
        raise InputError(
            f"{len(failed)} of {len(work)} run(s) failed: {', '.join(failed)}; the same command tries them again"
        )
    return plan.out / "report"


def find_store(plan: ReproduceConfig, name: str) -> Store:
    """The prepared store of a recipe: `data`, or `data/NAME` where several recipes share it, or one made from `source`
    (the phantom needs none) below the output."""
    row = get_recipe(name)
    if plan.data is not None:
        inside = plan.data / name
        store = Store(inside if (inside / "manifest.json").exists() else plan.data)
        if store.name != row.dataset:
            raise ConfigError(
                f"{store.folder} holds {store.name}, the recipe {name} takes {row.dataset}", path=store.folder
            )
        return _of_size(store, plan.size)
    place = plan.out / name / "data"
    if place.exists():
        return _of_size(Store(place), plan.size)
    dataset = DATASETS[row.dataset]
    if plan.source is None and dataset.needs_source:
        raise ConfigError(f"{name} needs a prepared store, or the data set as downloaded", remedies=("data", "source"))
    return prepare(dataset.read(plan.source, row.channels, None), place, plan.size or row.stored, row.channels)


def _of_size(store: Store, size: int | None) -> Store:
    if size not in (None, store.stored[0]):
        raise ConfigError(
            f"{store.folder} was prepared at {store.stored[0]}²: prepare it at {size}²",
            parameter="size",
            path=store.folder,
        )
    return store


def write_experiment(folder: Path, rows: list[Variant], store: Store, plan: ReproduceConfig, precision: str) -> None:
    """experiment.json, from which the report knows what could have been run; refuses other budget or other data."""
    scheme = plan.scheme or store.default_scheme
    store.part(scheme, "test")
    shared = {
        "budget": to_dict(plan.budget), "precision": precision,
        "data": {"name": store.name, "hash": store.hash, "scheme": scheme, "size": int(store.stored[0]),
                 "raters": store.raters, "remark": store.remark},
    }  # fmt: skip
    path = folder / "experiment.json"
    if path.exists():
        found = read_object(path)
        check(found, EXPERIMENT, str(path))
        changed = difference({k: found[k] for k in shared}, {**shared, "budget": _plain(shared["budget"])})
        if changed:
            raise ConfigError(
                f"{folder} holds results of other settings ({changed[0]}): name another output folder",
                remedies=("out",),
                path=folder,
            )
    tables = [{"table": r.table, "name": r.name, "label": r.label, "run_id": r.run_id, "codecs": codec_names(rows, r.recipe)}
              for r in rows]  # fmt: skip
    write_json(path, {"recipe": folder.name, "git": git_revision(), **shared, "rows": tables})


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in value.items()}


def codec_names(rows: list[Variant], wanted: Recipe) -> dict[Stage, str]:
    """The folder of each codec that a recipe needs, named after the first row of the whole matrix with an equal one."""
    names: dict[Stage, str] = {}
    for stage in stages_of(wanted)[:-1]:
        first = next(row for row in rows if _same_codec(row.recipe, wanted, stage))
        names[stage] = f"codecs/{first.name}-{stage.partition('-')[0]}"
    return names


def _same_codec(one: Recipe, other: Recipe, stage: Stage) -> bool:
    part = stage.replace("-", "_")
    return (getattr(one, part), *one.plan(stage)) == (getattr(other, part), *other.plan(stage))


def plan_pieces(
    rows: list[Variant], chosen: list[Variant], store: Store, scheme: str | None, budget: Budget, precision: Precision
) -> RunSpecs:
    """The tasks of the chosen rows, each once. A shared codec gets its part of the budget once, and every model that
    builds on it is charged for it."""
    pieces: RunSpecs = {}

    def task(name: str, stage: Stage, made: Recipe) -> RunSpec:
        time = minutes(made, stage, budget.minutes)
        return RunSpec(name, stage, made, store.hash, scheme or store.default_scheme, time, budget, precision)

    for row in chosen:
        codecs = codec_names(rows, row.recipe)
        for stage, place in codecs.items():
            owner = next(r for r in rows if _same_codec(r.recipe, row.recipe, stage))
            pieces.setdefault(place, task(Path(place).name, stage, owner.recipe))
        places = tuple(f"../../{place}" for place in codecs.values())
        model = task(row.run_id, Stage.SEGMENTER, row.recipe)
        pieces[f"cells/{row.run_id}"] = replace(model, codecs=places, main=row.run_id == MAIN)
    return pieces


def run_all(work: list[tuple[Path, RunSpec, Store]], console: Console) -> list[str]:
    """One task after another, each alone on the machine, under one display; failures are noted and shown. Returns the names
    of the tasks that failed."""
    failed = list[str]()
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as display:
        bar = display.add_task("matrix", total=len(work))
        for folder, task, store in work:
            display.update(bar, description=f"{folder.parents[1].name} · {task.name}")
            if find(folder).status != "done":
                tell = partial(_show_phase, display, bar, task.name)
                run_task(folder, task, store, tell)
                console.print(outcome(folder, task), soft_wrap=True)
                failed += [] if (folder / "result.json").exists() else [task.name]
            display.advance(bar)
    return failed


def _show_phase(display: Progress, bar: TaskID, name: str, phase: str) -> None:
    display.update(bar, description=f"{name} · {phase}")


def run_task(folder: Path, task: RunSpec, store: Store, tell: Callable[[str], None] = lambda phase: None) -> None:
    """Trains and scores a task, each in a process of its own, skipping what is done; leaves result.json or
    failed.json."""
    (folder / "failed.json").unlink(missing_ok=True)
    _set_aside_damaged(folder)
    lame = next((place for place in task.codecs if find(folder / place).status != "done"), None)
    if lame is not None:
        write_json(folder / "failed.json", {"phase": "train", "error": f"its codec {Path(lame).name} failed"})
        return
    for phase, product in (("train", "training.json"), ("score", "result.json")):
        if (folder / product).exists():
            continue
        tell(phase)
        status = _process(phase, folder, store)
        if status != 0 or not (folder / product).exists():
            write_json(folder / "failed.json", {"phase": phase, "error": _last_words(folder / "log.txt", status)})
            return


def _set_aside_damaged(folder: Path) -> None:
    """What of a task cannot be read is made again, from what is left of it."""
    damaged = ["result.json"] if find(folder).status == "damaged" else []
    try:
        if (folder / "training.json").exists():
            read_object(folder / "training.json")
    except ManymaskError:
        damaged.append("training.json")
    for name in damaged:
        (folder / name).replace(folder / f"damaged-{name}")


def _process(phase: str, folder: Path, store: Store) -> int:
    """The exit status of a task's own process, forked from a server that has all imported but done nothing yet."""
    context: Any = multiprocessing.get_context(START)
    context.set_forkserver_preload(["manymask.experiments.cell"])
    child = context.Process(target=run_phase, args=(phase, folder.resolve(), store.folder.resolve(), chosen_device()))
    child.start()
    try:
        child.join()
    finally:  # interrupted: it must not outlive us
        if child.is_alive():
            child.terminate()
            child.join()
    return int(child.exitcode)


def _last_words(log: Path, status: int) -> str:
    lines = [
        line.strip() for line in log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()
    ]
    said = next((line for line in reversed(lines) if line), "nothing")
    return f"ended with status {status}: {said[:ERROR_LENGTH]}"


def outcome(folder: Path, task: RunSpec) -> str:
    """A line on what came of a task."""
    if not (folder / "result.json").exists():
        return f"[red]failed[/] {task.name}: {read_json(folder / 'failed.json')['error']} ({folder / 'log.txt'})"
    found = read_json(folder / "result.json")
    took, metrics = found["training"], found["metrics"]
    name = next(name for name in ("dice", "psnr") if name in metrics)
    memory = max(took["peak_memory"].values()) / 2**30
    return (
        f"[green]done[/] {task.name}: {name} {metrics[name]['mean']:.3f}, {took['steps']:,} steps, {took['images']:,} images, "
        f"{took['minutes']:.1f} min, {found['model']['parameters'] / 1e6:.2f} M parameters, {memory:.1f} GiB"
    )
