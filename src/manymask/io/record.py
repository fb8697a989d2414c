"""What made a result: one record, which result.json, the PNG files, DICOM SEG, the page and the library all print."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np

from manymask._version import __version__
from manymask.runtime import git_revision


def pixel_hash(pixels: np.ndarray) -> str:
    """SHA-256 of pixels with their type and shape, in hexadecimal digits."""
    digest = hashlib.sha256(f"{pixels.dtype.str} {pixels.shape}".encode())
    digest.update(np.ascontiguousarray(pixels).data.cast("B"))
    return digest.hexdigest()


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class SourceRecord:
    """What was segmented: the file's name, if there is one; the SOP Instance UIDs of DICOM, with `#` and the number of a
    frame among several; the SHA-256 of the pixels at their own depth, before any window; and of what the file says beside them
    of spacing, place and window, empty where it says nothing. Anonymous ones have the hashes alone."""

    file: str | None = None
    sop_instance_uids: tuple[str, ...] = ()
    pixels_sha256: str = ""
    header_sha256: str = ""

    def anonymous(self) -> "SourceRecord":
        return SourceRecord(pixels_sha256=self.pixels_sha256, header_sha256=self.header_sha256)

    def differs(self, other: "SourceRecord") -> bool:
        """Whether this is known to be, or may be, another image than `other`: what only one of them tells does not count. The
        same image with another header is no other image, but its results are."""
        pairs = ((self.file, other.file), (self.sop_instance_uids, other.sop_instance_uids))
        return self.pixels_sha256 != other.pixels_sha256 or any(a and b and a != b for a, b in pairs)

    @classmethod
    def read(cls, result: Any) -> "SourceRecord":
        """From a result.json; of one that tells nothing, a source that differs from every other."""
        told = result.get("source") if isinstance(result, dict) else None
        if not isinstance(told, dict) or not isinstance(told.get("pixels_sha256"), str):
            return cls()
        uids = told.get("sop_instance_uids")
        header = str(told.get("header_sha256") or "")
        return cls(told.get("file"), tuple(uids) if isinstance(uids, list) else (), told["pixels_sha256"], header)


@dataclass(frozen=True)
class ModelRecord:
    """Which model: its folder's name, the recipe and data set of it, the SHA-256 of its weights, what it is for, and the SHA-256
    of its settings, by which equal weights may draw other masks."""

    name: str
    recipe: str
    dataset: str
    weights_sha256: str
    purpose: str = ""
    modality: tuple[str, ...] = ()
    trained_on: str = ""
    settings_sha256: str = ""


@dataclass(frozen=True)
class Record:
    """Everything that decides a result, and when it was made. sampler: as `config.to_dict` gives it; left_out: numbers of
    the masks, from 1, that a person left out of confidence and consensus; noise: what mask k shares its noise with, `image`
    (nothing else) or `volume` (mask k of the other slices); tile: side of the windows that the image was drawn in, in its own
    pixels, None if it was drawn as a whole."""

    source: SourceRecord
    model: ModelRecord
    samples: int
    seed: int
    threshold: float
    sampler: Mapping[str, Any] | None = None
    orientations: int = 1
    guidance_scale: float | None = None
    head_share: float | None = None
    rois: tuple[tuple[int, int], ...] = ()
    left_out: tuple[int, ...] = ()
    noise: Literal["image", "volume"] = "image"
    tile: int | None = None
    created: str = ""
    version: str = __version__
    git: str = ""

    @classmethod
    def of(cls, source: SourceRecord, model: ModelRecord, **asked: Any) -> "Record":
        """Made now, by this program."""
        return cls(source, model, created=now(), git=git_revision(), **asked)

    def facts(self) -> dict[str, Any]:
        """JSON-able, as in result.json; `left_out` only where masks were left out, `tile` only where there are windows,
        `head_share` only where a mask head has one,
        `header_sha256` only where the file says anything."""
        values = asdict(self)
        if not self.source.header_sha256:
            del values["source"]["header_sha256"]
        if not self.left_out:
            del values["left_out"]
        if self.tile is None:
            del values["tile"]
        if not self.head_share:
            del values["head_share"]
        program = {"version": values.pop("version"), "git": values.pop("git")}
        return {**values, "manymask": program}

    @property
    def program(self) -> str:
        """`manymask 0.1.0 (103bcf9)`."""
        return f"manymask {self.version}" + (f" ({self.git})" if self.git else "")

    @property
    def kept(self) -> tuple[int, ...]:
        """The numbers of the masks, from 1, that were not left out."""
        return tuple(number for number in range(1, self.samples + 1) if number not in self.left_out)

    def drawn_as(self) -> dict[str, Any]:
        """How the masks were drawn, as `SamplingConfig.record` gives it."""
        share = {"head_share": self.head_share} if self.head_share else {}
        return {"samples": self.samples, "sampler": self.sampler, "orientations": self.orientations,
                "guidance_scale": self.guidance_scale} | share  # fmt: skip

    def settings(self) -> dict[str, Any]:
        """What decides the masks beside source, model and program: equal settings give equal masks."""
        return {"samples": self.samples, "seed": self.seed, "threshold": self.threshold, "orientations": self.orientations,
                "sampler": self.sampler, "guidance_scale": self.guidance_scale, "head_share": self.head_share,
                "noise": self.noise, "tile": self.tile, "rois": [list(point) for point in self.rois]}  # fmt: skip
