"""`manymask segment`: from files, folders and archives to the results in the output folder.

OUT/NAME/              one picture: PNG masks and maps, result.json
OUT/SERIES/            three-dimensional results: DICOM SEG of a series, NIfTI volumes; a single picture has them
                       in its own folder
OUT/summary.csv        one line per picture and series
A result of another image is never replaced: the new one is then written to NAME-2.
Names never come from a patient field, and with `anonymise` not from file names either.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from manymask.choices import Form
from manymask.diffusion.sampling import SamplingConfig
from manymask.errors import InputError, ManymaskError
from manymask.hub.intended_use import finding
from manymask.inference.earlier import EarlierResults, read_result
from manymask.inference.entries import Entry
from manymask.inference.failures import FullError, reported
from manymask.inference.outputs import Output, SeriesResult, fill_result, put_result
from manymask.inference.preprocess import Point
from manymask.inference.segmentation import Segmentation
from manymask.inference.segmenter import Segmenter
from manymask.inference.series import Whole, complete, forms_of, series_name, together, whole_source
from manymask.inference.summary import write_summary
from manymask.inference.tally import RunSummary, say
from manymask.inference.volumes import volume_records
from manymask.io.atomic import working_folder, write_json
from manymask.io.dicom.deidentify import Anonymiser
from manymask.io.dicom.objects import derived_objects
from manymask.io.dicom.series import Series, seen_through
from manymask.io.dicom.web import ArchiveSeries
from manymask.io.image import DicomFrame, ImageSource, Picture
from manymask.io.inputs import Raster
from manymask.io.raster import to_channels
from manymask.io.record import Record, SourceRecord
from manymask.io.source import source_of
from manymask.io.window import Window
from manymask.progress import Progress


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
        forms: what is written; PNG and the form of the input if empty.
        resume: whether results of an earlier run stay if they would be drawn again in the same way.
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
    forms: tuple[Form, ...] = ()
    resume: bool = False

    def output(self) -> dict[str, Any]:
        """What was requested beside the settings of `Record`, as in result.json."""
        return {
            "forms": sorted(self.forms),
            "window": None if self.window is None else asdict(self.window),
            "alpha": self.alpha,
            "anonymised": self.anonymiser is not None,
            "fractional": self.fractional,
        }


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
    ask = run.request
    record = run.segmenter.record(SourceRecord(), ask.samples, ask.seed, ask.sampling, ask.threshold, ask.rois)
    run.request = replace(run.request, alpha=run.segmenter.outline_alpha(run.request.alpha, record))
    with working_folder(run.request.out):
        pass  # a folder that cannot be written is reported before anything is drawn
    total = _count(entries)
    alone = len(entries) == 1 and isinstance(entries[0], Raster)
    if run.request.resume:
        run.earlier = run.results_of_before(record)
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
        earlier: results that stay as they are; None if all are drawn.
    """

    segmenter: Segmenter
    request: Request
    tally: RunSummary
    bar: Any = None
    taken: set[str] = field(default_factory=set)
    complete: bool = False
    earlier: EarlierResults | None = None

    def results_of_before(self, record: Record) -> EarlierResults:
        """The results in OUT that this run would draw again in the same way."""
        calibration = None if self.segmenter.uncalibrated(record) else self.segmenter.trained.calibration
        asked, png = self.request.output(), self.pictures_written

        def fits(found: Mapping[str, Any], folder: Path) -> bool:
            masks = range(1, len(found.get("areas", ())) + 1 if png else 1)
            return found.get("output") == asked and all((folder / f"mask-{k:02}.png").exists() for k in masks)

        return EarlierResults(self.request.out, record, calibration, fits)

    def close(self) -> None:
        """What is written at the end, also of a run that was interrupted: OUT/summary.csv."""
        write_summary(self.request.out)

    def segment(self, entry: Entry) -> None:
        """The pictures of one entry, and the series or volume that they form."""
        if self.reuse(entry):
            return
        drawn: list[tuple[Picture, SeriesResult]] = []
        failed: list[ManymaskError] = []
        with reported(failed.append, _label(entry)):
            drawn = [pair for pair in self.pictures(entry) if pair[0].origin is not None]
        for error in failed:  # half a series makes no volume
            self.tally.fail(error)
        if drawn and not failed:
            with reported(self.tally.miss, drawn[0][0].name):
                self.finish(entry, [picture for picture, _ in drawn], [result for _, result in drawn])

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
        forms = forms_of(picture, ask.forms)
        result = self.segmenter.segment(
            windowed, ask.samples, ask.seed, sampling=ask.sampling, threshold=ask.threshold, rois=ask.rois
        )
        assert result.record is not None
        record = replace(result.record, source=self.source(entry, result.record.source))
        result = replace(result, record=record)
        output = self.output(entry, picture, result)
        if "png" in forms:
            folder = self.put(picture.name, record, lambda folder: fill_result(folder, output))
            kept = SeriesResult.of(output, folder)
        else:  # written with its series, or as a whole at the end
            folder = Path(picture.name)
            kept = replace(SeriesResult.of(output, folder), content=output.content())
        self.tally.done += 1
        label = str(entry.path) if isinstance(entry, Raster) and ask.anonymiser is None else folder.name
        self.tally.warn(label, result.warnings)
        return kept

    def named(self, entry: Entry) -> str | None:
        """How the input is called: the path of its file below the folder that was given; None if it has no name to write."""
        if self.request.anonymiser is not None or entry.file is None or isinstance(entry, (Series, ArchiveSeries)):
            return None
        return entry.path.relative_to(entry.under).as_posix() if entry.under else entry.file

    def output(self, entry: Entry, picture: Picture, result: Segmentation) -> Output:
        """What is written of one picture."""
        record = result.record
        assert record is not None
        height, width = picture.pixels.shape[:2]
        facts = {
            "input": self.named(entry) or picture.name, **record.facts(), "output": self.request.output(),
            "warnings": list(result.warnings),
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
        record = together([r.record for r in results if r.record is not None])
        forms = forms_of(pictures[0], self.request.forms)
        stored = isinstance(entry, ArchiveSeries) and self.request.store
        made = self.dicom_objects(pictures, results, record) if stored or "dicom" in forms else []
        whole = Whole(pictures, results, record, made, forms)
        if len(pictures) > 1:
            self.put_series(whole)
        elif "png" in forms:
            whole.fill(results[0].folder)
        else:
            content = results[0].content

            def fill_one(folder: Path) -> None:
                whole.fill(folder)
                write_json(folder / "result.json", content)

            self.put(pictures[0].name, record, fill_one)
        if isinstance(entry, ArchiveSeries) and stored:
            entry.store(made)
            self.tally.stored += len(made)

    def dicom_objects(self, pictures: Sequence[Picture], results: Sequence[SeriesResult], record: Record) -> list[Any]:
        """The DICOM objects of a series; none of what is not from DICOM."""
        if not isinstance(pictures[0].origin, DicomFrame):
            return []
        facts = {"input": pictures[0].name, **record.facts()}
        shown, request = finding(self.segmenter.recipe.dataset), self.request
        volumes = volume_records(pictures, results)[0] if len(pictures) > 1 and pictures[0].slice is not None else []
        whole = volumes[0] if len(volumes) == 1 else None
        return derived_objects(pictures, results, facts, request.anonymiser, request.fractional, shown, volume=whole)

    def put_series(self, whole: Whole) -> None:
        """Put the folder of a series in OUT."""
        name = series_name(whole.pictures[0].name)
        content, remarks = whole.facts(name, self.segmenter.trained.calibration, self.request.output())

        def fill(folder: Path) -> None:
            whole.fill(folder)
            write_json(folder / "result.json", content)

        folder = self.put(name, whole.record, fill)
        if whole.pictures[0].slice is not None:
            self.tally.warn(folder.name, remarks)

    def reuse(self, entry: Entry) -> bool:
        """Whether an earlier run segmented the whole entry in the same way; its results then stay as they are."""
        if self.earlier is None or isinstance(entry, ArchiveSeries):
            return False
        sources: list[SourceRecord] = []
        forms: frozenset[Form] = frozenset()
        failed: list[ManymaskError] = []
        with reported(failed.append, None):
            for picture in _named(entry, self.request, failed.append):
                windowed = seen_through(picture, self.segmenter.recipe.window)
                if picture.origin is None or windowed.pixels.min() < windowed.pixels.max():
                    sources.append(self.source(entry, source_of(windowed)))
                    forms = forms_of(picture, self.request.forms)
        if failed or not sources:  # reported when they are drawn
            return False
        several = len(sources) > 1 and not isinstance(entry, Raster)
        pictures = sources if self.pictures_written or not several else []
        names = self.earlier.take_all([*pictures, *([whole_source(sources)] if several else [])])
        if not names or not complete(self.request.out / names[-1], forms):
            return False
        self.taken |= set(names)
        self.tally.done += len(sources)
        self.tally.reused += len(sources)
        self.bar.update(entry.count() or 0)
        for name in names:
            self.tally.warn(name, read_result(self.request.out / name).get("warnings", ()))
        return True

    @property
    def pictures_written(self) -> bool:
        """Whether each picture of a series has its own folder."""
        return not self.request.forms or "png" in self.request.forms

    def source(self, entry: Entry, source: SourceRecord) -> SourceRecord:
        """A source as it is recorded: with the name of its file, or without all that tells who the patient is."""
        return replace(source, file=entry.file) if self.request.anonymiser is None else source.anonymous()


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
