"""`prepare` and `recipes`."""

import sys
from pathlib import Path
from typing import Annotated

import tyro

from manymask.cli.wording import at_least_one
from manymask.errors import ConfigError


def prepare(
    recipe: Annotated[str, tyro.conf.Positional],
    /,
    *,
    out: Path,
    source: Path | None = None,
    masks: tuple[str, ...] = (),
    mask_threshold: float | None = None,
    mask_labels: tuple[int, ...] = (),
    invert: bool = False,
    skip_bad: bool = False,
    size: int | None = None,
    whole_slices: bool = False,
) -> None:
    """Turn an official distribution (or a folder of images/ and masks/) into a prepared store.

    Args:
        recipe: whose data set, size and channels are used; see `manymask recipes`.
        out: where the store is written; must not exist yet.
        source: the folder as downloaded and unpacked (the phantom needs none).
        masks: of a folder of one's own, the mask folders to take where several could be meant; one for each rater.
        mask_threshold: foreground is what reaches this value, in masks that are not black and white.
        mask_labels: foreground is what holds one of these values, in masks that number several things.
        invert: foreground and background are exchanged in the mask files.
        skip_bad: leave out what cannot be read or has no partner, and name it; without this nothing is written then.
        size: side of the prepared images in pixels; the recipe's if not given.
        whole_slices: of LIDC-IDRI's DICOM, whole slices in place of a crop around each nodule.
    """
    from manymask import recipes
    from manymask.data.datasets.pairs import safe_name
    from manymask.data.store import prepare as write_store
    from manymask.io.masks import MaskReading

    at_least_one("--size", size)
    row = recipes.get_recipe(recipe)
    if source is None and row.dataset != "phantom":
        raise ConfigError(f"{recipe} needs --source, the folder of the data set as downloaded")
    if whole_slices and row.dataset != "lidc_idri":
        raise ConfigError(f"--whole-slices is for lidc_idri; {row.dataset} has no slices")
    if masks and row.dataset != "folder":
        raise ConfigError(f"--masks is for a folder of one's own; the layout of {row.dataset} says where its masks are")
    choice = ({"whole": True} if whole_slices else {}) | ({"masks": masks} if masks else {})
    reading = MaskReading(mask_threshold, mask_labels, invert)
    found = recipes.DATASETS[row.dataset](source, row.channels, reading, **choice)
    store = write_store(found, out, size or row.stored, row.channels, skip_bad)
    for line in store.warnings:
        print(f"manymask: {line}", file=sys.stderr)
    for line in store.manifest["foreground"]:
        print(line)
    for name, scheme in store.schemes.items():
        print(f"split {name}: " + ", ".join(f"{len(ids)} {part}" for part, ids in scheme.items()))
    print(f"{len(store.ids)} cases, {store.raters} rater(s), {store.hash} → {safe_name(str(out))}")


def list_recipes() -> None:
    """What can be trained, and what each row differs in."""
    from rich.console import Console

    from manymask.cli.tables import recipes_table

    Console().print(recipes_table())
