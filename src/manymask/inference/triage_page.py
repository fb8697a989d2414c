"""DIR/triage.html: the table of a triage as one page that needs no server, no network and no other file but thumbnails.

Rows are written one by one. Without scripts the page shows the order of review; with them, headers sort.
"""

import html
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

from manymask.inference.thumbnail import THUMBNAIL
from manymask.io.atomic import atomic_file

MOST_ROWS = 2000  # more make a page slow; triage.csv has all
STATIC = Path(__file__).parent / "static"

# header, key that is sorted by, direction of the first click, width on phones
_COLUMNS = (
    ("Order", "rank", 1), ("Image", "name", 1), ("Failure", "failure", -1), ("Predicted Dice", "predicted_dice", 1),
    ("Lesion present", "presence", 1), ("Like training", "like_training", 1), ("Agreement", "agreement", 1),
    ("Warnings", "warnings", -1),
)  # fmt: skip
_CALIBRATED = {"failure", "predicted_dice", "presence", "like_training"}


def write_page(path: Path, facts: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the page.

    Args:
        path: of the page; results are in folders beside it.
        facts: the content of triage.json.
        rows: the lines of triage.csv, in the order of review.
    """
    with (
        atomic_file(path) as beside,
        beside.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file,
    ):
        for part in _parts(facts, rows):
            file.write(part)


def _parts(facts: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    title = f"Triage of {facts['images']} images"
    style = (STATIC / "triage.css").read_text(encoding="utf-8")
    yield (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="color-scheme" content="light dark">\n'
        f"<title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n"
    )
    yield from _head(facts)
    calibrated = "curve" in facts
    columns = [each for each in _COLUMNS if calibrated or each[1] not in _CALIBRATED]
    yield '<div class="scroll">\n<table role="table">\n<caption>Most doubtful first. Select a heading to sort.</caption>\n'
    yield '<thead role="rowgroup"><tr role="row">'
    for label, key, first in columns:
        sort = ' aria-sort="ascending"' if key == "rank" else ""
        yield (
            f'<th scope="col" role="columnheader"{sort}><button type="button" data-key="{key}" data-first="{first}">'
            f"{label}</button></th>"
        )
    yield '</tr></thead>\n<tbody role="rowgroup">\n'
    for row in islice(rows, MOST_ROWS):
        yield _row(row, [key for _, key, _ in columns], [label for label, _, _ in columns])
    yield "</tbody>\n</table>\n</div>\n"
    if facts["images"] > MOST_ROWS:
        yield f"<p>The {MOST_ROWS} most doubtful images are shown; all {facts['images']} are in triage.csv.</p>\n"
    script = (STATIC / "triage.js").read_text(encoding="utf-8")
    yield f"</main>\n<script>\n{script}</script>\n</body>\n</html>\n"


def _head(facts: Mapping[str, Any]) -> Iterator[str]:
    """The promise, how it came about, and the curve."""
    model = facts["model"]
    yield '<div class="head">\n<div>\n'
    first, *others = facts["promise"]
    yield f'<p class="promise">{html.escape(first)}</p>\n'
    yield "".join(f"<p>{html.escape(each)}</p>\n" for each in others)
    if not facts["complete"]:
        yield '<p class="badge">The run was interrupted: the table holds the images that were done.</p>\n'
    if facts["failed"]:
        yield f'<p class="badge">{facts["failed"]} image(s) could not be segmented and are not in the table.</p>\n'
    yield (
        f"<p class=small>Model {html.escape(model['name'])} (weights {model['weights_sha256'][:12]}), {facts['samples']} masks "
        f"per image, {html.escape(facts['created'])}. Coloured outlines are the masks, the white one is the consensus. For "
        "research, not for diagnosis or treatment.</p>\n</div>\n"
    )
    if "curve" in facts:
        yield _curve(facts)
    yield "</div>\n"


def _curve(facts: Mapping[str, Any]) -> str:
    """The expected share of failures against the share of images reviewed, as SVG of 260 × 200 units."""

    def at(x: float, y: float) -> str:
        return f"{40 + 210 * x:.1f},{160 - 150 * y:.1f}"

    line = " ".join(at(x, y) for x, y in facts["curve"])
    k, share = facts["budget"]["images"], facts["budget"]["expected_share"]
    x = k / max(facts["images"], 1)
    said = f"Reviewing {k} of {facts['images']} images is expected to find {100 * share:.0f} % of the failures."
    ticks = "".join(
        f'<text x="{40 + 210 * t:.0f}" y="174" text-anchor="middle">{100 * t:.0f} %</text>'
        f'<text x="35" y="{163.5 - 150 * t:.1f}" text-anchor="end">{100 * t:.0f} %</text>'
        for t in (0, 0.5, 1)
    )
    return (
        f'<figure>\n<svg viewBox="0 0 270 200" role="img" aria-label="{said}">'
        f'<path class="axis" d="M{at(0, 1)} {at(0, 0)} {at(1, 0)}"/><path class="chance" d="M{at(0, 0)} {at(1, 1)}"/>'
        f'<path class="axis" stroke-dasharray="2 3" d="M{at(x, 0)} {at(x, share)}"/>'
        f'<polyline class="curve" points="{line}"/><circle cx="{40 + 210 * x:.1f}" cy="{160 - 150 * share:.1f}" r="4"/>'
        f'{ticks}<text x="145" y="194" text-anchor="middle">images reviewed</text></svg>\n'
        "<figcaption>Expected share of failures found. Dashed: in random order.</figcaption>\n</figure>\n"
    )


def _row(row: Mapping[str, Any], keys: list[str], labels: list[str]) -> str:
    cells = "".join(
        f'<td role="cell" class="{key}" data-label="{label}" data-value="{_sorted_by(row, key)}">{_cell(row, key)}</td>'
        for key, label in zip(keys, labels, strict=True)
    )
    return f'<tr role="row"{" class=review" if row["review"] == "yes" else ""}>{cells}</tr>\n'


def _sorted_by(row: Mapping[str, Any], key: str) -> str:
    return str(len(row["warnings"])) if key == "warnings" else html.escape(str(row[key]))


def _cell(row: Mapping[str, Any], key: str) -> str:
    value = row[key]
    match key:
        case "rank":
            return f"{value}" + (" <span class=badge>review</span>" if row["review"] == "yes" else "")
        case "name":
            place = "/".join(quote(os.fsencode(part)) for part in (str(value), THUMBNAIL))
            whole = place.removesuffix(THUMBNAIL) + "overlay.png"
            name = html.escape(str(value))
            return (
                f'<a href="{whole}"><img src="{place}" alt="" loading="lazy" width="128">'
                f"<span>{name}</span></a><span class=small>{html.escape(str(row['input']))}</span>"
            )
        case "failure" | "presence" if value != "":
            return f"{100 * value:.0f} %"
        case "predicted_dice" if value != "":
            return f"{value:.2f} <span class=small>({row['dice_low']:.2f} – {row['dice_high']:.2f})</span>"
        case "like_training" if value != "":
            badge = " <span class=badge>unlike</span>" if row["foreign"] == "yes" else ""
            return f"{100 * value:.0f} %{badge}"
        case "agreement" if value != "":
            return f"{value:.2f}"
    return html.escape(str(value)) if value != "" else "–"
