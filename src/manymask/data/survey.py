"""What masks and images look like, noted while a store is written: what is refused, and what is only said."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import PurePath

import numpy as np
from scipy.ndimage import label

from manymask.data.case import Case
from manymask.data.datasets.pairs import listed
from manymask.errors import InputError, ManymaskError
from manymask.io.masks import SHADES

SMALL_MEDIAN = 12  # px at model size
TINY, TINY_SHARE = 4, 0.1  # px; so many objects may be smaller
MOST_GROUPS = 4  # of mask files by their values, that are named
MOST_KINDS = 12  # of refusals that are printed


@dataclass(frozen=True)
class Look:
    """What is noted of one case: a digest of its pixels, and for each rater the foreground's share of the image and of
    its border (NaN where the rater did not read), and the area of every object in pixels at model size."""

    pixels: bytes
    shares: np.ndarray
    borders: np.ndarray
    objects: np.ndarray

    @property
    def inverted(self) -> np.ndarray:
        """Which masks cover most of the image and of its border, but not all: those of an inverted mask."""
        return (self.shares > 0.5) & (self.shares < 1) & (self.borders > 0.8)


def inspect_case(case: Case, image: np.ndarray, masks: np.ndarray, size: int) -> Look:
    """Image (H, W, C) and masks (R, H, W) of a case that becomes size × size."""
    read = np.array(case.read_by or (True,) * len(masks))
    scale = size * size / masks[0].size
    rim = np.ones(masks.shape[1:], bool)
    rim[1:-1, 1:-1] = False
    shares = np.where(read, masks.mean(axis=(1, 2)), np.nan)
    borders = np.where(read, masks[:, rim].mean(axis=1), np.nan)
    areas = [_objects(mask) * scale for mask in masks if mask.any()]
    digest = sha256(image.tobytes()).digest() + bytes(str(image.shape), "ascii")
    return Look(digest, shares, borders, np.concatenate(areas) if areas else np.zeros(0))


def _objects(mask: np.ndarray) -> np.ndarray:
    """The areas of a mask's objects in pixels, without specks of less than a hundredth of the largest."""
    areas = np.bincount(label(mask)[0].ravel())[1:]
    result: np.ndarray = areas[100 * areas >= areas.max()]
    return result


def foreground(looks: Sequence[Look]) -> list[str]:
    """A line for each rater: how much of the image is foreground."""
    shares = np.stack([each.shares for each in looks])
    lines = []
    for k, own in enumerate(shares.T):
        read, who = own[~np.isnan(own)], f"rater {k}" if shares.shape[1] > 1 else "masks"
        if not len(read):
            lines.append(f"{who}: read no image")
            continue
        filled = read[read > 0]
        middle = f"{100 * np.median(filled):.3g} %" if len(filled) else "none"
        span = f" (median of the others; {100 * filled.min():.3g} – {100 * filled.max():.3g} %)" if len(filled) else ""
        count = f"{len(read)} of {len(own)} images read, " if len(read) < len(own) else ""
        lines.append(f"{who}: {count}{len(read) - len(filled)} empty, foreground {middle}{span}")
    return lines


def refuse_useless(looks: Sequence[Look]) -> None:
    """`InputError` where no mask tells foreground from background."""
    shares = np.concatenate([each.shares[~np.isnan(each.shares)] for each in looks])
    kinds = {"empty": int((shares == 0).sum()), "full": int((shares == 1).sum())}
    if sum(kinds.values()) < len(shares):
        return
    what = " or ".join(kind for kind, count in kinds.items() if count)
    raise InputError(
        f"all {len(shares)} masks are {what}, there is nothing to learn: look at the mask files, and at how they are read",
        remedies=("mask_threshold", "mask_labels", "invert"),
    )


def noted(cases: Sequence[Case]) -> list[str]:
    """What reading the images left to be said, a line for each kind."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    for case in cases:
        for note in case.notes:
            kinds.setdefault(re.sub(r"\S*\d\S*", "0", note), []).append((case.id, note))
    return [f"{len(found)} of {len(cases)} images, such as {found[0][0]}: {found[0][1]}" for found in kinds.values()]


def kinds_of_masks(cases: Sequence[Case], chained: bool = True) -> list[str]:
    """A line for each rater whose mask files hold different values, so that some may be of another kind.

    Label images need not hold every label: files are of one kind if they share a value other than 0, or if other files lie
    between them that do. chained: else they must hold the very same.
    """
    held: dict[int, dict[str, frozenset[float | str]]] = {}
    for case in cases:
        for (rater, path), values in case.values.items():
            known = held.setdefault(rater, {})
            known[path] = known.get(path, frozenset()) | values
    lines = []
    for rater, files in sorted(held.items()):
        groups = _kinds({path: values for path, values in files.items() if values - {0.0}}, chained)
        if len(groups) < 2:
            continue
        who = f"the masks of rater {rater}" if len(held) > 1 else "the masks"
        said = [f"{len(names)} hold{'s' * (len(names) == 1)} {_held(values)}" for values, names in groups[:MOST_GROUPS]]
        fewest = listed([PurePath(name).name for name in groups[-1][1]])
        lines.append(
            f"{who} differ in the values that they hold: {'; '.join(said)}; are some of another kind, such as {fewest}?"
        )
    return lines


def _kinds(
    files: Mapping[str, frozenset[float | str]], chained: bool
) -> list[tuple[frozenset[float | str], list[str]]]:
    """Values and names of each kind, the most frequent first."""
    groups: list[tuple[frozenset[float | str], list[str]]] = []
    for name, values in files.items():
        shared = values - {0.0, SHADES}
        same = [group for group in groups if (group[0] & shared if chained else group[0] == values)]
        groups = [group for group in groups if group not in same]
        names = [each for group in same for each in group[1]]
        groups.append((values.union(*(group[0] for group in same)), [*names, name]))
    return sorted(groups, key=lambda group: -len(group[1]))


def _held(values: frozenset[float | str]) -> str:
    """Values in words: `0, 1, 2`; `shades between 0 and 255`."""
    numbers = sorted(value for value in values if isinstance(value, float))
    if SHADES in values:
        return f"{SHADES} 0 and {numbers[-1]:g}"
    words = [str(value) for value in values if isinstance(value, str)]
    return ", ".join([*(f"{value:g}" for value in numbers[:6]), *(["…"] if len(numbers) > 6 else []), *words])


def warnings(ids: Sequence[str], looks: Sequence[Look], size: int) -> list[str]:
    """What of the masks is worth a look, a line each."""
    filled = sum(int((each.shares > 0).sum()) for each in looks)
    lines = []
    inverted = [case for case, each in zip(ids, looks, strict=True) for _ in np.flatnonzero(each.inverted)]
    if 2 * len(inverted) >= filled:
        lines.append(f"{len(inverted)} of {filled} masks cover most of the image and of its border: if foreground and "
                     "background are exchanged, invert the masks")  # fmt: skip
    elif inverted:
        lines.append(f"{len(inverted)} of {filled} masks cover most of the image and of its border, unlike the others; are "
                     f"they inverted? {listed(inverted)}")  # fmt: skip
    odd = {
        "have a mask that is full": [case for case, each in zip(ids, looks, strict=True) if (each.shares == 1).any()],
        "have no foreground": [case for case, each in zip(ids, looks, strict=True) if np.nanmax(each.shares) == 0],
    }
    lines += [f"{len(cases)} of {len(ids)} images {what}: {listed(cases)}" for what, cases in odd.items() if cases]
    return lines + _small_objects(looks, size)


def _small_objects(looks: Sequence[Look], size: int) -> list[str]:
    areas = np.concatenate([each.objects for each in looks])
    if not len(areas):
        return []
    median, tiny = float(np.median(areas)), float((areas < TINY).mean())
    if median >= SMALL_MEDIAN and tiny <= TINY_SHARE:
        return []
    return [f"at {size}×{size} the median object has {median:.3g} pixels, and {100 * tiny:.3g} % have fewer than {TINY}: "
            "prepare the images larger, or give crops"]  # fmt: skip


def report(problems: Mapping[str, ManymaskError], cases: Sequence[Case]) -> InputError:
    """All cases that cannot be used as one error: a single one in its own words, else a line for each kind. Where labels must
    be chosen, it says which values the masks hold: one of them may be of another kind."""
    total = len(cases)
    remedies = [*(name for error in problems.values() for name in error.remedies), "skip_bad"]
    kinds_held = kinds_of_masks(cases, chained=False) if "mask_labels" in remedies else []
    if len(problems) == 1:
        error = next(iter(problems.values()))
        said = "; or leave it out" + "".join(f". {line[0].upper()}{line[1:]}" for line in kinds_held)
        return InputError(f"{error}{said}", path=error.path, remedies=remedies)
    kinds: dict[str, list[str]] = {}
    for case, error in problems.items():
        kinds.setdefault(_kind(str(error), case), []).append(case)
    lines = []
    for ids in list(kinds.values())[:MOST_KINDS]:
        rest = f" (and {len(ids) - 1} more like it: {listed(ids[1:])})" if len(ids) > 1 else ""
        lines.append(f"{problems[ids[0]]}{rest}")
    if len(kinds) > MOST_KINDS:
        lines.append(f"… and {len(kinds) - MOST_KINDS} kinds more")
    said = f"{len(problems)} of {total} cases cannot be used; mend them, or leave them out:"
    return InputError(said, remedies=dict.fromkeys(remedies), details=[*lines, *kinds_held])


def _kind(message: str, case: str) -> str:
    """A message without what differs from case to case: paths, names, numbers."""
    words = [word for word in message.replace(case, "").split() if "/" not in word and "." not in word[:-1]]
    return re.sub(r"\d+(\.\d+)?", "0", " ".join(words))
