"""A small picture of a result: the image with the outlines of its masks and of the consensus."""

from pathlib import Path

import numpy as np
from PIL import Image

from manymask.inference.outputs import overlay
from manymask.io.atomic import atomic_file
from manymask.io.raster import to_channels

THUMBNAIL = "thumbnail.jpg"
SIDE = 256  # pixels along the longer side


def write_thumbnail(folder: Path, pixels: np.ndarray) -> None:
    """Add thumbnail.jpg to the files of a result.

    Outlines are drawn at the size of the thumbnail: those of the overlay would vanish when it is scaled down.

    Args:
        folder: holds mask-01.png … and consensus.png.
        pixels: of the image, (H, W) or (H, W, C) of any depth.
    """
    image = to_channels(pixels, 3 if pixels.ndim == 3 and pixels.shape[2] > 1 else 1)
    height, width = image.shape[:2]
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    method = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    small = np.asarray(Image.fromarray(image if image.shape[2] == 3 else image[:, :, 0]).resize(size, method))
    masks = [_scaled(path, size) for path in sorted(folder.glob("mask-*.png"))]
    drawn = overlay(small.reshape(*size[::-1], -1), np.array(masks), _scaled(folder / "consensus.png", size))
    with atomic_file(folder / THUMBNAIL) as beside:
        Image.fromarray(drawn).save(beside, format="JPEG", quality=85, subsampling=0)


def _scaled(path: Path, size: tuple[int, int]) -> np.ndarray:
    """A mask (H, W) at another size; one too small for that keeps its densest pixels."""
    with Image.open(path) as file:
        share = np.asarray(file.convert("L").resize(size, Image.Resampling.BOX))
    most = int(share.max())
    result: np.ndarray = share >= (128 if most >= 128 or not most else most)
    return result
