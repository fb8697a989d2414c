"""The prepared store: every case at model size in one memory-mapped array, the masks at native size beside it.

STORE/manifest.json       name, size, channels, raters, ids, groups, native sizes, split schemes, licence, hashes
STORE/images.npy          (N, C, S, S) uint8
STORE/masks.npy           (N, R, S, S) uint8 in {0, 1}
STORE/native.bin          per case: zlib of the packed bits of (R, H, W); the manifest holds the offsets
"""

import sys
import zlib
from collections.abc import Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from manymask.data import survey, twins
from manymask.data.case import PARTS, Batch, Part, Source, pixel_name
from manymask.data.datasets.pairs import safe_name
from manymask.data.folds import fold, scheme_of
from manymask.data.manifest import damaged, open_array, read_manifest
from manymask.data.preparation import describe, write_cases
from manymask.data.writer import Writer, room_for
from manymask.errors import ConfigError, InputError
from manymask.io.atomic import atomic_folder, write_json
from manymask.io.window import stretch
from manymask.rng import TrainingNoise

MASKS_LOOKED_AT = 1000  # before training
MOSTLY = 0.5


def prepare(source: Source, out: Path, size: int, channels: int, skip_bad: bool = False) -> "Store":
    """Write the prepared store of a data set, completely or not at all.

    Suspicious masks that can still be used become lines of `Store.warnings`.

    Args:
        source: the data set as found on disk.
        out: folder of the store.
        size: side of images and masks in pixels.
        channels: 1 for grey images, 3 for colour.
        skip_bad: whether cases that cannot be used are left out and named in a warning.

    Returns:
        The store, open for reading.

    Raises:
        InputError: cases cannot be used, in one error for all, or all masks are empty or all full.
    """
    raters = max((len(case.read_by) for case in source.cases), default=0)
    room = room_for(out, [(len(source.cases), channels + max(1, raters), size, size)])
    with room, atomic_folder(out) as folder:
        with Writer(folder, channels, size) as writer:
            looks, problems = write_cases(source, writer, size)
            if problems and not (skip_bad and looks):
                raise survey.report(problems, source.cases)
            survey.refuse_useless(list(looks.values()))
            kept = [case for case in source.cases if case.id in looks]
            about = describe(source, kept, looks, writer.image_hashes(), size)
            left_out = [f"{len(problems)} left out: " + "; ".join(map(str, problems.values()))] if problems else []
            about |= {
                "raters": writer.raters,
                "channels": channels,
                "warnings": [safe_name(line) for line in left_out + about["warnings"]],
            }
            manifest = writer.finish(about)
        write_json(folder / "manifest.json", manifest)
    return Store(out)


class Store:
    """A prepared data set, open for reading; the docstring of this module describes its layout.

    Args:
        folder: of the store.

    Attributes:
        folder: of the store.
        manifest: content of manifest.json.
        images: uint8 (N, C, S, S), memory-mapped; behind a window, that part of it.
        whole_images: uint8 (N, C, S, S), memory-mapped, also behind a window.
        masks: uint8 (N, R, S, S) in {0, 1}, memory-mapped; behind a window, that part of it.
        ids: the cases, in the order of the arrays.
        index: row of each case.
        groups: patient, sequence or image of each case, which no split divides.
        name: of the data set.
        hash: of all data.
        content: hash of images and masks at model size.
        read_by: bool (N, R), which raters read each image; None if all read every image.
        stored: height and width of the stored images, in pixels.
        cut: rows and columns of the window; empty without one.
        stretched: whether each window is stretched from its minimum to its maximum.
        warnings: what was suspicious when the store was prepared.

    Raises:
        InputError: the folder is not a prepared data set, or is damaged.
    """

    folder: Path
    manifest: dict[str, Any]
    images: np.ndarray
    whole_images: np.ndarray
    masks: np.ndarray
    ids: list[str]
    index: dict[str, int]
    groups: dict[str, str]
    name: str
    hash: str
    content: str
    read_by: np.ndarray | None
    stored: tuple[int, int]
    cut: tuple[slice, ...]
    stretched: bool
    warnings: list[str]

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise InputError(
                f"{folder} is no prepared data set: prepare one there first",
                path=folder,
            )
        self.folder = folder
        self.manifest = read_manifest(folder)
        count = len(self.manifest["ids"])
        size = self.manifest["size"]
        self.images = open_array(folder / "images.npy", (count, self.manifest["channels"], size, size))
        self.whole_images = self.images  # also behind a window
        self.masks = open_array(folder / "masks.npy", (count, self.manifest["raters"], size, size))
        self.ids = self.manifest["ids"]
        self.index = {case: i for i, case in enumerate(self.ids)}
        self.groups = dict(zip(self.ids, self.manifest["groups"], strict=True))
        self.name = str(self.manifest["name"])
        self.hash = str(self.manifest["hash"])
        self.content = str(self.manifest["content"])
        read_by = self.manifest["read_by"]
        self.read_by = None if read_by is None else np.array(read_by, dtype=bool)
        self.stored = self.images.shape[2:]
        self.cut = ()
        self.stretched = False
        self.warnings = self.manifest["warnings"]

    def holds(self, data_hash: str) -> bool:
        """Whether this is the data with the hash that a model recorded.

        Stores of format 1 recorded a hash over images and masks at model size alone, which is now `content`. The data of
        a model trained on such a store are recognised after they have been prepared again.

        Args:
            data_hash: as recorded in the provenance of a model.

        Returns:
            Whether it is `hash` or `content` of this store.
        """
        return data_hash in (self.hash, self.content)

    @property
    def raters(self) -> int:
        """R, the number of raters per image."""
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
        """The first split scheme."""
        return next(iter(self.schemes))

    def part(self, scheme: str | None, part: Part) -> list[str]:
        """The cases of one part of a split.

        Args:
            scheme: name of the split scheme, or of a fold of one (see `folds`); the default one if None.
            part: "train", "val" or "test".

        Returns:
            Their ids.

        Raises:
            ConfigError: there is no such scheme or part.
            InputError: the part is empty.
        """
        schemes = self.schemes
        name = scheme or self.default_scheme
        if (whole := scheme_of(name)) != name and whole in schemes:
            schemes = {name: dict(fold(schemes[whole], self.groups, name))}
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
        """Load cases at model size.

        Args:
            ids: the cases.
            noise: source of the batch's random numbers in training.

        Returns:
            Images (B, C, S, S) and masks (B, R, S, S), float32 in [0, 1].
        """
        rows = [self.index[case] for case in ids]
        order = np.argsort(rows)  # a memory map is faster when it is read forwards
        back = np.argsort(order)
        pixels = self.images[np.take(rows, order)][back]
        if self.stretched:
            pixels = np.stack([stretch(each) for each in pixels])
        image = torch.from_numpy(pixels).float().div_(255)
        names = [pixel_name(each) for each in pixels]
        masks = torch.from_numpy(self.masks[np.take(rows, order)][back]).float()
        read_by = None if self.read_by is None else torch.from_numpy(self.read_by[rows])
        return Batch(list(ids), image, masks, noise or TrainingNoise(0, 0), names, read_by)

    def batches(self, ids: Sequence[str], size: int, device: str | torch.device = "cpu") -> Iterator[Batch]:
        """The cases of these ids in order, `size` at a time, on a device."""
        for start in range(0, len(ids), size):
            yield self.batch(ids[start : start + size]).to(device)

    def image_hashes(self, ids: Sequence[str], turned: bool = False) -> np.ndarray:
        """Hashes of images, uint8, that scaling and compression hardly change; see `twins`."""
        return twins.image_hashes((self.whole_images[self.index[case]] for case in ids), turned)

    def check_masks(self, ids: Sequence[str]) -> None:
        """Check the masks before training, and warn on stderr if most of them are empty.

        A sample of the masks is checked first, and all of them only if that does not decide.

        Args:
            ids: the training cases.

        Raises:
            InputError: all masks are empty, or all are full.
        """
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
        """Foreground share of the mask of each rater who read a case, (R,)."""
        row = self.index[case]
        shares = self.masks[row].mean(axis=(1, 2))
        result: np.ndarray = shares if self.read_by is None else shares[self.read_by[row]]
        return result

    def window(self, size: int, offset: tuple[int, int] = (0, 0), stretched: bool = False) -> "Store":
        """The same cases through a window of real pixels, for images stored at their native scale.

        Args:
            size: side of the window in pixels.
            offset: rows and columns from the middle of the image to the middle of the window.
            stretched: whether each window is stretched from its minimum to its maximum, as a region of interest is.

        Returns:
            A store that shares its arrays with this one.

        Raises:
            ConfigError: the window leaves the image.
        """
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

    def native_size(self, case: str) -> tuple[int, int]:
        """Height and width of an image before it was scaled to model size."""
        _, _, height, width = self.manifest["native"][self.index[case]]
        return height, width

    def native_masks(self, case: str) -> np.ndarray:
        """The masks of a case at native size.

        Args:
            case: its id.

        Returns:
            bool (R, H, W) of the raters who read it; behind a window, the part inside.

        Raises:
            InputError: the file is damaged, or there is a window and the case was stored at another size.
        """
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
        if self.read_by is not None:
            masks = masks[self.read_by[row]]
        return masks[:, *self.cut]
