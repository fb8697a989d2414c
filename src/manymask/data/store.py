"""The prepared store: every case at model size in one memory-mapped array, the masks at native size beside it.

STORE/manifest.json       name, size, channels, readers, ids, groups, native sizes, split schemes, licence, hash
STORE/images.npy          (N, C, S, S) uint8
STORE/masks.npy           (N, R, S, S) uint8 in {0, 1}
STORE/native.bin          per case: zlib of the packed bits of (R, H, W); the manifest holds the offsets
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from manymask.data.case import PARTS, Batch, Case, Part, Source, content_hash, pixel_name
from manymask.errors import UserError
from manymask.files.atomic import atomic_folder, read_json, write_json
from manymask.noise import TrainingNoise


def resize_image(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 (H, W, C) → uint8 (C, size, size): area-averaging down, bicubic up."""
    height, width = image.shape[:2]
    method = Image.Resampling.BOX if min(height, width) > size else Image.Resampling.BICUBIC
    if (height, width) == (size, size):
        return image.transpose(2, 0, 1)
    planes = [Image.fromarray(np.ascontiguousarray(image[:, :, c])) for c in range(image.shape[2])]
    return np.stack([np.asarray(plane.resize((size, size), method)) for plane in planes])


def resize_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """bool (H, W) → uint8 (size, size) in {0, 1}: covered by half or more; a mask too small for that keeps its densest
    pixel, so that no lesion vanishes."""
    if mask.shape == (size, size):
        return mask.astype(np.uint8)
    method = Image.Resampling.BOX if min(mask.shape) > size else Image.Resampling.BILINEAR
    cover = np.asarray(Image.fromarray(mask.astype(np.float32)).resize((size, size), method))
    level = min(0.5, float(cover.max())) if mask.any() else 2.0
    return (cover >= level).astype(np.uint8)


def prepare(source: Source, out: Path, size: int, channels: int) -> "Store":
    """Writes the store of a source; all or nothing. Raises `UserError` for the first case that cannot be read."""
    cases = source.cases
    with atomic_folder(out) as folder, (folder / "native.bin").open("wb") as native:
        first = _load(cases[0])
        shapes = {"images": (len(cases), channels, size, size), "masks": (len(cases), len(first[1]), size, size)}
        arrays = {k: np.lib.format.open_memmap(folder / f"{k}.npy", "w+", np.uint8, s) for k, s in shapes.items()}
        places = [
            _put(arrays, i, case, loaded, native)
            for i, (case, loaded) in enumerate(zip(cases, _load_all(cases, source.name), strict=True))
        ]
        manifest: dict[str, Any] = {
            "name": source.name,
            "size": size,
            "channels": channels,
            "readers": len(first[1]),
            "licence": source.licence,
            "remark": source.remark,
            "schemes": {name: dict(scheme) for name, scheme in source.schemes.items()},
            "ids": [case.id for case in cases],
            "groups": [case.group for case in cases],
            "native": places,
        }
        ids = "\n".join(manifest["ids"]).encode()
        manifest["hash"] = content_hash(ids, *(a.data.cast("B") for a in arrays.values()))
        for array in arrays.values():
            array.flush()
        write_json(folder / "manifest.json", manifest)
    return Store(out)


def _load(case: Case) -> tuple[np.ndarray, np.ndarray]:
    image, masks = case.read()
    if image.min() == image.max():
        raise UserError(f"case {case.id}: the image is flat, every pixel is {image.min()}; remove it")
    if masks.shape[1:] != image.shape[:2]:
        (h, w), (mh, mw) = image.shape[:2], masks.shape[1:]
        raise UserError(f"case {case.id}: the image is {w}×{h} but its mask {mw}×{mh}; they must have one size")
    return image, masks


def _load_all(cases: Sequence[Case], name: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The cases in order, decoded by a few threads, at most 64 ahead."""
    pending = iter(cases)
    with ThreadPoolExecutor(4) as pool, tqdm(total=len(cases), desc=f"prepare {name}", unit="case") as bar:
        futures = [pool.submit(_load, case) for case in islice(pending, 64)]
        while futures:
            yield futures.pop(0).result()
            futures += [pool.submit(_load, case) for case in islice(pending, 1)]
            bar.update()


def _put(
    arrays: Mapping[str, np.ndarray], i: int, case: Case, loaded: tuple[np.ndarray, np.ndarray], native: IO[bytes]
) -> list[int]:
    image, masks = loaded
    readers, size = arrays["masks"].shape[1:3]
    if len(masks) != readers:
        raise UserError(f"case {case.id} has {len(masks)} masks but the first case has {readers}")
    arrays["images"][i] = resize_image(image, size)
    arrays["masks"][i] = np.stack([resize_mask(mask, size) for mask in masks])
    packed = zlib.compress(np.packbits(masks).tobytes(), 1)
    start = native.tell()
    native.write(packed)
    return [start, len(packed), *masks.shape[1:]]


class Store:
    """A prepared data set, open for reading; see the head of this file for its layout."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UserError(
                f"{folder} is no prepared data set: run `manymask prepare RECIPE --source … --out {folder}`"
            )
        self.folder, self.manifest = folder, read_json(folder / "manifest.json")
        if not (folder / "native.bin").exists():
            raise UserError(f"{folder / 'native.bin'} is missing: prepare the data set again")
        try:
            self.images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
            self.masks = np.load(folder / "masks.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(f"{folder} is damaged ({error}): prepare it again") from None
        self.ids: list[str] = self.manifest["ids"]
        self.index = {case: i for i, case in enumerate(self.ids)}
        self.groups = dict(zip(self.ids, self.manifest["groups"], strict=True))
        self.name, self.hash = str(self.manifest["name"]), str(self.manifest["hash"])
        self.stored: tuple[int, int] = self.images.shape[2:]
        self.cut: tuple[slice, ...] = ()

    @property
    def readers(self) -> int:
        return int(self.masks.shape[1])

    @property
    def default_scheme(self) -> str:
        return next(iter(self.manifest["schemes"]))

    def part(self, scheme: str | None, part: Part) -> list[str]:
        """The ids of one part of a split scheme (the default one if None)."""
        schemes = self.manifest["schemes"]
        name = scheme or self.default_scheme
        if name not in schemes:
            raise UserError(f"{self.folder} has no split {name!r}; it has {', '.join(schemes)}")
        if part not in PARTS:
            raise UserError(f"{part!r} is no part of a split; choose {', '.join(PARTS)}")
        if not schemes[name][part]:
            raise UserError(f"the {part} part of split {name!r} of {self.folder} is empty")
        return list(schemes[name][part])

    def batch(self, ids: Sequence[str], noise: TrainingNoise | None = None) -> Batch:
        """The cases of these ids at model size."""
        rows = [self.index[case] for case in ids]
        order = np.argsort(rows)  # a memory map likes to be read forwards
        back = np.argsort(order)
        pixels = self.images[np.take(rows, order)][back]
        image, names = torch.from_numpy(pixels).float().div_(255), [pixel_name(each) for each in pixels]
        masks = torch.from_numpy(self.masks[np.take(rows, order)][back]).float()
        return Batch(list(ids), image, masks, noise or TrainingNoise(0, 0), names)

    def window(self, size: int, offset: tuple[int, int] = (0, 0)) -> "Store":
        """The same cases seen through a window of `size`² real pixels whose middle lies `offset` (rows, columns) off theirs.
        For images stored at their native scale. `UserError` where the window leaves the image."""
        inner = copy(self)
        margin = (self.images.shape[-1] - size) // 2
        if margin < 0 or max(map(abs, offset)) > margin:
            raise UserError(
                f"{self.folder} holds {self.images.shape[-1]}²: no window of {size}² fits {offset} off its middle"
            )
        top, left = (margin + step for step in offset)
        inner.cut = (slice(top, top + size), slice(left, left + size))
        inner.images, inner.masks = (x[:, :, *inner.cut] for x in (self.images, self.masks))
        return inner

    def native_masks(self, case: str) -> np.ndarray:
        """The readers' masks of a case as they came, bool (R, H, W); through a window, what lies in it."""
        start, length, height, width = self.manifest["native"][self.index[case]]
        with (self.folder / "native.bin").open("rb") as file:
            file.seek(start)
            bits = np.frombuffer(zlib.decompress(file.read(length)), dtype=np.uint8)
        masks = np.unpackbits(bits, count=self.readers * height * width).reshape(self.readers, height, width)
        if self.cut and (height, width) != self.stored:
            raise UserError(
                f"{self.folder}: case {case} is {width}×{height}, stored at another size: it has no windows"
            )
        return masks[:, *self.cut].astype(bool)
