"""How validation went: the best so far, whether it still rises, and the words for it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

PSNR_STEP = 0.1  # dB that count as better
SCORE_STEP = 0.002  # of Dice and of 1 − GED²
FEWEST = 3  # validations that show a trend


@dataclass(frozen=True)
class Validation:
    """One validation: the step, its score, and the Dice (PSNR of images) of as many training cases where it is known."""

    step: int
    score: float
    train: float | None = None


@dataclass(frozen=True)
class Course:
    """The validations of a stage in order; `metric` is the score that is compared, higher is better."""

    metric: str
    validations: tuple[Validation, ...] = ()

    @classmethod
    def read(cls, metric: str, lines: Iterable[Mapping[str, Any]]) -> "Course":
        """From the lines of metrics.jsonl."""
        found = (Validation(line["step"], line["score"], line.get("train/score")) for line in lines if "score" in line)
        return cls(metric, tuple(found))

    def then(self, validation: Validation) -> "Course":
        """With one validation more."""
        return Course(self.metric, (*self.validations, validation))

    @property
    def best(self) -> Validation | None:
        """The first of those with the highest score; None before the first validation."""
        return max(self.validations, key=lambda each: each.score, default=None)

    @property
    def least_gain(self) -> float:
        """The difference between two scores that counts as a gain."""
        return PSNR_STEP if self.metric == "psnr" else SCORE_STEP

    def gain(self, last: int) -> float:
        """How much better the best of the `last` validations is than the best of those before."""
        scores = [each.score for each in self.validations]
        return max(scores[-last:]) - max(scores[:-last])

    def flat(self, patience: int) -> bool:
        """Whether none of the last `patience` validations gained on those before."""
        return len(self.validations) > patience and self.gain(patience) < self.least_gain

    @property
    def rising(self) -> bool | None:
        """Whether the last third of the validations gained on those before; None where there are too few."""
        count = len(self.validations)
        return None if count < FEWEST else self.gain(max(1, count // 3)) >= self.least_gain

    @property
    def words(self) -> str:
        """The best validation and the trend, as in `best dice 0.713 at step 36, still rising: more minutes will help`."""
        best = self.best
        if best is None:
            return "never validated"
        trend = {
            True: "still rising: more minutes will help",
            False: "flat: more minutes will hardly help",
            None: "too few validations to tell whether more minutes help",
        }[self.rising]
        return f"best {self.metric} {best.score:.3f} at step {best.step}, {trend}"
