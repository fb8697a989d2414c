"""One validation: scores on validation cases, Dice or PSNR of as many training cases, and a picture of the first."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from manymask.data.case import evenly_spaced
from manymask.data.store import Store
from manymask.diffusion.samplers import DDIM
from manymask.diffusion.sampling import SamplingConfig
from manymask.evaluation.evaluator import EvalConfig, Scores, evaluate, quick_score
from manymask.evaluation.plots import draw_batch
from manymask.models.base import MaskSampler, TrainableModel

VALIDATION_STEPS = 20
SHOWN = 4  # cases in the picture


@dataclass(frozen=True)
class Validated:
    """means: of all metrics, as logged; score: of the metric that checkpoints are compared by; train_score: Dice (PSNR of
    images) of training cases, in the way of `val/dice`."""

    means: dict[str, float]
    score: float
    train_score: float


def quick_sampling(model: nn.Module) -> SamplingConfig:
    """For validation: the model's own sampling if it takes few steps, else DDIM with as few."""
    own = model.resolve() if isinstance(model, MaskSampler) else SamplingConfig()
    slow = own.steps is not None and own.steps > VALIDATION_STEPS
    return SamplingConfig(DDIM(VALIDATION_STEPS)) if slow else SamplingConfig()


def described_sampling(model: nn.Module) -> str:
    """How validation draws masks, beside its score; nothing for a model without a sampler."""
    if not isinstance(model, MaskSampler):
        return ""
    used = model.resolve(quick_sampling(model))
    if used.sampler is None:
        return ""
    orientations = f" over {used.orientations} orientations" if (used.orientations or 1) > 1 else ""
    return f"; {type(used.sampler).__name__}-{used.steps}{orientations}"


def validated(
    model: TrainableModel,
    store: Store,
    parts: tuple[list[str], list[str]],
    count: int,
    metric: str,
    picture: Path,
    device: str,
    bf16: bool,
) -> Validated:
    """Scores a model on a fixed choice of `count` cases of each part (validation, training), and draws the first few."""
    val_ids = evenly_spaced(parts[0], count)
    train_ids = evenly_spaced(parts[1], len(val_ids))
    sampling = quick_sampling(model)
    protocol = EvalConfig(ged_samples=8, sampling=sampling, native=False, bf16=bf16)
    scores = evaluate(model, store, val_ids, protocol, device, progress=False)
    train_score = quick_score(model, store, train_ids, protocol, device)
    draw_batch(model, store.batch(val_ids[:SHOWN]).to(device), picture, sampling=sampling)
    means = {f"val/{name}": value["mean"] for name, value in scores.metrics.items() if "mean" in value}
    return Validated(means, validation_score(scores, metric), train_score)


def validation_score(scores: Scores, metric: str) -> float:
    """The score by which checkpoints are compared; higher is better.

    Args:
        scores: as returned by `evaluate`.
        metric: as named by `TrainableModel.validation_metric`: a name of `scores.metrics`, or "1 - " and such a name.

    Returns:
        The mean over cases, or 1 minus that mean.
    """
    name = metric.removeprefix("1 - ")
    value = float(scores.metrics[name]["mean"])
    return 1 - value if metric.startswith("1 - ") else value
