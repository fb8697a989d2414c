"""Images and masks as they lie in somebody's folder, scored without a store that anybody keeps."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from scipy.ndimage import binary_dilation, find_objects, label

from manymask.data.case import Case, Part, Source
from manymask.data.datasets.folder import read_to_score
from manymask.data.datasets.pairs import Pair
from manymask.data.store import Store, prepare
from manymask.errors import ConfigError, InputError, ManymaskError
from manymask.io.masks import MaskReading
from manymask.io.raster import to_channels
from manymask.recipes import Recipe

TOGETHER = 4  # pixels: marked parts that are nearer are one lesion


@dataclass(frozen=True)
class FolderReading:
    """How a folder is read that could be read in several ways.

    Attributes:
        masks: which pixels of mask files, or which labels, are foreground.
        choice: folders of masks, COCO files or endings of mask files to take; one for each rater.
        parts: whether several masks of one image are parts of one mask.
        skip_bad: whether what cannot be used is left out and named, else it is refused.
    """

    masks: MaskReading = MaskReading()
    choice: tuple[str, ...] = ()
    parts: bool = False
    skip_bad: bool = False


@dataclass(frozen=True)
class Scored:
    """Data to score.

    Attributes:
        store: the images and masks.
        part: of the split.
        scheme: the split; as `held_out.split_of` chooses it if None.
        cases: what the store was made of, where that is a plain folder; the store is then removed afterwards.
    """

    store: Store
    part: Part
    scheme: str | None
    cases: Sequence[Case] = ()

    @property
    def temporary(self) -> bool:
        """Whether the store was made of a plain folder, and is removed afterwards."""
        return bool(self.cases)


@contextmanager
def data_to_score(
    data: Store | Scored | Path | str,
    recipe: Recipe,
    part: Part | None = None,
    scheme: str | None = None,
    reading: FolderReading | None = None,
) -> Iterator[Scored]:
    """Open a store, or read a plain folder into a temporary one that is removed afterwards.

    Of a plain folder all images are scored, unless a part of its owner's split is named.

    Args:
        data: a store, its folder, or a folder of images and masks as `data.datasets.layout` understands it; or what this
            function opened, which stays as it is.
        recipe: of the model, which decides size, channels and window of the images.
        part: of the split; "test" of a store if None.
        scheme: of a store.
        reading: of a plain folder.

    Yields:
        The store with the part and the scheme to score.

    Raises:
        ManymaskError: the folder cannot be read, or has no such part.
    """
    if isinstance(data, Scored):
        yield data
        return
    if isinstance(data, Store) or (Path(data) / "manifest.json").is_file():
        if reading not in (None, FolderReading()):
            raise ConfigError(
                "masks of a prepared store were read when it was prepared; give the folder itself to read them"
            )
        yield Scored(data if isinstance(data, Store) else Store(Path(data)), part or "test", scheme)
        return
    if not Path(data).is_dir():
        raise InputError(f"{data} is no folder: give a prepared store, or a folder of images and masks", path=data)
    how = reading or FolderReading()
    source = read_to_score(Path(data), recipe.channels, how.masks, how.choice, how.parts, recipe.window)
    if (part is not None or scheme is not None) and "given" not in source.schemes:
        raise ConfigError(f"{data} is not split into train, val and test: all of it is scored", parameter="split")
    if recipe.crop:
        source = about_lesions(source, recipe.stored)
    with TemporaryDirectory(prefix="manymask-") as place:
        store = prepare(source, Path(place) / "store", recipe.stored, recipe.channels, how.skip_bad)
        yield Scored(store, part or "test", scheme or ("all" if part is None else "given"), source.cases)


def about_lesions(source: Source, side: int) -> Source:
    """The data as a model of regions needs it: a square at native scale about the middle of each lesion.

    Images that are such a square already stay as they are. Those in which nobody marked anything are left out: nothing
    says where to look.

    Args:
        source: whole images.
        side: of the squares, in pixels.

    Returns:
        A case for each lesion, named after its image and its middle.

    Raises:
        InputError: no image has a lesion.
    """
    cases: list[Case] = []
    renamed: dict[str, list[str]] = {}
    empty = 0
    for case in source.cases:
        own = _regions(case, side)
        empty += not own
        cases += own
        renamed[case.id] = [each.id for each in own]
    if not cases:
        raise InputError("no image has a lesion, so that nothing says where a model of regions should look")
    schemes = {
        name: {part: [new for old in ids for new in renamed[old]] for part, ids in scheme.items()}
        for name, scheme in source.schemes.items()
    }
    notes = list(source.notes)
    if any("@" in case.id for case in cases):
        notes.append(
            f"the model segments regions: it is given the middle of each lesion, in squares of {side}×{side} pixels"
        )
    if empty:
        notes.append(f"{empty} image(s) without a lesion left out: nothing says where to look")
    return replace(source, cases=cases, schemes=schemes, notes=tuple(notes))


def _regions(case: Case, side: int) -> list[Case]:
    """The squares of one image; the case itself where it is one, or cannot be read."""
    if not isinstance(case.read, Pair):
        return [case]
    try:
        pixels, masks = case.read.at_full_depth()
    except ManymaskError:
        return [case]
    if pixels.shape[:2] == (side, side):
        return [case]
    parts, _ = label(binary_dilation(masks.any(axis=0), iterations=TOGETHER), np.ones((3, 3)))
    middles = [
        ((rows.start + rows.stop) // 2, (columns.start + columns.stop) // 2) for rows, columns in find_objects(parts)
    ]
    return [replace(case, id=f"{case.id}@{x},{y}", read=partial(_square, case.read, (y, x), side)) for y, x in middles]


def _square(pair: Pair, middle: Sequence[int], side: int) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 (side, side, C) and masks bool (R, side, side), moved into the image; small images are extended."""
    pixels, masks = pair.at_full_depth()
    height, width = pixels.shape[:2]
    top, left = (min(max(c - side // 2, 0), max(n - side, 0)) for c, n in zip(middle, (height, width), strict=True))
    place = (slice(top, top + side), slice(left, left + side))
    cut, drawn = pixels[place], masks[:, *place]
    rows, columns = (((side - n) // 2, side - n - (side - n) // 2) for n in cut.shape[:2])
    rest = ((0, 0),) * (cut.ndim - 2)
    image = np.pad(cut, (rows, columns, *rest), mode="edge")
    return to_channels(image, pair.channels, str(pair.image)), np.pad(drawn, ((0, 0), rows, columns))
