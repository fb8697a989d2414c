"""Where presence is cut: what is drawn where nothing is, and what is missed, on validation, for several shifts of its logit.

python benchmarks/presence.py --model models/polyps --data stores/polyps --out docs/results/polyps/presence.json

Of each validation image: the image itself; the largest window without a marked pixel (at least 0.4 of the side); up to three
random windows without one, and up to two with at least half of what is marked, each 0.3 to 0.8 of the side, brought to the
model's size. p is the mean over the orientations that masks are spread over, as in drawing. `largest`, `empty`: share of
windows without a marked pixel where p ≥ ½; `images`, `held`: share of images and windows with one where p < ½.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from nothing_there import marked_in, origin, window_of

from manymask.data.dihedral import dihedral
from manymask.data.store import Store
from manymask.evaluation.held_out import held_out_cases, matched_store
from manymask.evaluation.observations import empty_window
from manymask.hub.model_folder import load_model
from manymask.io.atomic import write_json

BATCH = 8  # windows
EMPTY, HELD, TRIES = 3, 2, 60  # random windows of an image, and how many places are tried


@dataclass(frozen=True)
class Options:
    """A segmenter of whole images with presence, its store, and where the results go."""

    model: Path
    data: Path
    out: Path
    shifts: tuple[float, ...] = (0.0, 0.4, 0.8, 1.2, 1.6, 2.0, 2.5, 3.0)
    seed: int = 0
    scheme: str | None = None


def windows(marked: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[str, tuple[slice, slice]]]:
    """The windows of an image, bool (S, S), with their kind."""
    side = len(marked)
    yield "images", (slice(0, side), slice(0, side))
    if (largest := empty_window(marked)) is not None:
        yield "largest", largest
    left = {"empty": EMPTY, "held": HELD}
    for _ in range(TRIES):
        size = int(side * rng.uniform(0.3, 0.8))
        top, start = rng.integers(0, side - size + 1, 2)
        where = slice(top, top + size), slice(start, start + size)
        share = marked[where].sum() / max(1, marked.sum())
        kind = "empty" if share == 0 else "held"
        if (share == 0 or share >= 0.5) and left[kind]:
            left[kind] -= 1
            yield kind, where


@torch.no_grad()
def logits(model: Any, images: list[np.ndarray]) -> np.ndarray:
    """Of images uint8 (C, S, S): (n, orientations), without the model's own shift."""
    found = []
    for start in range(0, len(images), BATCH):
        some = torch.from_numpy(np.stack(images[start : start + BATCH])).float() / 255
        turned = torch.cat([dihedral(some, k) for k in range(model.setting.orientations)])
        found.append(model.presence(model.condition(turned)[1:]).reshape(-1, len(some)).T.numpy())
        print(f"{min(start + BATCH, len(images))} of {len(images)}", flush=True)
    return np.concatenate(found)


def run(options: Options) -> dict[str, Any]:
    """Cuts, computes, and returns what the file holds."""
    trained = load_model(options.model)
    trained.model.eval()
    store, size = matched_store(trained.recipe, Store(options.data)), trained.recipe.size
    rng, kinds, images = np.random.default_rng(options.seed), list[str](), list[np.ndarray]()
    for case in held_out_cases(trained, store, "val", options.scheme):
        for kind, where in windows(marked_in(store, case), rng):
            kinds.append(kind)
            images.append(window_of(store, case, where, size))
    found, of = logits(trained.model, images), np.array(kinds)
    rows = []
    for shift in options.shifts:
        drawn = (1 / (1 + np.exp(shift - found))).mean(axis=1) >= 0.5
        rows.append(
            {"shift": shift}
            | {kind: float(drawn[of == kind].mean()) for kind in ("largest", "empty")}
            | {kind: float(1 - drawn[of == kind].mean()) for kind in ("images", "held")}
        )
    return {
        "rows": rows, "count": {kind: int((of == kind).sum()) for kind in ("images", "largest", "empty", "held")},
        "protocol": {"split": "val", "seed": options.seed},
        **origin(trained, store, options.model, options.scheme),
    }  # fmt: skip


if __name__ == "__main__":
    chosen = tyro.cli(Options)
    write_json(chosen.out, run(chosen))
