"""Images and masks scaled to the square that a model takes."""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image


def resize_image(image: np.ndarray, size: int) -> np.ndarray:
    """Scale an image to a square, by area averaging down and bicubically up.

    Args:
        image: uint8 (H, W, C).
        size: side in pixels.

    Returns:
        uint8 (C, size, size).
    """
    height, width = image.shape[:2]
    method = Image.Resampling.BOX if min(height, width) > size else Image.Resampling.BICUBIC
    if (height, width) == (size, size):
        return image.transpose(2, 0, 1)
    planes = [Image.fromarray(np.ascontiguousarray(image[:, :, c])) for c in range(image.shape[2])]
    return np.stack([np.asarray(plane.resize((size, size), method)) for plane in planes])


def resize_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """Scale a mask to a square; a pixel is set where the mask covers half of it or more.

    A mask too small for that keeps its densest pixel, so that no lesion vanishes.

    Args:
        mask: bool (H, W).
        size: side in pixels.

    Returns:
        uint8 (size, size) in {0, 1}.
    """
    if mask.shape == (size, size):
        return mask.astype(np.uint8)
    method = Image.Resampling.BOX if min(mask.shape) > size else Image.Resampling.BILINEAR
    cover = np.asarray(Image.fromarray(mask.astype(np.float32)).resize((size, size), method))
    level = min(0.5, float(cover.max())) if mask.any() else 2.0
    return (cover >= level).astype(np.uint8)


def resize_map(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Scale a map bilinearly.

    Args:
        values: float (S, S).
        shape: (H, W).

    Returns:
        float (H, W).
    """
    if values.shape == shape:
        return values
    tensor = torch.from_numpy(values)[None, None]
    scaled: np.ndarray = F.interpolate(tensor, size=shape, mode="bilinear", align_corners=False)[0, 0].numpy()
    return scaled
