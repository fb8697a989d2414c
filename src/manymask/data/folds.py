"""Folds of a split: `SCHEME/fold-2-of-5` is the split SCHEME with another fifth of what it trains on for validation.

The test part stays what it was, so that folds, and the ensemble of their models, can be tested on it.
"""

import random
import re
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from manymask.data.case import Part, Scheme
from manymask.errors import ConfigError

FOLD = re.compile(r"(?P<scheme>.+)/fold-(?P<number>\d{1,2})-of-(?P<count>\d{1,2})")
SEED = 42
Group = TypeVar("Group", bound=Hashable)


def fold_name(scheme: str, number: int, count: int) -> str:
    """The name of a fold, which counts from 1."""
    return f"{scheme}/fold-{number}-of-{count}"


def scheme_of(name: str) -> str:
    """The split that a fold is made of; any other name as it is."""
    found = FOLD.fullmatch(name)
    return found["scheme"] if found else name


def dealt(order: Sequence[Group], sizes: Mapping[Group, int], count: int) -> dict[Group, int]:
    """The fold of each group, from 0: the largest first, each to the fold with the fewest cases; equal ones in this order."""
    held, found = [0] * count, dict[Group, int]()
    for group in sorted(order, key=lambda each: -sizes[each]):
        found[group] = held.index(min(held))
        held[found[group]] += sizes[group]
    return found


def fold(scheme: Scheme, groups: Mapping[str, str], name: str) -> Scheme:
    """The fold of this name: whole groups of the training and validation parts, dealt out largest first.

    Raises:
        ConfigError: there is no such fold, or there are fewer groups than folds.
    """
    found = FOLD.fullmatch(name)
    number, count = (int(found["number"]), int(found["count"])) if found else (0, 0)
    if not 1 <= number <= count or count < 2:
        raise ConfigError(f"{name}: folds are numbered from 1, and there are at least two", parameter="folds")
    members: dict[str, list[str]] = {}
    for case in sorted([*scheme["train"], *scheme["val"]]):
        members.setdefault(groups[case], []).append(case)
    if len(members) < count:
        raise ConfigError(f"{len(members)} groups cannot be cut into {count} folds", parameter="folds")
    order = sorted(members)
    random.Random(SEED).shuffle(order)
    place = dealt(order, {group: len(cases) for group, cases in members.items()}, count)
    held_out = {group for group, k in place.items() if k == number - 1}
    parts: dict[Part, list[str]] = {
        "train": sorted(case for group, cases in members.items() if group not in held_out for case in cases),
        "val": sorted(case for group in held_out for case in members[group]),
        "test": list(scheme.get("test", [])),
    }
    return parts
