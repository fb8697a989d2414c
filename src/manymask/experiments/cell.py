"""One piece of a matrix, a codec or a model: trained in a process of its own, scored in another, so that peak memory is
its own and a crash takes nothing else down.

FOLDER/task.json       what is to be done; a folder of another task is refused
FOLDER/STAGE/          the run, as `manymask train` leaves it
FOLDER/training.json   what the training took
FOLDER/result.json     the scores: the task is done
FOLDER/failed.json     why it is not, if it failed; tried again by the next run
FOLDER/log.txt         all that was said
"""

import multiprocessing
import os
import shutil
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from manymask.choices import Precision
from manymask.config import difference, from_dict, to_dict
from manymask.data.case import evenly_spaced
from manymask.data.store import Store
from manymask.errors import ConfigError, InputError, Interruption, ManymaskError
from manymask.evaluation.calibrate import CalibrationConfig, calibrate
from manymask.evaluation.evaluator import EvalConfig, evaluate, results
from manymask.evaluation.held_out import held_out_cases, matched_store
from manymask.evaluation.invariance import invariance
from manymask.evaluation.outcomes import Outcomes
from manymask.evaluation.profiling import clear_peak, median_latency, peak_memory
from manymask.evaluation.promises import kept_promises
from manymask.experiments.figures import draw_figures
from manymask.experiments.matrix import Budget, sampling_of
from manymask.experiments.sweeps import codec_variants, oriented, sample_curve, sweeps
from manymask.hub.model_folder import TrainedModel, load_model
from manymask.io.atomic import read_json, read_object, write_json
from manymask.recipes import Recipe, Stage
from manymask.runtime import default_device, git_revision, hardware, use_device
from manymask.training.checkpoint import progress_of
from manymask.training.initialization import TrainConfig
from manymask.training.trainer import fit


@dataclass(frozen=True)
class RunSpec:
    """A stage of a recipe on one split of one store. `codecs` are the folders of the codec tasks it builds on,
    relative to its own; `main` marks the model that the sweeps and figures are made with."""

    name: str
    stage: Stage
    recipe: Recipe
    data_hash: str
    scheme: str
    minutes: float | None
    budget: Budget
    precision: Precision
    codecs: tuple[str, ...] = ()
    main: bool = False


def begin(task: RunSpec, folder: Path) -> None:
    """Writes task.json, or refuses a folder that holds another task."""
    path, wanted = folder / "task.json", to_dict(task)
    if not path.exists():
        write_json(path, wanted)
    changed = difference(read_object(path), wanted)
    if changed:
        raise ConfigError(
            f"{folder} holds results of other settings ({changed[0]}): name another output folder",
            remedies=("out",),
            path=folder,
        )


def train(task: RunSpec, folder: Path, store: Store) -> None:
    """Trains what is left of the time (or of the steps) and notes what it took."""
    for place in task.codecs:
        stage = next(p.parent.name for p in (folder / place).glob("*-codec/model"))
        if not (folder / stage / "model").exists():
            shutil.copytree(folder / place / stage / "model", folder / stage / "model")
    job = TrainConfig(task.recipe, task.stage, store, folder, task.scheme, precision=task.precision)
    done = progress_of(job.folder)
    left = None if task.minutes is None else max(0.0, task.minutes - done.seconds / 60)
    if not (job.folder / "model").exists():
        fit(job, left)
    done = progress_of(job.folder)
    batch = task.recipe.plan(task.stage)[0].batch_size
    write_json(folder / "training.json", {
        "steps": done.step, "images": done.step * batch, "minutes": done.seconds / 60, "precision": task.precision,
        "seed": task.recipe.plan(task.stage)[0].seed, "peak_memory": peak_memory(), "hardware": hardware(), "git": git_revision(),
    })  # fmt: skip


def score(task: RunSpec, folder: Path, store: Store) -> None:
    """Scores the trained model and writes result.json; the sweeps for the main model alone. All samples see the image as
    it is, so that models that draw many masks are compared by their samples; `oriented` has a model that spreads them over
    orientations by its recipe as it is shipped."""
    budget, trained = task.budget, load_model(folder / task.stage / "model")
    store = matched_store(trained.recipe, store)
    model: Any = trained.model
    ids = evenly_spaced(held_out_cases(trained, store, "test"), budget.cases)
    sampling = sampling_of(task.recipe, budget.steps)
    orientations = getattr(model.setting, "orientations", 1)
    protocol = EvalConfig(budget.samples, sampling=sampling)
    outcomes = Outcomes() if task.main else None
    clear_peak()
    scores = evaluate(model, store, ids, protocol, progress=False, outcomes=outcomes)
    found = {"status": "done", "task": to_dict(task), "training": read_json(folder / "training.json")}
    found |= results(trained, store, "test", protocol, scores).to_dict() | {"peak_memory": peak_memory()}
    if task.stage != Stage.SEGMENTER:
        batches = (
            store.batch(ids[i : i + protocol.batch_size]).to(default_device())
            for i in range(0, len(ids), protocol.batch_size)
        )
        found["invariance"] = invariance(model, batches)
        write_json(folder / "result.json", found | codec_variants(model, store, ids, protocol, scores))
        return
    if outcomes is not None:
        found["promises"] = promises(trained, store, outcomes, protocol, budget.cases)
    found["latency_s"] = median_latency(model, store, ids, budget.samples, sampling)
    if orientations > 1:
        found["oriented"] = oriented(model, orientations, store, ids, protocol)
    found["latency_one_mask_s"] = median_latency(model, store, ids, 1, sampling)
    counts = range(1, budget.most_samples + 1) if task.main else (1, budget.samples)
    found["curve"] = sample_curve(model, store, ids, protocol, counts)
    found |= sweeps(model, store, evenly_spaced(ids, budget.sweep_cases), budget, task.main)
    if task.main:
        draw_figures(model, store, evenly_spaced(ids, 4), folder / "figures", sampling)
    write_json(folder / "result.json", found)


def promises(
    trained: TrainedModel, store: Store, outcomes: Outcomes, protocol: EvalConfig, cases: int | None
) -> dict[str, Any]:
    """What a calibration on the validation part promises against what happened on test, or why there is none."""
    config = CalibrationConfig(protocol.samples, protocol.seed, protocol.sampling, batch_size=protocol.batch_size)
    try:
        return kept_promises(calibrate(trained, store, config, limit=cases, progress=False), outcomes, home=True)
    except InputError as error:
        return {"calibrated": False, "why_not": str(error)}


def _die_with_parent() -> None:
    """Ends this process if the one that started it is killed, so that no two ever work in one folder."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def run_phase(phase: str, folder: Path, place: Path, device: str | None = None) -> None:
    """The life of a task's process: all output to log.txt, one line and exit status 2 for a user's mistake."""
    with (folder / "log.txt").open("ab") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    if "OMP_NUM_THREADS" not in os.environ and hasattr(os, "sched_getaffinity"):
        torch.set_num_threads(len(os.sched_getaffinity(0)))  # more threads than cores spin
    task: Any = from_dict(RunSpec, read_json(folder / "task.json"), "task")
    if device is not None:
        use_device(device)
    try:
        (train if phase == "train" else score)(task, folder, Store(place))
    except ManymaskError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except Interruption as stop:
        print(stop, file=sys.stderr)
        sys.exit(stop.status)
