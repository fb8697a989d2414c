"""`manymask segment`: from what a user names, over pictures and their masks, to what is left in the output folder.

OUT/NAME/              one picture: PNG masks and maps, result.json
OUT/SERIES/            what is one in three dimensions: DICOM SEG of a series, NIfTI volumes; a single picture has them
                       in its own folder
OUT/summary.csv        a line for each picture, where there are several
A result of another image is never replaced: NAME-2 then stands beside NAME.
Names come from the reader, never from a patient field; with `anonymise` not from file names either.
"""

import errno
import hashlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from manymask.diffusion.sampling import SamplingConfig
from manymask.errors import InputError, ManymaskError
from manymask.inference.cautions import kind
from manymask.inference.outputs import fill_result, put_result
from manymask.inference.preprocess import Point
from manymask.inference.segmenter import Segmentation, Segmenter
from manymask.inference.summary import write_summary
from manymask.io.atomic import working_folder, write_json
from manymask.io.dicom.deidentify import Anonymiser
from manymask.io.dicom.seg import segmentations, write_segmentations
from manymask.io.dicom.series import seen_through
from manymask.io.dicom.web import ArchiveSeries, archive_series, is_address
from manymask.io.image import DicomFrame, Picture
from manymask.io.inputs import Found, Input, Nifti, Raster, find_inputs
from manymask.io.nifti import count_slices, write_nifti
from manymask.io.raster import to_channels
from manymask.io.record import Record, SourceRecord
from manymask.io.window import Window

Entry = Input | ArchiveSeries


@dataclass(frozen=True)
class Request:
    """How to segment and what to leave; see `manymask segment --help`."""

    out: Path
    samples: int = 5
    seed: int = 0
    sampling: SamplingConfig | None = None
    threshold: float = 0.5
    rois: Sequence[Point] = ()
    window: Window | None = None
    anonymiser: Anonymiser | None = None
    store: bool = False
    fractional: bool = False


@dataclass(frozen=True)
class SeriesResult:
    """What is kept of a result until its series is complete."""

    masks: np.ndarray  # (n, H, W) bool
    confidence: np.ndarray  # (H, W) float32
    consensus: np.ndarray  # (H, W) bool
    folder: Path = Path()
    record: Record | None = None
    warnings: tuple[str, ...] = ()


@dataclass
class RunSummary:
    """How it went, counted in images; `incomplete`: series whose images were segmented, but whose SEG or NIfTI could not
    be made or stored; `replaced`: earlier results of the same images. What did not work is said at once, on stderr;
    warnings at the end, each kind once. `worded` is how an error is put into words."""

    done: int = 0
    failed: int = 0
    incomplete: int = 0
    stored: int = 0
    replaced: int = 0
    warned: dict[str, tuple[str, str, int]] = field(default_factory=dict)  # kind → first text, its image, how many
    worded: Callable[[ManymaskError], str] = str

    def fail(self, error: ManymaskError) -> None:
        self.failed += 1
        say(self.worded(error))

    def miss(self, error: ManymaskError) -> None:
        self.incomplete += 1
        say(self.worded(error))

    def warn(self, label: str, warnings: Sequence[str]) -> None:
        for warning in warnings:
            text, first, count = self.warned.get(kind(warning), (warning, label, 0))
            self.warned[kind(warning)] = (text, first, count + 1)

    def close(self) -> None:
        """The warnings: of each kind its first sentence, the first image, and how many there are."""
        for text, first, count in self.warned.values():
            say(f"warning: {first}: {text}" if count == 1 else f"warning: {text} ({count} images: {first}, …)")

    def lines(self, out: Path) -> list[str]:
        """What is said at the end, on stdout."""
        said = [f"{self.done} of {self.done + self.failed} image(s) segmented → {out}"]
        said += [f"{self.replaced} earlier result(s) of the same images replaced"] if self.replaced else []
        said += [f"{self.stored} SEG object(s) stored in the archive"] if self.stored else []
        return said + ([f"{self.incomplete} series got pictures, but no SEG or NIfTI"] if self.incomplete else [])


def say(line: object) -> None:
    """One line to the user, beside the progress bar."""
    tqdm.write(f"manymask: {line}", file=sys.stderr)


def find_entries(inputs: Sequence[str]) -> tuple[list[Entry], Found]:
    """Files and folders first, then the series of archives; and what was found, with its problems and remarks."""
    addresses = [text for text in inputs if is_address(text)]
    paths = [Path(text) for text in inputs if not is_address(text)]
    found, archives = find_inputs(paths) if paths or not addresses else Found(), list[Entry]()
    for address in addresses:
        try:
            archives.append(archive_series(address))
        except ManymaskError as error:
            found.problems.append(str(error))
    return [*found.inputs, *archives], found


def announce(found: Found, tally: RunSummary) -> None:
    """Says what was found and is not segmented, one line each; problems count as failed."""
    for remark in found.remarks:
        say(remark)
    for problem in found.problems:
        tally.fail(InputError(problem))


def segment_all(
    segmenter: Segmenter, entries: Sequence[Entry], request: Request, tally: RunSummary | None = None
) -> RunSummary:
    """Segments every picture of every entry. What fails is told and passed over; the rest goes on, unless nothing more can
    be written: then it stops. OUT/summary.csv at the end tells of all results."""
    with working_folder(request.out):
        pass  # a place that cannot be written is told before anything is drawn
    total = _count(entries)
    alone = len(entries) == 1 and isinstance(entries[0], Raster)
    with tqdm(desc="segment", unit="image", total=total, disable=alone) as bar:
        run = _Run(segmenter, request, tally or RunSummary(), bar)
        try:
            for entry in entries:
                run.segment(entry)
        except _FullError as error:
            run.tally.fail(InputError(f"{error}: stopped, {run.tally.done} of {total or 'the'} image(s) written"))
        finally:
            run.tally.close()
            with suppress(_FullError), _told(say, str(request.out)):
                write_summary(request.out)
    return run.tally


def _count(entries: Sequence[Entry]) -> int | None:
    """How many pictures there are, from headers alone; None where that is not known before."""
    total = 0
    for entry in entries:
        if isinstance(entry, ArchiveSeries):
            return None
        try:
            total += (
                1 if isinstance(entry, Raster) else count_slices(entry.path) if isinstance(entry, Nifti) else len(entry)
            )
        except ManymaskError:
            return None  # said when it is read
    return total


class _FullError(Exception):
    """Nothing more can be written: the disk is full, a quota used up, or the place read-only."""


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@contextmanager
def _told(tell: Callable[[ManymaskError], None], label: str | None) -> Iterator[None]:
    """Whatever goes wrong with one image or one write inside becomes one line; only a full disk ends the run. What was not
    foreseen is named by its kind and place alone, since its text might be the patient's. An error that names no file gets
    `label` before it, where there is one."""
    before = f"{label}: " if label is not None else ""
    try:
        yield
    except ManymaskError as error:
        tell(error if error.path is not None else error.reworded(f"{before}{error}"))
    except OSError as error:
        line = f"{before if error.filename is None else f'{error.filename}: '}{error.strerror or error}"
        if error.errno in _FULL:
            raise _FullError(line) from None
        tell(InputError(line))
    except MemoryError:
        tell(InputError(f"{label or 'this series'} does not fit into memory; scale it down first", path=label))
    except (_FullError, GeneratorExit):
        raise
    except Exception as error:
        if os.environ.get("MANYMASK_DEBUG"):
            raise
        where = traceback.extract_tb(error.__traceback__)[-1]
        tell(
            InputError(
                f"{before}unforeseen {type(error).__name__} at {Path(where.filename).name}:{where.lineno}; please report it",
                path=label,
            )
        )


@dataclass
class _Run:
    """One call of `segment_all`: what is asked, how it goes, which names are taken."""

    segmenter: Segmenter
    request: Request
    tally: RunSummary
    bar: Any
    taken: set[str] = field(default_factory=set)

    def segment(self, entry: Entry) -> None:
        """The pictures of one entry, and what they make together."""
        together: list[tuple[Picture, SeriesResult]] = []
        failed = list[ManymaskError]()
        with _told(failed.append, _label(entry)):
            together = [pair for pair in self.pictures(entry) if pair[0].origin is not None]
        for error in failed:  # half a series makes no volume
            self.tally.fail(error)
        if together and not failed:
            with _told(self.tally.miss, together[0][0].name):
                self.finish(entry, [picture for picture, _ in together], [result for _, result in together])

    def pictures(self, entry: Entry) -> Iterator[tuple[Picture, SeriesResult]]:
        """Segments the pictures of one entry and writes each one's folder."""
        empty, seen = list[str](), 0
        for picture in _named(entry, self.request, self.passed):
            seen += 1
            kept: SeriesResult | None = None
            flat = False
            with _told(self.tally.fail, str(getattr(entry, "path", picture.name))):
                told = seen_through(picture, self.segmenter.recipe.window)
                # above the head, below the feet: volumes have such slices
                flat = picture.origin is not None and bool(told.pixels.min() == told.pixels.max())
                kept = None if flat else self.draw(entry, picture, told)
            empty += [picture.name] if flat else []
            self.bar.update()
            if kept is not None:
                yield replace(picture, name=kept.folder.name).light(), kept
        if empty and len(empty) == seen:
            raise InputError("every image is flat: all its pixels are equal, there is nothing to segment")
        if empty:
            names = ", ".join(empty[:3]) + (" …" if len(empty) > 3 else "")
            say(f"{len(empty)} flat slice(s) left out ({names}): all their pixels are equal")

    def passed(self, error: ManymaskError) -> None:
        """A picture that could not be read."""
        self.bar.update()
        self.tally.fail(error)

    def draw(self, entry: Entry, picture: Picture, told: Picture) -> SeriesResult:
        """One picture's masks, in its own folder."""
        ask = self.request
        result = self.segmenter.segment(
            told, ask.samples, ask.seed, sampling=ask.sampling, threshold=ask.threshold, rois=ask.rois
        )
        assert result.record is not None
        source = result.record.source
        file = entry.path.name if isinstance(entry, (Raster, Nifti)) else None
        source = replace(source, file=file) if ask.anonymiser is None else source.anonymous()
        record = replace(result.record, source=source)
        # no more than the cut masks is kept of them: the probabilities take four times the room
        result = replace(result, masks=result.masks >= 0.5)
        folder = self.write(picture, result, record)
        self.tally.done += 1
        label = str(entry.path) if isinstance(entry, Raster) and ask.anonymiser is None else folder.name
        self.tally.warn(label, result.warnings)
        return SeriesResult(
            result.masks.numpy(), result.confidence.numpy(), result.consensus.numpy(), folder, record, result.warnings
        )

    def write(self, picture: Picture, result: Segmentation, record: Record) -> Path:
        """OUT/NAME: the PNGs and result.json of one picture."""
        height, width = picture.pixels.shape[:2]
        facts = {
            "input": record.source.file or picture.name, **record.facts(), "warnings": list(result.warnings),
            "width": width, "height": height, "mean_entropy_bits": float(result.entropy.mean()),
            "seconds": result.seconds,
        }  # fmt: skip
        maps = (result.masks.numpy(), result.confidence.numpy(), result.consensus.numpy())
        image = to_channels(picture.pixels, self.segmenter.recipe.channels)
        show = self.request.anonymiser is None
        return self.put(
            picture.name, record, lambda folder: fill_result(folder, image, *maps, facts, picture.spacing, show)
        )

    def put(self, name: str, record: Record, fill: Callable[[Path], None]) -> Path:
        """A result in OUT, beside those of other images."""
        placed = put_result(self.request.out, name, record.source, fill, self.taken)
        self.taken.add(placed.path.name)
        self.tally.replaced += placed.replaced
        if placed.occupied is not None:
            say(f"{placed.occupied} holds the result of another image, which stays; this one is in {placed.path}")
        return placed.path

    def finish(self, entry: Entry, pictures: Sequence[Picture], results: Sequence[SeriesResult]) -> None:
        """SEG or NIfTI of what belongs together: beside the only picture, or in a folder; then to the archive."""
        record, made = _together([r.record for r in results if r.record is not None]), list[Any]()
        if isinstance(pictures[0].origin, DicomFrame):
            facts = {"input": pictures[0].name, **record.facts()}
            made = segmentations(pictures, results, facts, self.request.anonymiser, self.request.fractional)

        def fill(folder: Path) -> None:
            if made:
                write_segmentations(folder, made)
            else:
                write_nifti(folder, pictures, results)

        def fill_whole(folder: Path) -> None:
            fill(folder)
            warnings = list(dict.fromkeys(w for result in results for w in result.warnings))
            facts = {"input": record.source.file or whole, **record.facts(), "warnings": warnings}
            write_json(folder / "result.json", facts | {"images": [p.name for p in pictures]})

        if len(pictures) == 1:
            fill(results[0].folder)
        else:
            whole = re.sub(r"(^|-)(image|slice|frame)-\d+.*$", "", pictures[0].name) or "series"
            self.put(whole, record, fill_whole)
        if isinstance(entry, ArchiveSeries) and self.request.store:
            entry.store(made)
            self.tally.stored += len(made)


def _together(records: Sequence[Record]) -> Record:
    """The record of what several pictures make together."""
    uids = tuple(dict.fromkeys(uid for record in records for uid in record.source.sop_instance_uids))
    hashes = hashlib.sha256("".join(record.source.pixels_sha256 for record in records).encode()).hexdigest()
    whole = records[0].source.pixels_sha256 if len(records) == 1 else hashes
    return replace(records[0], source=SourceRecord(records[0].source.file, uids, whole))


def _label(entry: Entry) -> str | None:
    """The file of an entry; None where it has several."""
    path = getattr(entry, "path", None)
    return None if path is None else str(path)


def _named(entry: Entry, request: Request, failed: Callable[[ManymaskError], None]) -> Iterator[Picture]:
    """Pictures under names that may be written. File names are the user's own, and often the patient's."""
    found = entry.pictures(request.window, failed)
    for number, picture in enumerate(found, start=1):
        if request.anonymiser is None or isinstance(picture.origin, DicomFrame):
            yield picture
        else:
            yield replace(picture, name=f"image-{number:04}" if picture.origin is None else f"volume-slice-{number:04}")
