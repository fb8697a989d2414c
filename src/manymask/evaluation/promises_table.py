"""Promises against what happened, as rows for the terminal and for Markdown."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from rich.table import Table


class Row(NamedTuple):
    """A line of the table, as text.

    Attributes:
        what: is promised.
        promised: the bound, or – where nothing is.
        happened: on the cases.
        interval: of 95 %.
        kept: "yes"; "no", where the whole interval is beyond the bound; else "within chance"; empty without a bound.
    """

    what: str
    promised: str
    happened: str
    interval: str = ""
    kept: str = ""


COLUMNS = ("", "promised", "happened", "95 % interval", "kept")


def promises_rows(found: Mapping[str, Any]) -> list[Row]:
    """The lines of the table.

    Args:
        found: as `kept_promises` returns it.

    Returns:
        Outlines, predicted Dice, reliability, ranking, presence and foreignness.
    """
    return [
        *(row for entry in found["outlines"] for row in _outlines(entry)),
        *_dice(found["dice"]),
        *(_reliability(region, found["reliability"][region]) for region in ("near_lesion", "in_doubt", "everywhere")),
        *_ranking(found["ranking"]),
        *_presence(found["presence"]),
        *_foreign(found["foreign"]),
    ]


def promises_table(found: Mapping[str, Any]) -> Table:
    """The lines as a table for the terminal, with the calibration in its title.

    Args:
        found: as `kept_promises` returns it.

    Returns:
        The table.
    """
    on = found["on"]
    where = "cases like these" if found["home"] else "other data than these"
    table = Table(title=f"calibrated on {on['cases']} cases of {on['data']} ({on['split']} of {on['scheme']}): {where}")
    for name in COLUMNS:
        table.add_column(name, justify="right" if name in COLUMNS[1:4] else "left")
    for row in promises_rows(found):
        table.add_row(*row)
    return table


def percent(value: float) -> str:
    """A share in percent, with a decimal below 10 %."""
    return f"{100 * value:.1f} %" if value < 0.1 else f"{100 * value:.0f} %"


def _between(entry: Mapping[str, Any]) -> str:
    return f"{percent(entry['low'])} – {percent(entry['high'])}"


def _verdict(entry: Mapping[str, Any]) -> str:
    if entry["kept"]:
        return "yes"
    return "no" if entry["broken"] else "within chance"


def _outlines(entry: Mapping[str, Any]) -> list[Row]:
    bound = f"≤ {100 * entry['alpha']:g} %"
    rows = []
    for side, what in (("outer", "lesion outside the outer outline"), ("inner", "false within the inner outline")):
        found = entry[side]
        share = found["share"]
        size = "–" if found["area_to_consensus"] is None else f"{found['area_to_consensus']:.2f}"
        name = f"{what} ({size} × consensus)"
        verdict = _verdict(found)
        rows.append(Row(name, bound, percent(share["mean"]), _between(share), verdict))
    return rows


def _dice(entry: Mapping[str, Any]) -> list[Row]:
    covered = entry["covered"]
    error = entry["absolute_error"]
    return [
        Row(f"Dice in its predicted interval (mean width {entry['width']:.2f})", f"≥ {100 * covered['promised']:g} %",
            percent(covered["share"]), _between(covered), _verdict(covered)),
        Row("mean absolute error of the predicted Dice", "–", f"{error['mean']:.3f}",
            f"{error['low']:.3f} – {error['high']:.3f}"),
    ]  # fmt: skip


def _reliability(region: str, entry: Mapping[str, Any]) -> Row:
    before, after = entry["before"]["ece"], entry["after"]["ece"]
    return Row(f"ECE {region.replace('_', ' ')}, raw → calibrated", "–", f"{before:.3f} → {after:.3f}")


NAMES = {"predicted_failure": "predicted failure", "disagreement": "disagreement of the masks",
         "one_pass_entropy": "entropy of one pass"}  # fmt: skip


def _ranking(entry: Mapping[str, Any]) -> list[Row]:
    aurc = f"{entry['aurc']:.3f}; {entry['excess_aurc']:.3f}"
    rows = [Row(f"AURC; excess AURC (random order: {entry['aurc_of_random_order']:.3f})", "–", aurc)]
    failures = f"Dice < {entry['below']:g} ({entry['failures']} cases)"
    for name, each in entry["auroc"].items():
        interval = "" if each["low"] is None else f"{each['low']:.3f} – {each['high']:.3f}"
        rows.append(Row(f"AUROC of {failures}, {NAMES[name]}", "–", f"{each['auroc']:.3f}", interval))
    tenth = entry["tenth"]
    if not tenth["of"]:
        return [*rows, Row(f"failures: {failures}", "–", "none")]
    happened = f"{tenth['found']} of {tenth['of']} = {percent(tenth['share'])}"
    return [*rows, Row(f"failures among the {tenth['reviewed']} most doubtful", "–", happened, _between(tenth))]


def _presence(entry: Mapping[str, Any]) -> list[Row]:
    rows = []
    if "auroc" in entry:
        happened = f"{entry['auroc']:.3f}; {entry['brier']:.3f}; {entry['ece']:.3f}"
        rows.append(Row("presence: AUROC; Brier; ECE", "–", happened))
    if "doubted" in entry:
        doubted = entry["doubted"]
        happened = f"{doubted['found']} of {doubted['of']}"
        rows.append(Row("lesions that the presence doubts", "–", happened, _between(doubted)))
    return rows + ([Row(entry["why_not"], "–", "–")] if "why_not" in entry else [])


def _foreign(entry: Mapping[str, Any]) -> list[Row]:
    if "why_not" in entry:
        return [Row(entry["why_not"], "–", "–")]
    flagged = entry["flagged"]
    return [Row("unlike the training images (promised of those like them)", f"≤ {100 * flagged['promised']:g} %",
                percent(flagged["share"]), _between(flagged), _verdict(flagged))]  # fmt: skip
