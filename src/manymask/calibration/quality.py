"""The Dice that a consensus will have, predicted from the masks themselves, with an interval (CV+, Barber et al. 2021).

A ridge regression is fitted once per fold without the cases of that fold. What it errs by on these, in units of a second
regression's expected error, is what the next image is assumed to err by. The interval then covers a share of about 1 − α
of images like those of the calibration (at least 1 − 2α, whatever the regression).
"""

from dataclasses import dataclass

import numpy as np

FAILURE = 0.7  # a consensus of lower Dice counts as a failure
ALPHA = 0.1  # of the interval
RIDGE = 10.0


@dataclass(frozen=True)
class PredictedDice:
    """A regression per fold, and what each erred by.

    Attributes:
        centre: mean of the evidence, (d,).
        scale: standard deviation of the evidence, (d,).
        level: coefficients of the Dice, (folds, features).
        width: coefficients of the log of the absolute error, (folds, features).
        error: error of each calibration case in units of its expected error, (n,).
        fold: the fold that left this case out, (n,).
    """

    centre: np.ndarray
    scale: np.ndarray
    level: np.ndarray
    width: np.ndarray
    error: np.ndarray
    fold: np.ndarray

    def __call__(self, evidence: np.ndarray) -> tuple[float, float, float, float]:
        """Predict.

        Args:
            evidence: (d,), as returned by `evidence`.

        Returns:
            The Dice, both ends of its interval, and the probability that it is below `FAILURE`.
        """
        x = _features((evidence - self.centre) / self.scale)
        level = self.level @ x
        unit = np.exp((self.width @ x).clip(-6, 0))
        fold = self.fold.astype(int)
        n = len(fold)
        outcomes = level[fold] + self.error * unit[fold]
        low = np.sort(level[fold] - np.abs(self.error) * unit[fold])
        high = np.sort(level[fold] + np.abs(self.error) * unit[fold])
        least = max(int(np.floor(ALPHA * (n + 1))) - 1, 0)
        most = min(int(np.ceil((1 - ALPHA) * (n + 1))) - 1, n - 1)
        ends = np.clip([np.median(outcomes), low[least], high[most]], 0, 1)
        failure = ((outcomes < FAILURE).sum() + 0.5) / (n + 1)
        return float(ends[0]), float(min(ends[1], ends[0])), float(max(ends[2], ends[0])), float(failure)


def fit_quality(evidence: np.ndarray, dice: np.ndarray, folds: np.ndarray) -> PredictedDice:
    """Fit to the cases of a calibration.

    Args:
        evidence: (n, d).
        dice: of the consensus, (n,).
        folds: the fold of each case, (n,) from 0.

    Returns:
        The regressions.
    """
    centre = evidence.mean(axis=0)
    scale = np.maximum(evidence.std(axis=0), 1e-3)
    x = np.array([_features(row) for row in (evidence - centre) / scale])
    level, width = [], []
    error = np.zeros(len(dice))
    for fold in range(int(folds.max()) + 1):
        kept = folds != fold
        left = ~kept
        coefficients = _ridge(x[kept], dice[kept])
        spread = _ridge(x[kept], np.log(np.abs(dice[kept] - x[kept] @ coefficients) + 0.01))
        unit = np.exp((x[left] @ spread).clip(-6, 0))
        error[left] = (dice[left] - x[left] @ coefficients) / unit
        level.append(coefficients)
        width.append(spread)
    return PredictedDice(centre, scale, np.array(level), np.array(width), error, folds.astype(float))


def _features(x: np.ndarray) -> np.ndarray:
    """Standardised evidence (d,), kept within four deviations, and a constant."""
    return np.append(x.clip(-4, 4), 1.0)


def _ridge(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least squares with a penalty on all coefficients but the last, the constant."""
    penalty = RIDGE * np.eye(x.shape[1])
    penalty[-1, -1] = 0
    result: np.ndarray = np.linalg.solve(x.T @ x + penalty, x.T @ y)
    return result
