"""PNG, JPEG, BMP, WebP, GIF, HEIC and AVIF through Pillow, which is offered these formats and no other."""

import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import imagecodecs
import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from manymask.errors import InputError, decoding, one_line
from manymask.io.heif import check_readable
from manymask.io.samples import PIXEL_LIMIT, Claim, Samples, check_claim

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "AVIF")
_HEIF = "HEIF"  # once its decoder is there
_SHOWN = {"MPO": "first", _HEIF: "main one"}  # the picture itself; the others are views and previews of it
_MODES = ("1", "L", "LA", "RGB", "RGBA", "I", "F")
_ORIENTATION = 274
_PNG_PARTS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")
_JPEG_DAMAGE = re.compile("premature end|bad huffman|found marker|inconsistent progression", re.IGNORECASE)


def read_pillow(path: Path) -> Samples:
    """The one picture of a file; animations are an `InputError`."""
    with _opened(path) as image:
        check_claim(path, _claim(image))
        notes = _check_frames(path, image)
        content = path.read_bytes() if image.format == "PNG" else b""
        if content:
            _check_sums(path, content)
        image.load()
        if image.format in ("JPEG", "MPO"):
            notes = (*notes, *_check_jpeg(path, path.read_bytes()))
        orientation = image.getexif().get(_ORIENTATION, 1)
        found = _from_png(content) if content and _needs_libpng(content, image) else from_pillow(image)
        return Samples(found.values, found.palette, found.alpha, notes=notes).turned(orientation)


def is_turned(path: Path) -> bool:
    """Whether the file says that its pixels are stored turned or mirrored."""
    with _opened(path) as image:
        return image.getexif().get(_ORIENTATION, 1) in range(2, 9)


def claimed_pillow(path: Path) -> Claim:
    """The size from the header."""
    with _opened(path) as image:
        return _claim(image)


def from_pillow(image: Image.Image) -> Samples:
    """The samples of an open image of any mode, not yet turned."""
    if image.mode in ("P", "PA"):
        return _indexed(image)
    if image.mode in ("1", "L", "RGB") and "transparency" in image.info:
        image = image.convert("RGBA" if image.mode == "RGB" else "LA")
    elif image.mode in ("RGBa", "La"):
        image = image.convert("RGBA" if image.mode == "RGBa" else "LA")
    elif not (image.mode in _MODES or image.mode.startswith("I;16")):
        image = image.convert("RGB")
    values = np.asarray(image)
    if values.dtype == bool:
        values = values.view(np.uint8) != 0  # Pillow's True is a byte of 255
    if image.mode in ("LA", "RGBA"):
        return Samples(values[:, :, 0] if image.mode == "LA" else values[:, :, :3], alpha=values[:, :, -1])
    return Samples(values.astype(values.dtype.newbyteorder("="), copy=False))


def _indexed(image: Image.Image) -> Samples:
    colours = np.frombuffer(bytes(image.getpalette("RGBA") or ()), np.uint8).reshape(-1, 4)
    table = np.zeros((256, 4), np.uint8)
    table[:, 3] = 255
    table[: len(colours)] = colours
    seen = image.info.get("transparency")
    if isinstance(seen, bytes):
        table[: len(seen), 3] = np.frombuffer(seen, np.uint8)[:256]
    elif isinstance(seen, int):
        table[seen, 3] = 0
    if image.mode == "PA":
        both = np.asarray(image)
        return Samples(both[:, :, 0], table[:, :3], both[:, :, 1])
    indices = np.asarray(image)
    return Samples(indices, table[:, :3], None if table[:, 3].min() == 255 else table[indices, 3])


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image of one of `FORMATS`; while it is open, whatever goes wrong is one line."""
    with decoding(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            check_readable(path)
            image = Image.open(path, formats=[*FORMATS, *([_HEIF] if _HEIF in Image.OPEN else [])])
        except UnidentifiedImageError:
            raise InputError(_not_identified(path)) from None
        except Image.DecompressionBombError:  # twice Image.MAX_IMAGE_PIXELS; `check_claim` holds what is below
            raise InputError(
                f"{path} has more than {PIXEL_LIMIT // 1_000_000} million pixels; scale it down or cut out a part first",
                path=path,
            ) from None
        with image:
            yield image


def _not_identified(path: Path) -> str:
    with path.open("rb") as file:
        if file.read(3) == b"\xff\xd8\xff":
            return f"{path} is a JPEG that is not supported (more than 8 bits per sample, lossless) or damaged; save it as PNG"
    return f"{path} is not an image that can be read (PNG, JPEG, TIFF, BMP, WebP, GIF, HEIC or AVIF)"


def _claim(image: Image.Image) -> Claim:
    size = 2 if image.mode.startswith("I;16") else 4 if image.mode in ("I", "F") else 1
    return Claim(image.height, image.width, image.height * image.width * len(image.getbands()) * size)


def _check_frames(path: Path, image: Image.Image) -> tuple[str, ...]:
    frames = getattr(image, "n_frames", 1)
    if image.format in _SHOWN:
        return (f"The file holds {frames} pictures; the {_SHOWN[image.format]} was read.",) if frames > 1 else ()
    if frames > 1:
        raise InputError(f"{path} is an animation of {frames} frames; give one image per file", path=path)
    return ()


def _check_sums(path: Path, png: bytes) -> None:
    """Both decoders pass over some wrong checksums of a PNG; here all of what makes the picture count."""
    place, view = 8, memoryview(png)
    while place + 12 <= len(png):
        length, name = struct.unpack_from(">I4s", png, place)
        end = place + 8 + length
        if name in _PNG_PARTS and view[end : end + 4] != struct.pack(">I", zlib.crc32(view[place + 4 : end])):
            raise InputError(f"{path} is damaged or cut short: the checksum of its {name.decode()} is wrong", path=path)
        place = end + 4


def _check_jpeg(path: Path, jpeg: bytes) -> tuple[str, ...]:
    """Pillow fills what is missing of a damaged JPEG with grey and says nothing; libjpeg's own warnings tell."""
    try:
        simplejpeg.decode_jpeg(jpeg, "GRAY", min_height=1, min_width=1)  # an eighth of the size: all codes, few pixels
    except ValueError as warning:
        said = one_line(warning)
        if _JPEG_DAMAGE.search(said):
            raise InputError(f"{path} is damaged or cut short ({said})", path=path) from None
        return (f"The JPEG may be damaged: {said}.",) if "extraneous" in said else ()
    return ()


def _needs_libpng(png: bytes, image: Image.Image) -> bool:
    """Pillow halves the depth of 16-bit PNG in colour or with alpha, and leaves colours that are transparent."""
    if image.mode in ("P", "PA"):
        return False
    return (png[24] == 16 and not image.mode.startswith("I")) or "transparency" in image.info


def _from_png(png: bytes) -> Samples:
    values = imagecodecs.png_decode(png)
    channels = 1 if values.ndim == 2 else values.shape[2]
    if channels in (2, 4):
        return Samples(values[:, :, 0] if channels == 2 else values[:, :, :3], alpha=values[:, :, -1])
    return Samples(values)
