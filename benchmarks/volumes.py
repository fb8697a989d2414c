"""Whether mask k of neighbouring slices is one hypothesis of a volume: shared noise against noise of each slice's own.

python benchmarks/volumes.py --model models/lidc_idri_readers --data stores/lidc_idri --out docs/results/volumes/readers.json

Nodules of the test split with their neighbouring slices. `shared`: mask k of all slices of a nodule from the same noise, as
`segment` draws series; `independent`: noise by the pixels of each slice, as images on their own. For both:
`inter_slice_dice`   Dice of mask k with mask k of the next slice, over the slices where either marks something
`other_slice_dice`   Dice of mask k with another mask of the next slice: what two masks have in common anyway
`relative_spread`    standard deviation of a nodule's volume over the masks, by its mean
Beside them, of the raters' masks: the Dice of one slot with itself in the next slice, and the spread of volumes over the slots.
Slots are no identities, so a rater may change slots from slice to slice, and both figures are bounds.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from manymask.data.case import evenly_spaced
from manymask.data.store import Store
from manymask.evaluation.held_out import held_out_cases, matched_store, split_of
from manymask.hub.model_folder import load_model
from manymask.io.atomic import write_json
from manymask.metrics import overlap, summary
from manymask.runtime import git_revision, hardware

LEAST = 4  # slices of a nodule


@dataclass(frozen=True)
class Options:
    """A model of LIDC-IDRI, its store, and where the results go."""

    model: Path
    data: Path
    out: Path
    images: int = 20  # nodules
    masks: int = 5
    seed: int = 0


def nodules(ids: list[str]) -> dict[str, list[str]]:
    """The slices of each nodule in their order; ids end in the number of the slice."""
    found: dict[str, list[str]] = defaultdict(list)
    for case in ids:
        found[re.sub(r"\d+$", "", case)].append(case)
    ordered = {name: sorted(cases, key=lambda case: int(re.search(r"\d+$", case)[0])) for name, cases in found.items()}  # type: ignore[index]
    return {name: cases for name, cases in sorted(ordered.items()) if len(cases) >= LEAST}


def follow(masks: np.ndarray, shift: int = 0) -> float | None:
    """Mean Dice of mask k with mask k + shift of the next slice; masks: bool (slices, n, H, W). None without any."""
    found = [
        overlap(here, there)[0]
        for one, other in zip(masks[:-1], np.roll(masks[1:], -shift, axis=1), strict=True)
        for here, there in zip(one, other, strict=True)
        if here.any() or there.any()
    ]
    return float(np.mean(found)) if found else None


def spread(masks: np.ndarray) -> float | None:
    """Standard deviation of the volume over the masks by its mean; None where nothing is marked."""
    volumes = masks.sum(axis=(0, 2, 3))
    return float(volumes.std(ddof=1) / volumes.mean()) if volumes.any() else None


def described(masks: np.ndarray) -> dict[str, float | None]:
    """The figures of one nodule's masks, bool (slices, n, H, W)."""
    others = [follow(masks, shift) for shift in range(1, masks.shape[1])]
    known = [value for value in others if value is not None]
    return {"inter_slice_dice": follow(masks), "other_slice_dice": float(np.mean(known)) if known else None,
            "relative_spread": spread(masks)}  # fmt: skip


def compare(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means with 95 % intervals over nodules, and the paired differences of shared from independent noise."""
    patients = [row["patient"] for row in rows]
    names = list(rows[0]["shared"])
    found: dict[str, Any] = {
        way: {name: dict(summary([row[way][name] for row in rows], patients)) for name in names}
        for way in ("shared", "independent", "raters")
    }
    for name in names:
        pairs = [(row["shared"][name], row["independent"][name]) for row in rows]
        paired = [None if a is None or b is None else a - b for a, b in pairs]
        found["shared"][f"{name}_minus_independent"] = dict(summary(paired, patients))
    return found


def run(options: Options) -> dict[str, Any]:
    """Draws, compares, and returns what the file holds."""
    trained, revision = load_model(options.model), git_revision()
    store = matched_store(trained.recipe, Store(options.data))
    groups = nodules(held_out_cases(trained, store, "test"))
    trained.model.eval()
    rows = []
    for name in evenly_spaced(list(groups), options.images):
        batch = store.batch(groups[name])
        own = trained.model.sample_all(batch, options.masks, options.seed).numpy() >= 0.5
        together = replace(batch, names=[f"volume {name}"] * len(batch.ids))
        shared = trained.model.sample_all(together, options.masks, options.seed).numpy() >= 0.5
        found = {
            "shared": described(shared),
            "independent": described(own),
            "raters": described(batch.truth().numpy() > 0),
        }
        rows.append({"id": name, "patient": store.groups[batch.ids[0]], "slices": len(batch.ids), **found})
        print(f"{len(rows)} of {options.images}", flush=True)
    return {
        "all": compare(rows),
        "protocol": {"nodules": len(rows), "masks": options.masks, "seed": options.seed, "split": "test"},
        "data": {"name": store.name, "hash": store.hash, "scheme": split_of(trained, store)},
        "model": {"name": options.model.name, "weights_sha256": trained.fingerprint},
        "git": revision,
        "hardware": hardware(),
        "nodules": rows,
    }


if __name__ == "__main__":
    chosen = tyro.cli(Options)
    write_json(chosen.out, run(chosen))
