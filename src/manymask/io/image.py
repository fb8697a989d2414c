"""What is segmented, wherever it came from: pixels, a name that is safe to write, and the way back to the source."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from manymask.errors import ManymaskError
from manymask.io.window import Window

Failed = Callable[[ManymaskError], None]
_PIXELS = 0x7FE00000  # the group that pixels of DICOM stand in, behind all else


@dataclass(frozen=True)
class DicomFrame:
    """A frame of a DICOM image: its data set (pydicom) and its number, counted from 1."""

    dataset: Any
    number: int = 1


@dataclass(frozen=True)
class NiftiSlice:
    """Slice `index` along the third axis of a NIfTI volume of `shape`, with its affine (4, 4); values: its pixels, upright,
    before any window; header: the file's own (nibabel), whose geometry the masks get."""

    affine: np.ndarray
    shape: tuple[int, ...]
    index: int
    values: np.ndarray | None = None
    header: Any = None


@dataclass(frozen=True)
class VolumeSlice:
    """Where a picture lies in its volume. volume: what tells it from other volumes, and is never written; number: as in the
    name of the picture; depth: mm along the normal, if known."""

    volume: str
    number: int
    depth: float | None = None


@dataclass(frozen=True)
class Picture:
    """One image, (H, W) or (H, W, 3) of any depth; DICOM comes rescaled, windowed, upright and as uint8.

    name: without folder or ending, never from a patient field; spacing: mm between rows and between columns, if known;
    notes: what a reader of the result must know of how the file was read, in whole sentences, such as that the spacing
    is that of the detector; slice: None for what is no slice of a volume, such as a photograph or an X-ray.
    """

    pixels: np.ndarray
    name: str
    spacing: tuple[float, float] | None = None
    origin: DicomFrame | NiftiSlice | None = None
    notes: tuple[str, ...] = ()
    slice: VolumeSlice | None = None

    def light(self) -> "Picture":
        """Without the pixels, which read as 0: what a SEG or a volume needs once its masks are drawn."""
        origin = self.origin
        if isinstance(origin, NiftiSlice):
            origin = replace(origin, values=None)
        elif isinstance(origin, DicomFrame) and int(origin.dataset.get("NumberOfFrames") or 1) == 1:
            origin = replace(origin, dataset=origin.dataset[:_PIXELS])  # frames of one file share it with its pixels
        nothing = np.broadcast_to(self.pixels.dtype.type(0), self.pixels.shape)
        return replace(self, pixels=nothing, origin=origin)


@dataclass(frozen=True)
class PromisedOutlines:
    """Both outlines of a calibrated result for one α, and what is predicted of its consensus.

    Attributes:
        alpha: largest expected share of the lesion's pixels outside of the outer outline, and of the inner outline's
            pixels that are no lesion.
        inner: bool (H, W).
        outer: bool (H, W).
        dice: predicted Dice of the consensus at 0.5, then both ends of its interval.
        calibration: hash of its data, and when it was made.
    """

    alpha: float
    inner: Any
    outer: Any
    dice: tuple[float, float, float]
    calibration: str


class Drawn(Protocol):
    """What was drawn of one picture: arrays or tensors of the picture's size.

    masks: (n, H, W), probabilities or bool; confidence: (H, W), [0, 1]; consensus: (H, W), bool; outlines: None if the
    result is not calibrated.
    """

    @property
    def masks(self) -> Any: ...
    @property
    def confidence(self) -> Any: ...
    @property
    def consensus(self) -> Any: ...
    @property
    def outlines(self) -> PromisedOutlines | None: ...


class ImageSource(Protocol):
    """One or more images that belong together: a file, a DICOM series, or a series of an archive."""

    @property
    def file(self) -> str | None:
        """Name of the file, without its folder; None for DICOM, which is known by its UIDs."""

    def count(self) -> int | None:
        """How many images there are, from headers alone; None where that is known only once they are read.

        Raises:
            InputError: the header cannot be read.
        """

    def sizes(self) -> set[tuple[int, int]]:
        """(H, W) of the images as the headers say, before anything is decoded."""

    def read(self, index: int, window: Window | None = None) -> Picture:
        """Image `index`, from 0; raises `InputError` where it cannot be read."""

    def pictures(self, window: Window | None = None, failed: Failed | None = None) -> Iterator[Picture]:
        """All images in order, decoded one after the other.

        Args:
            window: grey values that are shown; the file's own if None.
            failed: called with the error of each image that cannot be read, after which the others go on; without it
                the error is raised.
        """
