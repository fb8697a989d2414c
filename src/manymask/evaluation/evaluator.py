"""One evaluator for every model: segmenters by `MaskSampler.sample_all`, codecs by `Codec.reconstruct`."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from manymask.config import to_dict
from manymask.data.case import Batch, Part
from manymask.data.raters import consensus_mask, majority_mask
from manymask.data.resize import resize_map, scale_mask
from manymask.data.store import Store
from manymask.diffusion.sampling import SamplingConfig
from manymask.evaluation.held_out import split_of
from manymask.evaluation.leakage import Leak, find_leak
from manymask.evaluation.observations import Drawn, draw, learns_raters, unbatched
from manymask.evaluation.outcomes import Outcomes, one_pass_entropy
from manymask.evaluation.rater_agreement import blind_and_human, rivals, set_scores
from manymask.evaluation.records import DataRecord, EvaluationRecord, ScoredModel
from manymask.hub.model_folder import TrainedModel
from manymask.metrics import Reliability, hd95, mean_dice, near_lesion, overlap, psnr, ssim, summary, threshold_jaccard
from manymask.models.autoencoder import Codec
from manymask.models.base import MaskSampler, TrainableModel
from manymask.models.conditioning import ImageTraits
from manymask.parallel import draws_at_once, in_order, shared_cores
from manymask.progress import Progress
from manymask.recipes import Stage
from manymask.runtime import default_device, git_revision, hardware

THRESHOLD = 0.5
DrawCase = Callable[[str], np.ndarray]  # id of a case → its masks, probabilities (n, h, w)


@dataclass(frozen=True)
class EvalConfig:
    """How a model is evaluated.

    Attributes:
        samples: masks per image that form the consensus: the first of those drawn.
        ged_samples: masks per image for scores against several raters.
        seed: of the random numbers.
        sampling: how masks are drawn; the model's default where a field is None.
        batch_size: images at a time. On a CPU, more masks exceed the cache (8 images take 1.2 times as long per image).
        native: whether scores are against masks at native size, with surface distances. At model size they are faster.
        bf16: whether the model runs in half precision.
        tile: side of the windows that larger images are drawn in, in their own pixels; None if all are drawn whole. It needs
            `evaluate(…, draw_case=…)`.
    """

    samples: int = 5
    ged_samples: int = 16
    seed: int = 0
    sampling: SamplingConfig = SamplingConfig()
    batch_size: int = 4
    native: bool = True
    bf16: bool = False
    tile: int | None = None

    def drawn(self, raters: int) -> int:
        """The number of masks that are drawn per image with so many raters."""
        return max(self.samples, self.ged_samples) if raters > 1 else self.samples


@dataclass
class Scores:
    """The result of an evaluation.

    Attributes:
        metrics: summaries over cases, by name.
        cases: scores of each case.
        baselines: summaries of baselines, by name.
        reliability: reliability diagrams, by name.
        throughput_s_per_image: wall time of drawing, in seconds per image.
    """

    metrics: dict[str, Any]
    cases: list[dict[str, Any]]
    baselines: dict[str, Any] = field(default_factory=dict)
    reliability: dict[str, Any] = field(default_factory=dict)
    throughput_s_per_image: float = 0.0


def evaluate(
    model: TrainableModel,
    store: Store,
    ids: Sequence[str],
    protocol: EvalConfig,
    device: str | None = None,
    progress: bool = True,
    outcomes: Outcomes | None = None,
    draw_case: DrawCase | None = None,
) -> Scores:
    """Score a codec or a segmenter.

    Args:
        model: a codec or a segmenter.
        store: the data.
        ids: the cases.
        protocol: how the model is evaluated.
        device: where it runs; an accelerator if there is one by default.
        progress: whether a progress bar is shown.
        outcomes: of a segmenter; gets a row per case, from the masks that are scored.
        draw_case: of a segmenter; draws the masks of a case where that takes more than its image at model size.

    Returns:
        The scores.
    """
    device = device or default_device()
    model.to(device).eval()
    groups = [ids[i : i + protocol.batch_size] for i in range(0, len(ids), protocol.batch_size)]
    with Progress(total=len(ids), desc="evaluate", unit="case", disable=not progress) as bar:
        if isinstance(model, Codec):
            batches = (store.batch(some).to(device) for some in groups)
            return _codec_scores(model, store, _counted(batches, bar), protocol)
        segmenter = cast(MaskSampler, model)
        draws = draws_at_once(device)
        traits = outcomes is not None or store.raters > 1
        draw_some = partial(_draw, segmenter, store, protocol, device, traits, draw_case)
        with shared_cores(draws), closing(in_order(draw_some, groups, draws)) as batches_drawn:
            return _segmenter_scores(segmenter, store, batches_drawn, protocol, outcomes, bar)


@torch.inference_mode()
def quick_score(
    model: TrainableModel, store: Store, ids: Sequence[str], protocol: EvalConfig, device: str | None = None
) -> float:
    """The mean Dice of a segmenter or mask codec, or PSNR of an image codec, at model size, and nothing else.

    Args:
        model: a codec or a segmenter.
        store: the data.
        ids: the cases, at least one.
        protocol: how the model is evaluated.
        device: where it runs; an accelerator if there is one by default.

    Returns:
        What `evaluate` calls `dice` (or `psnr`) with `native=False`.
    """
    device = device or default_device()
    model.to(device).eval()
    scores: list[float] = []
    for batch in store.batches(ids, protocol.batch_size, device):
        with torch.autocast(batch.image.device.type, torch.bfloat16, enabled=protocol.bf16):
            scores += _quick_scores(model, batch, protocol)
    return float(np.mean(scores))


def _quick_scores(model: TrainableModel, batch: Batch, protocol: EvalConfig) -> list[float]:
    if isinstance(model, Codec):
        score = psnr if model.setting.subject == "image" else _binary_dice
        return [score(y.cpu(), x.cpu()) for x, y in zip(*model.reconstruct(batch), strict=True)]
    assert isinstance(model, MaskSampler)
    drawn = model.sample_all(batch, protocol.samples, protocol.seed, protocol.sampling).float().cpu().numpy()
    answers = drawn.mean(axis=1) >= THRESHOLD
    truths = [consensus_mask(masks.numpy() > 0) for masks in batch.raters_masks()]
    return [overlap(answer, truth)[0] for answer, truth in zip(answers, truths, strict=True)]


def _binary_dice(reconstruction: Tensor, original: Tensor) -> float:
    return overlap(reconstruction.numpy() >= THRESHOLD, original.numpy() >= THRESHOLD)[0]


def _counted(batches: Iterator[Batch], bar: Progress) -> Iterator[Batch]:
    for batch in batches:
        yield batch
        bar.update(len(batch.ids))


def _collect(store: Store, cases: list[dict[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    groups = [store.groups[case["id"]] for case in cases]
    return {name: dict(summary([case[name] for case in cases], groups)) for name in names if name in cases[0]}


@torch.inference_mode()
def _codec_scores(model: Codec, store: Store, batches: Iterator[Batch], protocol: EvalConfig) -> Scores:
    cases = []
    for batch in batches:
        with torch.autocast(batch.image.device.type, torch.bfloat16, enabled=protocol.bf16):
            original, snapped = model.reconstruct(batch)
            decoded = model.decode(model.encode(original)) if protocol.native and model.decodes_unquantized else snapped
        for case, x, y, drawn in zip(batch.ids, *(t.cpu() for t in (original, snapped, decoded)), strict=True):
            row: dict[str, Any] = {"id": case, "psnr": psnr(y, x), "ssim": ssim(y, x)}
            if model.setting.subject == "mask":
                truth = x[0].numpy() >= THRESHOLD
                row["dice"], row["iou"] = overlap(y[0].numpy() >= THRESHOLD, truth)
                if decoded is not snapped:
                    row["dice_unquantized"] = overlap(drawn[0].numpy() >= THRESHOLD, truth)[0]
            cases.append(row)
    return Scores(_collect(store, cases, ("dice", "iou", "dice_unquantized", "ssim", "psnr")), cases)


class _Segmentations:
    """Scores cases one by one and accumulates the values that are pooled over all of them."""

    def __init__(self, store: Store, protocol: EvalConfig) -> None:
        self.store = store
        self.protocol = protocol
        self.pooled = np.zeros(2)  # intersection, sum of areas
        # cases without a surface distance: an empty prediction for a lesion, a prediction where there is none
        self.left_out = {"missed": 0, "false": 0}
        self.everywhere = Reliability()
        self.near_lesion = Reliability()

    def score(self, case: str, found: Drawn, masks: Tensor) -> dict[str, Any]:
        """Score one case: what was drawn, and the masks (R, S, S) at model size of raters who read it.

        Masks drawn in windows are larger than S × S: "model size" is then the scale of the windows.
        """
        native = self.store.native_masks(case) if self.protocol.native else masks.numpy() > 0
        small, drawn = masks.numpy() > 0, found.masks
        if drawn.shape[1:] != small.shape[1:]:
            small = np.stack([scale_mask(mask, drawn.shape[1:]) > 0 for mask in native])
        few = drawn[: self.protocol.samples]
        confidence = few.mean(axis=0)
        truth = consensus_mask(native)
        upscaled = resize_map(confidence, truth.shape)
        answer = upscaled >= THRESHOLD
        dice, iou = overlap(answer, truth)
        self.pooled += (answer & truth).sum(), answer.sum() + truth.sum()
        self.left_out["missed"] += bool(truth.any() and not answer.any())
        self.left_out["false"] += bool(answer.any() and not truth.any())
        frequency = native.mean(axis=0)
        self._calibrate(upscaled, frequency, near_lesion(native))
        model_dice, model_iou = overlap(confidence >= THRESHOLD, consensus_mask(small))
        distance = hd95(answer, truth) if self.protocol.native else None
        row = {"id": case, "dice": dice, "iou": iou, "threshold_jaccard": threshold_jaccard(iou),
               "mean_dice_256": mean_dice(upscaled, truth), "hd95": distance, "dice_model_size": model_dice,
               "iou_model_size": model_iou, "brier": float(np.square(upscaled - frequency).mean()),
               "relative_std": float(few.std(axis=0).sum() / max(confidence.sum(), 1.0))}  # fmt: skip
        return row | (self._several_raters(answer, native, found, small) if self.store.raters > 1 else {})

    def _several_raters(
        self, answer: np.ndarray, native: np.ndarray, found: Drawn, masks: np.ndarray
    ) -> dict[str, Any]:
        """Scores against several raters; GED and HM-IoU are at model size over all who read it, empty masks included."""
        filled = int(native.any(axis=(1, 2)).sum())
        dice = overlap(answer, majority_mask(native))[0]
        row: dict[str, Any] = {"raters": filled, "dice_majority": dice if filled >= 2 else None}
        return row | set_scores(found.masks[: self.protocol.ged_samples], masks, found.presence)

    def _calibrate(self, confidence: np.ndarray, frequency: np.ndarray, near: np.ndarray) -> None:
        self.everywhere.add(confidence.ravel(), frequency.ravel())
        self.near_lesion.add(confidence[near], frequency[near])

    def scores(self, cases: list[dict[str, Any]]) -> Scores:
        """All cases together."""
        names = ("dice", "iou", "threshold_jaccard", "mean_dice_256", "hd95",
                 "dice_model_size", "iou_model_size", "brier", "relative_std", "ged", "ged_unbiased",
                 "hm_iou", "sample_distance", "rater_distance", "dice_majority")  # fmt: skip
        metrics = _collect(self.store, cases, names)
        both, total = self.pooled
        metrics["dice"]["pooled"] = float(2 * both / max(total, 1))
        metrics["iou"]["pooled"] = float(both / max(total - both, 1))
        metrics["hd95"] |= self.left_out
        near = self.near_lesion
        metrics["ece"] = {"mean": self.everywhere.error, "near_lesion": near.error, "bins": self.everywhere.bins}
        full = [case for case in cases if case.get("raters") == self.store.raters]
        if full:
            metrics["dice_all_raters"] = _collect(self.store, full, ("dice",))["dice"]
        diagrams = {"everywhere": self.everywhere, "near_lesion": near}
        curves = {
            k: {n: getattr(r, n).tolist() for n in ("count", "confidence", "frequency")} for k, r in diagrams.items()
        }
        return Scores(metrics, cases, reliability=curves)


@dataclass(frozen=True)
class _Batch:
    """A batch with its masks: each image's, (n, S, S), and when they were drawn, from start to end."""

    batch: Batch
    found: list[Drawn]
    start: float
    end: float


@torch.inference_mode()
def _draw(
    model: MaskSampler,
    store: Store,
    protocol: EvalConfig,
    device: str,
    traits: bool,
    draw_case: DrawCase | None,
    ids: Sequence[str],
) -> _Batch:
    """Read and draw some cases, in a thread."""
    batch = store.batch(ids).to(device)
    count = protocol.drawn(store.raters)
    start = time.perf_counter()
    with torch.autocast(batch.image.device.type, torch.bfloat16, enabled=protocol.bf16):
        if draw_case is not None:
            found = [Drawn(draw_case(case), None, None) for case in ids]
        elif traits:
            found = list(draw(model, batch, count, protocol.seed, protocol.sampling))
        else:
            drawn = model.sample_all(batch, count, protocol.seed, protocol.sampling)
            found = list(unbatched(drawn, ImageTraits()))
    return _Batch(batch, found, start, time.perf_counter())


def _segmenter_scores(
    model: MaskSampler,
    store: Store,
    batches: Iterable[_Batch],
    protocol: EvalConfig,
    outcomes: Outcomes | None,
    bar: Progress,
) -> Scores:
    """Score batches while the next ones are drawn."""
    tally = _Segmentations(store, protocol)
    cases: list[dict[str, Any]] = []
    seconds, until = 0.0, 0.0
    for each in batches:
        seconds += max(0.0, each.end - max(each.start, until))  # of batches drawn at once, the time counts once
        until = max(until, each.end)
        batch = each.batch
        if outcomes is not None:
            with torch.inference_mode():
                _observe(outcomes, model, store, batch, each.found, protocol)
        masks = batch.raters_masks()
        cases += [tally.score(case, each.found[i], masks[i]) for i, case in enumerate(batch.ids)]
        bar.update(len(batch.ids))
    scores = tally.scores(cases)
    scores.throughput_s_per_image = seconds / max(len(cases), 1)
    if store.raters > 1:
        summarise = partial(_collect, store)
        scores.baselines = rivals(cases, summarise) | blind_and_human(store, [case["id"] for case in cases], summarise)
    return scores


def _observe(
    outcomes: Outcomes, model: MaskSampler, store: Store, batch: Batch, drawn: Sequence[Drawn], protocol: EvalConfig
) -> None:
    """Add the cases of a batch, by the masks that form their consensus."""
    every_rater = learns_raters(model)
    entropies = one_pass_entropy(model, batch, protocol.seed)
    for case, each, entropy in zip(batch.ids, drawn, entropies, strict=True):
        few = replace(each, masks=each.masks[: protocol.samples])
        outcomes.add(case, store.groups[case], few, store.native_masks(case), every_rater, entropy)


def _protocol_record(trained: TrainedModel, protocol: EvalConfig) -> dict[str, Any]:
    """The protocol with the sampling that was used, whether it was requested or is the model's default."""
    model = trained.model
    used = model.resolve(protocol.sampling) if isinstance(model, MaskSampler) else SamplingConfig()
    names = ("sampler", "orientations", "guidance_scale", "head_share")
    sampling = {name: getattr(used, name) for name in names}
    asked = {name: value for name, value in vars(protocol).items() if name != "sampling"}
    return {name: to_dict(value) for name, value in (asked | sampling).items()}


def results(
    trained: TrainedModel, store: Store, part: Part, protocol: EvalConfig, scores: Scores, scheme: str | None = None
) -> EvaluationRecord:
    """The scores, and everything that is needed to reproduce them.

    Args:
        trained: the model.
        store: the data.
        part: the part of the split that was scored.
        protocol: how the model was evaluated.
        scores: as returned by `evaluate`.
        scheme: the requested split scheme; see `split_of`.

    Returns:
        The content of results.json.
    """
    ids = [case["id"] for case in scores.cases]
    leak = Leak() if part == "train" else find_leak(trained, store, ids)
    used = split_of(trained, store, scheme)
    whole = len(store.part(used, part)) == len(store.ids)  # a folder without a split
    scored = "all" if whole else part
    return EvaluationRecord(
        metrics=scores.metrics,
        baselines=scores.baselines,
        protocol=_protocol_record(trained, protocol) | {"split": scored},
        data=DataRecord(store.name, store.hash, used, store.remark),
        model=ScoredModel(
            stage=trained.stage,
            recipe=to_dict(trained.recipe),
            provenance=to_dict(trained.provenance),
            weights_sha256=trained.fingerprint,
            parameters=sum(p.numel() for p in trained.model.parameters()),
        ),
        leak=leak.record,
        git=git_revision(),
        hardware=hardware(),
        throughput_s_per_image=scores.throughput_s_per_image,
        masks_per_image=protocol.drawn(store.raters) if trained.stage == Stage.SEGMENTER else 1,
        reliability=scores.reliability,
        cases=scores.cases,
    )
