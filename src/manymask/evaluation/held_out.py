"""Which cases of a store may be used to score a model, and whether store and model are compatible."""

import sys
from collections.abc import Iterable

from tqdm import tqdm

from manymask.data.case import Part
from manymask.data.datasets import DATASETS
from manymask.data.store import Store
from manymask.errors import ConfigError, DataLeakError, InputError
from manymask.evaluation.leakage import find_leak
from manymask.hub.model_folder import TrainedModel
from manymask.hub.provenance import Provenance
from manymask.recipes import Recipe


def check_no_leakage(ids: list[str], part: Part, store: Store, provenance: Provenance, seen: Iterable[str]) -> None:
    """Check that none of the cases was trained on, in this run or in one that it started from.

    For a user's own folder that was prepared again, names may mean other images, and there is only a warning on stderr.

    Args:
        ids: the cases.
        part: the part of the split that they belong to.
        store: the data.
        provenance: of the model.
        seen: ids of all cases that the model was trained on.

    Raises:
        DataLeakError: a case was trained on.
    """
    known = sorted(set(ids) & set(seen))
    if not known or store.name not in provenance.data_sets:
        return
    found = f"{len(known)} of the {part} cases were trained on ({', '.join(known[:3])}, …)"
    if is_users_own(store) and not any(store.holds(each.data_hash) for each in provenance.line):
        tqdm.write(
            f"manymask: {found}, if these names mean the same images: then the scores are too good", file=sys.stderr
        )
        return
    raise DataLeakError(f"{found}: this split is another one than that it was trained on", cases=known)


def is_users_own(store: Store) -> bool:
    """Whether users bring these images, so that equal names in two stores may mean other images."""
    return store.name in DATASETS and DATASETS[store.name].users_own


def split_of(trained: TrainedModel, store: Store, scheme: str | None = None) -> str:
    """The split scheme that a model is tested on.

    Args:
        trained: the model.
        store: the data.
        scheme: the requested scheme, if any.

    Returns:
        The requested scheme; else the model's own if the store is its training data; else the default of the store.
    """
    if scheme is not None:
        return scheme
    same = store.holds(trained.provenance.data_hash)
    return trained.provenance.scheme if same and trained.provenance.scheme else store.default_scheme


def held_out_cases(trained: TrainedModel, store: Store, part: Part, scheme: str | None = None) -> list[str]:
    """The cases of one part of a split, after a check that the model was not trained on them.

    Args:
        trained: the model.
        store: the data, as returned by `matched_store`.
        part: "train", "val" or "test"; the training part is not checked.
        scheme: the requested split scheme; see `split_of`.

    Returns:
        Their ids.

    Raises:
        DataLeakError: a case was trained on.
        InputError: the store does not fit the model.
        ValueError: the model needs a window that `matched_store` did not set.
    """
    if matched_store(trained.recipe, store) is not store:
        raise ValueError("a model with a margin is scored on `matched_store(recipe, store)`")
    ids = store.part(split_of(trained, store, scheme), part)
    if part != "train":
        check_no_leakage(ids, part, store, trained.provenance, trained.training_ids)
        find_leak(trained, store, ids).warn()
    return ids


def matched_store(recipe: Recipe, store: Store, offset: tuple[int, int] = (0, 0)) -> Store:
    """The store as a model of the recipe receives it: through a window if the recipe has a margin.

    Args:
        recipe: of the model.
        store: the data.
        offset: rows and columns from the middle of the image to the middle of the window.

    Returns:
        The store itself, or a window of it.

    Raises:
        InputError: size or number of channels differ from the recipe's.
        ConfigError: there is an offset, but the recipe has no margin.
    """
    size = store.stored[0]
    channels = store.images.shape[1]
    if (size, channels) != (recipe.stored, recipe.channels):
        raise InputError(
            f"{store.folder} was prepared at {size}² with {channels} channel(s), the recipe takes {recipe.stored}² with "
            f"{recipe.channels}: prepare it with this recipe",
            path=store.folder,
        )
    if any(offset) and not recipe.margin:
        raise ConfigError(
            "windows off the middle are for models that were trained on windows of larger crops", parameter="offsets"
        )
    return store if store.cut or not recipe.margin else store.window(recipe.size, offset, recipe.stretch)
