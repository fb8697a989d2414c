"""Calibration against known truth: on phantoms, what is learnt from raters can be held against their true probabilities."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from manymask.calibration.confidence import ConfidenceMap, PixelCounts, fit_temperature
from manymask.data.datasets import phantom
from manymask.metrics import Reliability, near_lesion


def includes_halo(masks: np.ndarray, truth: phantom.Phantom) -> np.ndarray:
    """Which of the masks, bool (n, H, W), hold more than half of the halo's ring: bool (n,)."""
    result: np.ndarray = masks[:, truth.halo_ring].mean(axis=1) > 0.5
    return result


def true_calibration(
    confidence: ConfidenceMap,
    drawn: dict[str, np.ndarray],
    fitted_on: dict[str, np.ndarray],
    samples: int,
) -> dict[str, Any]:
    """Errors of probabilities against the true ones, raw and calibrated on raters alone.

    `drawn` and `fitted_on` hold probability masks (n, H, W) by case. Pixels: the mean of the first `samples` masks, before and
    after `confidence`. The halo: the share of masks that include it, before and after Platt's scaling, which is fitted to the
    share of raters who include it in the cases of `fitted_on`. No fit sees a true probability.
    """
    truths = {case: phantom.draw(phantom.case_index(case)) for case in (*drawn, *fitted_on)}
    learnt = [truths[case] for case in fitted_on]
    raters = np.array([includes_halo(one.masks, one).mean() for one in learnt])
    halo = fit_temperature(PixelCounts.of(_halo_shares(fitted_on, truths), raters))
    shares = _halo_shares(drawn, truths)
    true = np.array([truths[case].halo_probability for case in drawn])
    return {
        "fitted_on": len(fitted_on),
        "tested_on": len(drawn),
        "pixels_near_lesion": _pixels(confidence, drawn, truths, samples, near=True),
        "pixels_everywhere": _pixels(confidence, drawn, truths, samples, near=False),
        "halo": {"before": _against(shares, true), "after": _against(halo(shares), true)},
    }


def _halo_shares(drawn: dict[str, np.ndarray], truths: dict[str, phantom.Phantom]) -> np.ndarray:
    """The share of masks with the halo, as the mean of a uniform prior: neither 0 nor 1."""
    held = [(includes_halo(masks >= 0.5, truths[case]).sum() + 0.5) / (len(masks) + 1) for case, masks in drawn.items()]
    return np.array(held)


def _pixels(
    confidence: ConfidenceMap,
    drawn: dict[str, np.ndarray],
    truths: dict[str, phantom.Phantom],
    samples: int,
    near: bool,
) -> dict[str, Any]:
    raw: list[np.ndarray] = []
    true: list[np.ndarray] = []
    for case, masks in drawn.items():
        one = truths[case]
        where = near_lesion(one.masks) if near else np.ones_like(one.halo_ring)
        raw.append(masks[:samples].mean(axis=0)[where])
        true.append(one.pixel_probability[where])
    all_raw, all_true = np.concatenate(raw), np.concatenate(true)
    return {"before": _against(all_raw, all_true), "after": _against(confidence(all_raw), all_true)}


def _against(estimate: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Expected calibration error and mean absolute error of probabilities (N,) against the true ones (N,)."""
    diagram = Reliability()
    diagram.add(estimate, true)
    return {"ece": diagram.error, "mean_absolute_error": float(np.abs(estimate - true).mean())}


def rows_of(found: dict[str, Any]) -> list[list[str]]:
    """Lines of the demonstration's table: label, raw → calibrated."""
    labels = {
        "pixels_near_lesion": "pixels near the lesion",
        "pixels_everywhere": "all pixels",
        "halo": "share with the halo",
    }
    measures: Sequence[tuple[str, str]] = (("ece", "ECE"), ("mean_absolute_error", "mean absolute error"))
    return [
        [f"{label}: {name} to the truth, raw → calibrated",
         f"{found[part]['before'][key]:.3f} → {found[part]['after'][key]:.3f}"]
        for part, label in labels.items() for key, name in measures
    ]  # fmt: skip
