"""`manymask segment`: from files, folders and archives to the results in the output folder.

OUT/NAME/              one picture: PNG masks and maps, result.json
OUT/SERIES/            three-dimensional results: DICOM SEG of a series, NIfTI volumes; a single picture has them
                       in its own folder
OUT/summary.csv        one line per picture, if there are several
A result of another image is never replaced: the new one is then written to NAME-2.
Names never come from a patient field, and with `anonymise` not from file names either.
"""

import hashlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from manymask.diffusion.sampling import SamplingConfig
from manymask.errors import InputError, ManymaskError
from manymask.hub.intended_use import finding
from manymask.inference.cautions import kind
from manymask.inference.failures import FullError, reported
from manymask.inference.outputs import Output, SeriesResult, fill_result, put_result, series_promises
from manymask.inference.preprocess import Point
from manymask.inference.segmentation import Segmentation
from manymask.inference.segmenter import Segmenter
from manymask.inference.summary import write_summary
from manymask.io.atomic import working_folder, write_json
from manymask.io.dicom.deidentify import Anonymiser
from manymask.io.dicom.objects import derived_objects, write_objects
from manymask.io.dicom.series import seen_through
from manymask.io.dicom.web import ArchiveSeries, archive_series, is_address
from manymask.io.image import DicomFrame, ImageSource, Picture
from manymask.io.inputs import FoundInputs, Input, Raster, find_inputs
from manymask.io.nifti import write_nifti
from manymask.io.raster import to_channels
from manymask.io.record import Record, SourceRecord
from manymask.io.window import Window
from manymask.progress import Progress

Entry = Input | ArchiveSeries


@dataclass(frozen=True)
class Request:
    """How to segment and what to write; see `manymask segment --help`.

    Attributes:
        out: output folder.
        samples: number of masks per image.
        seed: of the random numbers.
        sampling: how masks are drawn; the model's default if None.
        threshold: of the consensus, in (0, 1).
        rois: centres of regions of interest, for a model of crops.
        window: intensity window; the model's or the file's own if None.
        anonymiser: for results without file names and patient data.
        store: whether DICOM objects are stored in the archive that the series came from.
        fractional: whether the confidence is also written as a FRACTIONAL SEG.
        alpha: share of the inner and the outer outline; see `Segmenter.outline_alpha`.
    """

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
    alpha: float | None = None


@dataclass
class RunSummary:
    """Counts of a run. Errors are printed at once, on stderr; warnings at the end, each kind once.

    Attributes:
        done: segmented images.
        failed: images that could not be segmented.
        incomplete: series whose images were segmented, but whose SEG or NIfTI could not be made or stored.
        stored: DICOM objects stored in the archive.
        replaced: earlier results of the same images.
        warned: for each kind of warning, its first text, the first image, and how many there are.
        worded: how an error is put into words.
    """

    done: int = 0
    failed: int = 0
    incomplete: int = 0
    stored: int = 0
    replaced: int = 0
    warned: dict[str, tuple[str, str, int]] = field(default_factory=dict)
    worded: Callable[[ManymaskError], str] = str

    def fail(self, error: ManymaskError) -> None:
        """Count and print an image that could not be segmented."""
        self.failed += 1
        say(self.worded(error))

    def miss(self, error: ManymaskError) -> None:
        """Count and print a series without SEG or NIfTI."""
        self.incomplete += 1
        say(self.worded(error))

    def warn(self, label: str, warnings: Sequence[str]) -> None:
        """Note the warnings of one image, which `label` names."""
        for warning in warnings:
            text, first, count = self.warned.get(kind(warning), (warning, label, 0))
            self.warned[kind(warning)] = (text, first, count + 1)

    def close(self) -> None:
        """Print the warnings: for each kind the first sentence, the first image, and how many there are."""
        for text, first, count in self.warned.values():
            say(f"warning: {first}: {text}" if count == 1 else f"warning: {text} ({count} images: {first}, …)")

    def lines(self, out: Path) -> list[str]:
        """The lines for stdout at the end."""
        said = [f"{self.done} of {self.done + self.failed} image(s) segmented → {out}"]
        if self.replaced:
            said.append(f"{self.replaced} earlier result(s) of the same images replaced")
        if self.stored:
            said.append(f"{self.stored} DICOM object(s) stored in the archive")
        if self.incomplete:
            said.append(f"{self.incomplete} series got pictures, but no SEG or NIfTI")
        return said


def say(line: object) -> None:
    """Print one line on stderr without breaking the progress bar."""
    tqdm.write(f"manymask: {line}", file=sys.stderr)


def find_entries(inputs: Sequence[str]) -> tuple[list[Entry], FoundInputs]:
    """Find what to segment.

    Args:
        inputs: paths of files and folders, and addresses of series in DICOMweb archives.

    Returns:
        The entries, files and folders first, and what was found in these, with problems and remarks.
    """
    addresses = [text for text in inputs if is_address(text)]
    paths = [Path(text) for text in inputs if not is_address(text)]
    found = find_inputs(paths) if paths or not addresses else FoundInputs()
    archives: list[Entry] = []
    for address in addresses:
        try:
            archives.append(archive_series(address))
        except ManymaskError as error:
            found.problems.append(str(error))
    return [*found.inputs, *archives], found


def announce(found: FoundInputs, tally: RunSummary) -> None:
    """Print what was found and is not segmented, one line each; problems count as failed."""
    for remark in found.remarks:
        say(remark)
    for problem in found.problems:
        tally.fail(InputError(problem))


def segment_all(
    segmenter: Segmenter, entries: Sequence[Entry], request: Request, tally: RunSummary | None = None
) -> RunSummary:
    """Segment every picture of every entry.

    Errors of single pictures are printed and the run goes on. It stops only if nothing more can be written. OUT/summary.csv
    lists all results at the end.

    Args:
        segmenter: the model.
        entries: as returned by `find_entries`.
        request: how to segment and what to write.
        tally: counts to continue, those of `announce` for example.

    Returns:
        The counts.

    Raises:
        InputError: OUT cannot be written, or there are no outlines for the requested share.
    """
    return carry_out(Run(segmenter, request, tally or RunSummary()), entries)


def carry_out(run: "Run", entries: Sequence[Entry]) -> RunSummary:
    """Segment every picture of every entry, as `segment_all` says."""
    record = run.segmenter.record(SourceRecord(), run.request.samples, sampling=run.request.sampling)
    run.request = replace(run.request, alpha=run.segmenter.outline_alpha(run.request.alpha, record))
    with working_folder(run.request.out):
        pass  # a folder that cannot be written is reported before anything is drawn
    total = _count(entries)
    alone = len(entries) == 1 and isinstance(entries[0], Raster)
    with Progress(desc="segment", unit="image", total=total, disable=alone) as run.bar:
        try:
            for entry in entries:
                run.segment(entry)
            run.complete = True
        except FullError as error:
            run.tally.fail(InputError(f"{error}: stopped, {run.tally.done} of {total or 'the'} image(s) written"))
        finally:
            run.tally.close()
            with suppress(FullError), reported(say, str(run.request.out)):
                run.close()
    return run.tally


def _count(entries: Sequence[ImageSource]) -> int | None:
    """The number of pictures, from headers alone; None if that is not known in advance."""
    try:
        counts = [entry.count() for entry in entries]
    except ManymaskError:
        return None  # reported when the file is read
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


@dataclass
class Run:
    """One call of `segment_all`.

    Attributes:
        segmenter: the model.
        request: how to segment and what to write.
        tally: the counts.
        bar: shows the progress, a tqdm.
        taken: names of folders in OUT that this run has used.
        complete: whether all entries were gone through.
    """

    segmenter: Segmenter
    request: Request
    tally: RunSummary
    bar: Any = None
    taken: set[str] = field(default_factory=set)
    complete: bool = False

    def close(self) -> None:
        """What is written at the end, also of a run that was interrupted: OUT/summary.csv."""
        write_summary(self.request.out)

    def segment(self, entry: Entry) -> None:
        """The pictures of one entry, and the series or volume that they form."""
        together: list[tuple[Picture, SeriesResult]] = []
        failed: list[ManymaskError] = []
        with reported(failed.append, _label(entry)):
            together = [pair for pair in self.pictures(entry) if pair[0].origin is not None]
        for error in failed:  # half a series makes no volume
            self.tally.fail(error)
        if together and not failed:
            with reported(self.tally.miss, together[0][0].name):
                self.finish(entry, [picture for picture, _ in together], [result for _, result in together])

    def pictures(self, entry: Entry) -> Iterator[tuple[Picture, SeriesResult]]:
        """Segment the pictures of one entry and write the folder of each."""
        empty: list[str] = []
        count = 0
        for picture in _named(entry, self.request, self.passed):
            count += 1
            kept: SeriesResult | None = None
            with reported(self.tally.fail, str(getattr(entry, "path", picture.name))):
                windowed = seen_through(picture, self.segmenter.recipe.window)
                # above the head, below the feet: volumes have such slices
                if picture.origin is not None and windowed.pixels.min() == windowed.pixels.max():
                    empty.append(picture.name)
                else:
                    kept = self.draw(entry, picture, windowed)
            self.bar.update()
            if kept is not None:
                yield replace(picture, name=kept.folder.name).light(), kept
        if empty and len(empty) == count:
            raise InputError("every image is flat: all its pixels are equal, there is nothing to segment")
        if empty:
            names = ", ".join(empty[:3]) + (" …" if len(empty) > 3 else "")
            say(f"{len(empty)} flat slice(s) left out ({names}): all their pixels are equal")

    def passed(self, error: ManymaskError) -> None:
        """Count a picture that could not be read."""
        self.bar.update()
        self.tally.fail(error)

    def draw(self, entry: Entry, picture: Picture, windowed: Picture) -> SeriesResult:
        """The masks of one picture, which `windowed` shows through the model's window, written to its own folder."""
        ask = self.request
        result = self.segmenter.segment(
            windowed, ask.samples, ask.seed, sampling=ask.sampling, threshold=ask.threshold, rois=ask.rois
        )
        assert result.record is not None
        source = result.record.source
        file = entry.file
        source = replace(source, file=file) if ask.anonymiser is None else source.anonymous()
        record = replace(result.record, source=source)
        # only the thresholded masks are kept: probabilities take four times the memory
        result = replace(result, masks=result.masks >= 0.5, record=record)
        output = self.output(picture, result)
        folder = self.put(picture.name, record, lambda folder: fill_result(folder, output))
        self.tally.done += 1
        label = str(entry.path) if isinstance(entry, Raster) and ask.anonymiser is None else folder.name
        self.tally.warn(label, result.warnings)
        return SeriesResult.of(output, folder)

    def output(self, picture: Picture, result: Segmentation) -> Output:
        """What is written of one picture."""
        record = result.record
        assert record is not None
        height, width = picture.pixels.shape[:2]
        facts = {
            "input": record.source.file or picture.name, **record.facts(), "warnings": list(result.warnings),
            "width": width, "height": height, "mean_entropy_bits": float(result.entropy.mean()),
            "seconds": result.seconds,
        }  # fmt: skip
        image = to_channels(picture.pixels, self.segmenter.recipe.channels)
        return Output(result, image, facts, picture.spacing, self.request.alpha, show=self.request.anonymiser is None)

    def put(self, name: str, record: Record, fill: Callable[[Path], None]) -> Path:
        """Put a result in OUT, beside those of other images."""
        placed = put_result(self.request.out, name, record.source, fill, self.taken)
        self.taken.add(placed.path.name)
        self.tally.replaced += placed.replaced
        if placed.occupied is not None:
            say(f"{placed.occupied} holds the result of another image, which stays; this one is in {placed.path}")
        return placed.path

    def finish(self, entry: Entry, pictures: Sequence[Picture], results: Sequence[SeriesResult]) -> None:
        """Write SEG or NIfTI of a series, beside its only picture or in a separate folder, and store it in the archive."""
        record = _together([r.record for r in results if r.record is not None])
        made: list[Any] = []
        if isinstance(pictures[0].origin, DicomFrame):
            facts = {"input": pictures[0].name, **record.facts()}
            shown, request = finding(self.segmenter.recipe.dataset), self.request
            made = derived_objects(pictures, results, facts, request.anonymiser, request.fractional, shown)

        def fill(folder: Path) -> None:
            if made:
                write_objects(folder, made)
            else:
                write_nifti(folder, pictures, results)

        def fill_whole(folder: Path) -> None:
            fill(folder)
            warnings = list(dict.fromkeys(w for result in results for w in result.warnings))
            names = [p.name for p in pictures]
            facts = {"input": record.source.file or whole, **record.facts(), "warnings": warnings, "images": names}
            promises = series_promises(names, results, self.segmenter.trained.calibration)
            write_json(folder / "result.json", facts | {"promises": promises})

        if len(pictures) == 1:
            fill(results[0].folder)
        else:
            whole = re.sub(r"(^|-)(image|slice|frame)-\d+.*$", "", pictures[0].name) or "series"
            self.put(whole, record, fill_whole)
        if isinstance(entry, ArchiveSeries) and self.request.store:
            entry.store(made)
            self.tally.stored += len(made)


def _together(records: Sequence[Record]) -> Record:
    """The record of the series that several pictures form."""
    uids = tuple(dict.fromkeys(uid for record in records for uid in record.source.sop_instance_uids))
    hashes = hashlib.sha256("".join(record.source.pixels_sha256 for record in records).encode()).hexdigest()
    whole = records[0].source.pixels_sha256 if len(records) == 1 else hashes
    return replace(records[0], source=SourceRecord(records[0].source.file, uids, whole))


def _label(entry: Entry) -> str | None:
    """The file of an entry; None if it has several."""
    path = getattr(entry, "path", None)
    return None if path is None else str(path)


def _named(entry: Entry, request: Request, failed: Callable[[ManymaskError], None]) -> Iterator[Picture]:
    """Pictures under names that may be written: file names may hold a patient's name."""
    found = entry.pictures(request.window, failed)
    for number, picture in enumerate(found, start=1):
        if request.anonymiser is None or isinstance(picture.origin, DicomFrame):
            yield picture
        else:
            yield replace(picture, name=f"image-{number:04}" if picture.origin is None else f"volume-slice-{number:04}")
