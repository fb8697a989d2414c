"""Whether test images resemble the images that a model was trained on, whatever their names."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from manymask.data.datasets.pairs import listed
from manymask.data.store import Store
from manymask.data.twins import near_pairs
from manymask.hub.model_folder import TrainedModel


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
    pairs = near_pairs(store.image_hashes(ids), hashes)
    return Leak(len(ids), True, tuple(ids[i] for i, _ in pairs))
