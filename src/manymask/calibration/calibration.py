"""A calibration as it lies beside a model's weights, and what it says of one image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from manymask.calibration.confidence import ConfidenceMap
from manymask.calibration.evidence import NAMES, evidence
from manymask.calibration.foreignness import Foreignness
from manymask.calibration.presence import COLUMNS, PresenceMap
from manymask.calibration.quality import PredictedDice
from manymask.calibration.risk import ALPHA, CONSENSUS, RiskControl
from manymask.calibration.storage import decode, encode
from manymask.errors import InputError

FILE = "calibration.json"
FORMAT = 2
DOUBTFUL = 0.5  # presence below which nothing may be there


@dataclass(frozen=True)
class Origin:
    """What a calibration was made on and with.

    Attributes:
        weights_sha256: of the model.
        settings_sha256: of the model, `TrainedModel.settings_sha256`.
        data: name of the data set.
        data_hash: of the store.
        scheme: split scheme.
        split: its part, or "all".
        cases: the calibration cases.
        groups: number of patients or sequences among them.
        failures: how many of them had a Dice below `quality.FAILURE`.
        sampling: masks per image and how they were drawn, as `sampling_record` gives it.
        seed: of the random numbers.
        git: revision of the code.
        created: time in UTC.
    """

    weights_sha256: str
    settings_sha256: str
    data: str
    data_hash: str
    scheme: str
    split: str
    cases: tuple[str, ...]
    groups: int
    failures: int
    sampling: Any
    seed: int
    git: str
    created: str


@dataclass(frozen=True)
class Calibration:
    """Everything that was fitted on labelled images that the model was not trained on.

    Attributes:
        origin: what it was made on and with.
        confidence: monotone map of the confidence.
        risks: thresholds of the outlines, one entry per α.
        quality: predicted Dice.
        presence: the probability that there is a lesion; None if it could not be fitted.
        foreign: the score of foreignness; None for models without features.
        held_out: scores of the parts above on cases that each was not fitted to.
        notes: what could not be calibrated, and why, in sentences.
    """

    origin: Origin
    confidence: ConfidenceMap
    risks: tuple[RiskControl, ...]
    quality: PredictedDice
    presence: PresenceMap | None
    foreign: Foreignness | None
    held_out: Any = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def alphas(self) -> tuple[float, ...]:
        """The shares for which there are outlines."""
        return tuple(risk.alpha for risk in self.risks)

    @property
    def default_alpha(self) -> float | None:
        """The share of the outlines that are drawn unless another is requested; None if there are no outlines."""
        return min(self.alphas, key=lambda alpha: abs(alpha - ALPHA), default=None)

    def summary(self) -> dict[str, Any]:
        """JSON-able: that results are calibrated, on what, and the threshold of the consensus that predictions are of."""
        origin = self.origin
        return {
            "calibrated": True, "on": f"{len(origin.cases)} cases of {origin.data} ({origin.split} of {origin.scheme})",
            "data_hash": origin.data_hash, "created": origin.created, "dice_threshold": CONSENSUS,
        }  # fmt: skip

    def risk(self, alpha: float) -> RiskControl:
        """The thresholds for one α.

        Raises:
            InputError: there are none.
        """
        for risk in self.risks:
            if abs(risk.alpha - alpha) < 1e-9:
                return risk
        known = ", ".join(f"{a:g}" for a in self.alphas)
        raise InputError(f"the model is not calibrated for a share of {alpha:g}; choose {known}", parameter="alpha")

    def assess(self, masks: np.ndarray, presence: float | None, embedding: np.ndarray | None) -> "Assessment":
        """What is to be expected of the masks of one image.

        Args:
            masks: probabilities (n, S, S) at the model's size.
            presence: the model's own p(anything is marked), if it has one.
            embedding: features of the image (d,), if the model has any.

        Returns:
            Predicted Dice, presence and foreignness.
        """
        found = evidence(masks, 1.0 if presence is None else presence)
        dice, low, high, failure = self.quality(found)
        held = None if self.presence is None else float(self.presence(found))
        if self.foreign is None or embedding is None:
            return Assessment(dice, low, high, failure, held)
        distance = float(self.foreign.distance(embedding))
        share = self.foreign.share(distance)
        return Assessment(dice, low, high, failure, held, distance, share, distance > self.foreign.cut)


@dataclass(frozen=True)
class Assessment:
    """What is to be expected of one result; see docs/explanation/uncertainty.md.

    Attributes:
        dice: predicted Dice of the consensus at 0.5.
        dice_low: end of its 90 % interval.
        dice_high: the other end.
        failure: probability that the Dice is below 0.7.
        presence: probability that there is a lesion; None if not calibrated.
        distance: of the image's features from those of the training images, 1 on average; None without features.
        like_training: share of images like the training images that are at least this far.
        foreign: whether the distance is beyond the cut, which 5 % of images like the training images are.
    """

    dice: float
    dice_low: float
    dice_high: float
    failure: float
    presence: float | None = None
    distance: float | None = None
    like_training: float | None = None
    foreign: bool | None = None

    @property
    def doubt(self) -> float:
        """By how much a result should be looked at before others: the probability of failure, then the missing Dice."""
        return self.failure + 0.01 * (1 - self.dice)


def worst(assessments: Sequence[Assessment]) -> Assessment | None:
    """The assessment that stands for several regions or slices: the most doubtful one, foreign if any is.

    Args:
        assessments: of the regions or slices.

    Returns:
        One of them; None of none.
    """
    if not assessments:
        return None
    found = max(assessments, key=lambda each: each.doubt)
    foreign = [each for each in assessments if each.foreign]
    if not foreign:
        return found
    furthest = max(foreign, key=lambda each: each.distance or 0.0)
    return replace(found, distance=furthest.distance, like_training=furthest.like_training, foreign=True)


def text_of(calibration: Calibration) -> dict[str, Any]:
    """The content of the file."""
    content: dict[str, Any] = encode(calibration)
    return {"format": FORMAT, **content}


def read(content: Mapping[str, Any], where: Path | str) -> Calibration:
    """A calibration from the content of its file.

    Args:
        content: of the file.
        where: its path, for errors.

    Returns:
        The calibration.

    Raises:
        InputError: the file is of another format or damaged.
    """
    if content.get("format") != FORMAT:
        raise InputError(
            f"{where} has format {content.get('format')!r}, not {FORMAT}: remove it, then calibrate again", path=where
        )
    found = decode(Calibration, {name: value for name, value in content.items() if name != "format"}, str(where))
    _check_shapes(found, where)
    return found


def _check_shapes(found: Calibration, where: Path | str) -> None:
    """Arrays that do not fit together would fail long after loading."""
    quality, foreign, presence = found.quality, found.foreign, found.presence
    d, folds = len(NAMES), len(quality.level)
    fits = quality.centre.shape == quality.scale.shape == (d,)
    fits &= quality.level.shape == quality.width.shape == (folds, d + 1)
    fits &= len(quality.error) == len(quality.fold) > 0 and bool(((quality.fold >= 0) & (quality.fold < folds)).all())
    fits &= quality.level.shape[-1] == d + 1 and bool((quality.scale > 0).all())
    if presence is not None:
        used = len(COLUMNS)
        fits &= presence.centre.shape == presence.scale.shape == (used,) and presence.coefficients.shape == (used + 1,)
        fits &= bool((presence.scale > 0).all())
    if foreign is not None:
        k = len(foreign.variance)
        fits &= foreign.directions.shape == (k, len(foreign.mean)) and len(foreign.distances) > 0
        fits &= foreign.rest > 0 and bool((foreign.variance > 0).all())
    if not fits:
        raise InputError(f"{where} is damaged: its arrays do not fit together", path=where)
