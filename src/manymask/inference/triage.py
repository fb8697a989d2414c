"""`manymask triage`: a folder of images, segmented, as one table with the most doubtful results first.

DIR/NAME/              one picture, as `segment` writes it, and thumbnail.jpg
DIR/triage.csv         one line per picture, the most doubtful first
DIR/triage.html        the same as a page, with thumbnails and the curve behind the promise
DIR/triage.json        model, calibration, settings, and what is promised
A result that is there already is not drawn again. Of each picture a few numbers are kept in memory; all else is read back
from its result.json when the tables are written.
"""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from manymask.calibration.calibration import Assessment
from manymask.calibration.quality import FAILURE
from manymask.errors import InputError
from manymask.hub.intended_use import finding
from manymask.inference.batch import Run
from manymask.inference.earlier import EarlierResults, read_result, value_at
from manymask.inference.jobs import Outcome
from manymask.inference.outputs import Output
from manymask.inference.review import BUDGET, Budget, Review, nothing_promised, promised
from manymask.inference.thumbnail import THUMBNAIL, write_thumbnail
from manymask.inference.triage_page import write_page
from manymask.io.atomic import atomic_file, write_json
from manymask.io.record import SourceRecord, now
from manymask.io.source import source_of

CSV, PAGE, FACTS = "triage.csv", "triage.html", "triage.json"
COLUMNS = (
    "rank", "name", "input", "review", "doubt", "failure", "predicted_dice", "dice_low", "dice_high", "presence", "foreign",
    "like_training", "agreement", "expected_found", "warnings",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ranked:
    """What is kept of one picture.

    Attributes:
        name: of its folder in DIR.
        entry: the number of its entry.
        doubt: the larger, the earlier it is to be reviewed.
        failure: probability of a failure; NaN if not calibrated.
        foreign: whether the image is unlike the training images; None if that is not known.
    """

    name: str
    entry: int
    doubt: float
    failure: float
    foreign: bool | None


@dataclass
class TriageRun(Run):
    """One call of `manymask triage`.

    Attributes:
        budget: how many images can be reviewed; None for as many as `find` takes, or else a tenth.
        find: the share of the failures that should be found; None if no number of images is requested for one.
        ranked: the pictures that are done.
        why_not: why results are not calibrated; empty if they are.
        reused: how many results were there already.
    """

    budget: Budget | None = None
    find: float | None = None
    ranked: list[Ranked] = field(default_factory=list)
    why_not: str = ""
    reused: int = 0

    def __post_init__(self) -> None:
        ask = self.request
        self._made = self.segmenter.record(SourceRecord(), ask.samples, ask.seed, ask.sampling, ask.threshold)
        self.why_not = self.segmenter.uncalibrated(self._made)
        reason = self.why_not.rstrip(".")
        if reason and self.find is not None:
            raise InputError(f"no share of the failures can be promised: {reason}", parameter="find")
        if reason and ask.samples < 2:
            raise InputError(f"one mask has no other to agree with, draw several: {reason}", parameter="samples")
        _check_ours(ask.out)
        calibration = None if self.why_not else self.segmenter.trained.calibration
        self._earlier = EarlierResults(ask.out, self._made, calibration, _fits)

    def read(self, outcome: Outcome) -> None:
        """Decode a picture, and look whether its result is there already."""
        super().read(outcome)
        assert outcome.windowed is not None
        name = self._earlier.take(source_of(outcome.windowed, outcome.job.underway.entry.file))
        outcome.before = None if name is None else self.request.out / name

    def fill(self, output: Output, outcome: Outcome, folder: Path) -> None:
        """Write the files of one picture, with its thumbnail."""
        assert outcome.windowed is not None
        super().fill(output, outcome, folder)
        write_thumbnail(folder, outcome.windowed.pixels)

    def settle(self, outcome: Outcome) -> Path | None:
        """Put one result in its place and rank it: series and volumes are for `manymask segment`."""
        outcome.kept = None
        folder = outcome.before
        if folder is None or outcome.error is not None:
            folder = super().settle(outcome)
        else:
            self.taken.add(folder.name)
            self.reused += 1
            self.tally.done += 1
            self.tally.warn(folder.name, read_result(folder).get("warnings", ()))
        found = {} if folder is None else read_result(folder)
        if folder is not None and found:
            self.ranked.append(_ranked(folder.name, outcome.job.underway.number, found))
        return folder

    def close(self) -> None:
        """Write the tables of all that is done."""
        self.ranked.sort(key=lambda each: (-each.doubt, each.name))
        out, facts = self.request.out, self.facts()
        _check_ours(out)
        with (
            atomic_file(out / CSV) as beside,
            beside.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
        ):
            table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            table.writeheader()
            table.writerows(self.rows())
        write_json(out / FACTS, facts)
        write_page(out / PAGE, facts, self.rows())

    @property
    def label(self) -> str:
        """What the masks show, in a word."""
        return finding(self.segmenter.recipe.dataset).finding[1].lower()

    @property
    def review(self) -> Review | None:
        """The promise; None of results that are not calibrated."""
        return None if self.why_not else Review(np.array([each.failure for each in self.ranked]))

    @property
    def reviewed(self) -> int:
        """How many images are to be reviewed."""
        if self.budget is None and self.find is not None and self.review is not None:
            return self.review.needed(self.find)
        budget = BUDGET if self.budget is None else self.budget
        return Review(np.zeros(len(self.ranked))).within(budget)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The lines of triage.csv in the order of review, read from the results one by one."""
        found, total, reviewed = 0.0, 1.0, self.reviewed
        if self.review is not None:
            total = max(self.review.expected, 1e-12)
        for rank, each in enumerate(self.ranked, start=1):
            result = read_result(self.request.out / each.name)
            worst = _worst(result)
            agreement = result.get("pairwise_iou")
            row = dict.fromkeys(COLUMNS, "") | {
                "rank": rank, "name": each.name, "input": result.get("input", ""), "doubt": round(each.doubt, 4),
                "agreement": "" if agreement is None else round(agreement, 4),
                "review": "yes" if rank <= reviewed else "no",
                "warnings": " ".join(result.get("warnings", ())),
            }  # fmt: skip
            if worst is not None:
                found += worst.failure
                row |= {
                    "failure": round(worst.failure, 4), "predicted_dice": round(worst.dice, 4),
                    "dice_low": round(worst.dice_low, 4), "dice_high": round(worst.dice_high, 4),
                    "presence": "" if worst.presence is None else round(worst.presence, 4),
                    "foreign": {None: "", True: "yes", False: "no"}[worst.foreign],
                    "like_training": "" if worst.like_training is None else round(worst.like_training, 4),
                    "expected_found": round(min(found / total, 1.0), 4),
                }  # fmt: skip
            yield row

    def lines(self) -> list[str]:
        """The lines for stdout at the end."""
        again = [f"{self.reused} result(s) of an earlier run were taken as they are"] if self.reused else []
        return [*again, *(self.sentences() if self.ranked else ())]

    def facts(self) -> dict[str, Any]:
        """The content of triage.json."""
        record = {name: value for name, value in self._made.facts().items() if name not in ("source", "rois")}
        calibration = None if self.why_not else self.segmenter.trained.calibration
        review = self.review
        content = {
            **record, "created": now(), "images": len(self.ranked), "failed": self.tally.failed,
            "complete": self.complete, "foreign": sum(bool(each.foreign) for each in self.ranked),
            "calibration": None if calibration is None else asdict(calibration.origin) | {
                "cases": len(calibration.origin.cases)
            },
            "ranked_by": "agreement" if review is None else "doubt", "failure_below": FAILURE,
            "promise": self.sentences(),
        }  # fmt: skip
        if review is None:
            return content | {"budget": {"images": self.reviewed}}
        k = self.reviewed
        content |= {
            "expected_failures": round(review.expected, 4),
            "budget": {"images": k, "expected_found": round(review.found(k), 4), "expected_share": round(review.share(k), 4)},
            "curve": review.curve(),
        }  # fmt: skip
        if self.find is not None:
            content["find"] = {"share": self.find, "images": review.needed(self.find)}
        return content

    def sentences(self) -> list[str]:
        """What is promised, and what may break the promise."""
        k, review = self.reviewed, self.review
        if review is None:
            return [
                nothing_promised(self.why_not),
                f"The first {k} of {len(self.ranked)} images are marked for review.",
            ]
        calibration = self.segmenter.trained.calibration
        assert calibration is not None
        return promised(review, k, calibration, sum(bool(each.foreign) for each in self.ranked), self.find)


def _check_ours(out: Path) -> None:
    """`InputError` if a table of this name was not written by this program."""
    path = out / CSV
    if path.exists() and not path.read_bytes()[:40].startswith(",".join(COLUMNS[:4]).encode()):
        raise InputError(f"{path} is not ours: name another place or move it", path=path)


def _fits(found: Mapping[str, Any], folder: Path) -> bool:
    """Whether an earlier result has all that a table needs."""
    promised = value_at(found, "promises", "worst") is not None
    return (folder / THUMBNAIL).exists() and (_worst(found) is not None) == promised


def _ranked(name: str, entry: int, result: Mapping[str, Any]) -> Ranked:
    worst = _worst(result)
    told = (float("nan"), None) if worst is None else (worst.failure, worst.foreign)
    return Ranked(name, entry, doubt_of(result), *told)


def doubt_of(result: Mapping[str, Any]) -> float:
    """How early a result is to be reviewed.

    Args:
        result: content of its result.json.

    Returns:
        The doubt of a calibrated result, that of its most doubtful slice or region; else 1 − agreement of the masks, of
        those of a volume in three dimensions; 1 if neither is known.
    """
    worst = _worst(result)
    if worst is not None:
        return worst.doubt
    agreements = [value_at(each, "pairwise_iou") for each in (result, *result.get("volumes", ()))]
    return 1 - min((each for each in agreements if each is not None), default=0.0)


def _worst(result: Mapping[str, Any]) -> Assessment | None:
    """The assessment of the most doubtful region of a result; None if the result is not calibrated."""
    found = value_at(result, "promises", "worst")
    try:
        return Assessment(**found) if found else None
    except TypeError:  # of another version
        return None
