"""Scores of masks, of sets of masks, and of confidence maps. Conventions: docs/explanation/conventions.md."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import lcm

import numpy as np
import torch
from scipy.ndimage import binary_dilation
from scipy.optimize import linear_sum_assignment
from scipy.special import betaincinv
from torch import Tensor

from manymask.errors import InputError

_BLOCK = 1 << 18  # pixels that are compared at once


def overlap(prediction: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Dice and IoU of two masks; two empty masks agree fully.

    Args:
        prediction: bool (H, W).
        truth: bool (H, W).

    Returns:
        Dice and IoU, each in [0, 1].
    """
    both = float((prediction & truth).sum())
    total = float(prediction.sum() + truth.sum())
    if not total:
        return 1.0, 1.0
    return 2 * both / total, both / (total - both)


def threshold_jaccard(iou: float, least: float = 0.65) -> float:
    """The score by which ISIC-2018 ranks (Codella et al. 2019): the IoU if it is at least `least`, else 0."""
    return iou if iou >= least else 0.0


def mean_dice(confidence: np.ndarray, truth: np.ndarray) -> float:
    """Mean Dice of a map cut at the 256 levels 0, 1/255, … 1.

    As in PraNet's evaluation (Fan et al. 2020), except that the map is not stretched to its own range first.

    Args:
        confidence: (H, W) in [0, 1].
        truth: bool (H, W).

    Returns:
        A number in [0, 1].
    """
    levels = np.floor(confidence * 255 + 1e-6).astype(int)
    area = np.bincount(levels.ravel(), minlength=256)[::-1].cumsum()
    both = np.bincount(levels[truth], minlength=256)[::-1].cumsum()
    total = area + truth.sum()
    return float(np.where(total > 0, 2 * both / np.maximum(total, 1), 1.0).mean())


def hd95(prediction: np.ndarray, truth: np.ndarray) -> float | None:
    """95th percentile Hausdorff distance, as in MONAI: the larger of the two directed percentiles of surface distance.

    Args:
        prediction: bool (H, W).
        truth: bool (H, W).

    Returns:
        The distance in pixels; None if either mask is empty.
    """
    from monai.metrics import compute_hausdorff_distance

    if not prediction.any() or not truth.any():
        return None
    one, other = (torch.from_numpy(m[None, None].astype(np.float32)) for m in (prediction, truth))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # MONAI calls its own deprecated argument
        return float(compute_hausdorff_distance(one, other, include_background=True, percentile=95)[0, 0])


def pairwise_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU of every mask of one set with every mask of another; IoU(∅, ∅) = 1.

    Args:
        first: bool (n, H, W).
        second: bool (m, H, W).

    Returns:
        (n, m) float32 in [0, 1].
    """
    a, b = (m.reshape(len(m), -1) for m in (first, second))
    both = np.zeros((len(a), len(b)))
    total = np.zeros((len(a), len(b)))
    for start in range(0, a.shape[1], _BLOCK):  # floats of all pixels would take four times the room of the masks
        one, other = (m[:, start : start + _BLOCK].astype(np.float32) for m in (a, b))
        both += one @ other.T
        total += one.sum(1)[:, None] + other.sum(1)[None, :]
    either = total - both
    return np.where(either > 0, both / np.maximum(either, 1), 1.0).astype(np.float32)


def ged(drawn: np.ndarray, raters: np.ndarray) -> float:
    """Squared generalised energy distance (Kohl et al. 2018) with d = 1 − IoU, as a V-statistic.

    Args:
        drawn: bool (n, H, W).
        raters: bool (R, H, W).

    Returns:
        A number in [0, 2]; 0 for equal sets.
    """
    cross = pairwise_iou(drawn, raters)
    within_drawn = pairwise_iou(drawn, drawn)
    within_raters = pairwise_iou(raters, raters)
    return float(2 * (1 - cross.mean()) - (1 - within_drawn.mean()) - (1 - within_raters.mean()))


def hungarian_iou(drawn: np.ndarray, raters: np.ndarray) -> float:
    """HM-IoU (Kohl et al. 2019): mean IoU under the best matching, both sets repeated to their least common multiple.

    Args:
        drawn: bool (n, H, W).
        raters: bool (R, H, W).

    Returns:
        A number in [0, 1].
    """
    count = lcm(len(drawn), len(raters))
    table = pairwise_iou(drawn, raters)
    table = table.repeat(count // len(drawn), axis=0).repeat(count // len(raters), axis=1)
    rows, columns = linear_sum_assignment(-table)
    return float(table[rows, columns].mean())


def psnr(reconstruction: Tensor, original: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of values in [0, 1], of any equal shapes; at most 100."""
    error = float((reconstruction.cpu().double() - original.cpu().double()).square().mean())
    return min(100.0, -10 * float(np.log10(max(error, 1e-10))))


def ssim(reconstruction: Tensor, original: Tensor) -> float:
    """Structural similarity (Wang et al. 2004) of images (C, H, W) in [0, 1], with a Gaussian window of 11 pixels."""
    from monai.metrics import SSIMMetric

    return float(SSIMMetric(spatial_dims=2, data_range=1.0)(reconstruction[None].float(), original[None].float()))


def near_lesion(raters: np.ndarray, margin: int = 5) -> np.ndarray:
    """The region where calibration does not depend on the background: the union of all raters, dilated.

    It does not depend on the prediction, so models can be compared.

    Args:
        raters: bool (R, H, W).
        margin: of the dilation, in pixels.

    Returns:
        bool (H, W); empty if no rater marked anything.
    """
    union = np.asarray(raters.any(axis=0))
    return binary_dilation(union, iterations=margin) if union.any() else union


@dataclass
class Reliability:
    """A reliability diagram filled case by case: confidence against the frequency with which raters mark such pixels.

    Attributes:
        bins: number of equal bins of confidence in [0, 1].
        count: pixels of each bin, (bins,).
        confidence: sum of their confidence, (bins,).
        frequency: sum of their frequencies, (bins,).
    """

    bins: int = 15
    count: np.ndarray = field(init=False)
    confidence: np.ndarray = field(init=False)
    frequency: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.count = np.zeros(self.bins)
        self.confidence = np.zeros(self.bins)
        self.frequency = np.zeros(self.bins)

    def add(self, confidence: np.ndarray, frequency: np.ndarray) -> None:
        """Add pixels.

        Args:
            confidence: (N,) in [0, 1].
            frequency: share of raters who marked each pixel, (N,) in [0, 1].
        """
        index = np.minimum((confidence * self.bins).astype(int), self.bins - 1)
        self.count += np.bincount(index, minlength=self.bins)
        self.confidence += np.bincount(index, weights=confidence, minlength=self.bins)
        self.frequency += np.bincount(index, weights=frequency, minlength=self.bins)

    @property
    def error(self) -> float:
        """Expected calibration error in [0, 1]: mean |confidence − frequency| over bins, weighted by their pixels."""
        return float(np.abs(self.confidence - self.frequency).sum() / max(self.count.sum(), 1))


def auroc(score: np.ndarray, positive: np.ndarray) -> float | None:
    """Area under the ROC curve: the probability that a positive scores higher than a negative, ties as one half.

    Args:
        score: (N,).
        positive: bool (N,).

    Returns:
        A number in [0, 1]; None without positives or without negatives.
    """
    if positive.all() or not positive.any():
        return None
    gap = score[positive][:, None] - score[~positive][None, :]
    return float((gap > 0).mean() + (gap == 0).mean() / 2)


def clopper_pearson(count: int, of: int, level: float = 0.95) -> tuple[float, float]:
    """Exact binomial interval of a share (Clopper & Pearson 1934), for independent cases.

    Args:
        count: number of successes, 0 … `of`.
        of: number of trials, at least 1.
        level: of the interval, in (0, 1).

    Returns:
        Both ends, each in [0, 1].
    """
    tail = (1 - level) / 2
    low = float(betaincinv(count, of - count + 1, tail)) if count > 0 else 0.0
    high = float(betaincinv(count + 1, of - count, 1 - tail)) if count < of else 1.0
    return low, high


def risk_coverage(doubt: np.ndarray, risk: np.ndarray) -> np.ndarray:
    """Mean risk of the k least doubtful cases, for k = 1 … N (Geifman & El-Yaniv 2017).

    Cases of equal doubt are in random order; the curve is the mean over all such orders.

    Args:
        doubt: (N,), higher where a result should be looked at first.
        risk: (N,) in [0, 1], 1 − Dice for example.

    Returns:
        (N,); the last value is the mean risk of all cases.
    """
    _, index, sizes = np.unique(doubt, return_inverse=True, return_counts=True)
    expected = (np.bincount(index, weights=risk) / sizes)[index]
    result: np.ndarray = expected[np.argsort(doubt, kind="stable")].cumsum() / np.arange(1, len(risk) + 1)
    return result


def aurc(doubt: np.ndarray, risk: np.ndarray) -> tuple[float, float]:
    """Area under the risk–coverage curve, and its excess over that of the best order (Geifman et al. 2019).

    Args:
        doubt: as in `risk_coverage`.
        risk: as in `risk_coverage`.

    Returns:
        AURC and E-AURC; a random order has an AURC of the mean risk, the best one an E-AURC of 0.
    """
    area = float(risk_coverage(doubt, risk).mean())
    return area, area - float(risk_coverage(risk, risk).mean())


def bootstrap(
    values: Sequence[float], groups: Sequence[str], seed: int = 0, draws: int = 2000
) -> tuple[float, float, float]:
    """Mean and its 95 % bootstrap interval over whole groups, since cases of one group are not independent.

    Args:
        values: one per case.
        groups: the patient or sequence of each case.
        seed: of the resampling.
        draws: number of resamples.

    Returns:
        The mean, and the percentiles 2.5 and 97.5 of the resampled means.
    """
    names = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    index = np.array([names[group] for group in groups])
    sums = np.bincount(index, weights=np.asarray(values, dtype=np.float64))
    sizes = np.bincount(index)
    drawn = np.random.default_rng(seed).integers(len(names), size=(draws, len(names)))
    means = sums[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(np.mean(values)), float(low), float(high)


def resamples(groups: Sequence[str], draws: int = 500, seed: int = 0) -> list[np.ndarray]:
    """Bootstrap resamples of whole groups, for figures that are no means.

    Args:
        groups: the patient or sequence of each case.
        draws: number of resamples.
        seed: of the resampling.

    Returns:
        The cases of each resample as row numbers, some more than once.
    """
    index = np.unique(np.array(groups), return_inverse=True)[1]
    members = [np.flatnonzero(index == k) for k in range(index.max() + 1)]
    rng = np.random.default_rng(seed)
    return [np.concatenate([members[k] for k in rng.integers(len(members), size=len(members))]) for _ in range(draws)]


def summary(values: Sequence[float | None], groups: Sequence[str]) -> Mapping[str, float | int]:
    """Summarise a score over cases.

    Args:
        values: one per case; None where the score is not defined.
        groups: the patient or sequence of each case.

    Returns:
        `mean`, `low` and `high` as in `bootstrap`, and `n`, over the values that are not None. `skipped` counts the
        others, if there are any. Without values there are only `n` and `skipped`.
    """
    kept = [(v, g) for v, g in zip(values, groups, strict=True) if v is not None]
    if not kept:
        return {"n": 0, "skipped": len(values)}
    mean, low, high = bootstrap([v for v, _ in kept], [g for _, g in kept])
    skipped = {"skipped": len(values) - len(kept)} if len(kept) < len(values) else {}
    return {"mean": mean, "low": low, "high": high, "n": len(kept), **skipped}


def difference(
    ours: Mapping[str, float], theirs: Mapping[str, float], groups: Mapping[str, str]
) -> Mapping[str, float | int]:
    """Summarise ours − theirs, case by case.

    Args:
        ours: a score of each case, by id.
        theirs: of the same cases, in any order.
        groups: the patient or sequence of each case.

    Returns:
        As `summary`.

    Raises:
        InputError: the scores are of different cases.
    """
    if ours.keys() != theirs.keys():
        raise InputError("the scores that are compared are of different cases")
    return summary([ours[case] - theirs[case] for case in ours], [groups[case] for case in ours])
