"""How near the test part of a data set is to what was trained on: a split that leaks says so here.

python benchmarks/nearest.py --data stores/cvc_clinicdb --scheme pranet --out docs/results/cvc_clinicdb/nearest.json

`copied`      Dice and IoU of the mask of the most similar training image, copied; nothing is learnt (similar: the greatest
              correlation of thumbnails of 16², grey)
`group_seen`  the share of test images whose group (patient, video) is in training too
`neighbour_seen`  the share whose id, a number, has a direct neighbour of the same group in training
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import tyro

from manymask.data.case import Part
from manymask.data.raters import raters_consensus
from manymask.data.store import Store
from manymask.io.atomic import write_json
from manymask.metrics import overlap, summary
from manymask.runtime import git_revision


@dataclass(frozen=True)
class Options:
    """A store, one of its splits, and where the results go."""

    data: Path
    scheme: str
    out: Path
    part: Part = "test"


def thumbnails(store: Store, ids: list[str]) -> np.ndarray:
    """Standardised grey thumbnails, (n, 256): the product of two, over 256, is their correlation."""
    grey = store.batch(ids).image.mean(dim=1, keepdim=True)
    small = F.interpolate(grey, size=(16, 16), mode="area").flatten(1).numpy()
    return (small - small.mean(axis=1, keepdims=True)) / (small.std(axis=1, keepdims=True) + 1e-8)


def truth(store: Store, case: str) -> np.ndarray:
    """The consensus of the raters at the model's size, bool (S, S)."""
    return raters_consensus(store.batch([case]).truth())[0, 0].numpy() > 0


def group_seen(groups: dict[str, str], train: list[str], test: list[str]) -> float:
    """Share of the test cases whose group is that of a training case."""
    known = {groups[case] for case in train}
    return float(np.mean([groups[case] in known for case in test]))


def neighbour_seen(groups: dict[str, str], train: list[str], test: list[str]) -> float:
    """Share of the test cases that follow or precede a training case of the same group, by their numbers."""
    known = set(train)
    near = [[str(int(case) + step) for step in (-1, 1)] for case in test]
    found = [any(n in known and groups[n] == groups[case] for n in some) for case, some in zip(test, near, strict=True)]
    return float(np.mean(found))


def run(options: Options) -> dict[str, Any]:
    """What the file holds."""
    store = Store(options.data)
    train, test = store.part(options.scheme, "train"), store.part(options.scheme, options.part)
    similar = thumbnails(store, test) @ thumbnails(store, train).T
    copies = [train[int(i)] for i in similar.argmax(axis=1)]
    scores = [overlap(truth(store, copy), truth(store, case)) for case, copy in zip(test, copies, strict=True)]
    groups = [store.groups[case] for case in test]
    names = {"dice": [dice for dice, _ in scores], "iou": [iou for _, iou in scores]}
    numbered = all(case.isdecimal() for case in store.ids)
    return {
        "copied": {name: dict(summary(values, groups)) for name, values in names.items()},
        "group_seen": group_seen(store.groups, train, test),
        "neighbour_seen": neighbour_seen(store.groups, train, test) if numbered else None,
        "data": {"name": store.name, "hash": store.hash, "scheme": options.scheme, "part": options.part,
                 "trained_on": len(train), "tested_on": len(test)},
        "git": git_revision(),
        "torch": torch.__version__,
    }  # fmt: skip


if __name__ == "__main__":
    chosen = tyro.cli(Options)
    write_json(chosen.out, run(chosen))
