"""The three verbs of a researcher as calls: prepare data, train, evaluate. `import manymask` offers them lazily."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from manymask.calibration.calibration import Calibration
from manymask.calibration.risk import ALPHAS
from manymask.choices import Engine, Precision
from manymask.data.case import Part, evenly_spaced
from manymask.data.datasets import DATASETS
from manymask.data.store import Store
from manymask.data.store import prepare as write_store
from manymask.diffusion.sampling import SamplingConfig
from manymask.errors import ConfigError, guesses
from manymask.evaluation.calibrate import CalibrationConfig, CalibrationSplit, sampling_record
from manymask.evaluation.calibrate import calibrate as fit_calibration
from manymask.evaluation.evaluator import DrawCase, EvalConfig, results
from manymask.evaluation.evaluator import evaluate as score
from manymask.evaluation.external import FolderReading, Scored, data_to_score
from manymask.evaluation.held_out import held_out_cases, matched_store
from manymask.evaluation.leakage import with_unseen
from manymask.evaluation.outcomes import Outcomes
from manymask.evaluation.promises import kept_promises, unpromised
from manymask.evaluation.records import EvaluationRecord
from manymask.export.kept import engine_for
from manymask.hub.model_folder import TrainedModel, load_model
from manymask.inference.preprocess import check_tile
from manymask.inference.windowed_cases import WindowedCases
from manymask.io.masks import MaskReading
from manymask.recipes import STAGES, Recipe, Stage, get_recipe, stages_of
from manymask.training.initialization import TrainConfig
from manymask.training.trainer import fit


def prepare(
    recipe: str | Recipe,
    out: Path | str,
    source: Path | str | None = None,
    *,
    size: int | None = None,
    skip_bad: bool = False,
    reading: MaskReading | None = None,
    **options: Any,
) -> Store:
    """Read a data set as downloaded and write it as a prepared store with its split.

    Args:
        recipe: whose data set, size and channels are used, by name or as an object.
        out: folder of the store; must not exist yet.
        source: folder of the data set as downloaded and unpacked; the phantom needs none.
        size: side of the prepared images, pixels; the recipe's if None.
        skip_bad: leave out what cannot be read and name it in `Store.warnings`; otherwise nothing is written.
        reading: which pixels of mask files are foreground; by default masks must be black and white.
        options: of the data set, such as `masks` for a folder of one's own.

    Returns:
        The open store.

    Raises:
        ManymaskError: the source is missing, or holds images or masks that cannot be used.
    """
    row = _recipe(recipe)
    folder = None if source is None else Path(source)
    dataset = DATASETS[row.dataset]
    if folder is None and dataset.needs_source:
        raise ConfigError(f"the data set {row.dataset} is read from a folder: give source", parameter="source")
    found = dataset.read(folder, row.channels, reading or MaskReading(), **options)
    return write_store(found, Path(out), size or row.stored, row.channels, skip_bad)


def train(
    recipe: str | Recipe,
    data: Store | Path | str,
    run: Path | str,
    *,
    stage: Stage | str | None = None,
    max_minutes: float | None = None,
    scheme: str | None = None,
    init: Path | str | None = None,
    precision: Precision = "auto",
) -> Path:
    """Train a recipe on a prepared store; the same call resumes an interrupted run.

    Args:
        recipe: by name or as an object, which may differ from the named ones in any setting.
        data: a store, or its folder.
        run: folder that gets one folder per stage.
        stage: `"image-codec"`, `"mask-codec"` or `"segmenter"`; all that the recipe has, in this order, if None.
        max_minutes: per stage; a stage stops cleanly after so long. All steps of the recipe if None.
        scheme: split scheme of the store; its default if None.
        init: model folder whose weights the stage starts from; needs `stage`.
        precision: `"fp32"`, `"bf16"`, or `"auto"`, whichever is faster here.

    Returns:
        The model folder of the last stage.

    Raises:
        ManymaskError: recipe, data and run folder do not fit together.
        Interruption: Ctrl-C or SIGTERM, once everything is saved.
    """
    row = _recipe(recipe)
    store = _store(data)
    if init is not None and stage is None:
        raise ConfigError("init is the start of one stage: give stage too", parameter="stage")
    model = Path(run)
    for each in stages_of(row) if stage is None else [_stage(stage)]:
        start = None if init is None else Path(init)
        model = fit(TrainConfig(row, each, store, Path(run), scheme, start, precision), max_minutes)
    return model


def evaluate(
    model: TrainedModel | Path | str,
    data: Store | Scored | Path | str,
    *,
    split: Part | None = None,
    scheme: str | None = None,
    samples: int = 5,
    ged_samples: int = 16,
    seed: int = 0,
    limit: int | None = None,
    sampling: SamplingConfig | None = None,
    offsets: Sequence[int] = (),
    progress: bool = True,
    reading: FolderReading | None = None,
    tile: int | None = None,
    engine: Engine = "torch",
) -> EvaluationRecord:
    """Score a trained codec or segmenter on a part of a prepared store, or on a folder of images and masks.

    Args:
        model: a loaded model, a model folder or a run folder.
        data: a store, its folder, or any folder of images and masks, all of which is scored.
        split: the part; cases that the model was trained on are refused unless it is `"train"`. `"test"` of a store if None.
        scheme: split scheme of the store; the one that the model was trained with if None.
        samples: masks that make the consensus.
        ged_samples: masks that are compared with several raters, for GED² and HM-IoU.
        seed: of the drawn masks.
        limit: score at most so many cases, evenly spaced over the part.
        sampling: how masks are drawn; the model's default if None.
        offsets: also score windows whose middle lies so many pixels down and right of the crop's, for models of crops.
        progress: whether a bar is shown.
        reading: how a folder that is no store is read, where that is not clear.
        tile: draw images larger than this in overlapping windows of so many of their own pixels a side, as
            `Segmenter.segment` does; for a folder that is no store.
        engine: what runs the networks, as `Segmenter` takes it. Torch, by which all published figures were measured, unless
            another is asked for; its probabilities differ from torch's by at most 0.001.

    Returns:
        Metrics with intervals, baselines on the same cases, and everything that is needed to get them again;
        `to_dict()` is what `manymask evaluate` writes to results.json.

    Raises:
        DataLeakError: held-out cases were trained on.
        ManymaskError: store and model do not fit together, or the folder cannot be read.
    """
    _check_count("samples", samples)
    _check_count("ged_samples", ged_samples)
    if limit is not None:
        _check_count("limit", limit)
    if sampling is not None and not isinstance(sampling, SamplingConfig):
        raise ConfigError(f"sampling must be a SamplingConfig, not {sampling!r}", parameter="sampling")
    trained = model if isinstance(model, TrainedModel) else load_model(model)
    check_tile(tile, trained.recipe.crop)
    protocol = EvalConfig(samples, ged_samples, seed, sampling or SamplingConfig(), tile=tile)
    with data_to_score(data, trained.recipe, split, scheme, reading) as scored:
        return _scored(trained, scored, protocol, limit, offsets, progress, engine)


def _scored(
    trained: TrainedModel,
    scored: Scored,
    protocol: EvalConfig,
    limit: int | None,
    offsets: Sequence[int],
    progress: bool,
    engine: Engine,
) -> EvaluationRecord:
    """The record of a model on opened data."""
    part, scheme = scored.part, scored.scheme
    store = matched_store(trained.recipe, scored.store)
    ids = evenly_spaced(held_out_cases(trained, store, part, scheme), limit)
    moved = {n: matched_store(trained.recipe, scored.store, (n, n)) for n in offsets}
    why_not = _unpromised(trained, store, ids, part, protocol)
    outcomes = Outcomes() if why_not == "" else None
    model, device, used = engine_for(trained, engine, len(ids) * (1 + len(moved)))
    windows = None if protocol.tile is None else _windows(trained, scored, ids, protocol, used)
    scores = score(model, store, ids, protocol, device, progress=progress, outcomes=outcomes, draw_case=windows)
    found = results(trained, store, part, protocol, scores, scheme)
    promises = _promises(trained, store, outcomes, why_not)
    off_centre = {n: score(model, each, ids, protocol, device, progress=progress).metrics for n, each in moved.items()}
    return replace(found, leak=with_unseen(found, store), off_centre=off_centre, promises=promises, engine=used)


def _windows(
    trained: TrainedModel, scored: Scored, ids: Sequence[str], protocol: EvalConfig, engine: Engine
) -> DrawCase:
    """Draws cases in windows of their images at native size."""
    assert protocol.tile is not None
    if not scored.cases:
        raise ConfigError(
            f"{scored.store.folder} is a prepared store, which holds images at model size alone: windows need the folder of "
            "images and masks itself",
            parameter="tile",
        )
    if all(max(scored.store.native_size(case)) <= protocol.tile for case in ids):
        tqdm.write(f"manymask: no image is larger than {protocol.tile} pixels: all are drawn whole", file=sys.stderr)
    return WindowedCases(trained, scored.cases, protocol.drawn(scored.store.raters), protocol.seed, protocol.sampling,
                         protocol.tile, engine)  # fmt: skip


def _unpromised(
    trained: TrainedModel, store: Store, ids: Sequence[str], split: Part, protocol: EvalConfig
) -> str | None:
    """Why the promises of a calibration are not tested; empty if they are, None for a codec."""
    if trained.stage != Stage.SEGMENTER:
        return None
    if protocol.tile is not None and trained.calibration is not None:
        return "Nothing is promised for masks drawn in windows: the calibration holds for whole images."
    drawn_as = sampling_record(trained.segmenter, protocol.samples, protocol.sampling)
    return unpromised(trained, store, ids, split, drawn_as)


def _promises(
    trained: TrainedModel, store: Store, outcomes: Outcomes | None, why_not: str | None
) -> dict[str, Any] | None:
    if outcomes is None or trained.calibration is None:
        return None if why_not is None else {"calibrated": trained.calibration is not None, "why_not": why_not}
    home = store.holds(trained.calibration.origin.data_hash)
    return kept_promises(trained.calibration, outcomes, home)


def calibrate(
    model: TrainedModel | Path | str,
    data: Store | Scored | Path | str,
    *,
    split: CalibrationSplit | None = None,
    scheme: str | None = None,
    samples: int = 5,
    seed: int = 0,
    alphas: Sequence[float] = ALPHAS,
    limit: int | None = None,
    sampling: SamplingConfig | None = None,
    progress: bool = True,
    reading: FolderReading | None = None,
) -> Calibration:
    """Measure on labelled images what a model's masks promise; `save_model` keeps it with the model.

    Args:
        model: a loaded model, which gets the calibration; or a model folder, which is left as it is.
        data: a store, its folder, or any folder of images and masks.
        split: which of its images, "val" of a store and all of a folder if None; cases that the model was trained on are
            refused.
        scheme: split scheme of the store; the one that the model was trained with if None.
        samples: masks per image; the calibration holds for this number alone.
        seed: of the drawn masks.
        alphas: shares of missed and of false pixels that outlines promise, each in (0, 1).
        limit: use at most so many cases, evenly spaced.
        sampling: how masks are drawn; the model's default if None.
        progress: whether a bar is shown.
        reading: how a folder is read, as in `evaluate`.

    Returns:
        The calibration.

    Raises:
        DataLeakError: a case was trained on.
        ManymaskError: store and model do not fit together, or there are too few cases, or none with a lesion.
    """
    _check_count("samples", samples)
    if limit is not None:
        _check_count("limit", limit)
    if not alphas or not all(isinstance(alpha, float) and 0 < alpha < 1 for alpha in alphas):
        raise ConfigError(f"alphas must be shares between 0 and 1, not {alphas!r}", parameter="alphas")
    trained = model if isinstance(model, TrainedModel) else load_model(model)
    config = CalibrationConfig(samples, seed, sampling or SamplingConfig(), tuple(sorted(set(alphas))))
    with data_to_score(data, trained.recipe, None if split == "all" else split, scheme, reading) as scored:
        store = matched_store(trained.recipe, scored.store)
        whole = scored.temporary and scored.scheme == "all"
        of = split or ("all" if whole else "val")
        trained.calibration = fit_calibration(trained, store, config, of, scored.scheme, limit, progress)
    return trained.calibration


def _recipe(recipe: str | Recipe) -> Recipe:
    return get_recipe(recipe) if isinstance(recipe, str) else recipe


def _store(data: Store | Path | str) -> Store:
    return data if isinstance(data, Store) else Store(Path(data))


def _stage(stage: Stage | str) -> Stage:
    if stage not in list(Stage):
        message = f"{stage!r} is no stage{guesses(str(stage), STAGES)}; choose one of {', '.join(STAGES)}"
        raise ConfigError(message, parameter="stage")
    return Stage(stage)


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} must be a whole number of at least 1, not {value!r}", parameter=name)
