"""What a folder or a prepared store holds, as far as a plan depends on it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from manymask.data.case import Case, Source, evenly_spaced
from manymask.data.raters import consensus_mask
from manymask.data.store import Store
from manymask.errors import InputError, ManymaskError

LOOKED_AT = 48  # images; a folder may hold thousands of large ones
SMALL = 0.01  # share of the image


@dataclass(frozen=True)
class Found:
    """What is known of the images and masks.

    Attributes:
        images: how many there are.
        groups: patients, or what else a split must not divide.
        sizes: width × height of the images looked at and how many have them, most frequent first.
        channels: 1 if all of them are grey, else 3.
        raters: masks per image.
        lesion: median share of the image that a mask covers, over masks that are not empty.
        smallest: the 5th percentile of that.
        empty: share of masks without foreground.
    """

    images: int
    groups: int
    sizes: tuple[tuple[str, int], ...]
    channels: int
    raters: int
    lesion: float
    smallest: float
    empty: float

    @property
    def lines(self) -> list[str]:
        """In words, a line each."""
        sizes = ", ".join(f"{size} ({count})" for size, count in self.sizes[:4])
        more = f" and {len(self.sizes) - 4} other sizes" if len(self.sizes) > 4 else ""
        groups = f" of {self.groups} groups (patients)" if self.groups < self.images else ""
        raters = f"{self.raters} raters" if self.raters > 1 else "one mask each"
        return [
            f"{self.images} images{groups}, {raters}",
            f"sizes: {sizes}{more}; {'grey' if self.channels == 1 else 'colour'}",
            f"lesions cover {100 * self.lesion:.2g} % of the image (median; one in twenty less than "
            f"{100 * self.smallest:.2g} %); {100 * self.empty:.0f} % of masks are empty",
        ]


def look_at_source(source: Source) -> Found:
    """Opens some of the images, evenly spaced. `InputError` if none of them can be read, or no mask holds anything."""
    some = evenly_spaced([case.id for case in source.cases], LOOKED_AT)
    chosen = [case for case in source.cases if case.id in set(some)]
    pairs = list(_readable(chosen))
    if not pairs:
        chosen[0].read()  # in its own words
        raise InputError("none of the images can be read")
    groups = len({case.group for case in source.cases})
    raters = max(len(masks) for _, masks in pairs)
    return _found(len(source.cases), groups, raters, pairs)


def _readable(cases: Sequence[Case]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images and masks of the cases that can be read; preparing names the others."""
    for case in cases:
        try:
            yield case.read()
        except ManymaskError:
            continue


def look_at_store(store: Store) -> Found:
    """The same of a prepared store, whose images are of one size."""
    some = evenly_spaced(store.ids, LOOKED_AT)
    pairs = [(store.whole_images[store.index[case]].transpose(1, 2, 0), store.native_masks(case)) for case in some]
    return _found(len(store.ids), len(set(store.groups.values())), store.raters, pairs)


def _found(images: int, groups: int, raters: int, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Found:
    sizes = Counter(f"{masks.shape[2]}×{masks.shape[1]}" for _, masks in pairs)
    shares = np.array([consensus_mask(masks).mean() for _, masks in pairs])
    filled = shares[shares > 0]
    if not len(filled):
        raise InputError("none of the masks that were looked at holds any foreground")
    return Found(
        images=images,
        groups=groups,
        sizes=tuple(sizes.most_common()),
        channels=1 if all(_is_grey(image) for image, _ in pairs) else 3,
        raters=raters,
        lesion=float(np.median(filled)),
        smallest=float(np.percentile(filled, 5)),
        empty=float((shares == 0).mean()),
    )


def _is_grey(image: np.ndarray) -> bool:
    """Whether all channels of (H, W, C) hold the same."""
    return bool((image == image[..., :1]).all())
