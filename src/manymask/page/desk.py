"""What the server does for the page and its callers: opens what was dropped, draws, packs. No Gradio in here."""

import re
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from manymask.choices import SamplerName
from manymask.consensus import fuse
from manymask.errors import UserError
from manymask.files.dicom_seg import segmentations, write_segmentations
from manymask.files.inputs import Input, Nifti, Raster, find_inputs
from manymask.files.nifti import count_slices, write_nifti
from manymask.files.picture import DicomFrame, NiftiSlice, Picture
from manymask.files.raster import claimed_size, to_channels
from manymask.files.result import write_result
from manymask.files.source import source_of
from manymask.files.window import NAMED, parse_window
from manymask.hub import Segmentation, Segmenter
from manymask.page.scene import Scene
from manymask.regions import Point, View
from manymask.samplers import Sampler, choose

Form = Literal["PNG", "DICOM SEG", "NIfTI"]
WINDOWS = ("as the file says", *NAMED, "full")


@dataclass(frozen=True)
class Limits:
    """What one visitor may ask for: megabytes a file and in one upload, files, million pixels an image, masks, regions,
    seconds of drawing; and how many may wait in line."""

    upload: int = 200
    at_once: int = 1000
    files: int = 1000
    megapixels: float = 25
    masks: int = 16
    regions: int = 8
    seconds: float = 300
    waiting: int = 20


@dataclass(frozen=True)
class Order:
    """What is to be drawn."""

    samples: int = 5
    seed: int = 0
    sampler: SamplerName | None = None
    steps: int | None = None
    rois: tuple[Point, ...] = ()


@dataclass(frozen=True)
class Opened:
    """What was dropped: its pictures, of which one is decoded at a time."""

    entries: tuple[Input, ...]
    counts: tuple[int, ...]

    def __len__(self) -> int:
        return sum(self.counts)

    def picture(self, number: int, window: str) -> Picture:
        """Picture `number`, counted from 1, through a window of `WINDOWS` (or `CENTRE,WIDTH`)."""
        if not 1 <= number <= len(self):
            raise UserError(f"there is no slice {number}: the file has {len(self)}")
        chosen = parse_window("header" if window in ("", WINDOWS[0]) else window)
        place = number - 1
        for entry, count in zip(self.entries, self.counts, strict=True):
            if place < count:
                if isinstance(entry, Raster):
                    return next(entry.pictures(chosen))
                if isinstance(entry, Nifti):
                    return next(entry.pictures(chosen, first=place))
                return next(replace(entry, frames=entry.frames[place : place + 1]).pictures(chosen))
            place -= count
        raise AssertionError


@dataclass(frozen=True)
class Drawing:
    """A finished drawing, kept small until it is asked for: `drawn` (regions, n, S, S) at the model's size."""

    picture: Picture
    view: View
    drawn: Tensor
    facts: Mapping[str, Any]

    def result(self, threshold: float) -> Segmentation:
        """At the image's own size, cut at `threshold`."""
        masks = self.view.paste(self.drawn)
        return Segmentation(**vars(fuse(masks, threshold)), masks=masks, image=self.view.image,
                            seconds=dict(self.facts["seconds"]), regions=self.view.regions)  # fmt: skip

    def forms(self) -> tuple[Form, ...]:
        """What it can be saved as, the most fitting first."""
        if isinstance(self.picture.origin, DicomFrame):
            return ("DICOM SEG", "PNG")
        return ("NIfTI", "PNG") if isinstance(self.picture.origin, NiftiSlice) else ("PNG",)


def open_files(paths: Sequence[Path], limits: Limits) -> Opened:
    """From names and headers alone (of NIfTI, a slice is read)."""
    if not paths:
        raise UserError("choose an image first")
    if len(paths) > limits.files:
        raise UserError(f"these are {len(paths)} files; give at most {limits.files}")
    found = find_inputs(paths)
    for problem in found.problems:
        raise UserError(problem)
    entries = found.inputs
    for entry in entries:
        if isinstance(entry, Raster):
            claim = claimed_size(entry.path)
            check_size(claim.height, claim.width, limits)
    return Opened(tuple(entries), tuple(_count(entry) for entry in entries))


def _count(entry: Input) -> int:
    if isinstance(entry, Raster):
        return 1
    if isinstance(entry, Nifti):
        return count_slices(entry.path)
    return len(entry)


def check_picture(picture: Picture, limits: Limits) -> Picture:
    """The same picture, refused if it is larger than this server takes."""
    height, width = picture.pixels.shape[:2]
    check_size(height, width, limits)
    return picture


def check_size(height: int, width: int, limits: Limits) -> None:
    """`UserError` for an image larger than this server takes."""
    if height * width > limits.megapixels * 1e6:
        raise UserError(f"the image has {width}×{height} pixels; this server takes up to {limits.megapixels:g} million")


def preview(segmenter: Segmenter, picture: Picture) -> Scene:
    """The picture alone."""
    colour = 3 if picture.pixels.ndim == 3 and picture.pixels.shape[2] > 1 else 1
    crop = segmenter.recipe.size if segmenter.recipe.crop else 0
    return Scene(to_channels(picture.pixels, colour), picture.name, picture.spacing, crop)


def read_points(text: str, limits: Limits) -> tuple[Point, ...]:
    """`120,80; 40,200` as centres of regions of interest."""
    points = []
    for part in re.split(r"[;\n]", text or ""):
        if not part.strip():
            continue
        numbers = re.fullmatch(r"\s*(-?\d{1,6})\s*[, ]\s*(-?\d{1,6})\s*", part)
        if numbers is None:
            raise UserError(f"{part.strip()[:40]!r} is no region: write X,Y in pixels, several with ; between them")
        points.append((int(numbers[1]), int(numbers[2])))
    if len(points) > limits.regions:
        raise UserError(f"these are {len(points)} regions; give at most {limits.regions}")
    return tuple(points)


def check_order(order: Order, picture: Picture, segmenter: Segmenter, limits: Limits) -> Sampler | None:
    """The sampler; `UserError` for more than this server does for one visitor."""
    if not 1 <= order.samples <= limits.masks:
        raise UserError(f"choose 1 to {limits.masks} masks, not {order.samples}")
    if order.samples * picture.pixels.shape[0] * picture.pixels.shape[1] > 1 << 28:
        raise UserError("so many masks of so large an image do not fit into memory: choose fewer, or scale it down")
    try:
        return choose(order.sampler, order.steps, segmenter.model)
    except UserError as error:
        raise UserError(str(error).removeprefix("--")) from None


def draw(
    segmenter: Segmenter, shown: Picture, picture: Picture, order: Order, limits: Limits
) -> Iterator[tuple[Scene, float, Drawing | None]]:
    """The scene after every mask, with the share that is done; the last time with the finished drawing.

    shown and picture: the same image through the window that people and the model see it by.
    """
    sampler = check_order(order, picture, segmenter, limits)
    start = time.monotonic()
    view = segmenter.look(picture, order.rois)
    scene = replace(preview(segmenter, shown), total=order.samples, regions=view.regions)
    yield scene, 0.0, None

    def watch(share: float) -> None:
        if time.monotonic() - start > limits.seconds:
            raise UserError(f"stopped after {limits.seconds:g} seconds: choose fewer masks or steps")

    parts, total = list[Tensor](), torch.zeros(view.image.shape[:2])
    for part in segmenter.draw(view, order.samples, order.seed, sampler, watch=watch):
        mask = view.paste(part)[0]
        parts.append(part)
        total += mask
        scene.add(mask)
        yield scene, len(parts) / order.samples, None
    drawn = torch.cat(parts, dim=1)
    seconds = time.monotonic() - start
    scene.finish(total / order.samples, (drawn >= 0.5).transpose(0, 1).numpy(), seconds)
    height, width = view.image.shape[:2]
    record = segmenter.record(source_of(shown), order.samples, order.seed, sampler, rois=order.rois)
    found = segmenter.answer(picture, view, view.paste(drawn), record, {"total": round(seconds, 3)})
    facts = {"input": picture.name, **record.facts(), "warnings": list(found.warnings), "width": width, "height": height,
             "spacing": picture.spacing, "seconds": found.seconds}  # fmt: skip
    drawing = Drawing(shown, view, drawn, facts)
    scene.forms = drawing.forms()
    yield scene, 1.0, drawing


def check_number(number: Any) -> int:
    """Of a slice, from 1; the first if not given."""
    try:
        return int(number or 1)
    except (TypeError, ValueError, OverflowError):
        raise UserError("the number of the slice must be a whole number") from None


def check_threshold(threshold: Any) -> float:
    """As a number between 0 and 1."""
    try:
        value = float(threshold)
    except (TypeError, ValueError):
        value = 0.0
    if not 0 < value < 1:
        raise UserError("the threshold must lie between 0 and 1")
    return value


def pack(drawing: Drawing, threshold: float, form: Form, folder: Path) -> Path:
    """A ZIP of everything in `folder`, named after the image: masks, consensus, confidence, overlay, result.json; and
    the same as NIfTI or DICOM SEG, if asked for."""
    threshold = check_threshold(threshold)
    if form not in drawing.forms():
        raise UserError(f"{form} needs another source; this one is saved as {' or '.join(drawing.forms())}")
    found = drawing.result(threshold)
    facts = {**drawing.facts, "threshold": threshold, "mean_entropy_bits": float(found.entropy.mean())}
    name = re.sub(r"[^\w.-]+", "_", drawing.picture.name)[:80].strip("._") or "image"
    with tempfile.TemporaryDirectory(dir=folder) as work:
        inside = Path(work) / name
        maps = (found.masks.numpy(), found.confidence.numpy(), found.consensus.numpy())
        image = to_channels(drawing.picture.pixels, found.image.shape[2])
        write_result(inside, image, *maps, facts, drawing.picture.spacing)
        if form == "NIfTI":
            write_nifti(inside, [drawing.picture], [found])
        elif form == "DICOM SEG":
            write_segmentations(inside, segmentations([drawing.picture], [found], facts))
        archive = folder / f"{name}.zip"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
            for path in sorted(inside.iterdir()):
                file.write(path, f"{name}/{path.name}")
    return archive
