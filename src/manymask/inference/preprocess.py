"""From an image to the input of a model and back: the whole image, or regions of interest at native scale."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from manymask.data.case import Batch, pixel_name
from manymask.data.resize import enlarge, resize_image, scale_image
from manymask.errors import ConfigError, InputError
from manymask.io.raster import to_channels
from manymask.io.window import stretch
from manymask.recipes import Recipe

_AT_ONCE = 1 << 27  # pixels of cut masks that are kept at once

SMALLEST_TILE, LARGEST_TILE = 32, 1 << 15  # pixels: sides of windows
_STEP = (
    16  # pixels: sides of an image drawn in windows are multiples of it, so that every window starts on a whole latent
)

Point = tuple[int, int]  # x, y: column and row, counted from 0 at the top left


@dataclass(frozen=True)
class Region:
    """A rectangle of an image, in pixels from the top left.

    Attributes:
        top: first row.
        left: first column.
        bottom: first row below.
        right: first column to the right.
    """

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True)
class View:
    """An image as the model receives it.

    Attributes:
        image: uint8 (H, W, C), for display.
        seen: uint8 (C, S, S) for each region, the input of the model; of an image drawn in windows, (C, h, w), the whole
            image at the scale of the model.
        regions: where these lie; empty if the input is the whole image, scaled to S × S.
        volume: of a slice, what tells its volume from others; empty for an image on its own.
        tile: side of the windows in pixels of the image; None if it is not drawn in windows.
    """

    image: np.ndarray
    seen: list[np.ndarray]
    regions: tuple[Region, ...] = ()
    volume: str = ""
    tile: int | None = None

    def batch(self) -> Batch:
        """The input of the model, one row per region.

        Rows are named by content, so masks depend neither on the place of a region nor on the other regions. Slices of a
        volume are named by it instead, and by the place of the region: mask k of all slices comes from the same noise, so
        that it is one hypothesis of the volume.
        """
        return batch_of([self])

    @property
    def names(self) -> list[str]:
        """What the noise of each row is seeded by."""
        if not self.volume:
            return [pixel_name(part) for part in self.seen]
        places = self.regions or (Region(0, 0, 0, 0),)
        return [f"volume {self.volume} {place.top},{place.left}" for place in places]

    def paste(self, drawn: Tensor) -> Tensor:
        """Masks in the frame of the image.

        A whole image is enlarged by `enlarge`. Where regions overlap, the larger probability counts. Outside of them it is 0.

        Args:
            drawn: probabilities (regions, n, S, S).

        Returns:
            (n, H, W) in [0, 1].
        """
        height, width = self.image.shape[:2]
        if not self.regions:
            return enlarge(drawn, (height, width))[0].clamp(0, 1)
        masks = drawn.new_zeros(drawn.shape[1], height, width)
        for part, region in zip(drawn, self.regions, strict=True):
            top, left, bottom, right = _inside(region, part.shape[-1])
            place = masks[:, region.top : region.bottom, region.left : region.right]
            place.copy_(torch.maximum(place, part[:, top:bottom, left:right].clamp(0, 1)))
        return masks


def batch_of(views: Sequence[View]) -> Batch:
    """The input of the model for several images, one row per region, image after image.

    Args:
        views: of a model.

    Returns:
        The batch, rows named as `View.batch` says.
    """
    seen = [part for view in views for part in view.seen]
    names = [name for view in views for name in view.names]
    return Batch(names, torch.from_numpy(np.stack(seen)).float().div(255), names=names)


@dataclass(frozen=True)
class PastedMasks:
    """Masks at the model's own size, placed in the image one at a time, so that many of them need little memory.

    Attributes:
        drawn: probabilities (regions, n, S, S).
        view: the image that they are of.
    """

    drawn: Tensor
    view: View

    def __len__(self) -> int:
        return int(self.drawn.shape[1])

    def __getitem__(self, index: int) -> Tensor:
        """Mask `index`: probabilities (H, W)."""
        number = range(len(self))[index]
        return self.view.paste(self.drawn[:, number : number + 1])[0]

    def __iter__(self) -> Iterator[Tensor]:
        """The masks in order, (H, W) each."""
        return (self[index] for index in range(len(self)))

    @property
    def cuts(self) -> Collection[np.ndarray]:
        """The masks as sets of pixels, bool (H, W) each: probability ≥ ½. Made when asked for if they are large."""
        lazy = CutMasks(self)
        return lazy if len(self) * self.view.image[:, :, 0].size > _AT_ONCE else list(lazy)


@dataclass(frozen=True)
class CutMasks:
    """Masks as bool arrays (H, W), made one at a time.

    Attributes:
        masks: their probabilities.
    """

    masks: PastedMasks

    def __len__(self) -> int:
        return len(self.masks)

    def __iter__(self) -> Iterator[np.ndarray]:
        """The masks in order, (H, W) each."""
        return ((mask >= 0.5).numpy() for mask in self.masks)

    def __contains__(self, mask: object) -> bool:
        return any(mask is each for each in self)


def view_of(
    pixels: np.ndarray,
    recipe: Recipe,
    centres: Sequence[Point] = (),
    name: str = "the image",
    volume: str = "",
    tile: int | None = None,
) -> View:
    """Prepare an image for a model.

    Args:
        pixels: (H, W) or (H, W, C), of any depth.
        recipe: of the model.
        centres: (x, y) of the regions of a crop model; none are needed for an image that one region covers.
        name: of the image, for errors.
        volume: of a slice; see `View`.
        tile: side of the windows that the image is drawn in, in its own pixels. An image that one window covers is drawn as
            a whole.

    Returns:
        The input of the model.

    Raises:
        InputError: centres are missing, not supported or outside the image, or the image or a region is flat.
        ConfigError: see `check_tile`.
    """
    check_tile(tile, recipe.crop)
    image = to_channels(pixels, recipe.channels, name)
    height, width = image.shape[:2]
    if image.min() == image.max():
        raise InputError(f"the image is flat: every pixel is {image.min()}, there is nothing to segment")
    if not recipe.crop:
        if centres:
            raise InputError("this model segments whole images: give it no region of interest", parameter="rois")
        whole = _stretched(image, recipe, name) if recipe.stretch else image
        if tile is None or max(height, width) <= tile:
            return View(image, [resize_image(whole, recipe.size)], volume=volume)
        return View(
            image, [scale_image(whole, _in_windows((height, width), recipe.size, tile))], volume=volume, tile=tile
        )
    if not centres and max(height, width) > recipe.size:
        raise InputError(
            f"this model segments regions of {recipe.size}×{recipe.size} pixels and the image has {width}×{height}: "
            "say where to look",
            remedies=("rois",),
        )
    regions = tuple(_distinct(centres or [(width // 2, height // 2)], (height, width), recipe.size))
    source = pixels if recipe.stretch else image
    return View(image, [_seen(source, region, recipe, name) for region in regions], regions, volume)


def check_tile(tile: object, crop: bool) -> None:
    """Check the side of windows.

    Args:
        tile: in pixels of the image; None for no windows.
        crop: whether the model segments regions of interest.

    Raises:
        ConfigError: it is no whole number or out of range, or the model segments regions: each held a lesion in training, so
            that it would find one in every window.
    """
    if tile is None:
        return
    if crop:
        raise ConfigError(
            "this model segments regions that hold a lesion: it would find one in every window", parameter="tile"
        )
    if isinstance(tile, bool) or not isinstance(tile, int):
        raise ConfigError(f"tile must be a whole number of pixels, not {tile!r}", parameter="tile")
    if not SMALLEST_TILE <= tile <= LARGEST_TILE:
        raise ConfigError(f"tile must lie in {SMALLEST_TILE} … {LARGEST_TILE} pixels, not {tile}", parameter="tile")


def _in_windows(shape: tuple[int, int], size: int, tile: int) -> tuple[int, int]:
    """The size at which an image (H, W) is drawn, so that a window of `tile` pixels has the side of the model."""
    height, width = (max(_STEP, _STEP * round(side * size / tile / _STEP)) for side in shape)
    return height, width


def _distinct(centres: Sequence[Point], shape: tuple[int, int], size: int) -> Iterator[Region]:
    """A region around each centre, moved into the image; equal regions are returned once."""
    known = set[Region]()
    for x, y in centres:
        if not (0 <= x < shape[1] and 0 <= y < shape[0]):
            raise InputError(
                f"the region of interest at {x},{y} lies outside the image of {shape[1]}×{shape[0]} pixels",
                parameter="rois",
            )
        top, left = (min(max(c - size // 2, 0), max(side - size, 0)) for c, side in zip((y, x), shape, strict=True))
        region = Region(top, left, min(top + size, shape[0]), min(left + size, shape[1]))
        if region not in known:
            known.add(region)
            yield region


def _inside(region: Region, size: int) -> tuple[int, int, int, int]:
    """Top, left, bottom and right of a region within its padded square; a smaller region is centred."""
    height = region.bottom - region.top
    width = region.right - region.left
    top = (size - height) // 2
    left = (size - width) // 2
    return top, left, top + height, left + width


def _seen(pixels: np.ndarray, region: Region, recipe: Recipe, name: str) -> np.ndarray:
    """A region as uint8 (C, S, S); an image smaller than the region is padded with the pixels of its edge."""
    cut = pixels[region.top : region.bottom, region.left : region.right]
    if cut.min() == cut.max():
        x = (region.left + region.right) // 2
        y = (region.top + region.bottom) // 2
        raise InputError(
            f"the region about {x},{y} is flat: every pixel is {cut.min()}, there is nothing to segment",
            parameter="rois",
        )
    crop = _stretched(cut, recipe, name) if recipe.stretch else cut
    top, left, bottom, right = _inside(region, recipe.size)
    padding = ((top, recipe.size - bottom), (left, recipe.size - right), (0, 0))
    return np.pad(crop, padding, mode="edge").transpose(2, 0, 1)


def _stretched(pixels: np.ndarray, recipe: Recipe, name: str) -> np.ndarray:
    """Pixels stretched from minimum to maximum, uint8 (H, W, C); deeper pixels are stretched before they are rounded."""
    return stretch(to_channels(pixels, recipe.channels, name))
