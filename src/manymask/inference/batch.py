"""`manymask segment`: from files, folders and archives to the results in the output folder.

OUT/NAME/              one picture: PNG masks and maps, result.json
OUT/SERIES/            three-dimensional results: DICOM SEG of a series, NIfTI volumes; a single picture has them
                       in its own folder
OUT/summary.csv        one line per picture and series
A result of another image is never replaced: the new one is then written to NAME-2.
Names never come from a patient field, and with `anonymise` not from file names either.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from manymask.choices import Form
from manymask.errors import InputError, ManymaskError
from manymask.hub.intended_use import finding
from manymask.inference import series
from manymask.inference.earlier import EarlierResults, read_result
from manymask.inference.entries import Entry, names_of
from manymask.inference.failures import FullError, reported
from manymask.inference.jobs import (
    MOST_PIXELS,
    Job,
    Outcome,
    Underway,
    count_of,
    discard,
    each_alone,
    in_batches,
    jobs_of,
    named_pictures,
    pixels_of,
)
from manymask.inference.outputs import Output, SeriesResult
from manymask.inference.pictures import ImageLike
from manymask.inference.placing import Filled, fill_aside, seal
from manymask.inference.request import Request
from manymask.inference.segmentation import Segmentation
from manymask.inference.segmenter import Segmenter
from manymask.inference.summary import NAME as SUMMARY
from manymask.inference.summary import write_summary
from manymask.inference.tally import RunSummary, say
from manymask.inference.volumes import volume_records
from manymask.io.atomic import working_folder
from manymask.io.dicom.objects import derived_objects
from manymask.io.dicom.series import Series, seen_through
from manymask.io.dicom.web import ArchiveSeries
from manymask.io.image import DicomFrame, Picture
from manymask.io.inputs import Raster
from manymask.io.raster import to_channels
from manymask.io.record import Record, SourceRecord
from manymask.io.source import source_of
from manymask.parallel import Stop, draws_at_once, in_order, shared_cores
from manymask.progress import Progress

ON_ACCELERATOR = 16  # images that are drawn in one pass there


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
    settings = ask.samples, ask.seed, ask.sampling, ask.threshold, ask.rois, ask.tile
    record = run.segmenter.record(SourceRecord(), *settings)
    run.request = replace(run.request, alpha=run.segmenter.outline_alpha(run.request.alpha, record))
    with working_folder(run.request.out):
        pass  # a folder that cannot be written is reported before anything is drawn
    run.names = names_of(entries)
    total = count_of(entries)
    alone = len(entries) == 1 and isinstance(entries[0], Raster)
    if run.request.resume:
        run.earlier = run.results_of_before(record)
    with Progress(desc="segment", unit="image", total=total, disable=alone) as run.bar:
        try:
            run.through(entries)
            run.complete = True
        except FullError as error:
            run.tally.fail(InputError(f"{error}: stopped, {run.tally.done} of {total or 'the'} image(s) written"))
        finally:
            run.tally.close()
            with suppress(FullError), reported(run.tally.lose, str(run.request.out)):
                run.close()
    return run.tally


@dataclass
class Run:
    """One call of `segment_all`.

    Attributes:
        segmenter: the model.
        request: how to segment and what to write.
        tally: the counts.
        bar: shows the progress, a tqdm.
        taken: names of folders in OUT that this run has used.
        fresh: those of them that were written since the last entry was complete.
        complete: whether all entries were gone through.
        earlier: results that stay as they are; None if all are drawn.
        stop: set once the run ends, however it does.
        free: shares of the processor that nobody draws with.
        names: of files, see `names_of`.
    """

    segmenter: Segmenter
    request: Request
    tally: RunSummary
    bar: Any = None
    taken: set[str] = field(default_factory=lambda: {SUMMARY})
    fresh: list[str] = field(default_factory=list)
    complete: bool = False
    earlier: EarlierResults | None = None
    stop: Stop = field(default_factory=Stop)
    free: threading.BoundedSemaphore = field(default_factory=threading.BoundedSemaphore)
    names: Mapping[Path, str] = field(default_factory=dict)

    def results_of_before(self, record: Record) -> EarlierResults:
        """The results in OUT that this run would draw again in the same way."""
        calibration = None if self.segmenter.uncalibrated(record) else self.segmenter.trained.calibration
        asked = self.request.output()
        return EarlierResults(self.request.out, record, calibration, lambda found, _: found.get("output") == asked)

    def close(self) -> None:
        """What is written at the end, also of a run that was interrupted: OUT/summary.csv."""
        write_summary(self.request.out)

    def through(self, entries: Sequence[Entry]) -> None:
        """Segment all entries: threads read, draw and write; results get their places here, in the order of the entries."""
        draws = draws_at_once(self.segmenter.device)
        self.free = threading.BoundedSemaphore(draws)
        size = self.request.batch or (1 if self.segmenter.device == "cpu" else ON_ACCELERATOR)
        groups = in_batches(self.jobs(entries), size)
        with shared_cores(draws) as threads:
            outcomes = in_order(
                self.work, groups, threads, stop=self.stop, size=pixels_of, most=MOST_PIXELS, discard=discard
            )
            with closing(outcomes):
                for group in outcomes:
                    self.take(group)

    def jobs(self, entries: Sequence[Entry]) -> Iterator[Job]:
        """The pictures of all entries that are not reused."""
        for number, entry in enumerate(entries):
            if not self.reuse(entry):
                yield from jobs_of(Underway(entry, number), partial(named_pictures, entry, self.request), self.passed)

    def passed(self, error: ManymaskError) -> None:
        """Count a picture that could not be read."""
        self.bar.update()
        self.tally.fail(error)

    def work(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Read, draw and write some pictures, in a thread; what goes wrong with one is part of its outcome."""
        outcomes = [Outcome(job) for job in jobs]
        each_alone(self.read, [each for each in outcomes if each.job.read is not None])
        self.draw([each for each in outcomes if each.open])
        each_alone(self.write, [each for each in outcomes if each.found is not None])
        return outcomes

    def read(self, outcome: Outcome) -> None:
        """Decode a picture."""
        assert outcome.job.read is not None
        self.stop.check()
        outcome.picture = outcome.job.read()
        outcome.windowed = seen_through(outcome.picture, self.segmenter.recipe.window)

    def draw(self, outcomes: Sequence[Outcome]) -> None:
        """Draw the masks of pictures, all in one pass; if that fails, each by itself."""
        if len(outcomes) > 1:
            with suppress(Exception):
                pictures: list[ImageLike] = [each.windowed for each in outcomes if each.windowed is not None]
                for each, found in zip(outcomes, self.segmented(pictures), strict=True):
                    each.found = found
        each_alone(self.draw_one, [each for each in outcomes if each.found is None])

    def draw_one(self, outcome: Outcome) -> None:
        """Draw the masks of one picture."""
        assert outcome.windowed is not None
        outcome.found = self.segmented(outcome.windowed)

    def segmented(self, image: Any) -> Any:
        """The result of a picture, or those of a list of pictures, once a share of the processor is free."""
        ask = self.request
        with self.free:
            return self.segmenter.segment(
                image, ask.samples, ask.seed, sampling=ask.sampling, threshold=ask.threshold, rois=ask.rois,
                tile=ask.tile, callback=self.stop.check,
            )  # fmt: skip

    def write(self, outcome: Outcome) -> None:
        """Write a result aside, or keep what its series needs."""
        entry, picture, result = outcome.job.underway.entry, outcome.picture, outcome.found
        assert picture is not None and result is not None and result.record is not None
        record = replace(result.record, source=self.source(entry, result.record.source))
        outcome.found = result = replace(result, record=record)
        output = self.output(entry, picture, result)
        if picture.origin is not None:
            outcome.kept = SeriesResult.of(output)
        if series.on_its_own(picture, series.forms_of(picture, self.request.forms)):
            outcome.filled = fill_aside(self.request.out, picture.name, partial(self.fill, output, outcome))
        elif outcome.kept is not None:  # written with its series, or as a whole at the end
            outcome.kept = replace(outcome.kept, folder=Path(picture.name), content=output.content())

    def fill(self, output: Output, outcome: Outcome, folder: Path) -> None:
        """Write the files of one picture."""
        assert outcome.picture is not None
        forms = series.on_its_own(outcome.picture, series.forms_of(outcome.picture, self.request.forms))
        series.fill_picture(folder, output, outcome.picture, forms)

    def take(self, group: Sequence[Outcome]) -> None:
        """Count some outcomes in their turn, and give each result its place."""
        try:
            for outcome in group:
                underway = outcome.job.underway
                if outcome.job.read is not None:
                    label = underway.label or str(outcome.picture.name if outcome.picture else "") or None
                    with reported(self.tally.fail, label):
                        self.settle(outcome)
                    underway.count += 1
                    self.bar.update()
                if outcome.job.last:
                    self.end(underway)
                    self.request.publish(self.fresh)
                    self.fresh.clear()
        finally:
            discard(group)

    def settle(self, outcome: Outcome) -> Path | None:
        """Put one result in its place, and return that; None of a flat picture."""
        underway, picture, found = outcome.job.underway, outcome.picture, outcome.found
        if outcome.error is not None:
            raise outcome.error
        assert picture is not None
        if outcome.flat:
            underway.flat.append(picture.name)
            return None
        assert found is not None and found.record is not None
        folder = Path(picture.name)
        if outcome.filled is not None:
            folder = self.placed(outcome.filled, found.record)
        self.tally.done += 1
        named = isinstance(underway.entry, Raster) and self.request.anonymiser is None
        self.tally.warn(str(underway.entry.path) if named else folder.name, found.warnings)  # type: ignore[union-attr]
        if outcome.kept is not None:
            kept = replace(outcome.kept, folder=folder)
            underway.drawn.append((replace(picture, name=folder.name).light(), kept))
        return folder

    def end(self, underway: Underway) -> None:
        """What is done once all pictures of an entry are: the series or volume that they form."""
        drawn, flat = underway.drawn, underway.flat
        for error in underway.failed:  # half a series makes no volume
            self.tally.fail(error)
        if flat and len(flat) == underway.count:
            with reported(self.tally.fail, underway.label):
                raise InputError("every image is flat: all its pixels are equal, there is nothing to segment")
        if flat and not underway.failed and len(flat) < underway.count:
            names = ", ".join(flat[:3]) + (" …" if len(flat) > 3 else "")
            say(f"{len(flat)} flat slice(s) left out ({names}): all their pixels are equal")
        if drawn and not underway.failed:
            with reported(self.tally.miss, drawn[0][0].name):
                self.finish(underway.entry, [picture for picture, _ in drawn], [result for _, result in drawn])

    def named(self, entry: Entry) -> str | None:
        """How the input is called, see `names_of`; None if it has no name to write."""
        if self.request.anonymiser is not None or isinstance(entry, (Series, ArchiveSeries)):
            return None
        return self.names.get(entry.path)

    def output(self, entry: Entry, picture: Picture, result: Segmentation) -> Output:
        """What is written of one picture."""
        record = result.record
        assert record is not None
        height, width = picture.pixels.shape[:2]
        facts = {
            "input": self.named(entry) or picture.name, **record.facts(), "output": self.request.output(),
            "warnings": list(result.warnings),
            "width": width, "height": height, "mean_entropy_bits": float(result.entropy.mean()),
            "seconds": result.seconds, "engine": self.segmenter.engine,
            **series.geometry_facts(picture, series.forms_of(picture, self.request.forms)),
        }  # fmt: skip
        image = to_channels(picture.pixels, self.segmenter.recipe.channels)
        return Output(result, image, facts, picture.spacing, self.request.alpha, show=self.request.anonymiser is None)

    def placed(self, filled: Filled, record: Record) -> Path:
        """Put a result in OUT, beside those of other images."""
        place = filled.put(record.source, self.taken)
        self.taken.add(place.path.name)
        self.fresh.append(place.path.name)
        self.tally.replaced += place.replaced
        if place.occupied is not None:
            say(f"{place.occupied} holds the result of another image, which stays; this one is in {place.path}")
        return place.path

    def put(self, whole: series.Whole, name: str, content: Mapping[str, Any] | None) -> Path:
        """Write a series, or its only picture, to a folder of its own and put that in OUT."""
        return self.placed(fill_aside(self.request.out, name, partial(whole.fill, content=content)), whole.record)

    def finish(self, entry: Entry, pictures: Sequence[Picture], results: Sequence[SeriesResult]) -> None:
        """Write SEG or NIfTI of a series, beside its only picture or in a separate folder, and store it in the archive."""
        record = series.together([r.record for r in results if r.record is not None])
        forms = series.forms_of(pictures[0], self.request.forms)
        alone = series.on_its_own(pictures[0], forms)
        stored = isinstance(entry, ArchiveSeries) and self.request.store
        made = self.dicom_objects(pictures, results, record) if stored or "dicom" in forms else []
        whole = series.Whole(pictures, results, record, made, forms - (alone - {"png"}))
        if len(pictures) > 1:
            self.put_series(whole)
        elif alone:
            whole.fill(results[0].folder)
            seal(results[0].folder)
        else:
            self.put(whole, pictures[0].name, results[0].content)
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

    def put_series(self, whole: series.Whole) -> None:
        """Put the folder of a series in OUT."""
        name = series.series_name(whole.pictures[0].name)
        content, remarks = whole.facts(name, self.segmenter.trained.calibration, self.request.output())
        folder = self.put(whole, name, content)
        if whole.pictures[0].slice is not None:
            self.tally.warn(folder.name, remarks)

    def reuse(self, entry: Entry) -> bool:
        """Whether an earlier run segmented the whole entry in the same way; its results then stay as they are."""
        if self.earlier is None or isinstance(entry, ArchiveSeries):
            return False
        sources: list[SourceRecord] = []
        forms = alone = frozenset[Form]()
        failed: list[ManymaskError] = []
        with reported(failed.append, None):
            for picture in named_pictures(entry, self.request, failed.append):
                windowed = seen_through(picture, self.segmenter.recipe.window)
                if picture.origin is None or windowed.pixels.min() < windowed.pixels.max():
                    sources.append(self.source(entry, source_of(windowed)))
                    forms = series.forms_of(picture, self.request.forms)
                    alone = series.on_its_own(picture, forms)
        if failed or not sources:  # reported when they are drawn
            return False
        several = len(sources) > 1 and not isinstance(entry, Raster)
        pictures = sources if alone or not several else []
        names = self.earlier.take_all([*pictures, *([series.whole_source(sources)] if several else [])])
        if not names or not series.complete(self.request.out / names[-1], forms - alone if several else forms):
            return False
        self.taken |= set(names)
        self.tally.done += len(sources)
        self.tally.reused += len(sources)
        self.bar.update(entry.count() or 0)
        for name in names:
            self.tally.warn(name, read_result(self.request.out / name).get("warnings", ()))
        return True

    def source(self, entry: Entry, source: SourceRecord) -> SourceRecord:
        """A source as it is recorded: with the name of its file, or without all that tells who the patient is."""
        return replace(source, file=entry.file) if self.request.anonymiser is None else source.anonymous()
