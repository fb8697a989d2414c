"""What the browser is sent: the picture, each mask as it comes, and the numbers. The rest it works out by itself, so
that moving the threshold needs no server: confidence is the mean of the masks, disagreement their spread."""

import base64
import io
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from manymask.inference.outputs import pairwise_agreement
from manymask.inference.preprocess import Region
from manymask.inference.segmentation import Segmentation
from manymask.io.image import Picture
from manymask.io.palette import colours
from manymask.io.raster import to_channels

SHOWN = 1024  # pixels along the longer side of the picture as shown
GRID = 512  # the same for masks: outlines are drawn between the pixels, so they stay smooth
THUMBNAIL = 128  # the same for the strip
LEVELS = 100  # of the slider


def data_url(pixels: np.ndarray, lossless: bool = True) -> str:
    """uint8 (H, W) or (H, W, 3) as an address that holds the picture itself: nothing is left on a disk."""
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    if lossless:
        image.save(buffer, "PNG", compress_level=3)
    else:
        image.save(buffer, "WEBP", quality=92, method=2)
    kind = "png" if lossless else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def scaled(pixels: np.ndarray, longest: int) -> np.ndarray:
    """uint8 (H, W, C) or (H, W) with at most `longest` pixels a side, one channel as (H, W)."""
    pixels = pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    height, width = pixels.shape[:2]
    share = min(1.0, longest / max(height, width))
    if share == 1.0:
        return np.ascontiguousarray(pixels)
    size = (max(1, round(width * share)), max(1, round(height * share)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))


def thumbnail(picture: Picture) -> str:
    """A small picture as an address, see `data_url`."""
    colour = 3 if picture.pixels.ndim == 3 and picture.pixels.shape[2] > 1 else 1
    return data_url(scaled(to_channels(picture.pixels, colour), THUMBNAIL), lossless=False)


def packed(grid: np.ndarray) -> str:
    """uint8 (h, w), compressed, as text."""
    return base64.b64encode(zlib.compress(grid.tobytes(), 3)).decode()


def measured(found: Segmentation) -> dict[str, Any]:
    """The numbers of a result.

    Args:
        found: the result.

    Returns:
        JSON-able: `curve`, the area of the consensus at every stop of the slider, in pixels of the image; `agreement` of
        the masks and `promises`, as in result.json; `promised`, the inner and the outer outline of each α.
    """
    stops = (torch.arange(LEVELS + 1, dtype=torch.float64) / LEVELS).to(found.confidence.dtype)
    reached = torch.bucketize(found.confidence.flatten(), stops, right=True)  # how many stops lie at or below it
    held = torch.bincount(reached, minlength=LEVELS + 2)
    promised = []
    for share in found.calibration.alphas if found.calibration else ():
        pair = (found.inner(share), found.outer(share))
        inner, outer = (packed(scaled(each.numpy().astype(np.uint8) * 255, GRID)) for each in pair)
        promised.append((inner, outer))
    return {"curve": held.flip(0).cumsum(0).flip(0)[1:].tolist(),
            "agreement": pairwise_agreement((found.masks >= 0.5).numpy()),
            "promises": found.promises(), "promised": promised}  # fmt: skip


@dataclass
class Scene:
    """A picture and what has been drawn on it so far. `pixels`: uint8 (H, W, C), as people are to see it."""

    pixels: np.ndarray
    name: str
    spacing: tuple[float, float] | None = None
    crop: int = 0  # side of a region of interest, 0 if the model takes whole images
    total: int = 0  # masks to come
    place: str = ""  # "slice 3 of 20", if there are several
    number: int = 1  # the 3 of it
    warnings: tuple[str, ...] = ()
    regions: tuple[Region, ...] = ()
    marks: tuple[tuple[int, int], ...] = ()  # where an example is to be looked at
    grid: tuple[int, int] = (1, 1)  # columns and rows of the masks as sent
    masks: list[str] = field(default_factory=list)
    areas: list[int] = field(default_factory=list)
    curve: list[int] = field(default_factory=list)
    agreement: float | None = None
    seconds: float = 0.0
    forms: tuple[str, ...] = ()  # what it can be saved as
    promises: dict[str, Any] = field(default_factory=dict)  # as in result.json
    promised: list[tuple[str, str]] = field(default_factory=list)  # inner and outer outline of each α, sent like masks
    image: str = ""

    def __post_init__(self) -> None:
        small = scaled(self.pixels, SHOWN)
        self.image = data_url(small, lossless=small.size <= 512 * 512)

    def add(self, mask: Tensor) -> None:
        """The next mask, probabilities (H, W)."""
        self.areas.append(int((mask >= 0.5).sum()))
        small = scaled((mask * 255).round().to(torch.uint8).numpy(), GRID)
        self.grid = (small.shape[1], small.shape[0])
        self.masks.append(packed(small))

    def finish(self, found: Segmentation, seconds: float) -> None:
        """The area of the consensus at every stop of the slider, in pixels of the image; how well the masks agree: the
        numbers of `result.json`."""
        for name, value in measured(found).items():
            setattr(self, name, value)
        self.seconds = seconds

    def value(self, progress: float = 1.0, stamp: int = 0) -> dict[str, Any]:
        """What `page.js` reads; everything JSON. stamp: the browser leaves scenes older than the one it shows."""
        height, width = self.pixels.shape[:2]
        return {
            "stamp": stamp, "image": self.image, "name": self.name, "place": self.place, "number": self.number,
            "warnings": self.warnings, "width": width, "height": height, "spacing": self.spacing, "crop": self.crop,
            "total": self.total,
            "progress": progress, "grid": self.grid, "masks": list(self.masks), "areas": list(self.areas),
            "curve": self.curve, "agreement": self.agreement, "seconds": self.seconds, "forms": self.forms,
            "promises": self.promises, "promised": self.promised,
            "regions": [[r.left, r.top, r.right, r.bottom] for r in self.regions], "marks": self.marks,
            "palette": ["#{:02x}{:02x}{:02x}".format(*colour) for colour in colours(self.total)],
        }  # fmt: skip
