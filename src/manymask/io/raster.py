"""PNG, JPEG, TIFF, BMP, WebP, GIF, HEIC and AVIF in, PNG out. Images are (H, W) or (H, W, 3); nothing is decoded before its
size is known."""

import re
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from manymask.errors import InputError, decoding
from manymask.io import heif
from manymask.io.atomic import atomic_file
from manymask.io.depth import to_bytes
from manymask.io.pillow import claimed_pillow, from_pillow, is_turned, read_pillow
from manymask.io.samples import Claim, Samples, check_claim, full
from manymask.io.tiff import claimed_tiff, read_tiff

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".dib", ".webp", ".gif", *heif.SUFFIXES)
_HEADS = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|II[*+]\0|MM\0[*+]|GIF8[79]a|RIFF.{4}WEBP|" + heif.HEAD, re.DOTALL)
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def is_raster(path: Path) -> bool:
    """Whether the name ends like an image that `read_image` reads; hidden files do not count."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def holds_raster(path: Path) -> bool:
    """Whether a file of another name, or of none, starts like an image that `read_image` reads."""
    try:
        with path.open("rb") as file:
            return _HEADS.match(file.read(12)) is not None
    except OSError:
        return False


def list_rasters(folder: Path) -> list[Path]:
    """The images directly in a folder, in the order of their names."""
    return sorted(p for p in folder.iterdir() if p.is_file() and is_raster(p))


def read_samples(path: Path) -> Samples:
    """The samples of an image file, upright, with palette and alpha; the format is told by the content."""
    return read_tiff(path) if _is_tiff(path) else read_pillow(path)


def claimed_size(path: Path) -> Claim:
    """The size of an image file by its header, no larger than what is ever decoded; nothing is decoded."""
    claim = claimed_tiff(path) if _is_tiff(path) else claimed_pillow(path)
    check_claim(path, claim)
    return claim


def is_stored_turned(path: Path) -> bool:
    """Whether an image file other than TIFF says that its pixels are stored turned or mirrored; they are read upright."""
    return not _is_tiff(path) and is_turned(path)


def read_pixels(path: Path) -> np.ndarray:
    """An image at its own depth: grey (H, W) or colour (H, W, 3), upright, on white where it is transparent."""
    return read_noted(path)[0]


def read_noted(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """As `read_pixels`, with what the reader of a result must know, such as pages that were left out."""
    found = read_samples(path)
    return found.picture(path), (*found.notes, *found.transparency)


def read_image(path: Path, channels: int) -> np.ndarray:
    """An image as uint8 (H, W, channels), channels 1 or 3; deeper pixels are stretched, see `depth`."""
    return to_channels(read_pixels(path), channels, str(path))


def pil_noted(image: Image.Image) -> tuple[np.ndarray, tuple[str, ...]]:
    """A Pillow image as `read_noted` reads one from a file."""
    with decoding("the image"):
        found = from_pillow(image).turned(image.getexif().get(274, 1))
        return found.picture("the image"), found.transparency


def to_channels(pixels: np.ndarray, channels: int, name: str = "the image") -> np.ndarray:
    """Pixels (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of any depth as uint8 (H, W, channels); `name` is for errors."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    elif pixels.ndim == 3 and pixels.shape[2] in (3, 4):
        if pixels.shape[2] == 4 and (pixels[:, :, 3] < full(pixels)).any():
            raise InputError(f"{name}: what is transparent has no colour; give an array (H, W, 3)", path=name)
        pixels = pixels[:, :, :3]
    elif pixels.ndim != 2:
        raise InputError(f"{name}: an array of shape {pixels.shape} is not one grey or colour image", path=name)
    return convert_channels(to_bytes(pixels, name), channels)


def convert_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """uint8 (H, W) or (H, W, 3) as (H, W, channels) with 1 or 3 channels: grey repeated, colour as luma (ITU-R 601)."""
    if pixels.ndim == 2:
        return np.repeat(pixels[:, :, None], channels, axis=2)
    pixels = np.ascontiguousarray(pixels)
    return pixels if channels == 3 else np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]


def _is_tiff(path: Path) -> bool:
    if not path.is_file():
        raise InputError(f"{path}: no such file", path=path)
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty", path=path)
    with decoding(path), path.open("rb") as file:
        return file.read(4) in _TIFF


def write_png(path: Path, pixels: np.ndarray, text: Mapping[str, str] | None = None) -> None:
    """bool (as 0/255), uint8 or uint16 pixels (H, W) or (H, W, 3); `text` goes into chunks of that name."""
    with atomic_file(path) as beside:
        beside.write_bytes(png_bytes(pixels, text))


def png_bytes(pixels: np.ndarray, text: Mapping[str, str] | None = None) -> bytes:
    """The same as the content of a file."""
    image = Image.fromarray(pixels.astype(np.uint8) * 255 if pixels.dtype == bool else np.ascontiguousarray(pixels))
    chunks = PngInfo()
    for name, content in (text or {}).items():
        chunks.add_text(name, content)
    file = BytesIO()
    image.save(file, format="PNG", compress_level=4, pnginfo=chunks)
    return file.getvalue()
