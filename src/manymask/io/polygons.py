"""Polygons as masks: a pixel is inside where its middle is.

Corners lie on corners of pixels, as in COCO and labelme: the pixel (row, column) covers column … column + 1 and row … row + 1.
"""

from collections.abc import Sequence

import numpy as np


def fill_polygons(shape: tuple[int, int], polygons: Sequence[np.ndarray]) -> np.ndarray:
    """The union of closed polygons.

    Args:
        shape: height and width of the mask.
        polygons: corners (n, 2) as (x, y); a line that crosses itself is filled by the even-odd rule.

    Returns:
        bool (H, W).
    """
    mask = np.zeros(shape, bool)
    for corners in polygons:
        _fill(mask, np.asarray(corners, dtype=np.float64))
    return mask


def _fill(mask: np.ndarray, corners: np.ndarray) -> None:
    """Add one polygon, row by row: pixels between the first crossing with its outline and the second, and so on."""
    height, width = mask.shape
    x, y = corners.T
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    first = max(0, int(np.ceil(y.min() - 0.5)))
    last = min(height - 1, int(np.floor(y.max() - 0.5)))
    for row in range(first, last + 1):
        level = row + 0.5
        crossed = (y <= level) != (next_y <= level)
        share = (level - y[crossed]) / (next_y[crossed] - y[crossed])
        places = np.sort(x[crossed] + share * (next_x[crossed] - x[crossed]))
        bounds = np.clip(np.ceil(places - 0.5), 0, width).astype(int)
        for left, right in zip(bounds[::2], bounds[1::2], strict=True):
            mask[row, left:right] = True
