"""Which cases of a store may be used to score a model, and whether store and model fit together."""

import sys
from collections.abc import Iterable

from tqdm import tqdm

from manymask.data.case import Part
from manymask.data.store import Store
from manymask.errors import ConfigError, DataLeakError, InputError
from manymask.evaluation.leakage import find_leak
from manymask.hub.model_folder import TrainedModel
from manymask.hub.provenance import Provenance
from manymask.recipes import Recipe


def check_no_leakage(ids: list[str], part: Part, store: Store, provenance: Provenance, seen: Iterable[str]) -> None:
    """Raises `DataLeakError` if any of these cases was trained on, now or earlier on the model's way; of one's own folder
    prepared anew, where a name may mean another image, it only warns."""
    known = sorted(set(ids) & set(seen))
    if not known or store.name not in provenance.data_sets:
        return
    found = f"{len(known)} of the {part} cases were trained on ({', '.join(known[:3])}, …)"
    if store.name == "folder" and not any(store.holds(each.data_hash) for each in provenance.line):
        tqdm.write(
            f"manymask: {found}, if these names mean the same images: then the scores are too good", file=sys.stderr
        )
        return
    raise DataLeakError(f"{found}: this split is another one than that it was trained on", cases=known)


def split_of(trained: TrainedModel, store: Store, scheme: str | None = None) -> str:
    """The scheme a model is tested on: the one asked for, its own where this is the data it was trained on, else the store's
    default."""
    if scheme is not None:
        return scheme
    same = store.holds(trained.provenance.data_hash)
    return trained.provenance.scheme if same and trained.provenance.scheme else store.default_scheme


def held_out_cases(trained: TrainedModel, store: Store, part: Part, scheme: str | None = None) -> list[str]:
    """The cases of a part of `split_of(…)`; refuses any that the model, or a part of it, has seen, and a store that it
    cannot take."""
    if matched_store(trained.recipe, store) is not store:
        raise ValueError("a model with a margin is scored on `matched_store(recipe, store)`")
    ids = store.part(split_of(trained, store, scheme), part)
    if part != "train":
        check_no_leakage(ids, part, store, trained.provenance, trained.training_ids)
        find_leak(trained, store, ids).warn()
    return ids


def evenly_spaced(ids: list[str], count: int | None) -> list[str]:
    """At most `count` of the ids, evenly spaced."""
    if count is None or count >= len(ids):
        return ids
    return [ids[i * len(ids) // count] for i in range(count)]


def matched_store(recipe: Recipe, store: Store, offset: tuple[int, int] = (0, 0)) -> Store:
    """The store as a model of the recipe sees it: through a window, `offset` (rows, columns) off the middle, where the recipe
    has a margin. Refuses a store of another size or number of channels than the recipe's."""
    size, channels = store.stored[0], store.images.shape[1]
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
