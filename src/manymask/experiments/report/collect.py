"""Reads what `reproduce` left: experiments, the rows of their tables, and the results behind them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from manymask.errors import InputError, ManymaskError
from manymask.experiments.report.gpu import FILE as GPU_FILE
from manymask.experiments.report.shape import EXPERIMENT, FAILED, RESULT, check
from manymask.experiments.report.table import NOT_RUN
from manymask.io.atomic import read_object
from manymask.migrations import upgraded_results


@dataclass(frozen=True)
class RunResult:
    """A task's result.json, or why there is none: `status` is `done`, `failed`, `damaged` or `not run`."""

    folder: Path
    status: str
    result: dict[str, Any]
    error: str = ""

    def get(self, *keys: str | int) -> Any:
        """What lies under these keys, or the status (a word, which tables show as it is) if there is no result; `–` if
        the result has no such thing."""
        if self.status != "done":
            return self.status
        value: Any = self.result
        for key in keys:
            if not isinstance(value, dict) or key not in value:
                return "–"
            value = value[key]
        return value


@dataclass(frozen=True)
class Line:
    """A row of a table with the model it shows and the codecs beneath (by stage)."""

    table: str
    name: str
    label: str
    run_id: str
    model: RunResult
    codecs: dict[str, RunResult]


@dataclass(frozen=True)
class Experiment:
    """The matrix of one recipe: `facts` is its experiment.json; `name` tells it from the others of a report."""

    folder: Path
    facts: dict[str, Any]
    lines: list[Line]
    name: str

    @property
    def dataset(self) -> str:
        return str(self.facts["data"]["name"])

    @property
    def paper_name(self) -> str:
        """The data set in the paper's tables, whose LIDC-IDRI is whole slices; of crops they stand beside as a mark."""
        return self.dataset.removesuffix("_slices")

    @property
    def several_raters(self) -> bool:
        return int(self.facts["data"]["raters"]) > 1

    def tasks(self) -> list[RunResult]:
        """Every codec and model that was or could be trained, each once."""
        found = (task for line in self.lines for task in (*line.codecs.values(), line.model))
        return list({task.folder: task for task in found}.values())

    def table(self, name: str) -> list[Line]:
        return [line for line in self.lines if line.table == name]

    def model(self, name: str) -> RunResult:
        """The model of the row of this name."""
        return next((line.model for line in self.lines if line.name == name), RunResult(self.folder, NOT_RUN, {}))

    def main(self) -> RunResult:
        """The model of the first row, on which the sweeps run."""
        return self.lines[0].model


def find(folder: Path) -> RunResult:
    """What a task's folder holds; a file that cannot be read counts as `damaged`."""
    try:
        if (folder / "result.json").exists():
            return RunResult(folder, "done", _read(folder / "result.json", RESULT))
        if (folder / "failed.json").exists():
            return RunResult(folder, "failed", {}, _read(folder / "failed.json", FAILED)["error"])
    except ManymaskError as error:
        return RunResult(folder, "damaged", {}, str(error))
    return RunResult(folder, NOT_RUN, {})


def _read(path: Path, form: dict[str, Any]) -> dict[str, Any]:
    found = upgraded_results(read_object(path))
    check(found, form, f"{path}: {path.stem}")
    result: dict[str, Any] = found
    return result


def collect(runs: Sequence[Path], tell: Callable[[str], None] = lambda line: None) -> list[Experiment]:
    """The experiments in these folders, in their order. An experiment.json that cannot be read is told and passed over.

    Raises `InputError` for a folder that holds neither one nor the check of a GPU, and where none can be read.
    """
    found: dict[Path, Experiment] = {}
    wrong: list[str] = []
    for run in runs:
        places = sorted(p.parent for p in (run / "experiment.json", *run.glob("*/experiment.json")) if p.exists())
        if not places and (run / GPU_FILE).exists():
            continue
        if not places:
            raise InputError(
                f"{run} holds no results of `manymask reproduce`: there is no experiment.json in it", path=run
            )
        for place in places:
            try:
                found.setdefault(place.resolve(), _experiment(place))
            except ManymaskError as error:
                wrong.append(str(error))
    for line in wrong if found else wrong[1:]:
        tell(line)
    if wrong and not found:
        raise InputError(wrong[0])
    return _told_apart(list(found.values()))


def _told_apart(experiments: list[Experiment]) -> list[Experiment]:
    """By split and size, and if need be by number, where several are of one recipe."""
    namers: tuple[Callable[[Experiment, int], str], ...] = (
        lambda e, k: f"{e.name}-{e.facts['data']['scheme']}-{e.facts['data']['size']}",
        lambda e, k: f"{e.name}-{k + 1}",
    )
    for name in namers:
        names = [e.name for e in experiments]
        experiments = [replace(e, name=name(e, k)) if names.count(e.name) > 1 else e for k, e in enumerate(experiments)]
    return experiments


def _experiment(folder: Path) -> Experiment:
    path = folder / "experiment.json"
    facts = _read(path, EXPERIMENT)
    if not facts["rows"]:
        raise InputError(f"{path} has no rows", path=path)
    rows = facts["rows"]
    places = {f"cells/{row['run_id']}" for row in rows} | {place for row in rows for place in row["codecs"].values()}
    strange = next((place for place in places if ".." in Path(place).parts or Path(place).is_absolute()), None)
    if strange is not None:
        raise InputError(f"{path} names {strange!r}, which lies outside of its folder", path=path)
    tasks = {place: find(folder / place) for place in places}
    lines = [
        Line(row["table"], row["name"], row["label"], row["run_id"], tasks[f"cells/{row['run_id']}"],
             {stage: tasks[place] for stage, place in row["codecs"].items()})
        for row in rows
    ]  # fmt: skip
    return Experiment(folder, facts, lines, facts["recipe"])
