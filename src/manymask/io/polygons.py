"""Polygons as masks, where a pixel is inside if its middle is, and masks as polygons.

Corners lie on corners of pixels, as in COCO and labelme: the pixel (row, column) covers column … column + 1 and row … row + 1.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.ndimage import binary_fill_holes, find_objects, label

TOLERANCE = 1.0  # pixels by which a simplified outline may leave the mask's own

Point = tuple[int, int]
_RIGHT = {(1, 0): (0, 1), (0, 1): (-1, 0), (-1, 0): (0, -1), (0, -1): (1, 0)}  # of a direction (x, y), y down


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


def lies_outside(shape: tuple[int, int], corners: np.ndarray) -> bool:
    """Whether a polygon, corners (n, 2) as (x, y), reaches into no part of an image of this height and width: most likely it was
    drawn on another image, or on one of another size."""
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    return bool(right <= 0 or bottom <= 0 or left >= shape[1] or top >= shape[0])


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


def polygons(mask: np.ndarray, tolerance: float = TOLERANCE) -> Iterator[list[Point]]:
    """The outline of each 4-connected part of a mask, clockwise, corners as (x, y). Holes are filled.

    tolerance: in pixels, how far a simplified outline may lie from the mask's own; 0 keeps every corner.
    """
    parts, _ = label(binary_fill_holes(mask))
    for number, (rows, columns) in enumerate(find_objects(parts), start=1):
        part = binary_fill_holes(parts[rows, columns] == number)
        corners = [(x + columns.start, y + rows.start) for x, y in _outline(part)]
        simple = _simplified(corners, tolerance)
        yield simple if len(simple) >= 3 else corners


def _outline(part: np.ndarray) -> list[Point]:
    """The corners of one 4-connected part without holes, its pixels on the right-hand side."""
    padded = np.pad(part, 1)
    leaving: dict[Point, list[Point]] = {}
    inside = padded[1:-1, 1:-1]
    sides = (((0, 0), (1, 0), padded[:-2, 1:-1]), ((1, 0), (0, 1), padded[1:-1, 2:]),
             ((1, 1), (-1, 0), padded[2:, 1:-1]), ((0, 1), (0, -1), padded[1:-1, :-2]))  # fmt: skip
    for (dx, dy), direction, beyond in sides:
        for y, x in np.argwhere(inside & ~beyond).tolist():
            leaving.setdefault((x + dx, y + dy), []).append(direction)
    y, x = np.argwhere(part)[0].tolist()
    start, direction = (x, y), (1, 0)
    at, found = start, list[Point]()
    while True:
        options = leaving[at]
        turn = _RIGHT[direction]
        # where two pixels touch at a corner, the way to the right stays with the same pixel
        ahead = turn if turn in options else direction if direction in options else options[0]
        options.remove(ahead)
        if ahead != direction or not found:
            found.append(at)
        direction = ahead
        at = (at[0] + ahead[0], at[1] + ahead[1])
        if at == start and not (len(leaving[start]) and _RIGHT[direction] in leaving[start]):
            return found


def _simplified(corners: list[Point], tolerance: float) -> list[Point]:
    """Ramer, Douglas and Peucker's simplification of a closed line, split at the corner farthest from the first."""
    if tolerance <= 0 or len(corners) <= 4:
        return corners
    points = np.array([*corners, corners[0]], dtype=np.float64)
    middle = int(np.square(points - points[0]).sum(axis=1).argmax())
    kept = {0, middle}
    waiting = [(0, middle), (middle, len(points) - 1)]
    while waiting:
        first, last = waiting.pop()
        if last - first < 2:
            continue
        along = points[last] - points[first]
        length = float(np.hypot(*along))
        beside = points[first + 1 : last] - points[first]
        away = np.abs(along[0] * beside[:, 1] - along[1] * beside[:, 0]) / length if length else np.hypot(*beside.T)
        worst = int(away.argmax())
        if away[worst] > tolerance:
            kept.add(first + 1 + worst)
            waiting += [(first, first + 1 + worst), (first + 1 + worst, last)]
    return [corners[i] for i in sorted(kept)]
