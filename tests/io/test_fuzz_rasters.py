"""Damaged and hostile pictures end in one line, whatever is wrong with them, and take no memory to speak of."""

import io
import random
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from manymask.errors import ManymaskError
from manymask.io.masks import MaskReading, read_mask
from manymask.io.raster import claimed_size, read_image
from tests.raster_files import png, tiff

EXTREMES = (0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)
STACK = 17  # the place among the seeds of the one that is refused
MEMORY = 1_500_000_000  # beyond what the interpreter and its libraries map


@cache
def seeds() -> list[bytes]:
    """Small sound files of every format and of many kinds of TIFF."""
    grey = np.add.outer(np.arange(32), np.arange(48)).astype(np.uint8) * 3
    colour = np.stack([grey, grey.T.reshape(32, 48), 255 - grey], axis=2)
    image = Image.fromarray(colour)
    found = []
    for form, options in (
        ("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("BMP", {}), ("WEBP", {}), ("WEBP", {"lossless": True}),
        ("GIF", {}), ("TIFF", {"compression": "group4"}), ("TIFF", {"compression": "packbits"}),
    ):  # fmt: skip
        file = io.BytesIO()
        (image.convert("1") if options.get("compression") == "group4" else image).save(file, form, **options)
        found.append(file.getvalue())
    for options in (
        {"compression": "lzw", "rowsperstrip": 5}, {"tile": (16, 16), "compression": "zlib", "predictor": 2},
        {"compression": "jpeg"}, {"planarconfig": "separate"}, {"compression": "webp"}, {"bigtiff": True},
    ):  # fmt: skip
        file = io.BytesIO()
        pixels = np.moveaxis(colour, 2, 0) if "planarconfig" in options else colour
        tifffile.imwrite(file, pixels, photometric="rgb", **options)
        found.append(file.getvalue())
    for pixels, options in (
        (grey.astype(np.uint16) * 200, {"compression": "lzw"}),
        (grey.astype(np.float32), {"compression": "zlib", "predictor": 3}),
        (np.stack([grey, grey]), {}),
    ):
        file = io.BytesIO()
        tifffile.imwrite(file, pixels, photometric="minisblack", **options)
        found.append(file.getvalue())
    table = [k % 65536 for k in range(3 * 16)]
    found += [tiff(grey // 16, 4, 3, compression=5, tags={320: table}), tiff(grey.astype(int) * 16, 12, 1)]
    found += [
        png(colour.astype(int) * 257, 16, 2, ((b"tRNS", bytes(6)),)),
        png(grey // 16, 4, 3, ((b"PLTE", bytes(48)),)),
    ]
    return found


def flip_bits(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 2, 8, 64))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def cut(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def extreme_field(data: bytearray, chance: random.Random) -> None:
    """A field near the head, or of a TIFF directory, at an extreme."""
    head = min(len(data), 400)
    place = chance.randrange(head) if chance.random() < 0.5 else len(data) - 1 - chance.randrange(head)
    form = chance.choice(("<H", ">H", "<I", ">I"))
    value = chance.choice(EXTREMES) & (0xFFFF if form[1] == "H" else 0xFFFFFFFF)
    raw = struct.pack(form, value)
    data[place : place + len(raw)] = raw


def repeat(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data))
    piece = data[start : start + chance.choice((4, 12, 64, 300))]
    data[start:start] = piece * chance.choice((1, 2, 50))


def random_bytes(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data))
    length = chance.choice((1, 4, 30))
    data[start : start + length] = chance.randbytes(length)


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    flip_bits,
    cut,
    extreme_field,
    repeat,
    random_bytes,
)


def survive(folder: Path, numbers: range) -> int:
    """Reads mutated files through every door; the number that could be read. Anything but `ManymaskError` comes out."""
    sound, read = seeds(), 0
    path = folder / "lesion.png"
    for number in numbers:
        chance = random.Random(number)
        data = bytearray(sound[number % len(sound)])
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            if data:
                chance.choice(MUTATIONS)(data, chance)
        path.write_bytes(data)
        for door in (claimed_size, lambda p: read_image(p, 3), lambda p: read_mask(p, MaskReading(0.5))):
            try:
                door(path)
                read += 1
            except ManymaskError as error:
                message = str(error)
                assert message.startswith(f"{path}") and "\n" not in message and len(message) < 500, message
            except Exception as error:
                raise AssertionError(f"input {number}: {error!r}") from error
    return read


def test_sound_seeds_are_read(tmp_path):
    for number, seed in enumerate(seeds()):
        path = tmp_path / "seed"
        path.write_bytes(seed)
        if number == STACK:
            with pytest.raises(ManymaskError, match="2 pages"):
                read_image(path, 3)
        else:
            assert read_image(path, 3).shape == (32, 48, 3)


def test_mutated_files_end_in_one_line(tmp_path):
    assert survive(tmp_path, range(400)) > 100


def limited(folder: Path, numbers: range) -> None:
    """In a process of its own: with little memory to claim."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, mapped + MEMORY))
    print(survive(folder, numbers))


@pytest.mark.slow
def test_ten_thousand_mutated_files_in_little_memory(tmp_path):
    call = f"limited(Path({str(tmp_path)!r}), range(10_000))"
    code = f"from pathlib import Path; from tests.io.test_fuzz_rasters import limited; {call}"
    run = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert run.returncode == 0 and int(run.stdout) > 2000, run.stderr[-3000:]
    assert run.stderr == ""
