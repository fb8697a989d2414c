"""`manymask segment`: from what a user names, over pictures and their masks, to what is left in the output folder.

OUT/NAME/              one picture: PNG masks and maps, result.json
OUT/SERIES/            what is one in three dimensions: DICOM SEG of a series, NIfTI volumes; a single picture has them
                       in its own folder
Names come from the reader, never from a patient field; with `anonymise` not from file names either.
"""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from manymask.errors import UserError
from manymask.files.anonymise import Anonymiser
from manymask.files.atomic import atomic_folder, write_json
from manymask.files.dicom import seen_through
from manymask.files.dicom_seg import segmentations, write_segmentations
from manymask.files.dicomweb import ArchiveSeries, archive_series, is_address
from manymask.files.inputs import Found, Input, Raster, find_inputs
from manymask.files.nifti import write_nifti
from manymask.files.picture import DicomFrame, Picture
from manymask.files.raster import to_channels
from manymask.files.result import write_result
from manymask.files.window import Window
from manymask.hub import Segmentation, Segmenter
from manymask.regions import Point
from manymask.samplers import Sampler
from manymask.settings import to_dict

Entry = Input | ArchiveSeries


@dataclass(frozen=True)
class Request:
    """How to segment and what to leave; see `manymask segment --help`."""

    out: Path
    samples: int = 5
    seed: int = 0
    sampler: Sampler | None = None
    threshold: float = 0.5
    rois: Sequence[Point] = ()
    window: Window | None = None
    anonymiser: Anonymiser | None = None
    store: bool = True


@dataclass(frozen=True)
class Kept:
    """What is kept of a result until its series is complete."""

    masks: np.ndarray  # (n, H, W) bool
    confidence: np.ndarray  # (H, W) float32
    consensus: np.ndarray  # (H, W) bool


@dataclass
class Tally:
    """How it went, counted in images; `incomplete`: series whose images were segmented, but whose SEG or NIfTI could not
    be made or stored. What did not work is said at once, on stderr."""

    done: int = 0
    failed: int = 0
    incomplete: int = 0
    stored: int = 0

    def fail(self, error: UserError) -> None:
        self.failed += 1
        _say(error)

    def miss(self, error: UserError) -> None:
        self.incomplete += 1
        _say(error)


def _say(error: UserError) -> None:
    tqdm.write(f"manymask: {error}", file=sys.stderr)


def parse_roi(text: str) -> Point:
    """`X,Y`: column and row of a centre, in pixels from the top left."""
    found = re.fullmatch(r"\s*(\d{1,6})\s*,\s*(\d{1,6})\s*", text)
    if not found:
        raise UserError(f"--roi wants X,Y in whole pixels from the top left, as in --roi 210,145, not {text!r}")
    return int(found[1]), int(found[2])


def find_entries(inputs: Sequence[str]) -> tuple[list[Entry], Found]:
    """Files and folders first, then the series of archives; and what was found, with its problems and remarks."""
    addresses = [text for text in inputs if is_address(text)]
    paths = [Path(text) for text in inputs if not is_address(text)]
    found = find_inputs(paths) if paths or not addresses else Found()
    return [*found.inputs, *map(archive_series, addresses)], found


def announce(found: Found, tally: Tally) -> None:
    """Says what was found and is not segmented, one line each; problems count as failed."""
    for remark in found.remarks:
        tqdm.write(f"manymask: {remark}", file=sys.stderr)
    for problem in found.problems:
        tally.fail(UserError(problem))


def segment_all(segmenter: Segmenter, entries: Sequence[Entry], request: Request, tally: Tally | None = None) -> Tally:
    """Segments every picture of every entry. What fails is told and passed over; the rest goes on."""
    run = _Run(segmenter, request, tally or Tally())
    with tqdm(desc="segment", unit="image", disable=len(entries) == 1 and isinstance(entries[0], Raster)) as bar:
        for entry in entries:
            together: list[tuple[Picture, Kept]] = []
            try:
                for picture, result in run.pictures(entry):
                    bar.update()
                    if picture.origin is not None:
                        together.append((picture, result))
            except UserError as error:
                run.tally.fail(error)
                continue  # half a series makes no volume
            try:
                if together:
                    run.finish(entry, [picture for picture, _ in together], [result for _, result in together])
            except UserError as error:
                run.tally.miss(error)
    return run.tally


@dataclass
class _Run:
    """One call of `segment_all`: what is asked, how it goes, which names are taken."""

    segmenter: Segmenter
    request: Request
    tally: Tally = field(default_factory=Tally)
    taken: set[str] = field(default_factory=set)

    def pictures(self, entry: Entry) -> Iterator[tuple[Picture, Kept]]:
        """Segments the pictures of one entry and writes each one's folder."""
        ask, empty, seen = self.request, 0, 0
        for picture in _named(entry, ask, self.tally.fail):
            seen += 1
            told = seen_through(picture, self.segmenter.recipe.window)
            if picture.origin is not None and told.pixels.min() == told.pixels.max():
                empty += 1  # above the head, below the feet: volumes have such slices
                continue
            name = self.free(picture.name)
            picture, told = replace(picture, name=name), replace(told, name=name)
            try:
                result = self.segmenter.segment(told, ask.samples, ask.seed, ask.sampler, ask.threshold, ask.rois)
            except UserError as error:
                label = str(getattr(entry, "path", picture.name))
                self.tally.fail(error if label in str(error) else UserError(f"{label}: {error}"))
                continue
            self.write(entry, picture, result)
            self.tally.done += 1
            drawn = result.masks.numpy() >= 0.5
            yield picture, Kept(drawn, result.confidence.numpy(), result.consensus.numpy())
        if empty and empty == seen:
            raise UserError("every image is flat: all its pixels are equal, there is nothing to segment")
        if empty:
            tqdm.write(f"{empty} flat slice(s) left out: all their pixels are equal")

    def write(self, entry: Entry, picture: Picture, result: Segmentation) -> None:
        """OUT/NAME: the PNGs and result.json of one picture."""
        height, width = picture.pixels.shape[:2]
        known = getattr(entry, "path", None) if self.request.anonymiser is None else None
        facts = self.facts(known.name if known else picture.name) | {
            "width": width, "height": height, "mean_entropy_bits": float(result.entropy.mean()),
            "seconds": result.seconds,
        }  # fmt: skip
        maps = (result.masks.numpy(), result.confidence.numpy(), result.consensus.numpy())
        show = self.request.anonymiser is None
        image = to_channels(picture.pixels, self.segmenter.recipe.channels)
        write_result(self.request.out / picture.name, image, *maps, facts, picture.spacing, show)

    def finish(self, entry: Entry, pictures: Sequence[Picture], results: Sequence[Kept]) -> None:
        """SEG or NIfTI of what belongs together: beside the only picture, or in a folder; then to the archive."""
        made = list[Any]()
        if isinstance(pictures[0].origin, DicomFrame):
            made = segmentations(pictures, results, self.facts(pictures[0].name), self.request.anonymiser)

        def fill(folder: Path) -> None:
            if made:
                write_segmentations(folder, made)
            else:
                write_nifti(folder, pictures, results)

        if len(pictures) == 1:
            fill(self.request.out / pictures[0].name)
        else:
            whole = self.free(re.sub(r"(^|-)(image|slice|frame)-\d+.*$", "", pictures[0].name) or "series")
            with atomic_folder(self.request.out / whole, ours="result.json") as beside:
                fill(beside)
                write_json(beside / "result.json", self.facts(whole) | {"images": [p.name for p in pictures]})
        if isinstance(entry, ArchiveSeries) and self.request.store:
            entry.store(made)
            self.tally.stored += len(made)

    def facts(self, name: str) -> dict[str, Any]:
        """What is told of the run, in result.json and in the SEG."""
        ask = self.request
        sampler = ask.sampler or getattr(self.segmenter.model.setting, "sampler", None)
        return {"input": name, "model": self.segmenter.recipe.dataset, "samples": ask.samples, "seed": ask.seed,
                "threshold": ask.threshold, "sampler": to_dict(sampler), "rois": [list(p) for p in ask.rois]}  # fmt: skip

    def free(self, name: str) -> str:
        """The name as it is the first time, with -2, -3 … when it comes again."""
        number, candidate = 1, name
        while candidate in self.taken:
            number += 1
            candidate = f"{name}-{number}"
        self.taken.add(candidate)
        return candidate


def _named(entry: Entry, request: Request, failed: Callable[[UserError], None]) -> Iterator[Picture]:
    """Pictures under names that may be written. File names are the user's own, and often the patient's."""
    found = entry.pictures(request.window, failed)
    for number, picture in enumerate(found, start=1):
        if request.anonymiser is None or isinstance(picture.origin, DicomFrame):
            yield picture
        else:
            yield replace(picture, name=f"image-{number:04}" if picture.origin is None else f"volume-slice-{number:04}")
