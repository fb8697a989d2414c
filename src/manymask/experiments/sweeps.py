"""What is scored of one trained model under many settings of its use: number of masks, samplers and steps; and of one
trained codec: its threshold."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from manymask.config import using
from manymask.data.raters import readers_consensus
from manymask.data.store import Store
from manymask.diffusion.process import Flow
from manymask.diffusion.samplers import DDIM, Euler, Sampler
from manymask.evaluation.evaluator import THRESHOLD, Protocol, Scores, evaluate, resize_map
from manymask.evaluation.held_out import spread
from manymask.evaluation.profiling import seconds_an_image
from manymask.experiments.matrix import SAMPLERS, Rules
from manymask.metrics import overlap, summary
from manymask.models.autoencoder import Codec
from manymask.models.latent_diffusion import LatentDiffusion
from manymask.nn.losses import WeightedCE
from manymask.runtime import default_device

SHOWN = ("dice", "iou", "ged", "hm_iou", "ece", "brier", "spread")
LONG = 50  # steps; a sampler with more is scored on fewer cases


def sample_curve(
    model: Any, store: Store, ids: Sequence[str], protocol: Protocol, counts: Sequence[int]
) -> list[dict[str, Any]]:
    """Dice and IoU of the consensus of the first n masks, for each n of `counts`, at native size."""
    device, groups = default_device(), [store.groups[case] for case in ids]
    found: dict[int, list[tuple[float, float]]] = {n: [] for n in counts}
    for start in range(0, len(ids), protocol.batch):
        some = ids[start : start + protocol.batch]
        drawn = model.predict(store.batch(some).to(device), max(counts), protocol.seed, protocol.sampler)
        for case, masks in zip(some, drawn.float().cpu().numpy(), strict=True):
            native = torch.from_numpy(store.native_masks(case)[None].astype(np.float32))
            truth = readers_consensus(native)[0, 0].numpy() > 0
            for n in counts:
                answer = resize_map(masks[:n].mean(axis=0), truth.shape) >= THRESHOLD
                found[n].append(overlap(answer, truth))
    return [
        {
            "n": n,
            "dice": dict(summary([d for d, _ in pairs], groups)),
            "iou": dict(summary([i for _, i in pairs], groups)),
        }
        for n, pairs in found.items()
    ]


def sweeps(model: Any, store: Store, ids: list[str], rules: Rules, main: bool) -> dict[str, Any]:
    """`steps`: every sampler that serves the process at every number of steps, for the main model and a flow, and a slow
    sampler of a model's own (the paper's 1000 steps); `guidance`: every scale, for a model trained for guidance."""
    setting, found = model.setting, dict[str, Any]()
    if not isinstance(setting, LatentDiffusion):
        return found
    if main or isinstance(setting.process, Flow):
        every = [replace(s, steps=n) for s in SAMPLERS[type(setting.process)] for n in rules.sweep_steps]
        found["steps"] = [under(sampler, model, store, ids, rules) for sampler in every]
    elif setting.sampler.steps in rules.sweep_steps and setting.sampler.steps > LONG:
        found["steps"] = [under(setting.sampler, model, store, ids, rules)]
    if setting.drop_condition or setting.classifier:
        found["guidance"] = _guidance(model, store, ids, rules)
    return found


def under(sampler: Sampler, model: Any, store: Store, ids: list[str], rules: Rules) -> dict[str, Any]:
    """Scores and time under one sampler; fewer cases where it takes long."""
    cases = ids if sampler.steps <= LONG else spread(ids, rules.long_cases)
    scores = evaluate(model, store, cases, _protocol(rules, sampler), progress=False)
    timed = cases if sampler.steps <= LONG else cases[:1]
    seconds = seconds_an_image(model, store, timed, rules.samples, sampler)
    return {"sampler": type(sampler).__name__, "steps": sampler.steps, "cases": len(cases), "seconds_an_image": seconds,
            **_shown(scores)}  # fmt: skip


def _guidance(model: Any, store: Store, ids: list[str], rules: Rules) -> list[dict[str, Any]]:
    rows, setting = [], model.setting
    sampler = Euler(rules.steps) if isinstance(setting.process, Flow) else DDIM(rules.steps)
    for scale in rules.guidance:
        classifier = setting.classifier and replace(setting.classifier, scale=scale)
        guided = replace(setting, classifier=classifier) if classifier else replace(setting, guidance=scale)
        with using(model, guided):
            scores = evaluate(model, store, ids, _protocol(rules, sampler), progress=False)
        rows.append({"scale": scale, "cases": len(ids), **_shown(scores)})
    return rows


def turned(model: Any, turns: int, store: Store, ids: list[str], protocol: Protocol) -> dict[str, Any]:
    """Scores and time with the samples spread over `turns` quarter turns of the image, which is encoded for each."""
    with using(model, replace(model.setting, turns=turns)):
        scores = evaluate(model, store, ids, protocol, progress=False)
        seconds = seconds_an_image(model, store, ids, protocol.samples, protocol.sampler)
    return {"turns": turns, "metrics": scores.metrics, "seconds_an_image": seconds}


def _protocol(rules: Rules, sampler: Sampler) -> Protocol:
    return Protocol(rules.samples, ged_samples=rules.samples, sampler=sampler)


def _shown(scores: Scores) -> dict[str, Any]:
    return {name: scores.metrics[name] for name in SHOWN if name in scores.metrics}


def codec_variants(model: Any, store: Store, ids: Sequence[str], protocol: Protocol, scores: Scores) -> dict[str, Any]:
    """A mask codec trained with a weight, scored both ways: cut where the weighted loss has its ½, and with ln w taken
    off the logits (the same weights; nothing is trained)."""
    setting = model.setting
    if not isinstance(model, Codec) or not isinstance(setting.loss, WeightedCE):
        return {}
    names = ("unbiased", "biased") if setting.loss.unbias else ("biased", "unbiased")
    with using(model, replace(setting, loss=replace(setting.loss, unbias=not setting.loss.unbias))):
        other = evaluate(model, store, ids, protocol, progress=False)
    return {"threshold": dict(zip(names, (scores.metrics, other.metrics), strict=True))}
