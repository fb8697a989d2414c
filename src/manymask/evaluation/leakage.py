"""Whether a model is tested on what it was trained on: by the names of cases, and by the looks of their images."""

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
    """Those of `tested` cases whose images look like images that a model was trained on. `checked` is false where the
    model folder holds no hashes of its training images, so that nothing is known."""

    tested: int = 0
    checked: bool = False
    cases: tuple[str, ...] = ()

    def warn(self) -> None:
        """A line on stderr where there is a leak."""
        if self.cases:
            tqdm.write(
                f"manymask: {len(self.cases)} of {self.tested} images look like images that the model was trained on "
                f"({listed(self.cases)}): the scores are too good",
                file=sys.stderr,
            )

    @property
    def record(self) -> dict[str, Any]:
        """What results.json says of it."""
        return {"tested": self.tested, "checked": self.checked, "cases": list(self.cases)}


def find_leak(trained: TrainedModel, store: Store, ids: Sequence[str]) -> Leak:
    """Compares images with the hashes of the training images, whatever either is called; see `data.twins`."""
    hashes = trained.training_hashes
    if hashes is None:
        return Leak(len(ids))
    pairs = near_pairs(store.image_hashes(ids), hashes)
    return Leak(len(ids), True, tuple(ids[i] for i, _ in pairs))
