"""How many failures a reviewer is expected to find among the most doubtful images: what `triage` and the page promise."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from manymask.calibration.calibration import Calibration
from manymask.calibration.foreignness import FALSE_ALARMS
from manymask.calibration.quality import FAILURE
from manymask.errors import ConfigError

POINTS = 100  # of the curve that is written
UNUSUAL = 0.01  # so improbable a number of foreign images is no false alarm

FEW = 10  # failures in a calibration, below which probabilities of a failure are rough

Budget = int | float  # a number of images, or a share of them
BUDGET: Budget = 0.1  # of which the promise speaks unless another is given


@dataclass(frozen=True)
class Review:
    """Images in the order of review, the most doubtful first.

    With failure probabilities p_i, the first k images are expected to hold Σ_{i ≤ k} p_i failures of Σ p_i. The
    probabilities hold on average over images like those of the calibration.

    Attributes:
        failure: probability that the result of each image is a failure, (n,) in (0, 1), in the order of review.
    """

    failure: np.ndarray

    @property
    def count(self) -> int:
        """The number of images."""
        return len(self.failure)

    @property
    def expected(self) -> float:
        """The expected number of failures."""
        return float(self.failure.sum())

    def found(self, k: int) -> float:
        """The expected number of failures among the first k images."""
        return float(self.failure[:k].sum())

    def share(self, k: int) -> float:
        """The expected share of the failures among the first k images; 1 if there are no images."""
        return min(self.found(k) / self.expected, 1.0) if self.count else 1.0

    def within(self, budget: Budget) -> int:
        """How many images a budget allows.

        Args:
            budget: a number of images; or, as a float, a share of them, which is rounded up.

        Returns:
            The number, at most that of all images.
        """
        return min(budget if isinstance(budget, int) else math.ceil(budget * self.count - 1e-9), self.count)

    def needed(self, share: float) -> int:
        """The least number of images that are expected to hold a share of the failures.

        Args:
            share: in (0, 1].

        Returns:
            The number, at most that of all images.
        """
        if not self.count:
            return 0
        reached = np.flatnonzero(self.failure.cumsum() >= share * self.expected - 1e-9)
        return int(reached[0]) + 1 if len(reached) else self.count

    def curve(self) -> list[tuple[float, float]]:
        """Share of the images reviewed, and the expected share of the failures found.

        Returns:
            From (0, 0) to (1, 1); at most `POINTS` + 1 points.
        """
        ends = np.unique(np.linspace(0, self.count, min(self.count, POINTS) + 1).round().astype(int))
        return [(round(float(k) / max(self.count, 1), 4), round(self.share(int(k)), 4)) for k in ends]


def parse_budget(text: str) -> Budget:
    """A budget as a user writes it.

    Args:
        text: `12`, or `0.1` or `10%` for a share.

    Returns:
        An int of at least 1, or a float in (0, 1].

    Raises:
        ConfigError: it is neither.
    """
    try:
        if text.strip().isdecimal():
            found: Budget = int(text)
        else:
            found = float(text.strip().removesuffix("%")) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        found = 0
    if found <= 0 or (isinstance(found, float) and not found <= 1):
        raise ConfigError(
            f"a budget is a number of images (12) or a share of them (0.1), not {text!r}", parameter="budget"
        )
    return found


def unlike(foreign: int, count: int) -> str:
    """A sentence about foreign images, if there are more of them than false alarms explain; else nothing.

    Args:
        foreign: number of images that are called foreign.
        count: number of images.

    Returns:
        The sentence, or an empty string.
    """
    if not foreign or binom.sf(foreign - 1, count, FALSE_ALARMS) >= UNUSUAL:
        return ""
    return (
        f"{foreign} of {count} images are unlike the training images (about {100 * FALSE_ALARMS:g} % would be false alarms): "
        "what is promised here may not hold for them."
    )


def promised(review: Review, k: int, calibration: Calibration, foreign: int, find: float | None = None) -> list[str]:
    """What the first k images are expected to hold, and what may break that promise.

    Args:
        review: all images.
        k: how many images can be reviewed.
        calibration: that the probabilities come from.
        foreign: number of images that are called foreign.
        find: the share of the failures that should be found, in (0, 1]; None for no sentence about it.

    Returns:
        Sentences, the promise first.
    """
    n, origin = review.count, calibration.origin
    form = ".1f" if review.expected >= 1 else ".1g"
    failures = f"{review.found(k):{form}} of {review.expected:{form}} failures"
    first = f"this 1 of {n} images: it is" if k == 1 else f"these {k} of {n} images: they are"
    said = [
        f"Review {first} expected to hold {failures} ({100 * review.share(k):.0f} %). A failure is a Dice below {FAILURE:g}."
    ]
    if find is not None:
        share = f"{100 * find:g} % of the failures"
        said.append(f"To find {share}, review the first {review.needed(find)} of {n} images (expected).")
    if review.expected < 1:
        said.append("Less than one failure is expected in all of them.")
    said.append(
        f"These numbers are expectations over images like the calibration's ({len(origin.cases)} cases of {origin.data}), "
        "not a guarantee for this folder."
    )
    if origin.failures < FEW:
        said.append(f"The calibration held only {origin.failures} failures: these probabilities are rough.")
    if calibration.foreign is None:
        said.append("Whether these images are like the training images is not known.")
    sentence = unlike(foreign, n)
    return [*said, sentence] if sentence else said


def nothing_promised(why_not: str) -> str:
    """The sentence for results that are not calibrated.

    Args:
        why_not: the reason, a sentence.

    Returns:
        The sentence.
    """
    return f"Nothing is promised. {why_not} Images are sorted by how little their masks agree."
