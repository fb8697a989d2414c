"""`prepare`, whose flags depend on the data sets."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from manymask.cli import flags as shared
from manymask.cli.parsing import BRIEF, NO_DEFAULT, parse
from manymask.cli.wording import at_least_one
from manymask.errors import ConfigError

if TYPE_CHECKING:
    from manymask.data.datasets.base import Option
    from manymask.data.store import Store


@dataclass(frozen=True, kw_only=True)
class PrepareFlags:
    """Turn an official distribution (or a folder of images/ and masks/) into a prepared store.

    Args:
        recipe: whose data set, size and channels are used; see `manymask recipes`.
        out: where the store is written; must not exist yet.
        source: the folder as downloaded and unpacked (the phantom needs none).
        mask_threshold: foreground is what reaches this value, in masks that are not black and white.
        mask_labels: foreground is what holds one of these values or names, in masks of several things.
        invert: foreground and background are exchanged in the mask files.
        skip_bad: leave out what cannot be read or has no partner, and name it; without this nothing is written then.
        size: side of the prepared images in pixels; the recipe's if not given.
    """

    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    out: Annotated[Path, shared.OUT]
    source: Annotated[Path | None, NO_DEFAULT, tyro.conf.arg(metavar="DIR")] = None
    mask_threshold: Annotated[float | None, NO_DEFAULT] = None
    mask_labels: Annotated[tuple[str, ...], shared.LABELS] = ()
    invert: Annotated[bool, NO_DEFAULT] = False
    skip_bad: Annotated[bool, NO_DEFAULT] = False
    size: Annotated[int | None, NO_DEFAULT] = None


def prepare(flags: PrepareFlags, **options: Any) -> None:
    """Writes the store. `options` are those of the recipe's data set, by name."""
    from manymask import api, recipes
    from manymask.data.datasets import DATASETS
    from manymask.data.datasets.pairs import safe_name
    from manymask.io.masks import MaskReading

    at_least_one("--size", flags.size)
    row = recipes.get_recipe(flags.recipe)
    dataset = DATASETS[row.dataset]
    if flags.source is None and dataset.needs_source:
        raise ConfigError(f"{flags.recipe} needs --source, the folder of the data set as downloaded")
    _check_options(row.dataset, options)
    reading = MaskReading(flags.mask_threshold, labels_of(flags.mask_labels), flags.invert)
    store = api.prepare(
        row, flags.out, flags.source, size=flags.size, skip_bad=flags.skip_bad, reading=reading, **options
    )
    print_survey(store)
    for name, scheme in store.schemes.items():
        print(f"split {name}: " + ", ".join(f"{len(ids)} {part}" for part, ids in scheme.items()))
    print(f"{len(store.ids)} cases, {store.raters} rater(s), {store.hash} → {safe_name(str(flags.out))}")


def print_survey(store: "Store") -> None:
    """What was found in a folder: how it was understood, the foreground of each rater, and on stderr what to look at."""
    for line in store.warnings:
        print(f"manymask: {line}", file=sys.stderr)
    if store.manifest.get("layout"):
        print(f"layout: {store.manifest['layout']}")
    for line in store.manifest["foreground"]:
        print(line)
    if store.raters > 1 and store.name == "folder":
        print(
            f"{store.raters} raters: `manymask train FOLDER` learns one of them at random, so that masks differ as they do"
        )


def labels_of(words: Sequence[str]) -> tuple[int | str, ...]:
    """Labels as they were typed: whole numbers are values, all else are names."""
    return tuple(int(word) if word.isdecimal() else word for word in words)


def prepare_arguments(arguments: list[str]) -> None:
    """`manymask prepare RECIPE --out DIR …`."""
    given = vars(parse(all_flags(), "manymask prepare", arguments, BRIEF, description=prepare_help.__doc__))
    common = {each.name: given[each.name] for each in fields(PrepareFlags)}
    defaults = {option.name: option.default for _, option in _options()}
    options = {name: given[name] for name, default in defaults.items() if given[name] != default}
    prepare(PrepareFlags(**common), **options)


def prepare_parameters() -> tuple[str, ...]:
    """The names of all its flags."""
    return tuple(each.name for each in fields(all_flags()))


def prepare_help() -> None:
    """Turn an official distribution (or a folder of images/ and masks/) into a prepared store: RECIPE --out DIR."""


def _options() -> Iterator[tuple[str, Any]]:
    """The options of every data set, with its name."""
    from manymask.data.datasets import DATASETS

    for name, dataset in DATASETS.items():
        for option in dataset.options:
            yield name, option


def all_flags() -> type[PrepareFlags]:
    """`PrepareFlags` and a flag for each option of any data set; an option of several data sets is one flag."""
    owners: dict[str, list[str]] = {}
    options = {}
    for name, option in _options():
        owners.setdefault(option.name, []).append(name)
        options[option.name] = option
    extra = [
        (name, _annotated(option, owners[name]), field(default=option.default)) for name, option in options.items()
    ]
    return make_dataclass("Flags", extra, bases=(PrepareFlags,), frozen=True, kw_only=True)


def _annotated(option: "Option", owners: list[str]) -> Any:
    """The type of an option with its help."""
    return Annotated[option.kind, shown(option, f"({', '.join(owners)}) {option.help}")]


def shown(option: "Option", text: str) -> Any:
    """How an option stands in the help; an empty default is not shown."""
    metavar = "NAME…" if option.kind == tuple[str, ...] else None
    hint = "" if option.default in (None, (), False) else None
    return tyro.conf.arg(help=text, metavar=metavar, help_behavior_hint=hint)


def _check_options(dataset: str, options: dict[str, Any]) -> None:
    for name in options:
        owners = [owner for owner, option in _options() if option.name == name]
        if dataset not in owners:
            flag = "--" + name.replace("_", "-")
            raise ConfigError(f"{flag} is for {' and '.join(owners)}, not for {dataset}", parameter=name)
