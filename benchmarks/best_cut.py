"""Where to cut the confidence map: at one half, as the paper does, or where the expected Dice is highest.

python benchmarks/best_cut.py --models ours=models/lidc_idri twin=runs/lidc-twin --data stores/lidc --limit 400 --out OUT.json

Three cuts of the same map, against the raters' consensus at the model's size:

half    the map ≥ 0.5
masks   the cut whose mean Dice with the drawn masks is highest (the decision of least Bayes risk among the cuts, as far as the
        masks are a sample of what may be true)
map     the cut whose expected Dice 2 Σ_cut p / (|cut| + Σ p) is highest: it takes the map alone, and so needs no masks

Each row has the Dice and its paired difference from `half`, with 95 % bootstrap intervals over groups, and in how many cases
the answer misses the lesion. A network that answers once has one map of as many views as there are masks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from learning import labelled

from manymask.data.case import Part, evenly_spaced
from manymask.data.raters import consensus_mask
from manymask.data.store import Store
from manymask.evaluation.held_out import held_out_cases, matched_store, split_of
from manymask.hub.model_folder import load_model
from manymask.io.atomic import write_json
from manymask.metrics import overlap, summary
from manymask.runtime import git_revision, hardware

BATCH = 8  # images
CUTS = ("half", "masks", "map")


@dataclass(frozen=True)
class Options:
    """Models of one store as LABEL=FOLDER, the part that is cut, and where the results go."""

    models: tuple[str, ...]
    data: Path
    out: Path
    split: Part = "val"
    scheme: str | None = None
    limit: int | None = None
    masks: int = 5
    seed: int = 0


def cut_for_masks(masks: np.ndarray) -> np.ndarray:
    """The level set of the mean of masks (n, H, W), bool, whose mean Dice with them is highest; the highest of equals."""
    share = masks.mean(axis=0)
    cuts = [share >= level for level in np.unique(share)[::-1] if level > 0]
    if not cuts:
        return np.zeros_like(share, dtype=bool)
    best: np.ndarray = cuts[int(np.argmax([np.mean([overlap(cut, mask)[0] for mask in masks]) for cut in cuts]))]
    return best


def cut_for_map(confidence: np.ndarray) -> np.ndarray:
    """The level set of a map (H, W) of which 2 Σ_cut p / (|cut| + Σ p) is highest; the highest of equals."""
    levels = np.sort(confidence, axis=None)[::-1].astype(float)
    expected = 2 * np.cumsum(levels) / (np.arange(1, levels.size + 1) + levels.sum())
    level = levels[int(np.argmax(expected))]
    found: np.ndarray = (confidence >= level) & (confidence > 0)
    return found


def cuts_of(drawn: np.ndarray) -> dict[str, np.ndarray]:
    """The three cuts of masks (n, H, W) in [0, 1]."""
    confidence = drawn.mean(axis=0)
    return {"half": confidence >= 0.5, "masks": cut_for_masks(drawn >= 0.5), "map": cut_for_map(confidence)}


def compare(rows: Sequence[dict[str, float]], groups: Sequence[str]) -> dict[str, Any]:
    """Means with intervals, paired differences from `half`, and how many cases have a Dice of 0."""
    found = {}
    for name in CUTS:
        dice = [row[name] for row in rows]
        gap = [row[name] - row["half"] for row in rows]
        found[name] = {
            "dice": dict(summary(dice, groups)),
            "minus_half": dict(summary(gap, groups)),
            "missed": sum(value == 0 for value in dice),
        }
    return found


def of_model(label: str, model: Path, options: Options) -> dict[str, Any]:
    """Draws and cuts for each case of one model."""
    trained = load_model(model)
    network = trained.segmenter
    store = matched_store(trained.recipe, Store(options.data))
    ids = evenly_spaced(held_out_cases(trained, store, options.split, options.scheme), options.limit)
    network.eval()
    rows: list[dict[str, Any]] = []
    for start in range(0, len(ids), BATCH):
        batch = store.batch(ids[start : start + BATCH])
        drawn = network.sample_all(batch, options.masks, options.seed)
        for case, masks, truths in zip(batch.ids, drawn.float().numpy(), batch.truth().numpy(), strict=True):
            truth = consensus_mask(truths >= 0.5)
            rows.append({"id": case, **{name: overlap(cut, truth)[0] for name, cut in cuts_of(masks).items()}})
    found = compare(rows, [store.groups[row["id"]] for row in rows])
    for name, each in found.items():
        gap = each["minus_half"]
        print(f"{label}: {name:6} {each['dice']['mean']:.4f}, − half {gap['mean']:+.4f} ({gap['low']:+.4f} – "
              f"{gap['high']:+.4f}), missed {each['missed']} of {len(rows)}", flush=True)  # fmt: skip
    data = {"name": store.name, "hash": store.hash, "scheme": split_of(trained, store, options.scheme)}
    return {"cuts": found, "data": data, "trained_by": trained.provenance.git, "images": rows}


def main(options: Options) -> None:
    """Cuts for all models, and writes OUT."""
    protocol = {"masks": options.masks, "seed": options.seed, "split": options.split}
    models = {label: of_model(label, folder, options) for label, folder in labelled(options.models).items()}
    write_json(options.out, {"models": models, "protocol": protocol, "git": git_revision(), "hardware": hardware()})


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
