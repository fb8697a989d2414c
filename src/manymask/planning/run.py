"""`manymask train FOLDER`: looks, plans, prepares, trains, scores, and says what it is worth.

RUN/plan.yaml      what was decided and why; may be edited
RUN/store/         the prepared images, unless a prepared store was given; see `prepared.py`
RUN/STAGE/         as the trainer leaves them; with folds in RUN/fold-1/, RUN/fold-2/, …
RUN/model/         with folds: their ensemble
RUN/scores/        results.json and a figure of the test part
RUN/verdict.txt    what was printed at the end
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from manymask.choices import Precision
from manymask.data.case import evenly_spaced
from manymask.data.datasets import DATASETS
from manymask.data.folds import fold_name
from manymask.data.store import Store
from manymask.data.twins import near_pairs
from manymask.errors import ConfigError, InputError
from manymask.evaluation.evaluator import EvalConfig, quick_score
from manymask.evaluation.held_out import matched_store
from manymask.extras import require_training
from manymask.hub.catalogue import named_models
from manymask.hub.ensembling import ensemble
from manymask.hub.model_folder import load_model
from manymask.io.masks import MaskReading
from manymask.planning.decide import Start, decide, starts, with_codec
from manymask.planning.look import Found, look_at_source, look_at_store
from manymask.planning.plan import FILE, Plan, read_plan, recipe_of, with_values, write_plan
from manymask.planning.prepared import is_store, prepared, source_of
from manymask.planning.request import Request
from manymask.planning.verdict import Verdict, pass_judgement
from manymask.progress import say
from manymask.recipes import ROWS, Recipe, Stage, stages_of
from manymask.runtime import default_device
from manymask.training.checkpoint import progress_of
from manymask.training.initialization import TrainConfig
from manymask.training.trainer import fit

MINUTES = 30.0
CODEC_CASES = 32  # whose masks go through the codec of `init`
SPENT = 0.02  # share of a stage's minutes that is not worth another start


def train_folder(
    data: Path | str,
    run: Path | str,
    *,
    minutes: float | None = None,
    init: str | None = None,
    folds: int | None = None,
    scheme: str | None = None,
    precision: Precision = "auto",
) -> Verdict:
    """Plan, prepare, train and score a folder of images and masks; the same call resumes.

    Args:
        data: images/ and masks/, or a prepared store.
        run: the run folder, which gets plan.yaml and everything else.
        minutes: of training in all; 30 if None, or as planned before.
        init: the model that training starts from; "auto" (also None) takes the nearest shipped one, "none" starts from zero.
        folds: train so many models on group-disjoint folds, and make one model of them.
        scheme: the split of a prepared store; its default if None.
        precision: "fp32", "bf16", or "auto", whichever is faster here.

    Returns:
        What the model is worth; `verdict.model` is what `Segmenter.from_pretrained` takes.

    Raises:
        ManymaskError: the folder cannot be used, or the plan in the run folder does not fit it.
        Interruption: Ctrl-C or SIGTERM, once everything is saved.
    """
    done = train_planned(Request(Path(data), Path(run), minutes, init, folds, scheme, precision))
    assert done is not None
    return done


def train_planned(request: Request) -> Verdict | None:
    """What `train_folder` does, with all that the command line offers.

    Returns:
        The verdict; None where only the plan was asked for.

    Raises:
        ManymaskError: the folder cannot be used, or the plan in the run folder does not fit it.
        Interruption: Ctrl-C or SIGTERM, once everything is saved.
    """
    require_training()
    if not request.data.is_dir():
        raise InputError(f"{request.data}: no such folder", path=request.data)
    _check(request)
    plan, store = _resumed(request) if (request.run / FILE).exists() else _planned(request)
    say(f"plan → {request.run / FILE}")
    if request.plan_only:
        return None
    recipe = recipe_of(plan, store.name)
    runs = [_trained(plan, recipe, store, request, run, scheme) for run, scheme in _runs(plan, request.run)]
    if plan.folds:
        ensemble(runs, request.run / "model")
    return pass_judgement(plan, recipe, store, request.data, request.run, runs)


def _check(request: Request) -> None:
    if request.minutes is not None and not 0 < request.minutes < 10**6:
        raise ConfigError(f"minutes must be above 0, not {request.minutes}", parameter="minutes")
    if request.folds is not None and not (request.folds == 0 or 2 <= request.folds <= 20):
        raise ConfigError(f"folds must be 0 or lie in 2 … 20, not {request.folds}", parameter="folds")
    if is_store(request.data) and (request.reading != MaskReading() or request.options or request.skip_bad):
        raise ConfigError(
            "masks of a prepared store were read when it was prepared; give the folder itself to read them in another way",
            path=request.data,
        )


def _runs(plan: Plan, run: Path) -> Iterator[tuple[Path, str]]:
    """The run folders with their splits: one, or one a fold."""
    if not plan.folds:
        yield run, plan.scheme
    for k in range(1, plan.folds + 1):
        yield run / f"fold-{k}", fold_name(plan.scheme, k, plan.folds)


def _planned(request: Request) -> tuple[Plan, Store]:
    """Looks, decides and prepares; the plan is written last, when all that it says is known."""
    given = Store(request.data) if is_store(request.data) else None
    found = look_at_store(given) if given else _look(request)
    for line in found.lines:
        say(line)
    name = given.name if given else "folder"
    fixed = _fixed(given)
    candidates = starts(request.init or "auto", named_models(), found, name, fixed)
    store, start = given, None
    for start in [*candidates, None]:
        plan, reasons = _decided(request, found, start, given)
        store = given or prepared(request, plan)
        store.part(request.scheme or store.default_scheme, "train")  # refuses a split that there is not
        if start is None or request.init not in (None, "auto") or not _seen(start, store, plan.scheme):
            break
    assert store is not None
    plan = replace(plan, scheme=request.scheme or store.default_scheme)
    if start is not None:
        plan, said = with_codec(plan, _codec_dice(start, plan, store))
        reasons.append(said)
    recipe_of(plan, store.name)  # refuses what does not fit before anything is written
    write_plan(plan, found.lines, reasons, request.run)
    for line in reasons:
        say(line)
    return plan, store


def _look(request: Request) -> Found:
    return look_at_source(source_of(request))


def _fixed(given: Store | None) -> tuple[int, int] | None:
    """Size and channels that a prepared store leaves no choice of; without the margin that its crops may have."""
    if given is None:
        return None
    home, side = ROWS[given.name], given.stored[0]
    return (home.size if side == home.stored else side), given.channels


def _decided(request: Request, found: Found, start: Start | None, given: Store | None) -> tuple[Plan, list[str]]:
    minutes, folds = request.minutes or MINUTES, request.folds or 0
    learns = None if given is None or DATASETS[given.name].users_own else DATASETS[given.name].target
    scheme = request.scheme or (given.default_scheme if given else "")
    fast = default_device() != "cpu"
    return decide(found, request.data, scheme, minutes, folds, start, learns, _fixed(given), fast)


def _seen(start: Start, store: Store, scheme: str) -> bool:
    """Whether the model has seen an image that would be held out here; then another one is taken, and it is said."""
    hashes = load_model(start.name).training_hashes
    if hashes is None:
        return False
    held_out = [
        case for part in ("val", "test") for case in store.schemes[scheme or store.default_scheme].get(part, [])
    ]
    seen = near_pairs(store.image_hashes(held_out, turned=True), hashes)
    if seen:
        say(f"not started from {start.name}: it has seen images like {len(seen)} of those held out here")
    return bool(seen)


def _codec_dice(start: Start, plan: Plan, store: Store) -> float:
    """Dice of training masks that go through the mask codec of the model that training starts from."""
    codec = load_model(start.name).model.mask_codec
    cases = evenly_spaced(store.part(plan.scheme, "train"), CODEC_CASES)
    seen = matched_store(recipe_of(plan, store.name), store)
    return quick_score(codec, seen, cases, EvalConfig())  # type: ignore[arg-type]


def _resumed(request: Request) -> tuple[Plan, Store]:
    """The plan in the run folder, with the time that is asked for now, and its store."""
    plan = read_plan(request.run)
    if plan.data != str(request.data.resolve()):
        raise ConfigError(
            f"{request.run} belongs to {plan.data}: name another run folder", parameter="run", path=request.run
        )
    init = request.init
    if init is not None and init not in ("auto", "none", *named_models()):
        init = str(Path(init).resolve())
    begun = {"folds": plan.folds, "scheme": plan.scheme, "init": plan.init or "none"}
    wanted = {"folds": request.folds, "scheme": request.scheme, "init": None if init == "auto" else init}
    asked = {name: value for name, value in wanted.items() if value is not None and value != begun[name]}
    if asked:
        shown = ", ".join(f"{name}: {getattr(plan, name)} → {value}" for name, value in asked.items())
        raise ConfigError(
            f"{request.run / FILE} holds another plan ({shown}): edit it, or name another run folder",
            parameter=next(iter(asked)), path=request.run,
        )  # fmt: skip
    if request.minutes is not None and request.minutes != plan.minutes:
        plan = plan.lasting(request.minutes)
        with_values(request.run, plan)
        shares = ", ".join(f"{stage} {plan.minutes_of(stage):.3g}" for stage in Stage)
        say(f"minutes are now {plan.minutes:g} ({shares}); {request.run / FILE} can be edited")
    store = Store(request.data) if is_store(request.data) else prepared(request, plan)
    return plan, store


def _trained(plan: Plan, recipe: Recipe, store: Store, request: Request, run: Path, scheme: str) -> Path:
    """Trains the stages of one run for what is left of their minutes; returns the run folder."""
    spare = 0.0  # minutes that earlier stages did not need
    for stage in stages_of(recipe):
        minutes = plan.minutes_of(stage) / max(plan.folds, 1)
        if not minutes:
            continue
        allowed = minutes + (spare if stage == Stage.SEGMENTER else 0.0)
        init = Path(plan.init) if plan.init else None
        job = TrainConfig(recipe, stage, store, run, scheme, init, request.precision, plan.patience, request.track)
        left = allowed - _spent(job)
        if left > SPENT * allowed or not (job.folder / "model" / "config.json").exists():
            fit(job, max(left, 0.0))
        spare += max(0.0, minutes - _spent(job))
    return run


def _spent(job: TrainConfig) -> float:
    """Minutes that a stage has trained so far."""
    return progress_of(job.folder).seconds / 60
