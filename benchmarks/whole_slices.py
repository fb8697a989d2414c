"""MSE against weighted cross-entropy for a mask codec at the paper's scale (its Table I), over steps and seeds.

python benchmarks/whole_slices.py --data stores/lidc_idri --work runs/whole-slices --out docs/results/paper/whole-slices.json

The paper resizes whole slices of LIDC-IDRI to 128², in which the median nodule covers 4 pixels. --data holds crops of 128² at
native scale, so each is put at a random place of an empty slice of 512², which is prepared at 128². The rows are the codecs
of one latent channel, learnt from the consensus, of `manymask reproduce` (table `narrow`). Each is trained anew for every
number of steps and every seed, and scored on evenly spaced test slices: the weighted one cut at 0.5 of its weighted
probability, as the paper reads, and with ln w taken off its logits. Interrupted, the same command goes on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from manymask import api
from manymask.data.case import Case, Source, evenly_spaced
from manymask.data.raters import consensus_mask
from manymask.data.resize import resize_image, resize_mask
from manymask.data.store import Store, prepare
from manymask.evaluation.evaluator import EvalConfig, evaluate
from manymask.evaluation.held_out import held_out_cases
from manymask.experiments.matrix import matrix
from manymask.experiments.sweeps import cuts
from manymask.hub.model_folder import load_model
from manymask.io.atomic import write_json
from manymask.metrics import difference, summary
from manymask.recipes import Recipe, Stage, get_recipe
from manymask.rng import seed_of
from manymask.runtime import git_revision, hardware

RECIPE = "lidc_idri_slices"
SLICE = 512  # pixels: side of a CT slice
ROWS = {"narrow-mse": "MSE", "narrow-wce": "weighted CE"}


@dataclass(frozen=True)
class Options:
    """A store of crops, where slices and codecs are kept, and where the results go."""

    data: Path
    work: Path
    out: Path
    steps: tuple[int, ...] = (100, 300, 500)
    seeds: int = 3
    crops: int = 6000
    cases: int = 200


def placed(store: Store, case: str) -> tuple[np.ndarray, np.ndarray]:
    """The crop in a black slice, which is then resized: image (128, 128, 1) uint8 and masks (R, 128, 128). The place is that
    of its name."""
    size = get_recipe(RECIPE).stored
    masks = store.native_masks(case)
    height, width = masks.shape[1:]
    top, left = np.random.default_rng(seed_of(case)).integers(0, (SLICE - height, SLICE - width), endpoint=True)
    box = slice(top, top + height), slice(left, left + width)
    image, slices = np.zeros((SLICE, SLICE, 1), np.uint8), np.zeros((len(masks), SLICE, SLICE), bool)
    image[box] = np.moveaxis(store.images[store.index[case]], 0, -1)
    slices[:, *box] = masks
    shrunk = np.stack([resize_mask(mask, size) for mask in slices])
    return np.moveaxis(resize_image(image, size), 0, -1), shrunk.astype(bool)


def prepared(options: Options) -> Store:
    """The slices as a store, with the patients' split of the crops."""
    folder, crops = options.work / "store", Store(options.data)
    if folder.exists():
        return Store(folder)
    kept = dict.fromkeys(evenly_spaced(crops.ids, options.crops))
    schemes = {name: {part: [case for case in ids if case in kept] for part, ids in scheme.items()}
               for name, scheme in crops.schemes.items()}  # fmt: skip
    cases = [Case(case, crops.groups[case], partial(placed, crops, case)) for case in kept]
    remark = f"crops ({crops.hash}) at random places of empty slices"
    source = Source(RECIPE, cases, schemes, crops.manifest["licence"], remark)
    return prepare(source, folder, get_recipe(RECIPE).stored, 1)


def trained(row: Recipe, steps: int, seed: int, store: Store, run: Path) -> Path:
    """The folder of a mask codec after so many steps."""
    training = replace(row.codec_training, steps=steps, seed=seed, validate_every=steps)
    if not (run / Stage.MASK_CODEC / "model").exists():
        api.train(replace(row, codec_training=training), store, run, stage=Stage.MASK_CODEC)
    return run / Stage.MASK_CODEC / "model"


def scored(folder: Path, store: Store, cases: int) -> Iterator[tuple[str, dict[str, float]]]:
    """How a codec is cut, and the Dice of each slice."""
    codec = load_model(folder)
    ids = evenly_spaced(held_out_cases(codec, store, "test"), cases)
    for way, model in cuts(codec.model).items():
        found = evaluate(model, store, ids, EvalConfig(), progress=False)
        yield way, {case["id"]: case["dice"] for case in found.cases}


def over_seeds(dice: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of each slice."""
    return {case: float(np.mean([seed[case] for seed in dice])) for case in dice[0]}


def row_of(dice: Sequence[dict[str, float]], mse: Sequence[dict[str, float]], groups: dict[str, str]) -> dict[str, Any]:
    """Scores of one number of steps: the mean Dice of each seed, that of all, and the paired difference from the codec with
    MSE, with intervals over patients; and the share of slices that are lost, where the answer meets no pixel of the nodule."""
    mean = over_seeds(dice)
    return {
        "seeds": [float(np.mean(list(seed.values()))) for seed in dice],
        "dice": dict(summary(list(mean.values()), [groups[case] for case in mean])),
        "lost": float(np.mean([[score == 0 for score in seed.values()] for seed in dice])),
        "minus_mse": dict(difference(mean, over_seeds(mse), groups)),
    }


def main(options: Options) -> None:
    """Trains and scores all of them, prints the table and writes OUT."""
    store = prepared(options)
    rows = {row.name: row.recipe for row in matrix(RECIPE, store.raters) if row.name in ROWS}
    ids = evenly_spaced(store.part(store.default_scheme, "test"), options.cases)
    area = [int(consensus_mask(store.batch([case]).masks[0].numpy()).sum()) for case in ids]  # type: ignore[index]
    found: dict[str, Any] = {"median_pixels": float(np.median(area)), "steps": {}}
    for steps in options.steps:
        dice: dict[str, list[dict[str, float]]] = {}
        for name, label in ROWS.items():
            for seed in range(options.seeds):
                folder = trained(rows[name], steps, seed, store, options.work / f"{name}-{steps}-{seed}")
                for way, scores in scored(folder, store, options.cases):
                    dice.setdefault(f"{label} {way}".strip(), []).append(scores)
        found["steps"][str(steps)] = {label: row_of(each, dice["MSE"], store.groups) for label, each in dice.items()}
        for label, row in found["steps"][str(steps)].items():
            gap = row["minus_mse"]
            print(f"{steps:5} steps  {label:22} Dice {row['dice']['mean']:.3f}, lost {row['lost']:.2f}, "
                  f"− MSE {gap['mean']:+.3f} ({gap['low']:+.3f} – {gap['high']:+.3f})", flush=True)  # fmt: skip
        found |= {
            "data": {"name": store.name, "hash": store.hash, "remark": store.remark, "cases": len(ids)},
            "git": git_revision(),
            "hardware": hardware(),
        }
        write_json(options.out, found)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
