"""Images and masks that belong together by name: the common ground of the file-based data sets."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from manymask.data.case import Case
from manymask.errors import UserError
from manymask.files.masks import MaskReading, read_mask
from manymask.files.raster import list_rasters, read_image


def find_folder(source: Path, *places: str) -> Path:
    """The first of `places` (glob patterns) below `source` or one level deeper; `UserError` says what was looked for."""
    if not source.is_dir():
        raise UserError(f"{source} is no folder")
    for place in places:
        for pattern in (place, f"*/{place}"):
            found = sorted(p for p in source.glob(pattern) if p.is_dir())
            if found:
                return found[0]
    inside = ", ".join(sorted(p.name for p in source.iterdir())[:8]) or "nothing"
    raise UserError(f"{source}: expected a folder {' or '.join(places)} in it, found {inside}")


def by_stem(folder: Path, suffix: str = "") -> dict[str, Path]:
    """The images of a folder by name without ending, and without `suffix` where the name ends in it."""
    found: dict[str, Path] = {}
    for path in list_rasters(folder):
        stem = path.stem.removesuffix(suffix)
        if stem in found:
            raise UserError(f"{path} and {found[stem].name} have one name; keep one of them")
        found[stem] = path
    if not found:
        raise UserError(f"{folder} holds no images")
    return found


def paired_cases(
    images: Path,
    masks: Sequence[Path],
    channels: int,
    mask_threshold: int | None = None,
    mask_suffix: str = "",
    group: Callable[[str], str] = str,
) -> list[Case]:
    """A case for each image with one mask in each of the mask folders; what has no partner is a `UserError`."""
    pictures, readers = by_stem(images), [by_stem(folder, mask_suffix) for folder in masks]
    for folder, reader in zip(masks, readers, strict=True):
        _refuse(sorted(set(pictures) - set(reader)), f"in {images} have no mask in {folder}")
        _refuse(sorted(set(reader) - set(pictures)), f"in {folder} have no image in {images}")
    return [
        Case(stem, group(stem), partial(load, path, [r[stem] for r in readers], channels, mask_threshold))
        for stem, path in sorted(pictures.items())
    ]


def load(image: Path, masks: Sequence[Path], channels: int, threshold: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The image and its masks from their files; masks of another size than the image are a `UserError`."""
    pixels, drawn = read_image(image, channels), [read_mask(path, MaskReading(threshold)) for path in masks]
    for path, mask in zip(masks, drawn, strict=True):
        if mask.shape != pixels.shape[:2]:
            (h, w), (mh, mw) = pixels.shape[:2], mask.shape
            raise UserError(f"{path} is {mw}×{mh} but its image {image.name} is {w}×{h}; they must have one size")
    return pixels, np.stack(drawn)


def _refuse(names: list[str], what: str) -> None:
    if names:
        shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        raise UserError(f"{len(names)} of the names {what}: {shown}")
