"""The files of a store while they are written: case by case, by plain writes, so that a full disk is an error."""

import errno
import json
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from manymask.data.case import content_hash
from manymask.data.twins import image_hashes
from manymask.errors import InputError


class Rows:
    """An .npy file of uint8 that grows by a row at a time."""

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.path, self.shape, self.count = path, shape, 0
        self.file = path.open("wb")
        self._write_header()
        self.start = self.file.tell()

    def _write_header(self) -> None:
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.count, *self.shape)}
        np.lib.format.write_array_header_1_0(self.file, header)  # numpy leaves room for the first axis to grow

    def append(self, row: np.ndarray) -> None:
        """One more row, uint8."""
        self.file.write(np.ascontiguousarray(row).tobytes())
        self.count += 1

    def close(self) -> None:
        """Writes the number of rows."""
        self.file.seek(0)
        self._write_header()
        self.file.close()


class Writer:
    """Writes images, masks and native masks into a folder; `finish` gives what the manifest holds of them."""

    def __init__(self, folder: Path, channels: int, size: int) -> None:
        self.folder, self.size = folder, size
        self.images = Rows(folder / "images.npy", (channels, size, size))
        self.masks: Rows | None = None
        self.native = (folder / "native.bin").open("wb")
        self.places: list[list[int]] = []
        self.digest = sha256()

    @property
    def raters(self) -> int | None:
        """How many masks a case has; None before the first."""
        return None if self.masks is None else self.masks.shape[0]

    def add(self, image: np.ndarray, masks: np.ndarray, native: np.ndarray) -> None:
        """One case: image (C, S, S) and masks (R, S, S), uint8; native masks (R, H, W), bool."""
        if self.masks is None:
            self.masks = Rows(self.folder / "masks.npy", masks.shape)
        self.images.append(image)
        self.masks.append(masks)
        bits = np.packbits(native).tobytes()
        packed = zlib.compress(bits, 1)
        self.places.append([self.native.tell(), len(packed), *native.shape[1:]])
        self.native.write(packed)
        self.digest.update(str(native.shape).encode() + bits)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in (self.images.file, self.native, *([self.masks.file] if self.masks else [])):
            file.close()

    def image_hashes(self) -> np.ndarray:
        """The hashes of all images so far, in all orientations; see `twins`."""
        self.images.file.flush()
        shape = (self.images.count, *self.images.shape)
        offset = self.images.start
        return image_hashes(np.memmap(self.images.path, np.uint8, "r", offset, shape), turned=True)

    def finish(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """The manifest: `about` the cases, with the places of native masks and both hashes.

        content: over ids, images and masks at model size; all that stores of format 1 were known by.
        hash: over `content`, native masks, groups, split schemes and who read what.
        """
        files = [rows for rows in (self.images, self.masks) if rows is not None]
        for rows in files:
            rows.close()
        self.native.close()
        arrays = (np.load(rows.path, mmap_mode="r") for rows in files)
        content = content_hash("\n".join(about["ids"]).encode(), *(array.data.cast("B") for array in arrays))
        decided = {name: about.get(name) for name in ("groups", "schemes", "read_by")}
        cut = json.dumps(decided, sort_keys=True).encode()
        whole = content_hash(content.encode(), self.digest.digest(), cut)
        return {**about, "native": self.places, "content": content, "hash": whole}


@contextmanager
def room_for(out: Path, shapes: Sequence[tuple[int, ...]]) -> Iterator[None]:
    """Around writing arrays of bytes of these shapes: a disk that is or becomes full is an `InputError` that names it."""
    need = sum(int(np.prod(shape, dtype=np.int64)) for shape in shapes)
    place = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    said = f"about {max(need, 10**6) / 1e9:.3f} GB are needed"
    free = shutil.disk_usage(place).free
    if free < need:
        raise InputError(f"{out}: {said} but only {free / 1e9:.3f} GB are free there", path=out)
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise InputError(f"{out}: no room is left to write it ({error.strerror}); {said}", path=out) from None
