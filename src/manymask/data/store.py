"""The prepared store: every case at model size in one memory-mapped array, the masks at native size beside it.

STORE/manifest.json       name, size, channels, raters, ids, groups, native sizes, split schemes, licence, hashes
STORE/images.npy          (N, C, S, S) uint8
STORE/masks.npy           (N, R, S, S) uint8 in {0, 1}
STORE/native.bin          per case: zlib of the packed bits of (R, H, W); the manifest holds the offsets
"""

import sys
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from manymask.data import survey, twins
from manymask.data.case import PARTS, Batch, Case, Part, Scheme, Source, pixel_name
from manymask.data.datasets.pairs import listed, safe_name
from manymask.data.manifest import FORMAT, damaged, open_array, read_manifest
from manymask.data.writer import Writer, room_for
from manymask.errors import ConfigError, InputError, ManymaskError
from manymask.io.atomic import atomic_folder, write_json
from manymask.io.window import stretch
from manymask.rng import TrainingNoise


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


MASKS_LOOKED_AT = 1000  # before training
MOSTLY = 0.5

Loaded = tuple[np.ndarray, np.ndarray, survey.Look]


def prepare(source: Source, out: Path, size: int, channels: int, skip_bad: bool = False) -> "Store":
    """Writes the store of a source; all or nothing.

    Cases that cannot be used are reported together in one `InputError`; with `skip_bad` they are left out by name.
    A set whose masks are all empty or all full is an `InputError` too; less than that becomes a line of `Store.warnings`.
    """
    raters = max((len(case.read_by) for case in source.cases), default=0)
    room = room_for(out, [(len(source.cases), channels + max(1, raters), size, size)])
    with room, atomic_folder(out) as folder:
        with Writer(folder, channels, size) as writer:
            looks, problems = _write_cases(source, writer, size)
            if problems and not (skip_bad and looks):
                raise survey.report(problems, len(source.cases))
            survey.refuse_useless(list(looks.values()))
            kept = [case for case in source.cases if case.id in looks]
            about = _describe(source, kept, looks, writer.image_hashes(), size)
            left_out = [f"{len(problems)} left out: " + "; ".join(map(str, problems.values()))] if problems else []
            about |= {
                "raters": writer.raters,
                "channels": channels,
                "warnings": [safe_name(line) for line in left_out + about["warnings"]],
            }
            manifest = writer.finish(about)
        write_json(folder / "manifest.json", manifest)
    return Store(out)


def _write_cases(source: Source, writer: Writer, size: int) -> tuple[dict[str, survey.Look], dict[str, ManymaskError]]:
    """Writes the cases that can be used; what was noted of them, and why the others cannot, by id."""
    looks, problems = dict[str, survey.Look](), dict[str, ManymaskError]()
    for case, loaded in _load_all(source.cases, source.name, size):
        if isinstance(loaded, ManymaskError):
            problems[case.id] = loaded
            continue
        image, masks, noted = loaded
        if case.id in looks:
            problems[case.id] = InputError(f"two images are called {case.id}")
        elif writer.raters not in (None, len(masks)):
            problems[case.id] = InputError(
                f"case {case.id} has {len(masks)} masks but the first case has {writer.raters}"
            )
        else:
            writer.add(resize_image(image, size), np.stack([resize_mask(mask, size) for mask in masks]), masks)
            looks[case.id] = noted
    return looks, problems


def _describe(
    source: Source, cases: Sequence[Case], looks: dict[str, survey.Look], hashes: np.ndarray, size: int
) -> dict[str, Any]:
    """What the manifest holds of these cases: names, groups and splits, with equal images in one group."""
    ids, found = [case.id for case in cases], [looks[case.id] for case in cases]
    equal = twins.equal_images({case: looks[case].pixels for case in ids})
    groups = twins.joined_groups({case.id: case.group for case in cases}, equal)
    schemes, said = dict[str, Scheme](), [*source.notes, *survey.noted(cases), *survey.warnings(ids, found, size)]
    if equal:
        said.append(f"{len(equal)} image(s) are there several times: " + listed([" = ".join(e) for e in equal]))
    for name, whole in source.schemes.items():
        scheme: Scheme = {part: [case for case in members if case in looks] for part, members in whole.items()}
        empty = [part for part, members in whole.items() if members and not scheme[part]]
        if empty:
            raise InputError(f"no usable image is left for {' and '.join(empty)} of split {name}")
        schemes[name], lines = twins.checked(
            scheme, groups, equal, dict(zip(ids, hashes, strict=True)), name in source.given
        )
        said += [f"split {name}: {line}" for line in lines]
    partly = any(not all(case.read_by) for case in cases)
    return {"format": FORMAT, "name": source.name, "size": size, "licence": source.licence, "remark": source.remark,
            "schemes": {name: dict(scheme) for name, scheme in schemes.items()}, "ids": ids,
            "groups": [groups[case] for case in ids], "foreground": survey.foreground(found), "warnings": said,
            "read_by": [list(map(int, case.read_by)) for case in cases] if partly else None}  # fmt: skip


def _load(case: Case, size: int) -> Loaded | ManymaskError:
    """The image and masks of a case with what is to be noted of them, or why it cannot be used."""
    try:
        image, masks = case.read()
    except ManymaskError as error:
        return error
    if image.min() == image.max():
        return InputError(f"case {case.id}: the image is flat, every pixel is {image.min()}; remove it")
    if masks.shape[1:] != image.shape[:2]:
        (h, w), (mh, mw) = image.shape[:2], masks.shape[1:]
        return InputError(f"case {case.id}: the image is {w}×{h} but its mask {mw}×{mh}; they must have one size")
    return image, masks, survey.look(case, image, masks, size)


def _load_all(cases: Sequence[Case], name: str, size: int) -> Iterator[tuple[Case, Loaded | ManymaskError]]:
    """The cases in order, decoded by a few threads, at most 64 ahead."""
    pending = iter(cases)
    with ThreadPoolExecutor(4) as pool, tqdm(total=len(cases), desc=f"prepare {name}", unit="case") as bar:
        futures = [(case, pool.submit(_load, case, size)) for case in islice(pending, 64)]
        while futures:
            case, future = futures.pop(0)
            yield case, future.result()
            futures += [(case, pool.submit(_load, case, size)) for case in islice(pending, 1)]
            bar.update()


class Store:
    """A prepared data set, open for reading; see the head of this file for its layout."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise InputError(
                f"{folder} is no prepared data set: prepare one there first",
                path=folder,
            )
        self.folder, self.manifest = folder, read_manifest(folder)
        count, size = len(self.manifest["ids"]), self.manifest["size"]
        self.images = open_array(folder / "images.npy", (count, self.manifest["channels"], size, size))
        self.whole_images = self.images  # also behind a window
        self.masks = open_array(folder / "masks.npy", (count, self.manifest["raters"], size, size))
        self.ids: list[str] = self.manifest["ids"]
        self.index = {case: i for i, case in enumerate(self.ids)}
        self.groups = dict(zip(self.ids, self.manifest["groups"], strict=True))
        self.name, self.hash, self.content = (str(self.manifest[key]) for key in ("name", "hash", "content"))
        read_by = self.manifest["read_by"]
        self.read_by = None if read_by is None else np.array(read_by, dtype=bool)
        self.stored: tuple[int, int] = self.images.shape[2:]
        self.cut: tuple[slice, ...] = ()
        self.stretched = False
        self.warnings: list[str] = self.manifest["warnings"]

    def holds(self, data_hash: str) -> bool:
        """Whether this is the data that a model remembers by this hash.

        Stores of format 1 were known by a hash over images and masks at model size alone, which is today's `content`: a
        model trained on such a store knows the same data again after they were prepared anew.
        """
        return data_hash in (self.hash, self.content)

    @property
    def raters(self) -> int:
        return int(self.masks.shape[1])

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return int(self.images.shape[1])

    @property
    def schemes(self) -> dict[str, dict[Part, list[str]]]:
        """Named splits: scheme → part → ids."""
        schemes: dict[str, dict[Part, list[str]]] = self.manifest["schemes"]
        return schemes

    @property
    def licence(self) -> str:
        """Of the data, in one line."""
        return str(self.manifest["licence"])

    @property
    def remark(self) -> str:
        """What is to be said of the data set beside every result; may be empty."""
        return str(self.manifest["remark"])

    @property
    def default_scheme(self) -> str:
        """The first scheme of the data set."""
        return next(iter(self.schemes))

    def part(self, scheme: str | None, part: Part) -> list[str]:
        """The ids of one part of a split scheme (the default one if None)."""
        schemes = self.schemes
        name = scheme or self.default_scheme
        if name not in schemes:
            raise ConfigError(
                f"{self.folder} has no split {name!r}; it has {', '.join(schemes)}",
                parameter="scheme",
                path=self.folder,
            )
        if part not in PARTS:
            raise ConfigError(f"{part!r} is no part of a split; choose {', '.join(PARTS)}", parameter="split")
        if not schemes[name].get(part):
            raise InputError(f"the {part} part of split {name!r} of {self.folder} is empty")
        return list(schemes[name][part])

    def batch(self, ids: Sequence[str], noise: TrainingNoise | None = None) -> Batch:
        """The cases of these ids at model size."""
        rows = [self.index[case] for case in ids]
        order = np.argsort(rows)  # a memory map likes to be read forwards
        back = np.argsort(order)
        pixels = self.images[np.take(rows, order)][back]
        if self.stretched:
            pixels = np.stack([stretch(each) for each in pixels])
        image, names = torch.from_numpy(pixels).float().div_(255), [pixel_name(each) for each in pixels]
        masks = torch.from_numpy(self.masks[np.take(rows, order)][back]).float()
        read_by = None if self.read_by is None else torch.from_numpy(self.read_by[rows])
        return Batch(list(ids), image, masks, noise or TrainingNoise(0, 0), names, read_by)

    def batches(self, ids: Sequence[str], size: int, device: str | torch.device = "cpu") -> Iterator[Batch]:
        """The cases of these ids in order, `size` at a time, on a device."""
        for start in range(0, len(ids), size):
            yield self.batch(ids[start : start + size]).to(device)

    def image_hashes(self, ids: Sequence[str]) -> np.ndarray:
        """A hash of each image that scaling and compressing hardly change, uint8; see `twins`."""
        return twins.image_hashes(self.whole_images[self.index[case]] for case in ids)

    def check_masks(self, ids: Sequence[str]) -> None:
        """A look at the masks of cases that are to be learnt: `InputError` where none holds anything or all are full, a
        line on stderr where most do. A sample decides where it can."""
        step = max(1, len(ids) // MASKS_LOOKED_AT)
        for some in (ids[::step], ids) if step > 1 else (ids,):
            shares = np.concatenate([self._shares(case) for case in some])
            if 0 < shares.mean() < 1:
                break
        else:
            raise InputError(
                f"{self.folder}: all masks are {'full' if shares.all() else 'empty'}, there is nothing to learn",
                path=self.folder,
            )
        if (empty := float((shares == 0).mean())) > MOSTLY:
            tqdm.write(f"manymask: {100 * empty:.0f} % of the masks to learn from are empty", file=sys.stderr)

    def _shares(self, case: str) -> np.ndarray:
        """The foreground's share (R,) in the mask of each who read a case."""
        row = self.index[case]
        shares = self.masks[row].mean(axis=(1, 2))
        result: np.ndarray = shares if self.read_by is None else shares[self.read_by[row]]
        return result

    def window(self, size: int, offset: tuple[int, int] = (0, 0), stretched: bool = False) -> "Store":
        """The same cases seen through a window of `size`² real pixels whose middle lies `offset` (rows, columns) off theirs,
        `stretched` from its own minimum to its maximum as a region of interest is. For images stored at their native scale.
        `InputError` where the window leaves the image."""
        inner = copy(self)
        margin = (self.images.shape[-1] - size) // 2
        if margin < 0 or max(map(abs, offset)) > margin:
            raise ConfigError(
                f"{self.folder} holds {self.images.shape[-1]}²: no window of {size}² fits {offset} off its middle",
                path=self.folder,
            )
        top, left = (margin + step for step in offset)
        inner.cut = (slice(top, top + size), slice(left, left + size))
        inner.images, inner.masks = (x[:, :, *inner.cut] for x in (self.images, self.masks))
        inner.stretched = stretched
        return inner

    def native_masks(self, case: str) -> np.ndarray:
        """The masks of those who read a case as they came, bool (R, H, W); through a window, what lies in it."""
        row = self.index[case]
        start, length, height, width = self.manifest["native"][row]
        pixels = self.raters * height * width
        with (self.folder / "native.bin").open("rb") as file:
            file.seek(start)
            packed = file.read(length)
        try:
            bits = np.frombuffer(zlib.decompressobj().decompress(packed, (pixels + 7) // 8), dtype=np.uint8)
            masks = np.unpackbits(bits, count=pixels).reshape(self.raters, height, width).astype(bool)
        except (zlib.error, ValueError) as error:
            raise damaged(self.folder / "native.bin", error) from None
        if self.cut and (height, width) != self.stored:
            raise InputError(
                f"{self.folder}: case {case} is {width}×{height}, stored at another size: it has no windows",
                path=self.folder,
            )
        return masks[slice(None) if self.read_by is None else self.read_by[row]][:, *self.cut]
