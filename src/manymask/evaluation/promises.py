"""What a calibration promises against what happened on labelled images, at home or elsewhere.

Shares of pixels are means over cases with a bootstrap interval over groups. Shares of cases have an exact binomial
interval (Clopper & Pearson 1934), which takes cases as independent: of frames of one video it is too narrow.
"""

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np

from manymask.calibration.calibration import DOUBTFUL, Assessment, Calibration
from manymask.calibration.confidence import ConfidenceMap, PixelCounts
from manymask.calibration.evidence import NAMES
from manymask.calibration.foreignness import FALSE_ALARMS
from manymask.calibration.quality import ALPHA, FAILURE
from manymask.calibration.risk import CONSENSUS, THRESHOLDS, RiskControl
from manymask.data.case import Part
from manymask.data.store import Store
from manymask.evaluation.held_out import is_users_own
from manymask.evaluation.outcomes import Outcomes
from manymask.hub.model_folder import TrainedModel
from manymask.metrics import Reliability, aurc, auroc, clopper_pearson, resamples, risk_coverage, summary

REVIEWED = 0.1  # the share of cases that a reader looks at first


def unpromised(trained: TrainedModel, store: Store, ids: Sequence[str], part: Part, drawn_as: dict[str, Any]) -> str:
    """Why nothing is promised for these cases.

    Args:
        trained: a segmenter.
        store: the data.
        ids: the cases.
        part: the part of the split that they belong to.
        drawn_as: how masks are drawn, as `sampling_record` returns it.

    Returns:
        A sentence; empty if promises hold for such cases or can be tested on them.
    """
    if trained.calibration is None:
        return "The model is not calibrated: nothing is promised."
    if part == "train":
        return "Nothing is promised for cases that the model was trained on."
    origin = trained.calibration.origin
    if drawn_as != origin.sampling:
        named = [f"{name} {_short(drawn_as.get(name))} instead of {_short(origin.sampling.get(name))}"
                 for name in drawn_as | origin.sampling if drawn_as.get(name) != origin.sampling.get(name)]  # fmt: skip
        return f"Nothing is promised for masks drawn unlike the calibration's: {', '.join(named)}."
    same = store.holds(origin.data_hash) or (store.name == origin.data and not is_users_own(store))
    known = len(set(ids) & set(origin.cases)) if same else 0
    if known:
        return f"Nothing is tested: the calibration was fitted on {known} of these {len(ids)} cases."
    return ""


def _short(value: Any) -> str:
    """A sampling setting in a few characters."""
    if not isinstance(value, dict):
        return str(value)
    return " ".join(str(each) for each in value.values())


def kept_promises(calibration: Calibration, seen: Outcomes, home: bool) -> dict[str, Any]:
    """Hold every promise against what happened.

    Args:
        calibration: what was promised.
        seen: the cases, none of which it was fitted on.
        home: whether they are of the data set that it was fitted on.

    Returns:
        JSON-able, the entry `promises` of results.json.
    """
    origin = calibration.origin
    predicted = [Assessment(*calibration.quality(row)) for row in seen.evidence]
    return {
        "calibrated": True,
        "on": {"data": origin.data, "scheme": origin.scheme, "split": origin.split, "cases": len(origin.cases),
               "data_hash": origin.data_hash},
        "home": home,
        "cases": len(seen.cases),
        "groups": len(set(seen.groups)),
        "outlines": [_outlines(risk, seen) for risk in calibration.risks],
        "dice": _dice(predicted, seen),
        "reliability": {
            region: {
                when: _diagram(counts, mapping)
                for when, mapping in (("before", None), ("after", calibration.confidence))
            }
            for region, counts in (("near_lesion", seen.near), ("in_doubt", seen.doubt), ("everywhere", seen.counts))
        },
        "ranking": _ranking(np.array([each.doubt for each in predicted]), seen),
        "presence": _presence(calibration, seen),
        "foreign": _foreign(calibration, seen),
    }  # fmt: skip


def _outlines(risk: RiskControl, seen: Outcomes) -> dict[str, Any]:
    sides = (("outer", risk.outer, seen.missed), ("inner", risk.inner, seen.false))
    return {"alpha": risk.alpha} | {
        name: {"threshold": threshold} | _outline(threshold, losses, risk.alpha, seen)
        for name, threshold, losses in sides
    }


def _outline(threshold: float, losses: Sequence[np.ndarray], alpha: float, seen: Outcomes) -> dict[str, Any]:
    """The share that was missed or false, and how large the outline is: medians over the cases with such a ratio."""
    at = _nearest(threshold)
    share = summary([float(loss[at]) for loss in losses], seen.groups)
    areas = np.array([float(area[at]) for area in seen.area])
    consensus = np.array([float(area[_nearest(CONSENSUS)]) for area in seen.area])
    lesion = np.array([float(counts.frequency.sum()) for counts in seen.counts])
    whole = np.array([float(area[0]) for area in seen.area])
    return {
        "share": dict(share),
        "kept": bool(share["mean"] <= alpha),
        "broken": bool(share["low"] > alpha),
        "area_to_consensus": _median_ratio(areas, consensus),
        "area_to_lesion": _median_ratio(areas, lesion),
        "area_of_image": float(np.mean(areas / whole)),
    }


def _nearest(threshold: float) -> int:
    """Place in `THRESHOLDS` of one that was rounded when it was saved."""
    return int(np.abs(THRESHOLDS - np.float32(threshold)).argmin())


def _median_ratio(areas: np.ndarray, of: np.ndarray) -> float | None:
    return float(np.median(areas[of > 0] / of[of > 0])) if (of > 0).any() else None


def _dice(predicted: Sequence[Assessment], seen: Outcomes) -> dict[str, Any]:
    """Error of the predicted Dice, and its interval against its promise."""
    dice = np.array(seen.dice)
    middle, low, high = np.array([(each.dice, each.dice_low, each.dice_high) for each in predicted]).T
    inside = (low - 1e-9 <= dice) & (dice <= high + 1e-9)
    return {
        "absolute_error": dict(summary(np.abs(dice - middle).tolist(), seen.groups)),
        "excess": float((middle - dice).mean()),
        "covered": _share(int(inside.sum()), len(dice), 1 - ALPHA, at_least=True),
        "width": float((high - low).mean()),
    }


def _share(count: int, of: int, promised: float, at_least: bool) -> dict[str, Any]:
    """A share of cases with its exact interval, against the share that was promised at least or at most."""
    share = count / of
    low, high = clopper_pearson(count, of)
    kept, broken = (share >= promised, high < promised) if at_least else (share <= promised, low > promised)
    return {"count": count, "of": of, "share": share, "low": low, "high": high,
            "promised": promised, "kept": bool(kept), "broken": bool(broken)}  # fmt: skip


def reliability(counts: PixelCounts, mapping: ConfidenceMap | None = None) -> Reliability:
    """The reliability diagram of pixels that were counted in fine bins.

    Args:
        counts: the pixels.
        mapping: applied to their confidence first; none if None.

    Returns:
        The diagram.
    """
    found = Reliability()
    confidence, frequency, n = counts.means
    mapped = confidence if mapping is None else mapping(confidence)
    index = np.minimum((mapped * found.bins).astype(int), found.bins - 1)
    found.count, found.confidence, found.frequency = (
        np.bincount(index, weights, minlength=found.bins) for weights in (n, n * mapped, n * frequency)
    )
    return found


def _diagram(counts: Sequence[PixelCounts], mapping: ConfidenceMap | None) -> dict[str, Any]:
    found = reliability(PixelCounts.total(counts), mapping)
    return {"ece": found.error} | {name: getattr(found, name).tolist() for name in ("count", "confidence", "frequency")}


def _ranking(doubt: np.ndarray, seen: Outcomes) -> dict[str, Any]:
    """Whether the results that are doubted are the wrong ones."""
    dice = np.array(seen.dice)
    failed = dice < FAILURE
    area, excess = aurc(doubt, 1 - dice)
    scores = {"predicted_failure": doubt, "disagreement": -np.array(seen.evidence)[:, NAMES.index("agreement")]}
    once = [value for value in seen.one_pass if value is not None]
    if len(once) == len(dice):
        scores["one_pass_entropy"] = np.array(once)
    reviewed = ceil(REVIEWED * len(dice))
    first = np.argsort(-doubt, kind="stable")[:reviewed]
    return {
        "risk_coverage": risk_coverage(doubt, 1 - dice).tolist(),
        "best_risk_coverage": risk_coverage(1 - dice, 1 - dice).tolist(),
        "aurc": area,
        "excess_aurc": excess,
        "aurc_of_random_order": float((1 - dice).mean()),
        "failures": int(failed.sum()),
        "below": FAILURE,
        "auroc": _aurocs(scores, failed, seen.groups),
        "tenth": {"reviewed": reviewed} | _found(int(failed[first].sum()), int(failed.sum())),
    }


def _found(count: int, of: int) -> dict[str, Any]:
    if not of:
        return {"found": 0, "of": 0}
    low, high = clopper_pearson(count, of)
    return {"found": count, "of": of, "share": count / of, "low": low, "high": high}


def _aurocs(scores: dict[str, np.ndarray], failed: np.ndarray, groups: Sequence[str]) -> dict[str, Any]:
    """AUROC of finding failures by each score, with bootstrap intervals over groups.

    `lead` is the advantage of the predicted failure over another score, on the same resamples.
    """
    if failed.all() or not failed.any():
        return {}
    usable = [rows for rows in resamples(groups) if failed[rows].any() and not failed[rows].all()]
    areas = {name: np.array([auroc(score[rows], failed[rows]) for rows in usable]) for name, score in scores.items()}
    found: dict[str, Any] = {}
    for name, score in scores.items():
        found[name] = {"auroc": auroc(score, failed)} | _ends(areas[name])
        if name != "predicted_failure":
            found[name]["lead"] = _ends(areas["predicted_failure"] - areas[name])
    return found


def _ends(values: np.ndarray) -> dict[str, float | None]:
    if not len(values):
        return {"low": None, "high": None}
    low, high = np.percentile(values, [2.5, 97.5])
    return {"low": float(low), "high": float(high)}


def _presence(calibration: Calibration, seen: Outcomes) -> dict[str, Any]:
    """The probability that there is a lesion, against the share of raters who marked one."""
    if calibration.presence is None:
        return {"why_not": "Presence is not calibrated."}
    held = np.array(seen.held)
    probability = calibration.presence(np.array(seen.evidence))
    positive = held >= 0.5
    found: dict[str, Any] = {"with_lesion": int(positive.sum()), "without_lesion": int((~positive).sum())}
    if positive.any():
        found["doubted"] = _found(int((probability[positive] < DOUBTFUL).sum()), int(positive.sum()))
    if positive.all() or not positive.any():
        every = "holds a lesion" if positive.all() else "holds none"
        return found | {"why_not": f"Presence is not tested: every case {every}."}
    diagram = Reliability(10)
    diagram.add(probability, held)
    return found | {
        "auroc": auroc(probability, positive),
        "brier": float(np.square(probability - held).mean()),
        "ece": diagram.error,
    }


def _foreign(calibration: Calibration, seen: Outcomes) -> dict[str, Any]:
    """The share of images that are called unlike the training images; promised only of images that are like them."""
    embeddings = [each for each in seen.embeddings if each is not None]
    if calibration.foreign is None or len(embeddings) < len(seen.cases):
        return {"why_not": "Whether an image is foreign is not calibrated."}
    far = calibration.foreign.distance(np.array(embeddings)) > calibration.foreign.cut
    return {"flagged": _share(int(far.sum()), len(far), FALSE_ALARMS, at_least=False)}
