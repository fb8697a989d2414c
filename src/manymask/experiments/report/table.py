"""A table that writes itself as Markdown, for people, and as CSV, in full precision."""

import csv
import io
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

Format = Callable[[Any], str]

NOT_RUN = "not run"
NOTHING = "–"  # there is no such figure


def format_share(value: float) -> str:
    return f"{value:.3f}"


def decibel(value: float) -> str:
    return f"{value:.1f}"


def format_count(value: float) -> str:
    return f"{value:,.0f}"


def millions(value: float) -> str:
    return f"{value / 1e6:.2f}"


def gibibytes(value: float) -> str:
    return f"{value / 2**30:.2f}"


def format_seconds(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def format_text(value: Any) -> str:
    return str(value)


@dataclass(frozen=True)
class Column:
    """`interval`: its values are {mean, low, high}, shown in one cell, and in three columns of the CSV."""

    title: str
    format: Format = format_text
    interval: bool = False

    def show(self, value: Any) -> str:
        if value is None:
            return NOTHING
        if isinstance(value, str):
            return value
        if not self.interval:
            return self.format(value)
        if "mean" not in value:  # nothing to take a mean of, e.g. distances to empty masks
            return NOTHING
        return f"{self.format(value['mean'])} ({self.format(value['low'])} – {self.format(value['high'])})"

    def titles(self) -> list[str]:
        return [self.title, f"{self.title}, low", f"{self.title}, high"] if self.interval else [self.title]

    def values(self, value: Any) -> list[Any]:
        if not self.interval:
            return [value]
        if isinstance(value, dict):
            return [value.get(name, NOTHING) for name in ("mean", "low", "high")]
        return [value, value, value] if isinstance(value, str) else [NOTHING] * 3


@dataclass(frozen=True)
class Table:
    """`rows` hold a value for each column: a number, {mean, low, high}, or a word (`failed`), which stays as it is. A row
    with `not run` in it is no row of the table; it is named below. A column of which nothing is known is not shown.

    least: how many rows must have been run for the table to say anything; two where one is what the others differ from.
    """

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    note: str = ""
    least: int = 1

    @property
    def ran(self) -> list[Sequence[Any]]:
        """The rows that were run."""
        return [row for row in self.rows if NOT_RUN not in row]

    @property
    def blank(self) -> bool:
        """Too little was run."""
        return len(self.ran) < self.least

    @property
    def shown(self) -> Iterator[tuple[Column, list[Any]]]:
        """Each column with its values."""
        for k, column in enumerate(self.columns):
            values = [row[k] for row in self.ran]
            if any(value not in (None, NOTHING) for value in values):
                yield column, values

    @property
    def remarks(self) -> list[str]:
        """What stands below the table: which rows were not run, and the note. Rows that share their first cell, none of
        which was run, are named by it."""
        shown = {row[0] for row in self.ran}
        missing = dict.fromkeys(_label(row, shown) for row in self.rows if NOT_RUN in row)
        return [*([f"Not run: {'; '.join(missing)}."] if missing else []), *([self.note] if self.note else [])]

    def markdown(self) -> str:
        """With a heading, and the note below."""
        columns = [[column.title, *map(column.show, values)] for column, values in self.shown]
        title, *rows = map(_row, zip(*columns, strict=True))
        lines = [f"### {self.title}", "", title, _row(["---", *["---:"] * (len(columns) - 1)]), *rows]
        return "\n".join([*lines, "", *(line for remark in self.remarks for line in (remark, ""))])

    def csv(self) -> str:
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        columns = [[column.titles(), *map(column.values, values)] for column, values in self.shown]
        writer.writerows(chain.from_iterable(row) for row in zip(*columns, strict=True))
        return file.getvalue()


def _label(row: Sequence[Any], shown: Container[Any]) -> str:
    """The cells before the first `not run`, or the first alone where no row with it is shown."""
    cells = row[: row.index(NOT_RUN)] if row[0] in shown else row[:1]
    return ", ".join(str(cell) for cell in cells)


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
