"""Masks as polygons in the JSON of labelme (https://labelme.io), one file per image.

Corners of polygons lie on corners of pixels: a pixel (row, column) covers column … column + 1 and row … row + 1.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import binary_fill_holes, find_objects, label

TOLERANCE = 1.0  # pixels by which a simplified outline may leave the mask's own

Point = tuple[int, int]
_RIGHT = {(1, 0): (0, 1), (0, 1): (-1, 0), (-1, 0): (0, -1), (0, -1): (1, 0)}  # of a direction (x, y), y down


def labelme_record(
    image: str, size: tuple[int, int], mask: np.ndarray, name: str, tolerance: float = TOLERANCE
) -> dict[str, Any]:
    """The content of a labelme file.

    image: path of the image from the file's folder; size: height and width; mask: bool (H, W); name: label of each polygon.
    """
    shapes: list[dict[str, Any]] = [
        {"label": name, "points": [[float(x), float(y)] for x, y in points], "group_id": None, "description": "",
         "shape_type": "polygon", "flags": {}}
        for points in polygons(mask, tolerance)
    ]  # fmt: skip
    return {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": Path(image).as_posix(), "imageData": None,
            "imageHeight": size[0], "imageWidth": size[1]}  # fmt: skip


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
