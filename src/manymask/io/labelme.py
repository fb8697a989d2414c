"""Masks as polygons in the JSON of labelme (https://labelme.io), one file per image.

Corners of polygons lie on corners of pixels: a pixel (row, column) covers column … column + 1 and row … row + 1.
"""

import base64
import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from PIL import Image

from manymask.errors import InputError, decoding
from manymask.io.polygons import TOLERANCE, fill_polygons, lies_outside, polygons
from manymask.io.text import composed


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


@dataclass(frozen=True)
class LabelmeFile:
    """A labelme file: the shapes of one image, the name of its image file, and its height and width if they are stated."""

    path: Path
    image: str
    size: tuple[int, int] | None
    shapes: tuple[Mapping[str, Any], ...]

    @property
    def labels(self) -> list[str]:
        """The label of each shape that has an area."""
        return [composed(shape.get("label")) for shape in self.shapes if _kind(shape) not in _NO_AREA]

    def mask(self, shape: tuple[int, int], labels: Collection[str] | None = None) -> np.ndarray:
        """The union of all shapes that have an area, bool (H, W). labels: those that count; all if None.

        `InputError` for an image of another size than the file says.
        """
        size = self.size or shape
        if size != shape:
            raise InputError(
                f"{self.path} was drawn on an image of {size[1]}×{size[0]}, {self.image} is {shape[1]}×{shape[0]}",
                path=self.path,
            )
        mask = np.zeros(shape, bool)
        with decoding(self.path):
            for each in self.shapes:
                if _kind(each) not in _NO_AREA and (labels is None or composed(each.get("label")) in labels):
                    _add(self.path, mask, each)
        return mask


_NO_AREA = ("point", "points", "line", "linestrip")
_AREAS = ("polygon", "rectangle", "circle", "mask")


def is_labelme(content: Any) -> bool:
    """Whether parsed JSON has the parts of a labelme file."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list) and "imagePath" in content


def labelme_file(path: Path, content: Mapping[str, Any]) -> LabelmeFile:
    """The parsed JSON of `path`; `InputError` for what is no labelme file."""
    with decoding(path):
        height, width = content.get("imageHeight"), content.get("imageWidth")
        image = PureWindowsPath(str(content["imagePath"])).name  # takes both slashes
        shapes = tuple(dict(shape) for shape in content["shapes"])
        return LabelmeFile(path, image, (int(height), int(width)) if height and width else None, shapes)


def _kind(shape: Mapping[str, Any]) -> str:
    return str(shape.get("shape_type") or "polygon")


def _add(path: Path, mask: np.ndarray, shape: Mapping[str, Any]) -> None:
    """Add one shape: corners of a polygon, two corners of a rectangle, middle and rim of a circle, a picture in a box."""
    points, kind = np.asarray(shape["points"], dtype=np.float64).reshape(-1, 2), _kind(shape)
    if kind not in _AREAS:
        known = ", ".join(_AREAS)
        raise InputError(
            f"{path} holds a shape of the kind {kind!r}; those with an area that are read are {known}", path=path
        )
    if not np.isfinite(points).all():
        raise ValueError("a point is no number")
    if kind == "mask":
        _add_picture(mask, shape, points)
        return
    if kind == "rectangle":
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        points = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    elif kind == "circle":
        angle = np.linspace(0, 2 * np.pi, 256, endpoint=False)
        points = points[0] + np.hypot(*(points[1] - points[0])) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    if len(points) < 3:
        raise ValueError(f"a {kind} of {len(points)} points")
    if lies_outside((mask.shape[0], mask.shape[1]), points):
        raise InputError(f"{path}: a {kind} lies outside of the image, {mask.shape[1]}×{mask.shape[0]}", path=path)
    mask |= fill_polygons((mask.shape[0], mask.shape[1]), [points])


def _add_picture(mask: np.ndarray, shape: Mapping[str, Any], points: np.ndarray) -> None:
    """A mask as a PNG within the box whose corners are its first and last pixel."""
    with Image.open(io.BytesIO(base64.b64decode(shape["mask"]))) as file:
        inside = np.asarray(file) > 0
    left, top = np.round(points[0]).astype(int)
    if top < 0 or left < 0 or top + inside.shape[0] > mask.shape[0] or left + inside.shape[1] > mask.shape[1]:
        raise ValueError("a mask leaves the image")
    mask[top : top + inside.shape[0], left : left + inside.shape[1]] |= inside
