"""Images as callers have them, in files, in memory or opened, become pictures."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from manymask.errors import InputError
from manymask.io.depth import stretch_note
from manymask.io.dicom.series import seen_through
from manymask.io.image import Picture
from manymask.io.raster import pil_noted
from manymask.io.source import only_picture, picture_of_bytes

ImageLike = Path | str | bytes | BinaryIO | np.ndarray | Tensor | Image.Image | Picture


def picture_of(image: ImageLike, window: str) -> Picture:
    """Read an image.

    Args:
        image: as `Segmenter.segment` takes it.
        window: the grey values of DICOM and NIfTI that are shown, as `seen_through` takes it.

    Returns:
        The pixels with their name, spacing and origin.

    Raises:
        InputError: the image cannot be read, or is of a type that is not supported.
    """
    if isinstance(image, Picture):
        return image
    if isinstance(image, (str, Path)):
        return seen_through(only_picture(Path(image)), window)
    if not isinstance(image, (np.ndarray, Tensor, Image.Image)):
        return seen_through(picture_of_bytes(_content(image)), window)
    pixels, notes = pil_noted(image) if isinstance(image, Image.Image) else (pixels_of(image), ())
    note = stretch_note(pixels)
    return Picture(pixels, "the image", notes=notes if note is None else (*notes, note))


def pixels_of(image: np.ndarray | Tensor | Image.Image) -> np.ndarray:
    """The pixels of an image that is in memory.

    Args:
        image: a Pillow image, or an array or tensor (H, W), (H, W, C) or (C, H, W) with C of 1 or 3.

    Returns:
        (H, W) or (H, W, C); floats in [0, 1] as uint8.

    Raises:
        InputError: it holds no real numbers, or nothing, or a numpy mask hides some of them.
    """
    if isinstance(image, Image.Image):
        return pil_noted(image)[0]
    tensor = isinstance(image, Tensor)
    pixels = _as_array(image) if isinstance(image, Tensor) else image
    if pixels.dtype.kind not in "biuf" or not pixels.size:
        raise InputError(f"an image holds real numbers, not an array of shape {pixels.shape} and type {pixels.dtype}")
    if np.ma.is_masked(pixels):
        raise InputError("a numpy mask hides some pixels, and what stands there is not known: fill them first (filled)")
    channels_first = pixels.ndim == 3 and pixels.shape[0] in (1, 3) and (tensor or pixels.shape[2] not in (1, 3, 4))
    if channels_first:
        pixels = np.moveaxis(pixels, 0, 2)
    if pixels.dtype.kind == "f" and pixels.min() >= 0 and pixels.max() <= 1:  # false of NaN
        pixels = np.round(pixels * 255).astype(np.uint8)
    return np.ascontiguousarray(pixels)


def _as_array(image: Tensor) -> np.ndarray:
    values = image.detach().cpu().to_dense()
    array: np.ndarray = (values.float() if values.dtype == torch.bfloat16 else values).numpy()  # which numpy lacks
    return array


def _content(image: object) -> bytes:
    """The bytes of a file that is in memory or opened."""
    content = image.read() if hasattr(image, "read") else image
    if not isinstance(content, bytes):
        raise InputError(
            "an image is a path, bytes, an opened file, an array, a tensor, a Pillow image or a Picture, not a "
            f"{type(image).__name__}"
        )
    return content
