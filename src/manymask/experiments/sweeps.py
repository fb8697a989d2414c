"""What is scored of one trained model under many settings of its use: number of masks, samplers and steps; and of one
trained codec: its threshold."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from manymask.data.case import evenly_spaced
from manymask.data.raters import consensus_mask
from manymask.data.resize import resize_map
from manymask.data.store import Store
from manymask.diffusion.process import RectifiedFlow
from manymask.diffusion.samplers import DDIM, Euler, Sampler
from manymask.diffusion.sampling import SamplingConfig
from manymask.evaluation.evaluator import THRESHOLD, EvalConfig, Scores, evaluate
from manymask.evaluation.profiling import median_latency
from manymask.experiments.matrix import Budget, compared_samplers
from manymask.metrics import overlap, summary
from manymask.models.autoencoder import Codec
from manymask.models.base import MaskSampler, TrainableModel
from manymask.models.latent_diffusion import DiffusionSegmenter
from manymask.nn.losses import WeightedCE
from manymask.runtime import default_device

SHOWN = ("dice", "iou", "ged", "hm_iou", "ece", "brier", "relative_std")
UPRIGHT = SamplingConfig(orientations=1)  # every sample sees the image as it is
LONG = 50  # steps; a sampler with more is scored on fewer cases


def sample_curve(
    model: MaskSampler, store: Store, ids: Sequence[str], protocol: EvalConfig, counts: Sequence[int]
) -> list[dict[str, Any]]:
    """Dice and IoU of the consensus of the first n masks, for each n of `counts`, at native size."""
    device, groups = default_device(), [store.groups[case] for case in ids]
    found: dict[int, list[tuple[float, float]]] = {n: [] for n in counts}
    for start in range(0, len(ids), protocol.batch_size):
        some = ids[start : start + protocol.batch_size]
        drawn = model.sample_all(store.batch(some).to(device), max(counts), protocol.seed, protocol.sampling)
        for case, masks in zip(some, drawn.float().cpu().numpy(), strict=True):
            truth = consensus_mask(store.native_masks(case))
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


def sweeps(model: MaskSampler, store: Store, ids: list[str], budget: Budget, main: bool) -> dict[str, Any]:
    """`steps`: every sampler that serves the process at every number of steps, for the main model and a flow, and a slow
    sampler of a model's own (the paper's 1000 steps); `guidance`: every scale, for a model trained for guidance."""
    found = dict[str, Any]()
    if not isinstance(model, DiffusionSegmenter):
        return found
    setting = model.setting
    if main or isinstance(setting.process, RectifiedFlow):
        compared = compared_samplers(type(setting.process))
        every = [replace(sampler, steps=n) for sampler in compared for n in budget.sweep_steps]
        found["steps"] = [under(sampler, model, store, ids, budget) for sampler in every]
    elif setting.sampler.steps in budget.sweep_steps and setting.sampler.steps > LONG:
        found["steps"] = [under(setting.sampler, model, store, ids, budget)]
    if setting.condition_dropout or setting.classifier:
        found["guidance"] = _guidance(model, store, ids, budget)
    return found


def under(sampler: Sampler, model: MaskSampler, store: Store, ids: list[str], budget: Budget) -> dict[str, Any]:
    """Scores and time under one sampler; fewer cases where it takes long."""
    cases = ids if sampler.steps <= LONG else evenly_spaced(ids, budget.long_cases)
    sampling = replace(UPRIGHT, sampler=sampler)
    scores = evaluate(model, store, cases, _protocol(budget, sampling), progress=False)
    timed = cases if sampler.steps <= LONG else cases[:1]
    seconds = median_latency(model, store, timed, budget.samples, sampling)
    return {"sampler": type(sampler).__name__, "steps": sampler.steps, "cases": len(cases), "latency_s": seconds,
            **_shown(scores)}  # fmt: skip


def _guidance(model: DiffusionSegmenter, store: Store, ids: list[str], budget: Budget) -> list[dict[str, Any]]:
    rows = []
    sampler = Euler(budget.steps) if isinstance(model.setting.process, RectifiedFlow) else DDIM(budget.steps)
    for scale in budget.guidance:
        sampling = replace(UPRIGHT, sampler=sampler, guidance_scale=scale)
        scores = evaluate(model, store, ids, _protocol(budget, sampling), progress=False)
        rows.append({"scale": scale, "cases": len(ids), **_shown(scores)})
    return rows


def oriented(
    model: MaskSampler, orientations: int, store: Store, ids: list[str], protocol: EvalConfig
) -> dict[str, Any]:
    """Scores and time with the samples spread over so many orientations of the image, each of which is encoded."""
    protocol = replace(protocol, sampling=replace(protocol.sampling, orientations=orientations))
    scores = evaluate(model, store, ids, protocol, progress=False)
    seconds = median_latency(model, store, ids, protocol.samples, protocol.sampling)
    return {"orientations": orientations, "metrics": scores.metrics, "latency_s": seconds}


def _protocol(budget: Budget, sampling: SamplingConfig) -> EvalConfig:
    return EvalConfig(budget.samples, ged_samples=budget.samples, sampling=sampling)


def _shown(scores: Scores) -> dict[str, Any]:
    return {name: scores.metrics[name] for name in SHOWN if name in scores.metrics}


def codec_variants(
    model: TrainableModel, store: Store, ids: Sequence[str], protocol: EvalConfig, scores: Scores
) -> dict[str, Any]:
    """A mask codec trained with a weight, scored at both cuts; nothing for another."""
    codecs = cuts(model)
    if len(codecs) == 1:
        return {}
    found = {way: scores if codec is model else evaluate(codec, store, ids, protocol, progress=False)
             for way, codec in codecs.items()}  # fmt: skip
    return {"threshold": {way: each.metrics for way, each in found.items()}}


def cuts(model: TrainableModel) -> dict[str, TrainableModel]:
    """A mask codec trained with a weight in both readings: cut where the weighted loss has its ½ (`biased`), and with ln w
    taken off the logits (`unbiased`; the same weights, nothing is trained). Another model alone (`""`)."""
    setting = model.setting
    if not isinstance(model, Codec) or not isinstance(setting.loss, WeightedCE):
        return {"": model}
    names = ("unbiased", "biased") if setting.loss.unbias else ("biased", "unbiased")
    changed = replace(setting, loss=replace(setting.loss, unbias=not setting.loss.unbias)).build()
    changed.load_state_dict(model.state_dict())
    return dict(zip(names, (model, changed.eval()), strict=True))
