"""`manymask segment`: from what a user names, over pictures and their masks, to what is left in the output folder.

OUT/NAME/              one picture: PNG masks and maps, result.json
OUT/SERIES/            what is one in three dimensions: DICOM SEG of a series, NIfTI volumes; a single picture has them
                       in its own folder
Names come from the reader, never from a patient field; with `anonymise` not from file names either.
"""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from manymask.errors import UserError
from manymask.files.anonymise import Anonymiser
from manymask.files.atomic import atomic_folder, write_json
from manymask.files.dicom_seg import segmentations, write_segmentations
from manymask.files.dicomweb import ArchiveSeries, archive_series, is_address
from manymask.files.inputs import Input, find_inputs
from manymask.files.nifti import write_nifti
from manymask.files.picture import DicomFrame, NiftiSlice, Picture
from manymask.files.result import write_result
from manymask.files.window import Window
from manymask.hub import Segmenter
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
    """How it went; `says` gets a line for each thing that did not work."""

    done: int = 0
    failed: int = 0
    stored: int = 0

    def fail(self, error: UserError) -> None:
        self.failed += 1
        print(f"manymask: {error}", file=sys.stderr)


def parse_roi(text: str) -> Point:
    """`X,Y`: column and row of a centre, in pixels from the top left."""
    found = re.fullmatch(r"\s*(\d{1,6})\s*,\s*(\d{1,6})\s*", text)
    if not found:
        raise UserError(f"--roi wants X,Y in whole pixels from the top left, as in --roi 210,145, not {text!r}")
    return int(found[1]), int(found[2])


def find_entries(inputs: Sequence[str]) -> list[Entry]:
    """Files and folders first, then the series of archives; `UserError` for what is not there."""
    addresses = [text for text in inputs if is_address(text)]
    paths = [Path(text) for text in inputs if not is_address(text)]
    found: list[Entry] = [*find_inputs(paths)] if paths or not addresses else []
    return [*found, *map(archive_series, addresses)]


def segment_all(segmenter: Segmenter, entries: Sequence[Entry], request: Request) -> Tally:
    """Segments every picture of every entry. What fails is told and passed over; the rest goes on."""
    tally, free = Tally(), _free_names()
    with tqdm(desc="segment", unit="image", disable=len(entries) == 1 and not hasattr(entries[0], "frames")) as bar:
        for entry in entries:
            pictures: list[Picture] = []
            results: list[Kept] = []
            try:
                for picture, result in _pictures(segmenter, entry, request, tally, free):
                    bar.update()
                    if picture.origin is not None:
                        pictures.append(picture)
                        results.append(result)
                if pictures:
                    _finish(segmenter, entry, pictures, results, request, tally, free)
            except UserError as error:
                tally.fail(error)
    return tally


def _pictures(
    segmenter: Segmenter, entry: Entry, request: Request, tally: Tally, free: Callable[[str], str]
) -> Iterator[tuple[Picture, Kept]]:
    """Segments the pictures of one entry and writes each one's folder."""
    empty = seen = 0
    for picture in _named(entry, request):
        seen += 1
        if picture.origin is not None and picture.pixels.min() == picture.pixels.max():
            empty += 1  # above the head, below the feet: volumes have such slices
            continue
        name = free(picture.name)
        try:
            result = segmenter.segment(
                picture, request.samples, request.seed, request.sampler, request.threshold, request.rois
            )
        except UserError as error:
            label = str(getattr(entry, "path", picture.name))
            tally.fail(error if label in str(error) else UserError(f"{label}: {error}"))
            continue
        maps = (result.masks.numpy(), result.confidence.numpy(), result.consensus.numpy())
        height, width = picture.pixels.shape[:2]
        facts = {
            "width": width, "height": height, "mean_entropy_bits": float(result.entropy.mean()),
            "seconds": result.seconds,
        }  # fmt: skip
        write_result(
            request.out / name, result.image, *maps, _facts(segmenter, picture, request) | facts,
            spacing=picture.spacing, show=request.anonymiser is None,
        )  # fmt: skip
        tally.done += 1
        yield replace(picture, name=name), Kept(maps[0] >= 0.5, maps[1], maps[2])
    if empty and empty == seen:
        raise UserError("every image is flat: all its pixels are equal, there is nothing to segment")
    if empty:
        print(f"{empty} flat slice(s) left out: all their pixels are equal")


def _named(entry: Entry, request: Request) -> Iterator[Picture]:
    """Pictures under names that may be written. File names are the user's own, and often the patient's."""
    for number, picture in enumerate(entry.pictures(request.window), start=1):
        if request.anonymiser is None or isinstance(picture.origin, DicomFrame):
            yield picture
        else:
            yield replace(picture, name=f"image-{number:04}" if picture.origin is None else f"volume-slice-{number:04}")


def _facts(segmenter: Segmenter, picture: Picture, request: Request) -> dict[str, Any]:
    """What is told of the run, in result.json and in the SEG."""
    sampler = request.sampler or getattr(segmenter.model.setting, "sampler", None)
    return {
        "input": picture.name, "model": segmenter.recipe.dataset, "samples": request.samples, "seed": request.seed,
        "threshold": request.threshold, "sampler": to_dict(sampler), "rois": [list(p) for p in request.rois],
    }  # fmt: skip


def _finish(
    segmenter: Segmenter, entry: Entry, pictures: Sequence[Picture], results: Sequence[Kept], request: Request,
    tally: Tally, free: Callable[[str], str],
) -> None:  # fmt: skip
    """SEG or NIfTI of what belongs together: beside the only picture, or in a folder of its own; then to the archive."""
    facts, made = _facts(segmenter, pictures[0], request), list[Any]()

    def fill(folder: Path) -> None:
        if isinstance(pictures[0].origin, NiftiSlice):
            write_nifti(folder, pictures, results)
        else:
            write_segmentations(folder, made)

    if isinstance(pictures[0].origin, DicomFrame):
        made = segmentations(pictures, results, facts, request.anonymiser)
    if len(pictures) == 1:
        fill(request.out / pictures[0].name)
    else:
        whole = re.sub(r"(^|-)(image|slice|frame)-\d+.*$", "", pictures[0].name) or "series"
        with atomic_folder(request.out / free(whole), ours="result.json") as beside:
            fill(beside)
            write_json(beside / "result.json", {**facts, "input": whole, "images": [p.name for p in pictures]})
    if isinstance(entry, ArchiveSeries) and request.store:
        entry.store(made)
        tally.stored += len(made)


def _free_names() -> Callable[[str], str]:
    """A name as it is the first time, with -2, -3 … when it comes again."""
    taken = set[str]()

    def free(name: str) -> str:
        number, candidate = 1, name
        while candidate in taken:
            number += 1
            candidate = f"{name}-{number}"
        taken.add(candidate)
        return candidate

    return free
