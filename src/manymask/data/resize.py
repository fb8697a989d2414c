"""Images and masks scaled to the square that a model takes."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

SMOOTHING = 0.7  # pixels of the model: the Gaussian that an enlarged mask goes through, see docs/results/smoothing


def resize_image(image: np.ndarray, size: int) -> np.ndarray:
    """Scale an image to a square, by area averaging down and bicubically up.

    Args:
        image: uint8 (H, W, C).
        size: side in pixels.

    Returns:
        uint8 (C, size, size).
    """
    return scale_image(image, (size, size))


def scale_image(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Scale an image, by area averaging down and bicubically up.

    Args:
        image: uint8 (H, W, C).
        shape: (h, w) in pixels.

    Returns:
        uint8 (C, h, w).
    """
    height, width = image.shape[:2]
    method = Image.Resampling.BOX if min(height / shape[0], width / shape[1]) > 1 else Image.Resampling.BICUBIC
    if (height, width) == shape:
        return image.transpose(2, 0, 1)
    planes = [Image.fromarray(np.ascontiguousarray(image[:, :, c])) for c in range(image.shape[2])]
    return np.stack([np.asarray(plane.resize(shape[::-1], method)) for plane in planes])


def resize_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """Scale a mask to a square; see `scale_mask`.

    Args:
        mask: bool (H, W).
        size: side in pixels.

    Returns:
        uint8 (size, size) in {0, 1}.
    """
    return scale_mask(mask, (size, size))


def scale_mask(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Scale a mask; a pixel is set where the mask covers half of it or more.

    A mask too small for that keeps its densest pixel, so that no lesion vanishes.

    Args:
        mask: bool (H, W).
        shape: (h, w) in pixels.

    Returns:
        uint8 (h, w) in {0, 1}.
    """
    if mask.shape == shape:
        return mask.astype(np.uint8)
    shrinks = min(mask.shape[0] / shape[0], mask.shape[1] / shape[1]) > 1
    method = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    cover = np.asarray(Image.fromarray(mask.astype(np.float32)).resize(shape[::-1], method))
    level = min(0.5, float(cover.max())) if mask.any() else 2.0
    return (cover >= level).astype(np.uint8)


def enlarge(maps: Tensor, shape: tuple[int, ...], mode: str = "bicubic", sigma: float = SMOOTHING) -> Tensor:
    """Scale maps to the size of an image; all that is shown, written and scored at that size comes from here.

    Masks are born on the grid of the model, whose pixels would show as stairs in a larger image. Where an axis grows, the
    maps are smoothed by a Gaussian on their own grid and enlarged bicubically. Maps of the right size stay as they are, and
    so do those that only shrink, which are scaled bilinearly. All of it is linear, up to the bounds: the mean of enlarged
    maps is the enlarged mean.

    Args:
        maps: float (..., h, w) in [0, 1].
        shape: (H, W).
        mode: of the interpolation, "bicubic" or "bilinear".
        sigma: of the Gaussian, in pixels of the maps; 0 for none.

    Returns:
        float (..., H, W) in [0, 1].
    """
    small = tuple(maps.shape[-2:])
    if small == tuple(shape):
        return maps
    flat = maps.reshape(-1, 1, *small)
    grows = max(shape[0] / small[0], shape[1] / small[1]) > 1
    if grows and sigma and min(small) > 1:
        flat = _smoothed(flat, sigma)
    scaled = F.interpolate(flat, size=tuple(shape), mode=mode if grows else "bilinear", align_corners=False)
    return scaled.clamp_(0, 1).reshape(*maps.shape[:-2], *shape)


def _smoothed(maps: Tensor, sigma: float) -> Tensor:
    """Maps (n, 1, h, w) after a Gaussian; the edge goes on as it is."""
    reach = math.ceil(3 * sigma)
    at = torch.arange(-reach, reach + 1, dtype=maps.dtype, device=maps.device)
    weights = torch.exp(-0.5 * (at / sigma) ** 2)
    weights = weights / weights.sum()
    padded = F.pad(maps, (reach, reach, reach, reach), mode="replicate")
    return F.conv2d(F.conv2d(padded, weights[None, None, None, :]), weights[None, None, :, None])


def resize_map(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Scale a map as `enlarge` does.

    Args:
        values: float (S, S) in [0, 1].
        shape: (H, W).

    Returns:
        float (H, W).
    """
    if values.shape == shape:
        return values
    scaled: np.ndarray = enlarge(torch.from_numpy(values), shape).numpy()
    return scaled
