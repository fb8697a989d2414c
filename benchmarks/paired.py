"""Two scored models case by case: what a change was worth, with the interval of the paired difference.

python benchmarks/paired.py --new docs/results/polyps/results.json --old before/results.json --data stores/polyps \\
    --schemes colondb kvasir cvc_clinicdb --out docs/results/polyps/earlier/paired.json

Both files are results.json of `evaluate` or `publish`, of the same cases. Differences are new − old of every score that both
hold, with 95 % bootstrap intervals over groups (patients, videos), of all cases and of the test part of each scheme.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from manymask.data.store import Store
from manymask.errors import InputError
from manymask.io.atomic import read_json, write_json
from manymask.metrics import difference

Row = dict[str, float]


@dataclass(frozen=True)
class Options:
    """Two results, the store that they are of, and where the differences go."""

    new: Path
    old: Path
    data: Path
    out: Path
    schemes: tuple[str, ...] = ()


def rows(results: dict[str, Any]) -> dict[str, Row]:
    """The scores of each case, by its id."""
    return {
        case["id"]: {name: value for name, value in case.items() if isinstance(value, float)}
        for case in results["cases"]
    }


def gaps(new: dict[str, Row], old: dict[str, Row], ids: Sequence[str], groups: dict[str, str]) -> dict[str, Any]:
    """New − old of these cases, for every score that all of them have in both; `InputError` without any case."""
    if not ids:
        raise InputError("none of these cases is in both files")
    names = [name for name in new[ids[0]] if all(name in rows[case] for rows in (new, old) for case in ids)]
    of = {case: groups[case] for case in ids}
    return {
        name: dict(difference({c: new[c][name] for c in ids}, {c: old[c][name] for c in ids}, of)) for name in names
    }


def main(options: Options) -> None:
    """Compares both, prints the differences and writes OUT."""
    found = [read_json(path) for path in (options.new, options.old)]
    new, old = map(rows, found)
    if new.keys() != old.keys():
        raise InputError(f"{options.new} and {options.old} are of different cases", path=options.old)
    store = Store(options.data)
    parts = {"all": list(new)} | {name: [c for c in store.part(name, "test") if c in new] for name in options.schemes}
    compared = {part: gaps(new, old, ids, store.groups) for part, ids in parts.items()}
    models = [{"weights_sha256": each["model"].get("weights_sha256"), "git": each["git"]} for each in found]
    write_json(
        options.out, {"new": models[0], "old": models[1], "data": {"name": store.name, "hash": store.hash}} | compared
    )
    for part, scores in compared.items():
        for name, gap in scores.items():
            print(f"{part:14} {name:20} {gap['mean']:+.4f} ({gap['low']:+.4f} – {gap['high']:+.4f}), {gap['n']} cases")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
