"""The list of all pictures that were dropped, the most doubtful first. Of each, a row of numbers is kept and nothing
else. No Gradio in here."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from manymask.errors import InputError, ManymaskError
from manymask.inference.outputs import pairwise_agreement
from manymask.inference.review import BUDGET, Review, nothing_promised, promised
from manymask.inference.segmentation import Segmentation
from manymask.inference.segmenter import Segmenter
from manymask.io.record import SourceRecord
from manymask.serving import service
from manymask.serving.guard import log_error
from manymask.serving.request_queue import StoppedError, Ticket
from manymask.serving.service import Limits, OpenedInput, SegmentRequest, Subject

LONGEST = 3300.0  # seconds of one list: uploads are deleted after an hour


@dataclass(frozen=True, slots=True)
class Row:
    """One picture.

    Attributes:
        number: of the picture, from 1.
        name: of the picture.
        error: why it could not be segmented; empty if it was.
        doubt: the larger, the earlier it is to be reviewed; 1 − agreement if not calibrated; None if not segmented.
        agreement: mean IoU over all pairs of masks; None for a single mask.
        failure: probability of a failure; None, like all that follow, if not calibrated.
        dice: predicted Dice of the consensus at 0.5.
        dice_low: end of its 90 % interval.
        dice_high: the other end.
        presence: probability that there is a lesion.
        foreign: whether the image is unlike the training images.
        like_training: share of images like the training images that are at least this far.
    """

    number: int
    name: str
    error: str = ""
    doubt: float | None = None
    agreement: float | None = None
    failure: float | None = None
    dice: float | None = None
    dice_low: float | None = None
    dice_high: float | None = None
    presence: float | None = None
    foreign: bool | None = None
    like_training: float | None = None


def row_of(number: int, name: str, found: Segmentation, calibrated: bool = True) -> Row:
    """The row of a result: the numbers of its result.json. calibrated: whether all results of the list are."""
    agreement = pairwise_agreement((found.masks >= 0.5).numpy())
    worst = found.expected if calibrated else None
    if worst is None:
        return Row(number, name, doubt=1.0 if agreement is None else 1 - agreement, agreement=agreement)
    told = {key: value for key, value in asdict(worst).items() if key != "distance"}
    return Row(number, name, doubt=worst.doubt, agreement=agreement, **told)


def most_doubtful_first(rows: Sequence[Row]) -> list[Row]:
    """In the order of review; pictures that could not be segmented come last."""
    return sorted(rows, key=lambda row: (row.doubt is None, -(row.doubt or 0.0), row.number))


@dataclass
class Listing:
    """The list as far as it has come.

    Attributes:
        segmenter: that draws.
        order: what is drawn of each picture.
        limits: of the server.
        found: what was dropped.
        subject: gives picture `number`, from 1, as people and the model see it.
        why_not: why results are not calibrated; empty if they are.
        rows: in the order in which they were drawn.
        ended: "" while it is drawn, then "whole", "stopped" or "late".
    """

    segmenter: Segmenter
    order: SegmentRequest
    limits: Limits
    found: OpenedInput
    subject: Callable[[int], Subject]
    why_not: str = ""
    rows: list[Row] = field(default_factory=list)
    ended: str = ""

    def __post_init__(self) -> None:
        if self.segmenter.recipe.crop:
            raise InputError("a model of regions needs a click in each image, so there is no list of them")
        sampling = service.check_samples(self.order, self.segmenter, self.limits)
        record = self.segmenter.record(
            SourceRecord(), self.order.samples, self.order.seed, sampling, tile=self.order.tile
        )
        self.why_not = self.segmenter.uncalibrated(record)
        if self.why_not and self.order.samples < 2:
            raise InputError(f"one mask has no other to agree with, draw several: {self.why_not.rstrip('.')}")

    def promise(self) -> list[str]:
        """What is promised of the first tenth, and what may break it; nothing of an empty list."""
        rows = [row for row in most_doubtful_first(self.rows) if row.doubt is not None]
        if self.why_not:
            return [nothing_promised(self.why_not)]
        calibration = self.segmenter.trained.calibration
        if not rows or calibration is None:
            return []
        review = Review(np.array([row.failure for row in rows]))
        return promised(review, self.reviewed, calibration, sum(bool(row.foreign) for row in rows))

    @property
    def reviewed(self) -> int:
        """How many images a tenth is."""
        return Review(np.zeros(sum(row.doubt is not None for row in self.rows))).within(BUDGET)

    @property
    def drawn_with(self) -> str:
        """The settings in words."""
        ask = self.order
        own = [f"sampler {ask.sampler}"] * bool(ask.sampler) + [f"{ask.steps} steps"] * bool(ask.steps)
        own += [f"windows of {ask.tile} pixels"] * bool(ask.tile)
        return ", ".join([f"{ask.samples} mask{'s' * (ask.samples > 1)} per image", f"seed {ask.seed}", *own])

    def value(self, rows: Sequence[Row] | None = None) -> dict[str, Any]:
        """JSON-able; the promise only at the end, since it is one of all rows."""
        failed = sum(bool(row.error) for row in self.rows)
        return {
            "images": len(self.found), "kind": self.found.kind, "ended": self.ended, "calibrated": not self.why_not,
            "drawn_with": self.drawn_with,
            "review": self.reviewed if self.ended else 0, "failed": failed,
            "promise": self.promise() if self.ended or self.why_not else [],
            "rows": [asdict(row) for row in (self.rows if rows is None else rows)],
        }  # fmt: skip


def fill(listing: Listing, ticket: Ticket, said: Callable[[ManymaskError], str]) -> Iterator[int]:
    """Draws picture after picture, each after all others who wait; yields how many drawings come first, or 0 after each
    row and at the end. Ends when the visitor stops it, without the picture that was in progress.

    said: an error in words for the visitor. Raises what `Ticket.check` raises but `StoppedError`.
    """
    start, count = time.monotonic(), len(listing.found)
    try:
        for number in range(1, count + 1):
            if number > 1 and time.monotonic() - start > LONGEST:
                listing.ended = "late"
                break
            ticket.step_back()
            told = 0
            while ahead := ticket.ahead(1.0 if told else 0.0):
                ticket.check()
                if ahead != told:
                    told = ahead
                    yield ahead
            ticket.check()
            listing.rows.append(_row(listing, number, ticket, said))
            yield 0
        listing.ended = listing.ended or "whole"
    except StoppedError:
        listing.ended = "stopped"
    yield 0


def _row(listing: Listing, number: int, ticket: Ticket, said: Callable[[ManymaskError], str]) -> Row:
    """The row of one picture, whatever is wrong with it; what `Ticket.check` raises is passed on."""
    kind = listing.found.kind
    name = f"{kind} {number}"
    try:
        subject = listing.subject(number)
        name = subject.shown.name if kind == "Image" else f"{subject.shown.name}, {kind.lower()} {number}"
        found = service.draw_result(listing.segmenter, subject, listing.order, listing.limits, ticket.check)
        return row_of(number, name, found, not listing.why_not)
    except ManymaskError as error:
        ticket.check()
        return Row(number, name, error=said(error))
    except MemoryError:
        return Row(number, name, error="the image is too large for this server")
    except Exception as error:
        log_error(error)
        return Row(number, name, error="something unforeseen went wrong with this image")
