"""What a model draws where there is nothing to find, and what it then misses.

python benchmarks/nothing_there.py --model models/polyps --data stores/polyps --out docs/results/polyps/nothing.json

Of each frame the largest window without a marked pixel is cut (at least --least of the side), brought to the model's size
and segmented. `drawn`: share of windows whose consensus holds any pixel; `area`: the median share of the window that it
holds then; `missed`: share of the whole frames with a lesion whose consensus is empty.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro

from manymask.data.case import Batch, evenly_spaced
from manymask.data.resize import resize_image
from manymask.data.store import Store
from manymask.ensemble import fuse
from manymask.evaluation.held_out import held_out_cases, matched_store, split_of
from manymask.evaluation.observations import empty_window
from manymask.hub.model_folder import TrainedModel, load_model
from manymask.io.atomic import write_json
from manymask.runtime import git_revision, hardware

BATCH = 4  # images


@dataclass(frozen=True)
class Options:
    """A segmenter of whole images, its store, and where the results go."""

    model: Path
    data: Path
    out: Path
    images: int | None = None
    masks: int = 5
    seed: int = 0
    least: float = 0.4
    split: Literal["val", "test"] = "test"
    scheme: str | None = None


def marked_in(store: Store, case: str) -> np.ndarray:
    """What any rater marked of a case, bool (S, S)."""
    marked: np.ndarray = store.batch([case]).truth()[0].amax(dim=0).numpy() > 0
    return marked


def window_of(store: Store, case: str, where: tuple[slice, slice], size: int) -> np.ndarray:
    """Rows and columns of a case's image, brought to a size: uint8 (C, size, size)."""
    return resize_image(np.asarray(store.images[store.index[case]])[:, *where].transpose(1, 2, 0), size)


def origin(trained: TrainedModel, store: Store, model: Path, scheme: str | None) -> dict[str, Any]:
    """What figures are of, and what they were made with."""
    data = {"name": store.name, "hash": store.hash, "scheme": split_of(trained, store, scheme)}
    return {"data": data, "model": model.name, "git": git_revision(), "hardware": hardware()}


def consensus(model: Any, images: list[np.ndarray], names: list[str], options: Options) -> np.ndarray:
    """bool (n, S, S) of uint8 images (C, S, S)."""
    found = []
    for start in range(0, len(images), BATCH):
        some = torch.from_numpy(np.stack(images[start : start + BATCH])).float() / 255
        drawn = model.sample_all(Batch(names[start : start + BATCH], some), options.masks, options.seed)
        found.append(fuse(drawn).consensus.numpy())
        print(f"{min(start + BATCH, len(images))} of {len(images)}", flush=True)
    return np.concatenate(found)


def run(options: Options) -> dict[str, Any]:
    """Cuts, draws, and returns what the file holds."""
    trained = load_model(options.model)
    store = matched_store(trained.recipe, Store(options.data))
    ids = evenly_spaced(held_out_cases(trained, store, options.split, options.scheme), options.images)
    frames = [np.asarray(store.images[store.index[case]]) for case in ids]
    marked = [marked_in(store, case) for case in ids]
    windows = {
        case: where for case, mask in zip(ids, marked, strict=True) if (where := empty_window(mask, options.least))
    }
    cut = [window_of(store, case, where, trained.recipe.size) for case, where in windows.items()]
    trained.model.eval()
    inside = consensus(trained.model, cut, list(windows), options).mean(axis=(1, 2))
    whole = consensus(trained.model, frames, ids, options).any(axis=(1, 2))
    held = np.array([mask.any() for mask in marked])
    return {
        "windows": len(windows), "drawn": float((inside > 0).mean()),
        "area": float(np.median(inside[inside > 0])) if (inside > 0).any() else 0.0,
        "frames": int(held.sum()), "missed": float(1 - whole[held].mean()),
        "protocol": {"masks": options.masks, "seed": options.seed, "split": options.split, "least": options.least},
        **origin(trained, store, options.model, options.scheme),
    }  # fmt: skip


if __name__ == "__main__":
    chosen = tyro.cli(Options)
    write_json(chosen.out, run(chosen))
