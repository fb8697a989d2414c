"""The form of the JSON files that the report reads, so that a damaged one is named and the rest of the report is made."""

import math
from collections.abc import Mapping
from typing import Any

from manymask.errors import InputError

# a form is: float (a finite number), a type, a tuple of forms (any of them), [form] of every item, or {key: form} where a key
# that ends in ? may be missing, and * stands for every other key
ANYTHING = {"*": object}
NUMBERS = {"*": (float, type(None))}
SCORE = {"mean?": float, "low?": float, "high?": float, **ANYTHING}  # over no cases it has no mean
ECE = {"mean": float, **NUMBERS}
SCORES = {
    "dice?": SCORE,
    "iou?": SCORE,
    "ged?": SCORE,
    "hm_iou?": SCORE,
    "ssim?": SCORE,
    "psnr?": SCORE,
    "relative_std?": SCORE,
}
METRICS = {**SCORES, "ece?": ECE, **ANYTHING}
SWEEP = {**SCORES, "dice": SCORE, "ece": ECE, "cases": float, **ANYTHING}
MEMORY = {"process": float, **NUMBERS}

EXPERIMENT: dict[str, Any] = {
    "recipe": str,
    "precision": str,
    "budget": {"minutes": (float, type(None)), "samples": float, "steps": float, **ANYTHING},
    "data": {"name": str, "hash": str, "scheme": str, "size": float, "raters": float, "remark": str, **ANYTHING},
    "rows": [{"table": str, "name": str, "label": str, "run_id": str, "codecs": {"*": str}, **ANYTHING}],
    **ANYTHING,
}
RESULT: dict[str, Any] = {
    "task?": {"recipe?": {"mask_codec?": {"loss?": {"weight?": float, **ANYTHING}, **ANYTHING}, **ANYTHING}, **ANYTHING},
    "training": {"steps": float, "images": float, "minutes": float, "git": (str, type(None)),
                 "peak_memory?": MEMORY, **ANYTHING},
    "git": (str, type(None)),
    "metrics": METRICS,
    "model": {"parameters": float, **ANYTHING},
    "hardware": ANYTHING,
    "cases": [object],
    "curve?": [{"n": float, "dice": SCORE, "iou": SCORE, **ANYTHING}],
    "steps?": [{**SWEEP, "sampler": str, "steps": float, "latency_s": float}],
    "guidance?": [{**SWEEP, "scale": float}],
    "oriented?": {"orientations": float, "metrics": METRICS, "latency_s": float, **ANYTHING},
    "reliability?": {"*": {"count": [float], "confidence": [float], "frequency": [float], **ANYTHING}},
    "latency_s?": float,
    "latency_one_mask_s?": float,
    "peak_memory?": MEMORY,
    "threshold?": {"*": METRICS},
    "invariance?": {"*": NUMBERS},
    **ANYTHING,
}  # fmt: skip
FAILED = {"error": str, **ANYTHING}


def check(value: Any, form: Any, where: str) -> None:
    """Raises `InputError` naming the first place where `value` has not this form."""
    if isinstance(form, tuple):
        if not any(_fits(value, each) for each in form):
            raise InputError(f"{where} is not what `manymask reproduce` writes")
    elif isinstance(form, list):
        if not isinstance(value, list):
            raise InputError(f"{where} is no list")
        for k, item in enumerate(value):
            check(item, form[0], f"{where}[{k}]")
    elif isinstance(form, Mapping):
        _check_object(value, form, where)
    elif not _fits(value, form):
        raise InputError(f"{where} is no {'finite number' if form is float else form.__name__}")


def _check_object(value: Any, form: Mapping[str, Any], where: str) -> None:
    if not isinstance(value, dict):
        raise InputError(f"{where} is no object")
    for key, inner in form.items():
        name = key.removesuffix("?")
        if key != "*" and name in value:
            check(value[name], inner, f"{where}.{name}")
        elif key == name != "*":
            raise InputError(f"{where} lacks {name}")
    if "mean" in value and "mean?" in form and not {"low", "high"} <= set(value):
        raise InputError(f"{where} has a mean without its interval")
    rest = form.get("*", object)
    for name in value:
        if name not in form and f"{name}?" not in form:
            check(value[name], rest, f"{where}.{name[:40]}")


def _fits(value: Any, form: Any) -> bool:
    if form is float:
        return type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value)
    return isinstance(value, form)
