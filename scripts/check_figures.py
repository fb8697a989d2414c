"""Where the figures on the pages come from. `docs/results/figures.csv` maps each to a file, its key there and its rounding.

python scripts/check_figures.py            lists every figure that has no file, or another value there
python scripts/check_figures.py --update   writes what the files hold into the pages and figures.csv, after new results; what the
                                           pages conclude from the figures is for a person to read again

A line of figures.csv: the page, a text that stands in one line of it alone, the figure as it is printed, the file, the key. A
key is a path through the JSON: names and numbers, `name=value` for the elements of a list that have it, `*` for all of
them. Where several values are found, their mean is meant; `count:` in front of a key counts them. The rounding is that of the
figure as printed. Checked are the pages that figures.csv names, but for code, and of README.md the section *Measured*.
"""

import csv
import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "docs/results/figures.csv"
FIGURE = re.compile(r"(?<![\w.])[−-]?\d+\.\d+(?![\w.]*\d)")
CODE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\([^)]*\)|`[^`]*`|arXiv \d+\.\d+|CC BY \d\.\d")


class Figure(NamedTuple):
    """A line of figures.csv."""

    page: str
    line: str
    printed: str
    file: str
    key: str


def mapped() -> list[Figure]:
    """All lines of figures.csv."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return [Figure(**row) for row in csv.DictReader(file)]


@cache
def contents(file: str) -> Any:
    """The JSON of a file below docs/results."""
    return json.loads((TABLE.parent / file).read_text(encoding="utf-8"))


def values(node: Any, key: list[str]) -> Iterator[Any]:
    """Everything that a key leads to."""
    if not key:
        yield node
        return
    head, rest = key[0], key[1:]
    if isinstance(node, list):
        name, equals, wanted = head.partition("=")
        if equals or head == "*":
            for element in node:
                if head == "*" or str(element[name]) == wanted:
                    yield from values(element, rest)
        else:
            yield from values(node[int(head)], rest)
    elif head == "*":
        for element in node.values():
            yield from values(element, rest)
    else:
        yield from values(node[head], rest)


def value(figure: Figure) -> float:
    """What the file holds; `LookupError` where it holds nothing of the kind."""
    counted = figure.key.startswith("count:")
    found = list(values(contents(figure.file), figure.key.removeprefix("count:").split("/")))
    if not found:
        raise LookupError(figure.key)
    return float(len(found)) if counted else fmean(found)


def rounded(number: float, printed: str) -> str:
    """The number with as many decimals as the figure has."""
    decimals = len(printed.partition(".")[2])
    return f"{number:.{decimals}f}".replace("-", "−" if printed.startswith("−") else "-")


def checked_lines(page: str) -> list[str]:
    """The lines of a page whose figures must be mapped."""
    text = (ROOT / page).read_text(encoding="utf-8")
    if page == "README.md":
        text = text.partition("## Measured\n")[2].partition("\n## ")[0]
    return CODE.sub("", text).splitlines()


def faults() -> list[str]:
    """One line for each figure that has no file, or another value there, and for each line of figures.csv that fits nothing."""
    figures = mapped()
    found = [fault for figure in figures for fault in _fault(figure)]
    for page in dict.fromkeys(figure.page for figure in figures):
        for line in checked_lines(page):
            known = {figure.printed for figure in figures if figure.page == page and figure.line in line}
            found += [
                f"{page}: {printed} has no file: {line.strip()[:90]}"
                for printed in FIGURE.findall(LINK.sub("", line))
                if printed not in known
            ]
    return found


def _fault(figure: Figure) -> Iterator[str]:
    lines = [line for line in checked_lines(figure.page) if figure.line in line]
    if len(lines) != 1:
        yield f"{figure.page}: {figure.line!r} stands in {len(lines)} lines, not in one"
    elif figure.printed not in lines[0]:
        yield f"{figure.page}: {figure.printed} is not in the line of {figure.line!r}"
    try:
        number = value(figure)
    except (LookupError, OSError, ValueError, TypeError) as error:
        yield f"{figure.page}: {figure.printed}: {figure.file} has no {figure.key} ({error!r})"
        return
    if rounded(number, figure.printed) != figure.printed:
        yield f"{figure.page}: {figure.printed} ({figure.line!r}) is {number:.6g} in {figure.file} at {figure.key}"


def update() -> list[str]:
    """Puts the values of the files in place of those printed; returns the lines of the pages that changed. Left alone is what
    would be ambiguous: one text in a line that now stands for two values."""
    figures, changed = mapped(), []
    for page in dict.fromkeys(figure.page for figure in figures):
        lines = (ROOT / page).read_text(encoding="utf-8").split("\n")
        for anchor in dict.fromkeys(figure.line for figure in figures if figure.page == page):
            here = [figure for figure in figures if (figure.page, figure.line) == (page, anchor)]
            number = next(i for i, line in enumerate(lines) if anchor in line and line in checked_lines(page))
            renamed = _renamed(here)
            if renamed:
                lines[number] = _replaced(lines[number], renamed)
                changed.append(f"{page}: {lines[number]}")
                new = [figure._replace(line=_replaced(anchor, renamed), printed=renamed.get(figure.printed, figure.printed))
                       for figure in here]  # fmt: skip
                figures = [new[here.index(figure)] if figure in here else figure for figure in figures]
        (ROOT / page).write_text("\n".join(lines), encoding="utf-8")
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([Figure._fields, *figures])
    return changed


def _renamed(figures: list[Figure]) -> dict[str, str]:
    """What is printed → what should be, of the figures of one line, where one text has one new value."""
    wanted: dict[str, set[str]] = {}
    for figure in figures:
        wanted.setdefault(figure.printed, set()).add(rounded(value(figure), figure.printed))
    return {old: new.pop() for old, new in wanted.items() if len(new) == 1 and new != {old}}


def _replaced(line: str, renamed: dict[str, str]) -> str:
    return FIGURE.sub(lambda match: renamed.get(match[0], match[0]), line)


if __name__ == "__main__":
    if "--update" in sys.argv[1:]:
        print("\n".join(update()))
    wrong = faults()
    print("\n".join(wrong) or f"{len(mapped())} figures, each as in its file")
    sys.exit(bool(wrong))
