"""The probability that an image holds a lesion at all, by logistic regression on the evidence of its masks."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from manymask.calibration.evidence import NAMES

USED = ("agreement", "entropy", "log_area", "peak", "marked", "presence")
COLUMNS = [NAMES.index(name) for name in USED]
RIDGE = 1.0


@dataclass(frozen=True)
class PresenceMap:
    """A logistic regression.

    Attributes:
        centre: mean of the evidence used, (d,).
        scale: its standard deviation, (d,).
        coefficients: of the standardised evidence, then the constant, (d + 1,).
    """

    centre: np.ndarray
    scale: np.ndarray
    coefficients: np.ndarray

    def __call__(self, evidence: np.ndarray) -> np.ndarray:
        """Evidence (…, all of `NAMES`) → probability (…)."""
        x = ((evidence[..., COLUMNS] - self.centre) / self.scale).clip(-4, 4)
        result: np.ndarray = 1 / (1 + np.exp(-(x @ self.coefficients[:-1] + self.coefficients[-1])))
        return result


def fit_presence(evidence: np.ndarray, held: np.ndarray, weight: np.ndarray) -> PresenceMap:
    """Fit.

    Args:
        evidence: (n, all of `NAMES`).
        held: share of raters who marked anything, (n,) in [0, 1].
        weight: of each case, (n,).

    Returns:
        The regression.
    """
    chosen = evidence[:, COLUMNS]
    centre = chosen.mean(axis=0)
    scale = np.maximum(chosen.std(axis=0), 1e-3)
    x = np.column_stack([((chosen - centre) / scale).clip(-4, 4), np.ones(len(chosen))])

    def loss(at: np.ndarray) -> tuple[float, np.ndarray]:
        z = x @ at
        gap = weight * (1 / (1 + np.exp(-z)) - held)
        slope = RIDGE * np.append(at[:-1], 0)
        return float((weight * (np.logaddexp(0, z) - held * z)).sum() + slope @ at / 2), x.T @ gap + slope

    found = minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B")
    return PresenceMap(centre, scale, found.x)
