"""Corrections of a consensus by hand: strokes of a round brush, which add pixels or erase them."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from manymask.errors import InputError

MOST_STROKES = 2000
MOST_WORK = 1 << 29  # pixels that are looked at for all strokes


@dataclass(frozen=True)
class Stroke:
    """One stroke of the brush: every pixel whose centre is at most `radius` from the line through the points.

    Attributes:
        add: whether these pixels are added to the mask; otherwise they are erased.
        radius: of the brush, in pixels.
        points: (x, y) in pixels from the top left corner of the image, so the first pixel's centre is (0.5, 0.5).
    """

    add: bool
    radius: float
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class AcceptedMask:
    """A mask that a person has accepted: the consensus, corrected where strokes say so.

    Attributes:
        mask: bool (H, W).
        strokes: the corrections, in order.
        added: number of pixels that are in the mask and not in the consensus.
        erased: number of pixels that are in the consensus and not in the mask.
    """

    mask: np.ndarray
    strokes: tuple[Stroke, ...]
    added: int
    erased: int

    @classmethod
    def of(cls, consensus: np.ndarray, strokes: Sequence[Stroke]) -> "AcceptedMask":
        """Accept a consensus with corrections.

        Args:
            consensus: bool (H, W).
            strokes: the corrections, in order; none if the consensus is accepted as it is.

        Returns:
            The accepted mask.
        """
        mask = corrected(consensus, strokes)
        return cls(mask, tuple(strokes), int((mask & ~consensus).sum()), int((consensus & ~mask).sum()))

    def facts(self, spacing: tuple[float, float] | None) -> dict[str, Any]:
        """JSON-able, as in result.json.

        Args:
            spacing: mm between rows and between columns, if known.

        Returns:
            Areas, and the strokes.
        """
        area = int(self.mask.sum())
        square = {} if spacing is None else {"area_mm2": area * spacing[0] * spacing[1]}
        return {"area": area, **square, "corrected": bool(self.strokes), "pixels_added": self.added,
                "pixels_erased": self.erased, "strokes": [asdict(stroke) for stroke in self.strokes]}  # fmt: skip


def corrected(mask: np.ndarray, strokes: Sequence[Stroke]) -> np.ndarray:
    """A mask after strokes of the brush, in order.

    Args:
        mask: bool (H, W).
        strokes: the corrections.

    Returns:
        bool (H, W); the mask given is not changed.

    Raises:
        InputError: the strokes are too many or too large to be computed.
    """
    parts = [part for stroke in strokes for part in _parts(stroke, mask.shape)]
    if sum((rows.stop - rows.start) * (columns.stop - columns.start) for _, _, _, rows, columns in parts) > MOST_WORK:
        raise InputError("these corrections are too large: accept the mask in several steps")
    result = mask.copy()
    for stroke, start, end, rows, columns in parts:
        result[rows, columns][_near(start, end, stroke.radius, rows, columns)] = stroke.add
    return result


def _parts(
    stroke: Stroke, shape: tuple[int, ...]
) -> Iterator[tuple[Stroke, tuple[float, float], tuple[float, float], slice, slice]]:
    """The straight parts of a stroke that reach the image, with the rows and columns that each can reach."""
    points = stroke.points if len(stroke.points) > 1 else stroke.points * 2
    for start, end in itertools.pairwise(points):
        rows, columns = _box(start, end, stroke.radius, shape)
        if rows.start < rows.stop and columns.start < columns.stop:
            yield stroke, start, end, rows, columns


def _box(
    start: tuple[float, float], end: tuple[float, float], radius: float, shape: tuple[int, ...]
) -> tuple[slice, slice]:
    """Rows and columns of the image that a part of a stroke can reach."""
    across, down = (
        slice(max(0, int(min(a, b) - radius) - 1), min(side, int(max(a, b) + radius) + 2))
        for a, b, side in zip(start, end, shape[::-1], strict=True)
    )
    return down, across


def _near(
    start: tuple[float, float], end: tuple[float, float], radius: float, rows: slice, columns: slice
) -> np.ndarray:
    """Which pixels of a box have their centre within `radius` of the line from `start` to `end`, bool."""
    y = np.arange(rows.start, rows.stop)[:, None] + (0.5 - start[1])
    x = np.arange(columns.start, columns.stop)[None, :] + (0.5 - start[0])
    across, down = end[0] - start[0], end[1] - start[1]
    length = across * across + down * down
    along = np.clip((x * across + y * down) / length, 0, 1) if length else 0.0
    result: np.ndarray = (x - along * across) ** 2 + (y - along * down) ** 2 <= radius * radius
    return result


def read_strokes(value: Any) -> tuple[Stroke, ...]:
    """Strokes as JSON holds them, for which see `Stroke`.

    Args:
        value: a list of objects with `add`, `radius` and `points`.

    Returns:
        The strokes.

    Raises:
        InputError: it is something else, or there are too many.
    """
    if not isinstance(value, list) or len(value) > MOST_STROKES:
        raise InputError(f"corrections are a list of at most {MOST_STROKES} strokes")
    return tuple(_stroke(each) for each in value)


def _stroke(value: Any) -> Stroke:
    try:
        points = tuple((float(x), float(y)) for x, y in value["points"])
        radius = float(value["radius"])
        add = value["add"]
    except (TypeError, ValueError, KeyError, OverflowError):
        points, radius, add = (), 0.0, None
    numbers = np.array([radius, *(number for point in points for number in point)])
    if not isinstance(add, bool) or not points or not (np.abs(numbers) < 1e5).all() or not radius > 0:
        raise InputError('a stroke is {"add": true or false, "radius": pixels, "points": [[x, y], …]}')
    return Stroke(add, radius, points)
