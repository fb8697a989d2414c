"""What a data set is before and while it is used: cases, split schemes, batches."""

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from manymask.rng import TrainingNoise

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")
Scheme = Mapping[Part, list[str]]
MaskValues = dict[tuple[int, str], frozenset[float | str]]


@dataclass(frozen=True)
class Case:
    """One image with its raters' masks, not yet loaded.

    `read` gives the image, uint8 (H, W, C), and the masks, bool (R, H, W), at native size. `group` is what must not
    cross a split: the patient, the video sequence, or the image itself. `read_by` says for each of the R slots whether
    its rater read the image (empty: all did); the mask of one who did not is empty and counts for nothing. `notes` holds
    what is to be said of the image once it was read; `values`, by rater and file, what its mask files hold then
    (`io.masks.values_of`).
    """

    id: str
    group: str
    read: Callable[[], tuple[np.ndarray, np.ndarray]]
    read_by: tuple[bool, ...] = ()
    notes: list[str] = field(default_factory=list, compare=False)
    values: MaskValues = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Source:
    """A data set as found on disk: cases, named split schemes (the first is the default), licence and remarks.

    `given` names the schemes that are the owner's, and are kept whatever is found in them; `notes` are for who prepares it;
    `layout` says in a line how the folder was understood, where that is not fixed.
    """

    name: str
    cases: Sequence[Case]
    schemes: Mapping[str, Scheme]
    licence: str
    remark: str = ""
    given: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    layout: str = ""


@dataclass
class Batch:
    """What a model is given. image (B, C, H, W) and masks (B, R, H, W) are float32 in [0, 1]; masks may be absent.

    names: `pixel_name` of each image, by which the noise of its masks is seeded, so that the same pixels give the same masks
    wherever they come from; without them the ids are.
    read_by: bool (B, R), which raters read an image; None if all read every one.
    places: of windows, the (top, left) of each in its image, whose noise they then share; multiples of f. None of whole images.
    """

    ids: list[str]
    image: Tensor
    masks: Tensor | None = None
    noise: TrainingNoise = field(default_factory=lambda: TrainingNoise(0, 0))
    names: list[str] = field(default_factory=list)
    read_by: Tensor | None = None
    places: list[tuple[int, int]] | None = None

    @property
    def noise_names(self) -> list[str]:
        """What the noise of inference is seeded by, image by image."""
        return self.names or self.ids

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch with its tensors on a device."""
        return replace(self, image=self.image.to(device), masks=None if self.masks is None else self.masks.to(device))

    def truth(self) -> Tensor:
        """The masks, where there must be some."""
        if self.masks is None:
            raise ValueError("this batch has no masks")
        return self.masks

    def raters_masks(self) -> list[Tensor]:
        """Image by image, on the CPU, the masks (R, H, W) of those who read it."""
        masks = self.truth().cpu()
        return (
            list(masks) if self.read_by is None else [m[own] for m, own in zip(masks, self.read_by.cpu(), strict=True)]
        )


def random_scheme(groups: Mapping[str, str], seed: int, fractions: tuple[float, float] = (0.8, 0.1)) -> Scheme:
    """Cuts whole groups into train, val and test so that the *cases* come near the fractions (the rest is test).

    `groups` maps case id → group. The order of groups is drawn from the seed alone, so it is the same everywhere.
    """
    members: dict[str, list[str]] = {}
    for case, group in sorted(groups.items()):
        members.setdefault(group, []).append(case)
    order = sorted(members)
    random.Random(seed).shuffle(order)
    wanted = {"train": fractions[0], "val": fractions[1], "test": 1 - sum(fractions)}
    scheme: dict[Part, list[str]] = {part: [] for part in PARTS}
    for group in order:
        # the part that lacks most of its share takes the next group
        part = max(PARTS, key=lambda p: wanted[p] * len(groups) - len(scheme[p]))
        scheme[part] += members[group]
    for part in ("val", "test"):  # few groups: none of the parts may stay empty where that can be helped
        if not scheme[part] and len({groups[case] for case in scheme["train"]}) > 1:
            moved = groups[scheme["train"][-1]]
            scheme[part] = members[moved]
            scheme["train"] = [case for case in scheme["train"] if groups[case] != moved]
    return {part: sorted(ids) for part, ids in scheme.items()}


def evenly_spaced(ids: Sequence[str], count: int | None) -> list[str]:
    """At most `count` of the ids, evenly spaced; all if it is None."""
    if count is None or count >= len(ids):
        return list(ids)
    return [ids[i * len(ids) // count] for i in range(count)]


def pixel_name(pixels: np.ndarray) -> str:
    """SHA-256 of uint8 pixels (C, S, S) as a model sees them."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def content_hash(*parts: bytes | memoryview) -> str:
    """SHA-256 over the parts, as `sha256:` and 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return f"sha256:{digest.hexdigest()[:16]}"
