"""TIFF: every page through tifffile and imagecodecs, then one set of rules, whatever the compression.

What a TIFF means by its samples (photometric interpretation, colour map, planes, packed bits, alpha, orientation) is
decided here and nowhere else; what is not known is refused by its name.
"""

import io
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from manymask.errors import InputError, decoding
from manymask.io.colours import from_cmyk, from_lab, from_ycbcr
from manymask.io.depth import single
from manymask.io.samples import Claim, Samples, check_claim

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _MASK, _CMYK, _YCBCR, _LAB = 0, 1, 2, 3, 4, 5, 6, 8
_CHANNELS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _MASK: 1, _CMYK: 4, _YCBCR: 3, _LAB: 3}
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_PLAIN = {1, 2, 3, 4, 5, 8, 32773, 32946, 34925, 50000}  # none, CCITT, LZW, deflate, PackBits, LZMA, Zstandard
_JPEG = {7: "JPEG", 34892: "JPEG"}
_CODECS = {**_JPEG, 33005: "JPEG2000", 34712: "JPEG2000", 34927: "WEBP", 50001: "WEBP"}
_MOST_PAGES = 1000


def read_tiff(path: Path) -> Samples:
    """The picture of a TIFF: the largest page. Several of that size, or planes in one page, are an `InputError`."""
    with decoding(path), _opened(path) as tiff:
        page, notes = _largest(path, tiff)
        check_claim(path, _claim(page))
        _check_data(path, page)
        return _Meaning(path, page, notes).samples(_raw(path, page))


def _opened(path: Path) -> tifffile.TiffFile:
    """The file as tifffile reads it. Its remarks go to handlers of the process alone: what matters is checked here."""
    log = logging.getLogger("tifffile")
    if not log.handlers:
        log.addHandler(logging.NullHandler())
    return tifffile.TiffFile(path)


def claimed_tiff(path: Path) -> Claim:
    """The size of the picture from the headers; the tiles that it would be decoded by count as well."""
    with decoding(path), _opened(path) as tiff:
        return _claim(_largest(path, tiff)[0])


def _claim(page: Any) -> Claim:
    size = page.dtype.itemsize if page.dtype is not None else 8
    tile = page.tilewidth * page.tilelength * page.tiledepth * page.samplesperpixel if page.is_tiled else 0
    return Claim(page.imagelength, page.imagewidth, max(math.prod(page.shaped), tile) * size)


def _largest(path: Path, tiff: tifffile.TiffFile) -> tuple[Any, tuple[str, ...]]:
    """The largest page, those in sub-directories included; transparency masks do not count."""
    pages = [page for page in _pages(path, tiff) if not int(page.subfiletype) & 4]
    if not pages:
        raise InputError(f"{path} is damaged or cut short: no page can be found in it", path=path)
    size = max(page.imagelength * page.imagewidth for page in pages)
    largest = [page for page in pages if page.imagelength * page.imagewidth == size]
    planes = max(len(largest), _planes(tiff, largest[0]))
    if planes > 1:
        raise InputError(f"{path} holds {planes} pages (or planes) of one size; give one image per file", path=path)
    notes = (f"The file holds {len(pages)} pages; the largest was read.",) if len(pages) > 1 else ()
    return largest[0], notes


def _pages(path: Path, tiff: tifffile.TiffFile) -> list[Any]:
    number = len(tiff.pages)
    if number > _MOST_PAGES:
        raise InputError(f"{path} holds {number} pages; give one image per file", path=path)
    pages = [tiff.pages[k] for k in range(number)]
    return [inner for page in pages for inner in (page, *((page.pages or ()) if page.subifds else ()))]


def _planes(tiff: tifffile.TiffFile, page: Any) -> int:
    """How many images one page holds, by the customs of ImageJ, tifffile, MetaMorph and the ImageDepth tag."""
    planes = [int(page.imagedepth)]
    if tiff.is_imagej:
        planes.append(int((tiff.imagej_metadata or {}).get("images", 1)))
    if tiff.is_shaped:
        described: Any = tiff.shaped_metadata or ({},)
        shape = described[0].get("shape", ())
        planes.append(math.prod(shape) // max(math.prod(page.shape), 1))
    if tiff.is_stk and 33629 in page.tags:
        planes.append(int(page.tags[33629].count))
    return max(planes)


def _check_data(path: Path, page: Any) -> None:
    """Every strip or tile is there, and none claims more than its place in the image."""
    compression = int(page.compression)
    if compression not in _PLAIN and compression not in _CODECS:
        name = getattr(page.compression, "name", compression)
        raise InputError(f"{path} is compressed in a way that is not supported ({name})", path=path)
    expected = math.prod(page.chunked)
    starts, lengths = (np.asarray(part, np.float64) for part in (page.dataoffsets, page.databytecounts))
    if len(starts) < expected or len(lengths) < expected or not (starts.all() and lengths.all()):
        raise InputError(f"{path} lacks some of its strips or tiles", path=path)
    ends = starts + lengths
    if not page.is_contiguous and (ends > page.parent.filehandle.size).any():
        raise InputError(f"{path} is cut short", path=path)
    if compression in _CODECS:
        across, down = (page.tilewidth, page.tilelength) if page.is_tiled else (page.imagewidth, page.rowsperstrip)
        for start, length in zip(page.dataoffsets, page.databytecounts, strict=False):
            _check_segment(path, page, int(start), int(length), (across, down))


def _check_segment(path: Path, page: Any, start: int, length: int, most: tuple[int, int]) -> None:
    """Codecs inside a TIFF decode what their own header claims, whatever the TIFF says."""
    file = page.parent.filehandle
    file.seek(start)
    with Image.open(io.BytesIO(file.read(length)), formats=(_CODECS[int(page.compression)],)) as inner:
        if inner.width > most[0] or inner.height > most[1]:
            raise InputError(f"{path} is damaged: a tile claims {inner.width}×{inner.height} pixels", path=path)


def _raw(path: Path, page: Any) -> np.ndarray:
    """Samples (H, W) or (H, W, channels), as stored; of JPEG, YCbCr comes as RGB."""
    if page.dtype is None:
        raise InputError(
            f"{path}: samples of {page.bitspersample} bits in format {page.sampleformat} are not supported",
            path=path,
        )
    read = page.asarray(squeeze=False, maxworkers=1)
    if read.shape != page.shaped:
        raise InputError(f"{path} is damaged: {read.shape} samples where {page.shaped} are claimed", path=path)
    separate = read[:, 0]  # (planes, H, W, channels), of which one is 1
    read = np.moveaxis(separate[:, :, :, 0], 0, 2) if page.planarconfig == 2 else separate[0]
    read = single(read, path) if read.dtype.kind == "f" else read.astype(read.dtype.newbyteorder("="), copy=False)
    result: np.ndarray = read[:, :, 0] if read.shape[2] == 1 else read
    return result


@dataclass(frozen=True)
class _Meaning:
    """What the tags of a page say that its samples mean."""

    path: Path
    page: Any
    notes: tuple[str, ...]

    def samples(self, raw: np.ndarray) -> Samples:
        photometric, formats = self._photometric(), int(self.page.sampleformat)
        if formats not in (_UNSIGNED, _SIGNED, _FLOAT, 4):
            raise InputError(
                f"{self.path}: samples of format {formats} (complex numbers?) are not supported", path=self.path
            )
        values, alpha, premultiplied, notes = self._split(raw, _CHANNELS[photometric])
        opacity = None if alpha is None else self._opacity(alpha)
        if photometric == _PALETTE:
            palette = self._palette()
            found = Samples(self._indices(values, len(palette)), palette, opacity, premultiplied, notes)
        else:
            found = Samples(self._scaled(self._colours(values, photometric)), None, opacity, premultiplied, notes)
        return found.turned(int(self._tag(274, 1)))

    def _tag(self, code: int, default: Any) -> Any:
        value = self.page.tags.valueof(code)
        return default if value is None else value

    def _photometric(self) -> int:
        stated = self.page.tags.valueof(262)
        if stated is None:
            raise InputError(
                f"{self.path} does not say what its samples mean (no photometric interpretation)", path=self.path
            )
        photometric = int(self.page.photometric)
        if photometric not in _CHANNELS:
            name = getattr(self.page.photometric, "name", photometric)
            raise InputError(
                f"{self.path}: samples of the kind {name} are not supported; save it as RGB or grey", path=self.path
            )
        if photometric == _CMYK and int(self._tag(332, 1)) != 1:
            raise InputError(
                f"{self.path}: inks other than CMYK are not supported; save it as RGB or grey", path=self.path
            )
        return photometric

    def _split(self, raw: np.ndarray, channels: int) -> tuple[np.ndarray, np.ndarray | None, bool, tuple[str, ...]]:
        """Colours, alpha, whether they are premultiplied, notes."""
        stored = 1 if raw.ndim == 2 else raw.shape[2]
        extra, kinds = stored - channels, [int(kind) for kind in self.page.extrasamples]
        if extra < 0 or (channels == 1 and extra > 1 and not set(kinds) & {1, 2}):
            raise InputError(f"{self.path}: {stored} channels are neither a grey nor a colour image", path=self.path)
        if extra == 0:
            return raw, None, False, self.notes
        colours = raw[:, :, 0] if channels == 1 else raw[:, :, :channels]
        if extra == 1 and channels == 3 and self._tag(338, None) is None:
            kinds = [2]  # four channels and no word about the fourth: opacity, as Pillow has it
        place = next((k for k, kind in enumerate(kinds[:extra]) if kind in (1, 2)), None)
        spare = extra - (place is not None)
        notes = (*self.notes, f"{spare} extra channel(s) of the file were left out.") if spare else self.notes
        if place is None:
            return colours, None, False, notes
        return colours, raw[:, :, channels + place], kinds[place] == 1, notes

    def _most(self) -> int:
        bits = self.page.bitspersample
        return (1 << (bits if isinstance(bits, int) else 8)) - 1

    def _scaled(self, values: np.ndarray) -> np.ndarray:
        """Two to seven bits to eight, and colours of one bit."""
        if values.dtype == bool and values.ndim == 3:
            return np.where(values, np.uint8(255), np.uint8(0))
        if values.dtype == np.uint8 and self._most() < 255:
            return (values.astype(np.uint16) * 255 // self._most()).astype(np.uint8)
        return values

    def _opacity(self, alpha: np.ndarray) -> np.ndarray:
        if alpha.dtype.kind in "iu" and self._most() < np.iinfo(alpha.dtype).max:
            return (alpha.astype(np.float32) * (np.iinfo(alpha.dtype).max / self._most())).astype(alpha.dtype)
        return alpha

    def _colours(self, values: np.ndarray, photometric: int) -> np.ndarray:
        if photometric == _WHITE_IS_ZERO:
            return _negative(values, self._most())
        if photometric == _CMYK:
            self._demand(values, np.uint8, np.uint16)
            return from_cmyk(values, self._most())
        if photometric == _LAB:
            return self._lab(values)
        if photometric == _YCBCR and not self._converted():
            self._demand(values, np.uint8)
            weights = tuple(map(float, _ratios(self._tag(529, (299, 1000, 587, 1000, 114, 1000)))))
            reference = tuple(map(float, _ratios(self._tag(532, (0, 1, 255, 1, 128, 1, 255, 1, 128, 1, 255, 1)))))
            return from_ycbcr(values, weights, reference)
        return values

    def _converted(self) -> bool:
        """Whether imagecodecs has made RGB of YCbCr already."""
        return int(self.page.compression) in _CODECS and self.page.planarconfig == 1 and not self.page.extrasamples

    def _demand(self, values: np.ndarray, *kinds: type) -> None:
        if values.dtype not in kinds:
            name = getattr(self.page.photometric, "name", self.page.photometric)
            raise InputError(f"{self.path}: {name} samples of type {values.dtype} are not supported", path=self.path)

    def _lab(self, values: np.ndarray) -> np.ndarray:
        self._demand(values, np.uint8, np.uint16, np.int8, np.int16)
        bits = 8 * values.dtype.itemsize
        lightness = values[:, :, 0].view(f"u{bits // 8}") * np.float32(100 / (2**bits - 1))
        signed = values[:, :, 1:].view(f"i{bits // 8}").astype(np.float32) / 2 ** (bits - 8)
        return from_lab(lightness, signed[:, :, 0], signed[:, :, 1])

    def _palette(self) -> np.ndarray:
        """The colour map as (K, 3) of 8 bits; some writers leave its 16-bit entries at 0 … 255."""
        entries = self.page.tags.valueof(320)
        if entries is None or len(entries) % 3:
            raise InputError(f"{self.path} has palette indices but no colour map", path=self.path)
        colours = np.asarray(entries, np.int64).reshape(3, -1).T
        return np.clip(colours if colours.max() < 256 else colours >> 8, 0, 255).astype(np.uint8)

    def _indices(self, values: np.ndarray, colours: int) -> np.ndarray:
        indices = values.astype(np.uint8) if values.dtype == bool else values
        if indices.dtype.kind != "u" or int(indices.max()) >= colours:
            raise InputError(
                f"{self.path} is damaged: it uses colours that its colour map does not hold", path=self.path
            )
        return indices


def _negative(values: np.ndarray, most: int) -> np.ndarray:
    """Black for white: unsigned by the largest value, others by a change of sign that keeps 0 and 1 in place."""
    if values.dtype == bool:
        return ~values
    if values.dtype.kind == "u":
        return (most - values.astype(np.int64)).astype(values.dtype)
    return ~values if values.dtype.kind == "i" else 1 - values


def _ratios(value: Any) -> list[float]:
    """A tag of rationals, as tifffile gives it: numerators and denominators in turn."""
    numbers = np.asarray(value, np.float64).reshape(-1, 2)
    result: list[float] = (numbers[:, 0] / numbers[:, 1]).tolist()
    return result
