"""The unit of work of `segment` and `triage`: one picture on its way from the file to its result, through threads."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from manymask.errors import ManymaskError
from manymask.inference.entries import Entry
from manymask.inference.failures import reported
from manymask.inference.outputs import SeriesResult
from manymask.inference.placing import Filled
from manymask.inference.request import Request
from manymask.inference.segmentation import Segmentation
from manymask.io.image import DicomFrame, Failed, Picture
from manymask.io.inputs import Raster

MOST_PIXELS = 1 << 24  # of all pictures that are under way together: at about 60 bytes for each, 1 GB


@dataclass
class Underway:
    """How far one entry is.

    Attributes:
        entry: the entry.
        number: its place among all, from 0.
        count: pictures that are done, failed or flat.
        flat: names of pictures all of whose pixels are equal.
        drawn: pictures and results that form a series or volume, without their pixels.
        failed: what kept the rest of the entry from being read.
    """

    entry: Entry
    number: int
    count: int = 0
    flat: list[str] = field(default_factory=list)
    drawn: list[tuple[Picture, SeriesResult]] = field(default_factory=list)
    failed: list[ManymaskError] = field(default_factory=list)

    @property
    def label(self) -> str | None:
        """The file of the entry; None if it has several."""
        path = getattr(self.entry, "path", None)
        return None if path is None else str(path)


@dataclass(frozen=True)
class Job:
    """A picture to segment, or the end of an entry.

    Attributes:
        underway: its entry.
        read: decodes the picture; None at the end of a series or volume.
        pixels: about how many it has.
        last: whether nothing more of the entry follows.
    """

    underway: Underway
    read: Callable[[], Picture] | None
    pixels: int = 0
    last: bool = False


@dataclass
class Outcome:
    """What came of a job.

    Attributes:
        job: the job.
        error: why there is no result.
        picture: as it was read.
        windowed: as it is seen through the model's window.
        before: the folder of an earlier result that stays.
        found: the result.
        filled: the result as it is written, if it has a folder of its own.
        kept: what its series needs of it, if it is part of one.
    """

    job: Job
    error: Exception | None = None
    picture: Picture | None = None
    windowed: Picture | None = None
    before: Path | None = None
    found: Segmentation | None = None
    filled: Filled | None = None
    kept: SeriesResult | None = None

    def discard(self) -> None:
        """Remove what is written and has no place yet."""
        if self.filled is not None:
            self.filled.discard()

    @property
    def flat(self) -> bool:
        """Whether it is an empty slice: volumes have such above the head and below the feet."""
        picture, windowed = self.picture, self.windowed
        if picture is None or windowed is None or picture.origin is None:
            return False
        return bool(windowed.pixels.min() == windowed.pixels.max())

    @property
    def open(self) -> bool:
        """Whether it is to be drawn."""
        return self.error is None and self.before is None and self.windowed is not None and not self.flat


def jobs_of(underway: Underway, read: Callable[[Failed], Iterator[Picture]], failed: Failed) -> Iterator[Job]:
    """The jobs of one entry.

    A single image is decoded by whoever does the job. Slices of a series or volume share a file, so they are decoded here,
    one after the other as they are asked for.

    Args:
        underway: the entry.
        read: its pictures.
        failed: called with the error of each slice that cannot be read.

    Yields:
        The jobs in order, the last of which says so.
    """
    if isinstance(underway.entry, Raster):
        yield Job(underway, lambda: next(read(failed)), _claimed(underway.entry), last=True)
        return
    with reported(underway.failed.append, underway.label):
        for picture in read(failed):
            yield Job(underway, partial(_same, picture), picture.pixels.size)
    yield Job(underway, None, last=True)


def _same(picture: Picture) -> Picture:
    return picture


def _claimed(entry: Raster) -> int:
    """The number of pixels by the header; 0 of a file that will not be read either."""
    try:
        return max(height * width for height, width in entry.sizes())
    except (ManymaskError, OSError):
        return 0


def each_alone(step: Callable[[Outcome], None], outcomes: Iterable[Outcome]) -> None:
    """Take a step with each outcome; an error is kept in it, and the others go on.

    Args:
        step: the step.
        outcomes: of the pictures.
    """
    for outcome in outcomes:
        try:
            step(outcome)
        except Exception as error:
            outcome.error = error
            outcome.found = None


def in_batches(jobs: Iterable[Job], size: int) -> Iterator[list[Job]]:
    """Jobs in groups that are drawn together.

    Args:
        jobs: the jobs in order.
        size: most pictures of a group.

    Yields:
        Groups of at most `MOST_PIXELS`, unless a single picture has more.
    """
    some: list[Job] = []
    for job in jobs:
        if some and (len(some) >= size or pixels_of(some) + job.pixels > MOST_PIXELS):
            yield some
            some = []
        some.append(job)
    if some:
        yield some


def pixels_of(jobs: Iterable[Job]) -> int:
    """How many pixels some jobs have together."""
    return sum(job.pixels for job in jobs)


def discard(group: Sequence[Outcome]) -> None:
    """Remove what is written and has no place yet.

    Args:
        group: of some jobs.
    """
    for outcome in group:
        outcome.discard()


def named_pictures(entry: Entry, request: Request, failed: Callable[[ManymaskError], None]) -> Iterator[Picture]:
    """Pictures under names that may be written: file names may hold a patient's name.

    Args:
        entry: what is read.
        request: whether names are to be anonymous, and the window.
        failed: called with the error of each picture that cannot be read.

    Yields:
        The pictures.
    """
    found = entry.pictures(request.window, failed)
    for number, picture in enumerate(found, start=1):
        if request.anonymiser is None or isinstance(picture.origin, DicomFrame):
            yield picture
        else:
            yield replace(picture, name=f"image-{number:04}" if picture.origin is None else f"volume-slice-{number:04}")


def count_of(entries: Sequence[Entry]) -> int | None:
    """The number of pictures.

    Args:
        entries: what is segmented.

    Returns:
        The number, from headers alone; None if that is not known in advance.
    """
    try:
        counts = [entry.count() for entry in entries]
    except ManymaskError:
        return None  # reported when the file is read
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
