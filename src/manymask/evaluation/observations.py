"""Labelled images as a calibration sees them: what their masks say of themselves, and what is true."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from manymask.calibration.confidence import PixelCounts
from manymask.calibration.evidence import evidence
from manymask.calibration.risk import losses
from manymask.data.case import Batch
from manymask.data.raters import consensus_mask
from manymask.data.resize import resize_image, resize_map
from manymask.data.store import Store
from manymask.diffusion.sampling import SamplingConfig
from manymask.metrics import overlap
from manymask.models.base import MaskSampler
from manymask.models.conditioning import ImageTraits
from manymask.progress import Progress
from manymask.runtime import default_device

WINDOWS = 4  # images at a time


@dataclass
class Observations:
    """What was seen of labelled images, a row each.

    Attributes:
        cases: ids.
        groups: patient or sequence.
        evidence: as `evidence` returns it.
        dice: of the consensus.
        held: share of raters who marked anything.
        missed: as `risk.losses` returns them.
        false: the same.
        counts: pixels by confidence.
        embeddings: features; None for models without.
    """

    cases: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    evidence: list[np.ndarray] = field(default_factory=list)
    dice: list[float] = field(default_factory=list)
    held: list[float] = field(default_factory=list)
    missed: list[np.ndarray] = field(default_factory=list)
    false: list[np.ndarray] = field(default_factory=list)
    counts: list[PixelCounts] = field(default_factory=list)
    embeddings: list[np.ndarray | None] = field(default_factory=list)

    def add(self, case: str, group: str, drawn: "Drawn", truths: np.ndarray, every_rater: bool) -> None:
        """Add an image.

        Args:
            case: its id.
            group: its patient or sequence.
            drawn: its masks.
            truths: bool (R, H, W), the raters' masks at native size.
            every_rater: whether risks are means over raters, else against their consensus.
        """
        confidence = resize_map(drawn.masks.mean(axis=0), truths.shape[1:])
        truth = consensus_mask(truths)
        self.cases.append(case)
        self.groups.append(group)
        self.evidence.append(evidence(drawn.masks, 1.0 if drawn.presence is None else drawn.presence))
        self.dice.append(overlap(confidence >= 0.5, truth)[0])
        self.held.append(float(truths.any(axis=(1, 2)).mean()))
        missed, false = losses(confidence, truths if every_rater else truth[None])
        self.missed.append(missed)
        self.false.append(false)
        self.counts.append(PixelCounts.of(confidence, truths.mean(axis=0)))
        self.embeddings.append(drawn.embedding)


@dataclass(frozen=True)
class Drawn:
    """The masks of one image (n, S, S) at the model's size, and what else the model computed of it."""

    masks: np.ndarray
    presence: float | None
    embedding: np.ndarray | None


@torch.inference_mode()
def draw(model: MaskSampler, batch: Batch, samples: int, seed: int, sampling: SamplingConfig) -> Iterator[Drawn]:
    """Draw the masks of a batch with the traits of its images.

    Args:
        model: the segmenter.
        batch: images (B, C, S, S) in [0, 1].
        samples: masks per image.
        seed: of the random numbers.
        sampling: how masks are drawn.

    Yields:
        One entry per image.
    """
    resolved = model.resolve(sampling)
    common = model.prepare(batch, samples, resolved)
    traits = model.traits(common, len(batch.image))
    drawn = torch.cat(list(model.iter_samples(batch, samples, seed, resolved, samples, common=common)), dim=1)
    yield from unbatched(drawn, traits)


def unbatched(drawn: Tensor, traits: ImageTraits) -> Iterator[Drawn]:
    """Image by image, on the CPU.

    Args:
        drawn: probabilities (B, n, S, S).
        traits: of the same images.

    Yields:
        One entry per image.
    """
    for i, masks in enumerate(drawn.float().cpu().numpy()):
        yield Drawn(masks, *traits.of(i))


def learns_raters(model: MaskSampler) -> bool:
    """Whether a model learns one of several raters, so that risks are means over them."""
    return getattr(model.setting, "target", None) == "rater"


@torch.inference_mode()
def embeddings(model: MaskSampler, store: Store, ids: Sequence[str], progress: bool = False) -> np.ndarray:
    """Features of images, averaged over the model's orientations: (N, d)."""
    resolved = model.resolve(None)
    found = []
    with Progress(total=len(ids), desc="training images", unit="image", disable=not progress) as bar:
        for batch in store.batches(ids, 8, default_device()):
            common = model.prepare(batch, resolved.orientations or 1, resolved)
            embedding = model.traits(common, len(batch.image)).embedding
            assert embedding is not None
            found.append(embedding.cpu().double().numpy())
            bar.update(len(batch.ids))
    return np.concatenate(found)


def without_lesion(
    store: Store,
    cases: Sequence[str],
    model: MaskSampler,
    samples: int,
    seed: int,
    sampling: SamplingConfig,
    progress: bool = False,
) -> dict[str, np.ndarray]:
    """Evidence of windows without a lesion: of each image the largest one, scaled to the model's size.

    Args:
        store: the images, one rater each or several.
        cases: ids.
        model: the segmenter.
        samples: masks per window.
        seed: of the random numbers.
        sampling: how masks are drawn.
        progress: whether a bar is shown.

    Returns:
        By id, of the images that have room for such a window.
    """
    windows: dict[str, np.ndarray] = {}
    size = store.images.shape[-1]
    for case in cases:
        marked = np.asarray(store.masks[store.index[case]] > 0).max(axis=0)
        where = empty_window(marked)
        if where is None:
            continue
        pixels = np.ascontiguousarray(store.images[store.index[case]][:, *where].transpose(1, 2, 0))
        windows[case] = resize_image(pixels, size)
    found: dict[str, np.ndarray] = {}
    names = list(windows)
    for start in Progress(range(0, len(names), WINDOWS), desc="windows", unit="batch", disable=not progress):
        some = names[start : start + WINDOWS]
        images = torch.from_numpy(np.stack([windows[case] for case in some])).float() / 255
        batch = Batch([f"{case}-without" for case in some], images).to(default_device())
        for case, drawn in zip(some, draw(model, batch, samples, seed, sampling), strict=True):
            found[case] = evidence(drawn.masks, 1.0 if drawn.presence is None else drawn.presence)
    return found


def empty_window(marked: np.ndarray, least: float = 0.4) -> tuple[slice, slice] | None:
    """The largest square without a marked pixel, the one nearest the middle if there are several.

    Args:
        marked: bool (S, S).
        least: its least side, as a share of S.

    Returns:
        Rows and columns; None if there is no such square.
    """
    size = len(marked)
    sums = np.pad(marked.astype(int), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    for side in range(size - size // 16, int(least * size) - 1, -max(1, size // 32)):
        inside = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
        places = np.argwhere(inside == 0)
        if len(places):
            top, left = min(places, key=lambda p: np.square(p - (size - side) / 2).sum())
            return slice(top, top + side), slice(left, left + side)
    return None
