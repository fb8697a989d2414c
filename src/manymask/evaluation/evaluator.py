"""One evaluator for every model: it knows `predict(batch, n, seed)`, or for a codec `reconstruct(batch)`, no more."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from manymask.config import to_dict
from manymask.data.case import Batch, Part
from manymask.data.raters import consensus_mask, majority_mask
from manymask.data.store import Store
from manymask.diffusion.sampling import SamplingConfig
from manymask.evaluation.held_out import split_of
from manymask.evaluation.leakage import Leak, find_leak
from manymask.evaluation.rater_agreement import blind_and_human, rivals, set_scores
from manymask.evaluation.records import DataRecord, EvaluationRecord, ScoredModel
from manymask.hub.model_folder import TrainedModel
from manymask.metrics import Reliability, hd95, mean_dice, near_lesion, overlap, psnr, ssim, summary, threshold_jaccard
from manymask.models.autoencoder import Codec
from manymask.models.base import MaskSampler, TrainableModel
from manymask.recipes import Stage
from manymask.runtime import default_device, git_revision, hardware

THRESHOLD = 0.5


@dataclass(frozen=True)
class EvalConfig:
    """How a model is evaluated. `ged_samples` are drawn where there are several raters; the first `samples` of them
    make the consensus, which is the same as drawing that many alone."""

    samples: int = 5
    ged_samples: int = 16
    seed: int = 0
    sampling: SamplingConfig = SamplingConfig()
    batch_size: int = 4  # images; on a CPU more masks at once fall out of the cache (8 take 1.2 times as long an image)
    native: bool = True  # against the masks at their native size, with surface distances; else at model size, quicker
    bf16: bool = False  # the model's part of the work in half precision

    def drawn(self, raters: int) -> int:
        """How many masks are drawn of a case that so many raters marked."""
        return max(self.samples, self.ged_samples) if raters > 1 else self.samples


@dataclass
class Scores:
    """What an evaluation found: `metrics` and `baselines` by name, `cases` one by one, the reliability diagrams."""

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
) -> Scores:
    """Scores of a codec or a segmenter on these cases, on a GPU if there is one."""
    device = device or default_device()
    model.to(device).eval()
    batches = (
        store.batch(ids[i : i + protocol.batch_size]).to(device) for i in range(0, len(ids), protocol.batch_size)
    )
    with tqdm(total=len(ids), desc="evaluate", unit="case", disable=not progress) as bar:
        if isinstance(model, Codec):
            return _codec_scores(model, store, _counted(batches, bar), protocol)
        return _segmenter_scores(model, store, _counted(batches, bar), protocol)  # type: ignore[arg-type]


def _counted(batches: Iterator[Batch], bar: "tqdm[Any]") -> Iterator[Batch]:
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
    """Scores cases one after another and keeps what is pooled over all of them."""

    def __init__(self, store: Store, protocol: EvalConfig) -> None:
        self.store, self.protocol = store, protocol
        self.pooled = np.zeros(2)  # intersection, sum of areas
        # what a surface distance cannot say: an empty answer to a lesion, an answer where there is none
        self.left_out = {"missed": 0, "false": 0}
        self.everywhere, self.near_lesion = Reliability(), Reliability()

    def score(self, case: str, drawn: np.ndarray, masks: Tensor) -> dict[str, Any]:
        """One case: drawn (n, S, S) probabilities, the masks (R, S, S) at model size of those who read it."""
        native = self.store.native_masks(case) if self.protocol.native else masks.numpy() > 0
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
        model_dice, model_iou = overlap(confidence >= THRESHOLD, consensus_mask(masks.numpy() > 0))
        distance = hd95(answer, truth) if self.protocol.native else None
        row = {"id": case, "dice": dice, "iou": iou, "threshold_jaccard": threshold_jaccard(iou),
               "mean_dice_256": mean_dice(upscaled, truth), "hd95": distance, "dice_model_size": model_dice,
               "iou_model_size": model_iou, "brier": float(np.square(upscaled - frequency).mean()),
               "relative_std": float(few.std(axis=0).sum() / max(confidence.sum(), 1.0))}  # fmt: skip
        return row | (self._several_raters(answer, native, drawn, masks.numpy() > 0) if self.store.raters > 1 else {})

    def _several_raters(
        self, answer: np.ndarray, native: np.ndarray, drawn: np.ndarray, masks: np.ndarray
    ) -> dict[str, Any]:
        """Scores that need several raters; GED and HM-IoU take all who read, empty masks included, at model size."""
        filled = int(native.any(axis=(1, 2)).sum())
        dice = overlap(answer, majority_mask(native))[0]
        row: dict[str, Any] = {"raters": filled, "dice_majority": dice if filled >= 2 else None}
        return row | set_scores(drawn[: self.protocol.ged_samples], masks)

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
        everywhere, near = self.everywhere, self.near_lesion
        metrics["ece"] = {"mean": everywhere.error, "near_lesion": near.error, "bins": everywhere.bins}
        full = [case for case in cases if case.get("raters") == self.store.raters]
        if full:
            metrics["dice_all_raters"] = _collect(self.store, full, ("dice",))["dice"]
        diagrams = {"everywhere": everywhere, "near_lesion": near}
        curves = {
            k: {n: getattr(r, n).tolist() for n in ("count", "confidence", "frequency")} for k, r in diagrams.items()
        }
        return Scores(metrics, cases, reliability=curves)


def resize_map(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A map (S, S) at another size, bilinear."""
    if values.shape == shape:
        return values
    tensor = torch.from_numpy(values)[None, None]
    return F.interpolate(tensor, size=shape, mode="bilinear", align_corners=False)[0, 0].numpy()


def _segmenter_scores(model: MaskSampler, store: Store, batches: Iterator[Batch], protocol: EvalConfig) -> Scores:
    tally, cases, seconds = _Segmentations(store, protocol), [], 0.0
    several, count = store.raters > 1, protocol.drawn(store.raters)
    for batch in batches:
        start = time.perf_counter()
        with torch.autocast(batch.image.device.type, torch.bfloat16, enabled=protocol.bf16):
            drawn = model.sample_all(batch, count, protocol.seed, protocol.sampling).float().cpu().numpy()
        seconds += time.perf_counter() - start
        masks = batch.raters_masks()
        cases += [tally.score(case, drawn[i], masks[i]) for i, case in enumerate(batch.ids)]
    scores = tally.scores(cases)
    scores.throughput_s_per_image = seconds / max(len(cases), 1)
    if several:
        summarise = partial(_collect, store)
        scores.baselines = rivals(cases, summarise) | blind_and_human(store, [case["id"] for case in cases], summarise)
    return scores


def validation_score(scores: Scores, metric: str) -> float:
    """The score that `TrainableModel.validation_metric` names."""
    name = metric.removeprefix("1 - ")
    value = float(scores.metrics[name]["mean"])
    return 1 - value if metric.startswith("1 - ") else value


def _protocol_record(trained: TrainedModel, protocol: EvalConfig) -> dict[str, Any]:
    """The protocol with the sampling that was used, whether it was requested or is the model's default."""
    model = trained.model
    used = model.resolve(protocol.sampling) if isinstance(model, MaskSampler) else SamplingConfig()
    sampling = {"sampler": used.sampler, "orientations": used.orientations, "guidance_scale": used.guidance_scale}
    asked = {name: value for name, value in vars(protocol).items() if name != "sampling"}
    return {name: to_dict(value) for name, value in (asked | sampling).items()}


def results(
    trained: TrainedModel, store: Store, part: Part, protocol: EvalConfig, scores: Scores, scheme: str | None = None
) -> EvaluationRecord:
    """The scores with everything that is needed to get them again."""
    ids = [case["id"] for case in scores.cases]
    leak = Leak() if part == "train" else find_leak(trained, store, ids)
    return EvaluationRecord(
        metrics=scores.metrics,
        baselines=scores.baselines,
        protocol=_protocol_record(trained, protocol) | {"split": part},
        data=DataRecord(store.name, store.hash, split_of(trained, store, scheme), store.remark),
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
