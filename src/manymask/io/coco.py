"""Masks in the JSON of COCO (https://cocodataset.org/#format-data): one file for many images, polygons or run lengths."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from manymask.errors import InputError, decoding
from manymask.io.atomic import read_object
from manymask.io.polygons import fill_polygons, lies_outside
from manymask.io.text import composed

MOST_BYTES = 1 << 29


@dataclass(frozen=True)
class CocoImage:
    """An image of the file, by its path there, with its annotations."""

    file: str
    size: tuple[int, int] | None  # height and width
    annotations: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class CocoFile:
    """The images of a file in its order, and the names of its categories by id: those listed, and those used."""

    path: Path
    images: Sequence[CocoImage]
    names: Mapping[int, str]


def is_coco(content: Any) -> bool:
    """Whether parsed JSON has the parts of a COCO file."""
    return isinstance(content, dict) and all(isinstance(content.get(name), list) for name in ("images", "annotations"))


def read_coco(path: Path, content: Mapping[str, Any] | None = None) -> CocoFile:
    """A COCO file; `InputError` for one whose images and annotations do not fit together. content: if parsed before."""
    content = read_object(path, MOST_BYTES) if content is None else content
    with decoding(path):
        by_image: dict[Any, list[Mapping[str, Any]]] = {each["id"]: [] for each in content["images"]}
        if len(by_image) < len(content["images"]):
            raise InputError(f"{path}: two of its images have one id", path=path)
        names = {int(each["id"]): composed(each["name"]) for each in content.get("categories", [])}
        for each in content["annotations"]:
            if each["image_id"] not in by_image:
                raise InputError(
                    f"{path}: an annotation is of image {each['image_id']}, which is not listed", path=path
                )
            by_image[each["image_id"]].append(each)
            number = int(each.get("category_id", 1))
            names.setdefault(number, str(number))
        images = [CocoImage(str(each["file_name"]).replace("\\", "/"), _size(each), by_image[each["id"]])
                  for each in content["images"]]  # fmt: skip
    return CocoFile(path, images, names)


def _size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = image.get("height"), image.get("width")
    return (int(height), int(width)) if height and width else None


def coco_mask(
    path: Path, image: CocoImage, shape: tuple[int, int], categories: Collection[int] | None = None
) -> np.ndarray:
    """The union of an image's objects, bool (H, W). categories: the ids that count, of which the file may have none; all if None.

    `InputError` for an image of another size than the file says, and for objects that have a box but no outline.
    """
    size = image.size or shape
    if size != shape:
        raise InputError(
            f"{path} says that {image.file} is {size[1]}×{size[0]}, it is {shape[1]}×{shape[0]}: the outlines do not fit",
            path=path,
        )
    mask = np.zeros(shape, bool)
    with decoding(path):
        for each in image.annotations:
            if categories is not None and int(each.get("category_id", 1)) not in categories:
                continue
            mask |= _object(path, image, each.get("segmentation"), shape)
    return mask


def _object(path: Path, image: CocoImage, outline: Any, shape: tuple[int, int]) -> np.ndarray:
    if isinstance(outline, dict):
        return decode_run_lengths(path, outline, shape)
    if not outline:
        raise InputError(f"{path}: an object in {image.file} has a box but no outline; boxes are no masks", path=path)
    polygons = [np.asarray(corners, dtype=np.float64) for corners in outline]
    if any(len(corners) < 6 or len(corners) % 2 or not np.isfinite(corners).all() for corners in polygons):
        raise InputError(f"{path}: a polygon in {image.file} has fewer than three corners", path=path)
    outlines = [corners.reshape(-1, 2) for corners in polygons]
    if any(lies_outside(shape, corners) for corners in outlines):
        raise InputError(f"{path}: a polygon lies outside of {image.file}, {shape[1]}×{shape[0]}", path=path)
    return fill_polygons(shape, outlines)


def decode_run_lengths(path: Path, outline: Mapping[str, Any], shape: tuple[int, int]) -> np.ndarray:
    """COCO's run lengths, plain or as text, as bool (H, W): pixels column by column, background and foreground in turn."""
    counts = outline["counts"]
    runs = np.array(_from_text(counts) if isinstance(counts, (str, bytes)) else counts, dtype=np.int64)
    size = tuple(int(side) for side in outline["size"])
    if size != shape or (runs < 0).any() or runs.sum() != shape[0] * shape[1]:
        raise InputError(
            f"{path}: run lengths for {size[1]}×{size[0]} do not fit {shape[1]}×{shape[0]} pixels", path=path
        )
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(values.reshape(shape, order="F"))


def _from_text(text: str | bytes) -> list[int]:
    """Numbers from groups of five bits, lowest first, behind 48; from the third on each is relative to the last but one."""
    runs: list[int] = []
    value = place = 0
    for byte in text.encode() if isinstance(text, str) else text:
        group = byte - 48
        value |= (group & 31) << (5 * place)
        place += 1
        if group & 32:
            continue
        if group & 16:
            value -= 1 << (5 * place)
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = place = 0
    return runs
