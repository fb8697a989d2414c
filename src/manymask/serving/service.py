"""What the server does for the page and its callers: opens what was dropped, and draws. No Gradio in here."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from manymask.choices import SamplerName
from manymask.diffusion.sampling import SamplingConfig
from manymask.errors import InputError
from manymask.inference.preprocess import Point, View, check_tile
from manymask.inference.segmentation import Segmentation
from manymask.inference.segmenter import Segmenter
from manymask.io.image import DicomFrame, NiftiSlice, Picture
from manymask.io.inputs import Input, Raster, find_inputs
from manymask.io.raster import to_channels
from manymask.io.record import Record
from manymask.io.source import source_of
from manymask.io.window import NAMED, parse_window
from manymask.models.conditioning import ImageTraits
from manymask.serving.request_queue import StoppedError
from manymask.serving.view_model import Scene

Form = Literal["PNG", "DICOM SEG", "NIfTI"]
MUCH_LARGER = 4  # times the side of the model: from here on, an image may be drawn in windows of its own
WINDOWS = ("as the file says", *NAMED, "full")


@dataclass(frozen=True)
class Limits:
    """What one visitor may ask for: megabytes per file and per upload, files, million pixels per image, masks, regions,
    seconds of drawing; how many may wait in line, in all and per client; and what may lie on the server's disk:
    megabytes in all, files per client."""

    upload: int = 200
    at_once: int = 1000
    files: int = 1000
    megapixels: float = 25
    masks: int = 16
    regions: int = 8
    seconds: float = 300
    waiting: int = 20
    waiting_each: int = 8
    kept: int = 4000
    kept_files: int = 3000


@dataclass(frozen=True)
class SegmentRequest:
    """What is to be drawn."""

    samples: int = 5
    seed: int = 0
    sampler: SamplerName | None = None
    steps: int | None = None
    rois: tuple[Point, ...] = ()
    tile: int | None = None


@dataclass(frozen=True)
class OpenedInput:
    """What was dropped: its pictures, of which one is decoded at a time. notices: what was left out, and why."""

    entries: tuple[Input, ...]
    counts: tuple[int, ...]
    notices: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(self.counts)

    @property
    def kind(self) -> str:
        """What one of its pictures is called."""
        return "Image" if all(isinstance(entry, Raster) for entry in self.entries) else "Slice"

    def _find(self, number: int) -> tuple[Input, int]:
        """The entry that holds picture `number`, counted from 1, and its place in it, from 0."""
        place = number - 1
        for entry, count in zip(self.entries, self.counts, strict=True):
            if 0 <= place < count:
                return entry, place
            place -= count
        raise InputError(f"there is no slice {number}: the file has {len(self)}")

    def picture(self, number: int, window: str) -> Picture:
        """Picture `number`, counted from 1, through a window of `WINDOWS` (or `CENTRE,WIDTH`)."""
        entry, place = self._find(number)
        chosen = parse_window("header" if window in ("", WINDOWS[0]) else window)
        return entry.read(place, chosen)

    def file(self, number: int) -> str | None:
        """The name of the file that picture `number` is in; DICOM is known by its UIDs."""
        entry, _ = self._find(number)
        return entry.file


@dataclass(frozen=True)
class Subject:
    """What is segmented: the same image through the window that people and the model see it by; the name of its file;
    notices: what was left out beside it."""

    shown: Picture
    seen: Picture
    file: str | None = None
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class FinishedDrawing:
    """A finished drawing, kept small until it is asked for: `drawn` (regions, n, S, S) at the model's size."""

    segmenter: Segmenter
    subject: Subject
    view: View
    drawn: Tensor
    traits: ImageTraits
    record: Record
    seconds: float

    def result(self, threshold: float, left_out: tuple[int, ...] = ()) -> Segmentation:
        """At the image's own size, cut at `threshold`, without some of the masks."""
        record = replace(self.record, threshold=threshold, left_out=left_out)
        spent = {"total": round(self.seconds, 3)}
        return self.segmenter.answer(self.subject.seen, self.view, self.drawn, self.traits, record, spent)

    def facts(self, found: Segmentation) -> dict[str, Any]:
        """What result.json tells beside the areas."""
        height, width = found.image.shape[:2]
        made = found.record.facts() if found.record else {}
        return {"input": self.subject.shown.name, **made, "warnings": [*self.subject.notices, *found.warnings],
                "width": width, "height": height, "spacing": self.subject.shown.spacing, "seconds": found.seconds,
                "mean_entropy_bits": float(found.entropy.mean())}  # fmt: skip

    def forms(self) -> tuple[Form, ...]:
        """What it can be saved as, the most fitting first."""
        nifti: tuple[Form, ...] = ("NIfTI",) if find_spec("nibabel") else ()
        if isinstance(self.subject.shown.origin, DicomFrame):
            return ("DICOM SEG", "PNG", *nifti)
        return (*nifti, "PNG") if isinstance(self.subject.shown.origin, NiftiSlice) else ("PNG", *nifti)


def open_files(paths: Sequence[Path], limits: Limits) -> OpenedInput:
    """From names and headers alone (of NIfTI, a slice is read)."""
    if not paths:
        raise InputError("choose an image first")
    if len(paths) > limits.files:
        raise InputError(f"these are {len(paths)} files; give at most {limits.files}")
    found = find_inputs(paths)
    if not found.inputs:
        raise InputError("; ".join(found.problems[:3]))
    for entry in found.inputs:
        for height, width in entry.sizes():
            check_image_size(height, width, limits)
    counts = tuple(entry.count() for entry in found.inputs)
    return OpenedInput(tuple(found.inputs), counts, (*found.problems, *found.remarks))


def check_picture(picture: Picture, limits: Limits) -> Picture:
    """The same picture, refused if it is larger than this server takes."""
    height, width = picture.pixels.shape[:2]
    check_image_size(height, width, limits)
    return picture


def check_image_size(height: int, width: int, limits: Limits) -> None:
    """`InputError` for an image larger than this server takes."""
    if height * width > limits.megapixels * 1e6:
        raise InputError(
            f"the image has {width}×{height} pixels; this server takes up to {limits.megapixels:g} million"
        )


def preview(segmenter: Segmenter, picture: Picture) -> Scene:
    """The picture alone."""
    colour = 3 if picture.pixels.ndim == 3 and picture.pixels.shape[2] > 1 else 1
    crop = segmenter.recipe.size if segmenter.recipe.crop else 0
    return Scene(to_channels(picture.pixels, colour), picture.name, picture.spacing, crop, warnings=picture.notes)


def tiles(segmenter: Segmenter, picture: Picture) -> tuple[int, ...]:
    """The sides of windows that are worth trying, the largest first; none of an image that the model sees well as a whole.

    Windows of the model's own scale or of a power of two of it, at most 15 along the longer side.
    """
    longest, size = max(picture.pixels.shape[:2]), segmenter.recipe.size
    if segmenter.recipe.crop or longest < MUCH_LARGER * size:
        return ()
    sides = (size << power for power in range(longest.bit_length(), -1, -1))
    return tuple(side for side in sides if longest <= 8 * side and 2 * side <= longest)


def read_points(text: str, limits: Limits) -> tuple[Point, ...]:
    """`120,80; 40,200` as centres of regions of interest."""
    points = []
    for part in re.split(r"[;\n]", text or ""):
        if not part.strip():
            continue
        numbers = re.fullmatch(r"\s*(-?\d{1,6})\s*[, ]\s*(-?\d{1,6})\s*", part)
        if numbers is None:
            raise InputError(f"{part.strip()[:40]!r} is no region: write X,Y in pixels, several with ; between them")
        points.append((int(numbers[1]), int(numbers[2])))
    if len(points) > limits.regions:
        raise InputError(f"these are {len(points)} regions; give at most {limits.regions}")
    return tuple(points)


def check_request(order: SegmentRequest, picture: Picture, segmenter: Segmenter, limits: Limits) -> SamplingConfig:
    """How masks are drawn; `InputError` for more than this server does for one visitor."""
    sampling = check_samples(order, segmenter, limits)
    height, width = picture.pixels.shape[:2]
    if order.tile is not None and order.tile < segmenter.recipe.size:  # the image is enlarged
        height, width = (side * segmenter.recipe.size // order.tile for side in (height, width))
    if order.samples * height * width > 1 << 28:
        raise InputError("so many masks of so large an image do not fit into memory: choose fewer, or scale it down")
    return sampling


def check_samples(order: SegmentRequest, segmenter: Segmenter, limits: Limits) -> SamplingConfig:
    """The same, whatever the picture."""
    if not 1 <= order.samples <= limits.masks:
        raise InputError(f"choose 1 to {limits.masks} masks, not {order.samples}")
    check_tile(order.tile, segmenter.recipe.crop)
    sampling = SamplingConfig(order.sampler, order.steps)
    segmenter.model.resolve(sampling)
    return sampling


def draw_scene(
    segmenter: Segmenter,
    subject: Subject,
    order: SegmentRequest,
    limits: Limits,
    check: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Scene, float, FinishedDrawing | None]]:
    """The scene after every mask, with the share that is done; the last time with the finished drawing.

    check: called before each step; ends with the masks that are there when it raises `StoppedError`, with an error when
    it raises anything else.
    """
    sampling = check_request(order, subject.seen, segmenter, limits)
    start = time.monotonic()
    view = segmenter.look(subject.seen, order.rois, order.tile)
    scene = replace(preview(segmenter, subject.shown), total=order.samples, regions=view.regions)
    scene.warnings = (*subject.notices, *subject.seen.notes)
    yield scene, 0.0, None

    parts = list[Tensor]()
    with suppress(StoppedError):
        callback = _watched(check, start, limits)
        drawing = segmenter.draw(view, order.samples, order.seed, sampling, callback=callback)
        for part in drawing:
            parts.append(part)
            scene.add(view.paste(part)[0])
            yield scene, len(parts) / order.samples, None
    if not parts:
        yield scene, 1.0, None
        return
    seconds = time.monotonic() - start
    record = _record(segmenter, subject, replace(order, samples=len(parts)), sampling)
    finished = FinishedDrawing(segmenter, subject, view, torch.cat(parts, dim=1), drawing.traits, record, seconds)
    found = finished.result(0.5)
    scene.finish(found, seconds)
    scene.warnings, scene.forms = (*subject.notices, *found.warnings), finished.forms()
    yield scene, 1.0, finished


def draw_result(
    segmenter: Segmenter, subject: Subject, order: SegmentRequest, limits: Limits, check: Callable[[], None]
) -> Segmentation:
    """All masks of a picture at once: what `draw_scene` draws, without the scenes; `check` as there, but nothing is kept
    of what it ends."""
    sampling = check_request(order, subject.seen, segmenter, limits)
    start = time.monotonic()
    view = segmenter.look(subject.seen, order.rois, order.tile)
    callback = _watched(check, start, limits)
    drawing = segmenter.draw(view, order.samples, order.seed, sampling, every=order.samples, callback=callback)
    drawn, record = torch.cat(list(drawing), dim=1), _record(segmenter, subject, order, sampling)
    return FinishedDrawing(segmenter, subject, view, drawn, drawing.traits, record, time.monotonic() - start).result(
        0.5
    )


def _watched(check: Callable[[], None], start: float, limits: Limits) -> Callable[[float], None]:
    """What is called before each step."""

    def callback(share: float) -> None:
        check()
        if time.monotonic() - start > limits.seconds:
            raise InputError(f"stopped after {limits.seconds:g} seconds: choose fewer masks or steps")

    return callback


def _record(segmenter: Segmenter, subject: Subject, order: SegmentRequest, sampling: SamplingConfig) -> Record:
    source = source_of(subject.shown, subject.file)
    return segmenter.record(source, order.samples, order.seed, sampling, rois=order.rois, tile=order.tile)


def check_number(number: Any) -> int:
    """Of a slice, from 1; the first if not given."""
    try:
        found = 1 if number in (None, "") else whole(number)
    except (TypeError, ValueError, OverflowError):
        found = 0
    if found < 1:
        raise InputError("the number of the slice must be a whole number from 1 on")
    return found


def whole(value: Any) -> int:
    """A whole number; `ValueError` for another one, instead of what is left of it."""
    if isinstance(value, float) and not value.is_integer():
        raise ValueError(value)
    return int(value)


def check_threshold(threshold: Any) -> float:
    """As a number between 0 and 1."""
    try:
        value = float(threshold)
    except (TypeError, ValueError):
        value = 0.0
    if not 0 < value < 1:
        raise InputError("the threshold must lie between 0 and 1")
    return value
