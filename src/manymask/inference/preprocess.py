"""What a model is shown of an image, and the way back: the whole, or regions of interest cut at native scale."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from manymask.data.case import Batch, pixel_name
from manymask.data.resize import resize_image
from manymask.errors import InputError
from manymask.io.raster import to_channels
from manymask.io.window import stretch
from manymask.recipes import Recipe

Point = tuple[int, int]  # x, y: column and row, counted from 0 at the top left


@dataclass(frozen=True)
class Region:
    """A rectangle of an image, in pixels; `bottom` and `right` lie outside."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True)
class View:
    """image: uint8 (H, W, C), as shown to people; seen: uint8 (C, S, S) a region, as shown to the model.

    No regions: the model sees the whole image, scaled to S².
    """

    image: np.ndarray
    seen: list[np.ndarray]
    regions: tuple[Region, ...] = ()

    def batch(self) -> Batch:
        """All that the model sees; named by content, so that its masks depend on what is seen alone, not on the place
        or the company of other regions."""
        names = [pixel_name(part) for part in self.seen]
        return Batch(names, torch.from_numpy(np.stack(self.seen)).float().div(255), names=names)

    def paste(self, drawn: Tensor) -> Tensor:
        """Masks (regions, n, S, S) in the image's frame, (n, H, W). Where regions overlap the larger probability
        counts; outside all of them it is 0: nobody looked there."""
        height, width = self.image.shape[:2]
        if not self.regions:
            scaled = F.interpolate(drawn, size=(height, width), mode="bilinear", align_corners=False)
            return scaled[0].clamp_(0, 1)
        masks = drawn.new_zeros(drawn.shape[1], height, width)
        for part, region in zip(drawn, self.regions, strict=True):
            top, left, bottom, right = _inside(region, part.shape[-1])
            place = masks[:, region.top : region.bottom, region.left : region.right]
            place.copy_(torch.maximum(place, part[:, top:bottom, left:right].clamp(0, 1)))
        return masks


def look(pixels: np.ndarray, recipe: Recipe, centres: Sequence[Point] = (), name: str = "the image") -> View:
    """Pixels (H, W) or (H, W, C) of any depth as a model of this recipe sees them; `name` is for errors.

    A crop model is given its regions by their centres, (x, y); it needs none for an image that one region covers.
    `InputError` for centres outside the image or where there are none, and for regions without any contrast.
    """
    image = to_channels(pixels, recipe.channels, name)
    height, width = image.shape[:2]
    if image.min() == image.max():
        raise InputError(f"the image is flat: every pixel is {image.min()}, there is nothing to segment")
    if not recipe.crop:
        if centres:
            raise InputError("this model segments whole images: give it no region of interest", parameter="rois")
        whole = _stretched(image, recipe, name) if recipe.stretch else image
        return View(image, [resize_image(whole, recipe.size)])
    if not centres and max(height, width) > recipe.size:
        raise InputError(
            f"this model segments regions of {recipe.size}×{recipe.size} pixels and the image has {width}×{height}: "
            "say where to look",
            remedies=("rois",),
        )
    regions = tuple(_distinct(centres or [(width // 2, height // 2)], (height, width), recipe.size))
    source = pixels if recipe.stretch else image
    return View(image, [_seen(source, region, recipe, name) for region in regions], regions)


def _distinct(centres: Sequence[Point], shape: tuple[int, int], size: int) -> Iterator[Region]:
    """A region about each centre, moved to lie within the image; two centres of one region give it once."""
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
    """Top, left, bottom, right of a region within its padded square: a smaller one stands in the middle."""
    height, width = region.bottom - region.top, region.right - region.left
    top, left = (size - height) // 2, (size - width) // 2
    return top, left, top + height, left + width


def _seen(pixels: np.ndarray, region: Region, recipe: Recipe, name: str) -> np.ndarray:
    """A region as uint8 (C, S, S); an image smaller than the region goes on with the pixels of its edge."""
    cut = pixels[region.top : region.bottom, region.left : region.right]
    if cut.min() == cut.max():
        x, y = (region.left + region.right) // 2, (region.top + region.bottom) // 2
        raise InputError(
            f"the region about {x},{y} is flat: every pixel is {cut.min()}, there is nothing to segment",
            parameter="rois",
        )
    crop = _stretched(cut, recipe, name) if recipe.stretch else cut
    top, left, bottom, right = _inside(region, recipe.size)
    padding = ((top, recipe.size - bottom), (left, recipe.size - right), (0, 0))
    return np.pad(crop, padding, mode="edge").transpose(2, 0, 1)


def _stretched(pixels: np.ndarray, recipe: Recipe, name: str) -> np.ndarray:
    """From its own minimum to its maximum, on 8 bits, (H, W, C): before rounding where the pixels are deeper."""
    return stretch(to_channels(pixels, recipe.channels, name))
