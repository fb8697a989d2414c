"""What a decoder hands over: samples as they are meant, before anyone makes a picture or a mask of them; and how much
of them is taken."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from manymask.errors import InputError

PIXEL_LIMIT = 100_000_000
BYTE_LIMIT = 8 * PIXEL_LIMIT
_BAND = 256


class Claim(NamedTuple):
    """The size of an image as its header states it; bytes: of all its samples, decoded."""

    height: int
    width: int
    bytes: int


def check_claim(path: Path, claim: Claim) -> None:
    """`InputError` for an image that holds nothing, or more than is decoded; to be called before anything is."""
    if claim.height < 1 or claim.width < 1:
        raise InputError(f"{path} is damaged: its header states {claim.width}×{claim.height} pixels", path=path)
    if claim.height * claim.width > PIXEL_LIMIT:
        raise InputError(
            f"{path} has {claim.width}×{claim.height} pixels, more than {PIXEL_LIMIT // 1_000_000} million pixels; "
            "scale it down or cut out a part first",
            path=path,
        )
    if claim.bytes > BYTE_LIMIT:
        raise InputError(
            f"{path} takes {claim.bytes // 1_000_000:,} MB decoded, more than {BYTE_LIMIT // 1_000_000:,} MB; "
            "scale it down or save it with fewer bits per sample first",
            path=path,
        )


@dataclass(frozen=True)
class Samples:
    """Decoded samples: grey (H, W), colour (H, W, 3), or with a palette (K, 3) its indices (H, W).

    alpha: (H, W) opacity of the samples' type, up to `full`; premultiplied: the colours were scaled by it already;
    notes: what was left out, in words.
    """

    values: np.ndarray
    palette: np.ndarray | None = None
    alpha: np.ndarray | None = None
    premultiplied: bool = False
    notes: tuple[str, ...] = ()

    def turned(self, orientation: int) -> "Samples":
        """Upright, by the orientation tag of EXIF and TIFF."""
        alpha = None if self.alpha is None else upright(self.alpha, orientation)
        return replace(self, values=upright(self.values, orientation), alpha=alpha)

    def colours(self) -> np.ndarray:
        """Grey (H, W) or colour (H, W, 3) without the palette, transparent or not."""
        if self.palette is None:
            return self.values
        grey = (self.palette == self.palette[:, :1]).all()
        result: np.ndarray = (self.palette[:, 0] if grey else self.palette)[self.values]
        return result

    @property
    def transparency(self) -> tuple[str, ...]:
        """What a reader must know of the white that `picture` puts behind the image; nothing if all of it is opaque."""
        if self.alpha is None or (see_through := float((self.alpha < full(self.alpha)).mean())) == 0:
            return ()
        return (f"{max(see_through, 0.001):.1%} of the picture is transparent and was put on white.",)

    def picture(self, path: Path | str) -> np.ndarray:
        """Grey or colour pixels at their own depth; what is transparent shows white behind it."""
        colours, alpha = self.colours(), self.alpha
        if alpha is None or alpha.min() == full(alpha):
            return colours
        if alpha.max() == 0:
            raise InputError(f"{path} is fully transparent: save it without its alpha channel", path=path)
        return _on_white(colours, alpha, self.premultiplied)


def full(values: np.ndarray) -> float:
    """What stands for opaque, or white, in samples of this type."""
    if values.dtype == bool:
        return 1
    return float(np.iinfo(values.dtype).max) if values.dtype.kind in "iu" else 1.0


def _on_white(colours: np.ndarray, alpha: np.ndarray, premultiplied: bool) -> np.ndarray:
    """White is 255, and of deeper pixels the brightest that is opaque, so that nothing outshines the picture."""
    if colours.dtype == bool:
        colours = colours.astype(np.uint8) * 255
    opaque = colours[alpha == full(alpha)] if colours.dtype != np.uint8 else colours[:0]
    white = float(opaque.max()) if opaque.size else full(colours)
    mixed = np.empty_like(colours)
    for top in range(0, len(colours), _BAND):  # in bands, since the floats take four times the room of bytes
        rows = slice(top, top + _BAND)
        share = alpha[rows].astype(np.float32) / np.float32(full(alpha))
        share = share if colours.ndim == 2 else share[:, :, None]
        band = colours[rows] * (np.float32(1) if premultiplied else share) + (1 - share) * np.float32(white)
        whole = colours.dtype.kind in "iu"
        mixed[rows] = np.clip(np.round(band), 0, full(colours)) if whole else band
    return mixed


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (H, W, …) turned and mirrored as tag 274 of EXIF and TIFF says; 1, and what is no orientation, stay."""
    if orientation in (5, 6, 7, 8):
        pixels = np.swapaxes(pixels, 0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
