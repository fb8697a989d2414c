"""Masks of raters from image files: which pixels are foreground, or a refusal that says how to choose.

Black and white      0 and one other value; a threshold is not needed and changes nothing
Soft, in [0, 1]      foreground from 0.5 on, or from the threshold
Soft, 0 … 255        refused without a threshold; one above 0 and below 1 is a share of the largest value
Labels               several values, or several indices of a palette: refused unless labels are chosen
Indexed              index 0 is background, unless the palette has nothing but greys, which then count as such
Transparent          the opaque part is the mask where it has one colour; else refused
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from manymask.errors import ConfigError, InputError
from manymask.io.raster import read_samples
from manymask.io.samples import Samples, full

_FEW_LABELS = 32  # a mask that stays below holds labels, no shades
SHADES, COLOUR, OPACITY = "shades between", "one colour", "transparency"  # what is said of masks without labels
_NEARLY_GREY = 16  # how far the channels of a JPEG may lie apart


@dataclass(frozen=True)
class MaskReading:
    """How masks that are not simply black and white are read.

    threshold: foreground is what reaches this value, in soft masks; labels: foreground is what holds one of these
    values, in label images, or one of these names, in polygons; invert: foreground and background are exchanged.
    held: gets what each file of pixels holds, as `values_of` says it; nothing of files of one bit.
    """

    threshold: float | None = None
    labels: tuple[int | str, ...] = ()
    invert: bool = False
    held: dict[Path, frozenset[float | str]] | None = field(default=None, compare=False, repr=False)

    def note(self, path: Path, values: frozenset[float | str]) -> None:
        """Records what a file holds."""
        if self.held is not None:
            self.held[path] = values


def distinct(values: np.ndarray) -> np.ndarray:
    """The values in order; of bytes without sorting."""
    if values.dtype != np.uint8:
        return np.unique(values)
    return np.flatnonzero(np.bincount(values.ravel(), minlength=256)).astype(np.uint8)


def values_of(values: np.ndarray, held: np.ndarray | None = None) -> frozenset[float | str]:
    """The values of a mask (H, W); of one with more values than a label image has, its full scale and a word that says so."""
    held = distinct(values) if held is None else held
    if len(held) <= _FEW_LABELS and not (values.dtype.kind == "f" and (held % 1).any()):
        return frozenset(float(value) for value in held)
    scale = 255.0
    if values.dtype.kind in "iu":
        scale = float(full(values))
    elif values.dtype.kind == "f" and held.max() <= 1:
        scale = 1.0
    return frozenset({0.0, scale, SHADES})


def read_mask(path: Path, reading: MaskReading | None = None) -> np.ndarray:
    """A mask as bool (H, W); `InputError` for one that can be read in several ways, unless `reading` decides."""
    reading = reading or MaskReading()
    check_numbers(path, reading)
    found = read_samples(path)
    if _is_indexed(found):
        mask = _of_labels(path, found, reading)
    elif found.alpha is not None and found.alpha.min() < full(found.alpha):
        mask = _of_opacity(path, found, reading)
    else:
        mask = _of_values(path, _grey(path, found.colours(), reading), reading)
    return ~mask if reading.invert else mask


def mask_of_values(path: Path, values: np.ndarray, reading: MaskReading, held: np.ndarray | None = None) -> np.ndarray:
    """The same for values (H, W) that were read from `path`, such as a slice of a NIfTI file.

    held: the values, in order, of everything that is read alike, such as all slices; those of `values` alone if None.
    """
    check_numbers(path, reading)
    mask = _of_values(path, _grey(path, values, reading), reading, held)
    return ~mask if reading.invert else mask


def check_numbers(path: Path, reading: MaskReading) -> None:
    """`ConfigError` for labels by name, which an image file has not."""
    named = next((label for label in reading.labels if isinstance(label, str)), None)
    if named is not None:
        raise ConfigError(
            f"{path} holds numbers, and nothing says which of them {named!r} is; choose labels by number",
            parameter="mask_labels",
            path=path,
        )


def _is_indexed(found: Samples) -> bool:
    """Whether the indices of a palette mean something: it has colours, and at most index 0 is transparent."""
    if found.palette is None:
        return False
    used = np.unique(found.values)
    colours = found.palette[used]
    if (colours == colours[:, :1]).all():
        return False
    return found.alpha is None or bool((found.alpha[found.values != 0] == full(found.alpha)).all())


def _of_labels(path: Path, found: Samples, reading: MaskReading) -> np.ndarray:
    """Index 0 is background; where it has a colour and another index is black, nobody can tell."""
    assert found.palette is not None
    used = distinct(found.values)
    reading.note(path, values_of(found.values, used))
    if reading.labels:
        return np.isin(found.values, reading.labels)
    black = [int(index) for index in used[used > 0] if not found.palette[index].any()]
    if black and found.palette[0].any():
        raise InputError(
            f"{path}: index {black[0]} of its palette is black, index 0 is not, so that the background is not clear; "
            "choose the indices of the foreground",
            remedies=("mask_labels",),
            path=path,
        )
    if (used > 0).sum() > 1:
        raise InputError(
            f"{path} holds the labels {_shown(used)}; choose those of the foreground, such as {int(used[used > 0][0])}",
            remedies=("mask_labels",),
            path=path,
        )
    return found.values > 0


def _of_opacity(path: Path, found: Samples, reading: MaskReading) -> np.ndarray:
    """The shape in the alpha channel, cut at half, where all that can be seen has one colour."""
    assert found.alpha is not None
    reading.note(path, frozenset({OPACITY}))
    seen = found.alpha > 0
    colours = found.colours()[seen]
    if len(colours) and (colours != colours[0]).any():
        raise InputError(
            f"{path} has one shape in its colours and another in its transparency; save it without alpha channel",
            path=path,
        )
    if reading.threshold is None or not 0 < reading.threshold <= full(found.alpha):
        return found.alpha >= full(found.alpha) / 2
    return found.alpha >= _level(reading.threshold, found.alpha)


def _grey(path: Path, colours: np.ndarray, reading: MaskReading) -> np.ndarray:
    """Values (H, W). One colour beside black is as good as white; the traces of colour in a JPEG do not count."""
    if colours.ndim == 2:
        return colours
    if (colours == colours[:, :, :1]).all():
        return colours[:, :, 0]
    codes = sum(colours[:, :, k] * 65537.0**k for k in range(3))  # one number for each colour of up to 16 bits
    kinds = np.count_nonzero(np.unique(codes))
    if kinds == 1:
        reading.note(path, frozenset({COLOUR}))
        result: np.ndarray = np.any(colours, axis=2)
        return result
    if reading.threshold is not None and int(np.ptp(colours, axis=2).max()) <= _NEARLY_GREY:
        return colours[:, :, 1]
    raise InputError(
        f"{path}: a mask must be black and white or hold labels, this one has colours ({kinds} beside black); "
        "save it as grey label image or with a palette, and choose the labels of the foreground",
        remedies=("mask_labels",),
        path=path,
    )


def _of_values(path: Path, values: np.ndarray, reading: MaskReading, held: np.ndarray | None = None) -> np.ndarray:
    if values.dtype == bool:
        return values
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InputError(f"{path}: the mask holds values that are not numbers (NaN or infinite)", path=path)
    held = distinct(values) if held is None else held
    reading.note(path, values_of(values, held))
    if reading.labels:
        return np.isin(values, reading.labels)
    if values.dtype.kind == "f" and held[0] >= 0 and held[-1] <= 1:
        return _of_shares(path, values, reading.threshold, float(held[-1]))
    if _is_black_and_white(held, reading.threshold):
        return values > 0
    if reading.threshold is not None:
        if reading.threshold > held[-1] and 0 < held[-1] < _FEW_LABELS:
            raise InputError(
                f"{path}: nothing reaches the threshold {reading.threshold:g}, the mask holds {_shown(held)}; "
                "choose the labels of the foreground",
                remedies=("mask_labels",),
                path=path,
            )
        return values >= _level(reading.threshold, values)
    raise InputError(
        f"{path}: a mask must hold 0 and one other value, found {_shown(held)}; "
        "cut a soft mask at a threshold, or choose the labels of the foreground",
        remedies=("mask_threshold", "mask_labels"),
        path=path,
    )


def _is_black_and_white(held: np.ndarray, threshold: float | None) -> bool:
    """0 and one other value; one value alone is full or empty, unless it is a grey that a threshold is there for."""
    if len(held) == 1:
        return held[0] >= 0 and (threshold is None or int(held[0]) in (0, 1, 255, 65535))
    return len(held) == 2 and held[0] == 0


def _of_shares(path: Path, values: np.ndarray, threshold: float | None, largest: float) -> np.ndarray:
    """A soft mask in [0, 1] whose largest value is `largest`; a threshold above 1 is meant for bytes."""
    cut = 0.5 if threshold is None else threshold if threshold <= 1 else threshold / 255
    if threshold is None and 0 < largest < cut:
        raise InputError(
            f"{path}: nothing in this soft mask reaches {cut}, its largest value is {largest:g}; say where to cut",
            remedies=("mask_threshold",),
            path=path,
        )
    return values >= cut


def _level(threshold: float, values: np.ndarray) -> float:
    """The threshold in the values' own unit: between 0 and 1 it is a share of the largest value of whole numbers."""
    return threshold * full(values) if 0 < threshold < 1 and values.dtype.kind in "iu" else threshold


def _shown(held: np.ndarray) -> str:
    return ", ".join(f"{value:g}" for value in held[:6]) + (", …" if len(held) > 6 else "")
