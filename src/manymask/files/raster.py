"""PNG, JPEG and TIFF in and out. Images are (H, W) or (H, W, 3); nothing is decoded before its size is known."""

import warnings
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, ImageOps

from manymask.errors import UserError
from manymask.files.atomic import atomic_file

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
PIXEL_LIMIT = 100_000_000
Image.MAX_IMAGE_PIXELS = PIXEL_LIMIT


def is_raster(path: Path) -> bool:
    """Whether the name ends like an image that `read_image` reads; hidden files do not count."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def list_rasters(folder: Path) -> list[Path]:
    """The images directly in a folder, in the order of their names."""
    return sorted(p for p in folder.iterdir() if p.is_file() and is_raster(p))


def read_image(path: Path, channels: int) -> np.ndarray:
    """An image as uint8 (H, W, channels), channels 1 or 3. More than 8 bits are stretched from minimum to maximum."""
    return to_channels(_decode(path), channels, str(path))


def read_pixels(path: Path) -> np.ndarray:
    """An image at its own depth: (H, W) or (H, W, C), turned upright."""
    return _decode(path)


def to_channels(pixels: np.ndarray, channels: int, name: str = "the image") -> np.ndarray:
    """Pixels (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of any depth as uint8 (H, W, channels); `name` is for errors."""
    pixels = _to_uint8(pixels, name)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim == 2:
        return np.repeat(pixels[:, :, None], channels, axis=2)
    if pixels.ndim == 3 and pixels.shape[2] in (3, 4):
        pixels = np.ascontiguousarray(pixels[:, :, :3])
        return pixels if channels == 3 else np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]
    raise UserError(f"{name}: an array of shape {pixels.shape} is not one grey or colour image")


def _too_large(path: Path) -> UserError:
    return UserError(f"{path} has more than {PIXEL_LIMIT // 1_000_000} million pixels; scale it down first")


def size_of(path: Path) -> tuple[int, int]:
    """(H, W) from the header alone; nothing is decoded. (0, 0) where only reading it all would tell."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return image.height, image.width
    except Image.DecompressionBombError:
        raise _too_large(path) from None
    except (OSError, SyntaxError, ValueError):
        return 0, 0


def _open(path: Path) -> Image.Image:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(path)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(path) from None
    except OSError:
        raise UserError(f"{path} is not an image that can be read (expected {', '.join(SUFFIXES)})") from None


def _decode(path: Path) -> np.ndarray:
    """Pixels at their own depth: uint8, uint16, int32 or float32, (H, W) or (H, W, C)."""
    if path.suffix.lower() in (".tif", ".tiff"):
        return _decode_tiff(path)
    try:
        with _open(path) as image:
            return pil_pixels(image)
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UserError(f"{path} is damaged or cut short ({error})") from None


def pil_pixels(image: Image.Image) -> np.ndarray:
    """A Pillow image at its own depth, turned upright, whatever its mode."""
    upright = ImageOps.exif_transpose(image)
    plain = upright.mode in ("1", "L", "I", "F", "RGB") or upright.mode.startswith("I;16")
    return np.asarray(upright if plain else upright.convert("RGB"))


def _decode_tiff(path: Path) -> np.ndarray:
    """TIFF through tifffile, which reads 16-bit colour; compressed pages it has no codec for go through Pillow."""
    if not path.is_file() or path.stat().st_size == 0:
        raise UserError(f"{path} is empty or not there")
    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages[0]
            if page.imagewidth * page.imagelength > PIXEL_LIMIT or int(np.prod(page.shape)) > 4 * PIXEL_LIMIT:
                raise _too_large(path)
            if len(tiff.pages) > 1 and page.shape == getattr(tiff.pages[1], "shape", None):
                raise UserError(f"{path} holds {len(tiff.pages)} pages; give one image a file")
            if int(page.compression) in (1, 8, 32946):
                return np.squeeze(page.asarray())
        with Image.open(path) as image:
            return pil_pixels(image)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path} is not a TIFF that can be read ({error})") from None


def _to_uint8(pixels: np.ndarray, name: str) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == bool:
        return pixels.astype(np.uint8) * 255
    values = pixels.astype(np.float32)
    if not np.isfinite(values).all():
        raise UserError(f"{name}: the image holds values that are not numbers (NaN or infinite)")
    low, high = float(values.min()), float(values.max())
    return np.round((values - low) / max(high - low, 1e-12) * 255).astype(np.uint8)


def write_png(path: Path, pixels: np.ndarray) -> None:
    """bool (as 0/255), uint8 or uint16 pixels (H, W) or (H, W, 3)."""
    image = Image.fromarray(pixels.astype(np.uint8) * 255 if pixels.dtype == bool else np.ascontiguousarray(pixels))
    with atomic_file(path) as beside:
        image.save(beside, format="PNG", compress_level=4)
