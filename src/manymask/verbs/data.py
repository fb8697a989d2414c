"""`prepare` and `recipes`."""

from pathlib import Path
from typing import Annotated

import tyro

from manymask.errors import UserError, at_least_one


def prepare(
    recipe: Annotated[str, tyro.conf.Positional],
    /,
    *,
    out: Path,
    source: Path | None = None,
    mask_threshold: int | None = None,
    size: int | None = None,
    whole_slices: bool = False,
) -> None:
    """Turn an official distribution (or a folder of images/ and masks/) into a prepared store.

    Args:
        recipe: whose data set, size and channels are used; see `manymask recipes`.
        out: where the store is written; must not exist yet.
        source: the folder as downloaded and unpacked (the phantom needs none).
        mask_threshold: cut masks that are not black and white at this value.
        size: side of the prepared images in pixels; the recipe's if not given.
        whole_slices: of LIDC-IDRI's DICOM, whole slices in place of a crop around each nodule.
    """
    from manymask import recipes
    from manymask.data.store import prepare as write_store

    at_least_one("--size", size)
    row = recipes.recipe(recipe)
    if source is None and row.dataset != "phantom":
        raise UserError(f"{recipe} needs --source, the folder of the data set as downloaded")
    if whole_slices and row.dataset != "lidc_idri":
        raise UserError(f"--whole-slices is for lidc_idri; {row.dataset} has no slices")
    choice = {"whole": True} if whole_slices else {}
    found = recipes.READERS[row.dataset](source, row.channels, mask_threshold, **choice)
    store = write_store(found, out, size or row.stored, row.channels)
    for name, scheme in store.manifest["schemes"].items():
        print(f"split {name}: " + ", ".join(f"{len(ids)} {part}" for part, ids in scheme.items()))
    print(f"{len(store.ids)} cases, {store.readers} reader(s), {store.hash} → {out}")


def list_recipes() -> None:
    """What can be trained, and what each row differs in."""
    from rich.console import Console

    from manymask.show import recipes_table

    Console().print(recipes_table())
