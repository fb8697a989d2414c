"""Reads what `reproduce` left: experiments, the rows of their tables, and the results behind them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from manymask.errors import UserError
from manymask.files.atomic import read_json
from manymask.report.table import NOT_RUN


@dataclass(frozen=True)
class Found:
    """A task's result.json, or why there is none: `status` is `done`, `failed` or `not run`."""

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
    cell: str
    model: Found
    codecs: dict[str, Found]


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
    def several_readers(self) -> bool:
        return int(self.facts["data"]["readers"]) > 1

    def tasks(self) -> list[Found]:
        """Every codec and model that was or could be trained, each once."""
        found = (task for line in self.lines for task in (*line.codecs.values(), line.model))
        return list({task.folder: task for task in found}.values())

    def table(self, name: str) -> list[Line]:
        return [line for line in self.lines if line.table == name]

    def model(self, name: str) -> Found:
        """The model of the row of this name."""
        return next((line.model for line in self.lines if line.name == name), Found(self.folder, NOT_RUN, {}))

    def main(self) -> Found:
        """The model of the first row, on which the sweeps run."""
        return self.lines[0].model


def find(folder: Path) -> Found:
    """What a task's folder holds."""
    if (folder / "result.json").exists():
        return Found(folder, "done", read_json(folder / "result.json"))
    if (folder / "failed.json").exists():
        return Found(folder, "failed", {}, read_json(folder / "failed.json")["error"])
    return Found(folder, NOT_RUN, {})


def collect(runs: Sequence[Path]) -> list[Experiment]:
    """The experiments in these folders, in their order. Raises `UserError` for a folder that holds none."""
    found: dict[Path, Experiment] = {}
    for run in runs:
        places = sorted(p.parent for p in (run / "experiment.json", *run.glob("*/experiment.json")) if p.exists())
        if not places:
            raise UserError(f"{run} holds no results of `manymask reproduce`: there is no experiment.json in it")
        for place in places:
            found.setdefault(place.resolve(), _experiment(place))
    return _told_apart(list(found.values()))


def _told_apart(experiments: list[Experiment]) -> list[Experiment]:
    """By split and size, and if need be by number, where several are of one recipe."""
    for name in (
        lambda e, k: f"{e.name}-{e.facts['data']['scheme']}-{e.facts['data']['size']}",
        lambda e, k: f"{e.name}-{k + 1}",
    ):
        names = [e.name for e in experiments]
        experiments = [replace(e, name=name(e, k)) if names.count(e.name) > 1 else e for k, e in enumerate(experiments)]
    return experiments


def _experiment(folder: Path) -> Experiment:
    facts = read_json(folder / "experiment.json")
    lines = [
        Line(row["table"], row["name"], row["label"], row["cell"], find(folder / "cells" / row["cell"]),
             {stage: find(folder / place) for stage, place in row["codecs"].items()})
        for row in facts["rows"]
    ]  # fmt: skip
    return Experiment(folder, facts, lines, facts["recipe"])
