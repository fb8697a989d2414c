"""Whether test images resemble the images that a model was trained on, whatever their names."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from manymask.data.datasets.pairs import listed
from manymask.data.store import Store
from manymask.data.twins import near_pairs
from manymask.evaluation.records import EvaluationRecord
from manymask.hub.model_folder import TrainedModel
from manymask.metrics import summary


@dataclass(frozen=True)
class Leak:
    """The test cases whose images look like training images.

    Attributes:
        tested: number of test cases.
        checked: whether they were compared; False if the model folder holds no hashes of its training images.
        cases: ids of the cases that look like training images.
    """

    tested: int = 0
    checked: bool = False
    cases: tuple[str, ...] = ()

    def warn(self) -> None:
        """Print a line on stderr if there is a leak."""
        if self.cases:
            tqdm.write(
                f"manymask: {len(self.cases)} of {self.tested} images look like images that the model was trained on "
                f"({listed(self.cases)}): the scores are too good",
                file=sys.stderr,
            )

    @property
    def record(self) -> dict[str, Any]:
        """The entry of results.json."""
        return {"tested": self.tested, "checked": self.checked, "cases": list(self.cases)}


def find_leak(trained: TrainedModel, store: Store, ids: Sequence[str]) -> Leak:
    """Compare images with the hashes of the training images; see `data.twins`.

    Args:
        trained: the model.
        store: the test data.
        ids: the test cases.

    Returns:
        The cases that look like training images.
    """
    hashes = trained.training_hashes
    if hashes is None:
        return Leak(len(ids))
    pairs = near_pairs(store.image_hashes(ids, turned=True), hashes)
    return Leak(len(ids), True, tuple(ids[i] for i, _ in pairs))


def with_unseen(found: EvaluationRecord, store: Store) -> dict[str, Any]:
    """The entry on a leak, with the Dice of the cases that do not look like training images.

    Args:
        found: an evaluation.
        store: its data.

    Returns:
        `found.leak`; where there is a leak, and Dice was measured on other cases, with their `unseen_dice`.
    """
    known = set(found.leak["cases"])
    rows = [case for case in found.cases if case["id"] not in known and "dice" in case]
    if not known or not rows:
        return found.leak
    dice = summary([case["dice"] for case in rows], [store.groups[case["id"]] for case in rows])
    return found.leak | {"unseen_dice": dict(dice)}
