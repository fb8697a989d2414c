"""What a planned run is worth, in words: scores with intervals, whether more time helps, what to try, how to segment."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manymask import api
from manymask.data.case import evenly_spaced
from manymask.data.store import Store
from manymask.errors import InputError
from manymask.evaluation.evaluator import EvalConfig, evaluate
from manymask.evaluation.held_out import held_out_cases, matched_store
from manymask.evaluation.plots import draw_batch
from manymask.evaluation.records import EvaluationRecord
from manymask.hub.model_folder import load_model
from manymask.io.atomic import atomic_file, write_json
from manymask.io.tensors import writing
from manymask.metrics import summary
from manymask.planning.plan import Plan
from manymask.recipes import Recipe, Stage
from manymask.training.checkpoint import RunFolder
from manymask.training.course import Course

SAMPLES = 5
FAILED = 0.5  # Dice
WIDE = 0.1  # of an interval
FEW = 10  # groups: an interval that is drawn from fewer is by chance too narrow, or too wide
OVERFIT = 0.1  # Dice by which training cases are better than validation cases
TIMED = 4  # cases, by which the time for all is estimated
SCORING_SHARE, SCORING_SECONDS = 0.1, 60.0  # of the training time, at least


@dataclass(frozen=True)
class Verdict:
    """What a run is worth.

    Attributes:
        text: all of it in words, as printed and kept in verdict.txt.
        model: the folder that `segment` takes.
        dice: mean Dice on the test part with its 95 % interval; None without a test part.
        record: the evaluation; None without a test part.
        course: how validation of the segmenter went, one for each fold.
    """

    text: str
    model: Path
    dice: tuple[float, float, float] | None
    record: EvaluationRecord | None
    course: tuple[Course, ...]


def pass_judgement(plan: Plan, recipe: Recipe, store: Store, data: Path, run: Path, runs: Sequence[Path]) -> Verdict:
    """Score the model of a run, write RUN/scores and RUN/verdict.txt, and print the latter.

    Args:
        plan: of the run.
        recipe: that was trained.
        store: the data.
        data: the folder as the user named it.
        run: the run folder.
        runs: the run folders of the folds, or that of the only model.
    """
    metric = "1 - ged" if store.raters > 1 and plan.target == "rater" else "dice"
    courses = tuple(_course(folder, metric) for folder in runs)
    record, of = _scored(plan, store, run)
    found = None if record is None else _interval(record.metrics["dice"])
    lines = [*_test_lines(record, of, plan, store), *_fold_lines(plan, store, runs), *_course_lines(courses, plan)]
    lines += ["To try:", *(f"  - {line}" for line in _advice(plan, record, store, courses, data, run))]
    lines += [f"To segment: manymask segment IMAGE --model {run} --out masks"]
    text = "\n".join(lines)
    _keep(run / "verdict.txt", text + "\n")
    print(text)
    return Verdict(text, run, found, record, courses)


def _course(run: Path, metric: str) -> Course:
    return Course.read(metric, RunFolder(run / Stage.SEGMENTER, writes=False).lines())


def _scored(plan: Plan, store: Store, run: Path) -> tuple[EvaluationRecord | None, int]:
    """The evaluation on as much of the test part as there is time for, and how many cases the part has."""
    try:
        cases = store.part(plan.scheme, "test")
    except InputError:
        return None, 0
    trained = load_model(run)
    limit = None
    if len(cases) > TIMED:
        start = time.monotonic()
        api.evaluate(trained, store, samples=SAMPLES, limit=TIMED, progress=False)
        each = (time.monotonic() - start) / TIMED
        allowed = max(SCORING_SECONDS, SCORING_SHARE * 60 * plan.minutes)
        limit = max(TIMED, int(allowed / each))
    record = api.evaluate(trained, store, samples=SAMPLES, limit=limit)
    write_json(run / "scores" / "results.json", record.to_dict())
    few = evenly_spaced([case["id"] for case in record.cases], 6)
    draw_batch(trained.model, matched_store(trained.recipe, store).batch(few), run / "scores" / "figure.png", SAMPLES)
    return record, len(cases)


def _interval(metric: dict[str, Any]) -> tuple[float, float, float]:
    return metric["mean"], metric["low"], metric["high"]


def _shown(metric: dict[str, Any]) -> str:
    mean, low, high = _interval(metric)
    return f"{mean:.3f} ({low:.3f} – {high:.3f})"


def _test_lines(record: EvaluationRecord | None, of: int, plan: Plan, store: Store) -> Iterator[str]:
    if record is None:
        yield "There is no test part: only validation tells what the model is worth, and it was chosen by it."
        return
    count = len(record.cases)
    cases = f"{count} test images" if count == of else f"{count} of the {of} test images, evenly spaced"
    yield f"Dice {_shown(record.metrics['dice'])} on {cases}: the consensus of {SAMPLES} masks, 95 % interval"
    groups = _groups(record, store)
    if groups < FEW:
        yield f"Do not rely on the interval: these images are of {groups} group(s), such as patients; it takes at least {FEW}"
    if "ged" in record.metrics and plan.target == "rater":
        yield (
            f"GED² {_shown(record.metrics['ged'])}: how far {record.protocol['ged_samples']} masks differ from the "
            "raters, 0 is best"
        )


def _groups(record: EvaluationRecord, store: Store) -> int:
    """Of how many groups the scored cases are."""
    return len({store.groups[case["id"]] for case in record.cases})


def _fold_lines(plan: Plan, store: Store, runs: Sequence[Path]) -> Iterator[str]:
    """The Dice of every case outside of the test part, by the model that did not train on it."""
    if not plan.folds:
        return
    rows: list[dict[str, Any]] = []
    for run in runs:
        trained = load_model(run)
        seen = matched_store(trained.recipe, store)
        cases = evenly_spaced(held_out_cases(trained, seen, "val"), plan.validation_cases)
        rows += evaluate(trained.model, seen, cases, EvalConfig(samples=SAMPLES)).cases
    found = summary([row["dice"] for row in rows], [store.groups[row["id"]] for row in rows])
    yield (
        f"Dice {_shown(dict(found))} on {len(rows)} images of {plan.folds} folds, each by the model that did not train on it "
        "(but chose its weights by it)"
    )


def _course_lines(courses: Sequence[Course], plan: Plan) -> Iterator[str]:
    for k, course in enumerate(courses, 1):
        which = f"Validation, fold {k}" if plan.folds else "Validation"
        yield f"{which}: {course.words}"


def _advice(
    plan: Plan, record: EvaluationRecord | None, store: Store, courses: Sequence[Course], data: Path, run: Path
) -> Iterator[str]:
    """What to try next, most promising first."""
    if any(course.rising is not False for course in courses):
        yield f"more time, which goes on from here: manymask train {data} --run {run} --minutes {2 * plan.minutes:g}"
    gaps = [_gap(course) for course in courses]
    if gaps and max(gaps) > OVERFIT:
        yield (
            f"more images: on those that it trained on, Dice is {max(gaps):.2f} better than on validation, which more "
            "time will not mend"
        )
    if record is not None:
        yield from _advice_on_test(plan, record, store, data, run)
    yield f"another plan: copy {run / 'plan.yaml'} to a new folder, edit it there (size or init, say), and name that with --run"


def _gap(course: Course) -> float:
    best = course.best
    known = best is not None and best.train is not None and course.metric == "dice" and course.rising is not None
    return best.train - best.score if known else 0.0  # type: ignore[union-attr, operator]


def _advice_on_test(plan: Plan, record: EvaluationRecord, store: Store, data: Path, run: Path) -> Iterator[str]:
    failed = [case["id"] for case in record.cases if case["dice"] < FAILED]
    if failed:
        shown = ", ".join(failed[:4]) + (", …" if len(failed) > 4 else "")
        yield f"a look at the {len(failed)} test images with Dice below {FAILED}: {shown} (scores/figure.png shows some)"
    _, low, high = _interval(record.metrics["dice"])
    if (high - low > WIDE or _groups(record, store) < FEW) and not plan.folds:
        yield (
            f"a better estimate: {len(record.cases)} test images leave it at {low:.2f} … {high:.2f} or more; "
            f"manymask train {data} --run {run}-folds --folds 5 scores nearly all"
        )


def _keep(path: Path, text: str) -> None:
    with writing(path), atomic_file(path) as beside:
        beside.write_text(text, encoding="utf-8")
