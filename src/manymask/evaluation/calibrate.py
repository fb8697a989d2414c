"""Fit a `Calibration` on labelled images that the model was not trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from manymask.calibration.calibration import Calibration, Origin
from manymask.calibration.confidence import fit_confidence
from manymask.calibration.foreignness import Foreignness, fit_foreignness
from manymask.calibration.presence import PresenceMap, fit_presence
from manymask.calibration.quality import FAILURE, fit_quality
from manymask.calibration.risk import ALPHAS, control, needed
from manymask.data.case import evenly_spaced
from manymask.data.folds import dealt
from manymask.data.store import Store
from manymask.diffusion.sampling import SamplingConfig
from manymask.errors import DataLeakError, InputError
from manymask.evaluation.held_out import check_no_leakage, held_out_cases, split_of
from manymask.evaluation.leakage import find_leak
from manymask.evaluation.observations import Observations, draw, embeddings, learns_raters, without_lesion
from manymask.hub.model_folder import TrainedModel
from manymask.io.record import now
from manymask.metrics import auroc
from manymask.models.base import MaskSampler
from manymask.progress import Progress
from manymask.rng import seed_of
from manymask.runtime import default_device, git_revision

FOLDS = 10
LEAST = 20  # cases for the regressions
REFERENCE = 512  # training images whose features are looked at
CalibrationSplit = Literal["val", "test", "all"]


@dataclass(frozen=True)
class CalibrationConfig:
    """How a model is calibrated.

    Attributes:
        samples: masks per image; the calibration holds for this number alone.
        seed: of the random numbers.
        sampling: how masks are drawn; the model's default where a field is None.
        alphas: shares of missed and of false pixels for which outlines are promised.
        batch_size: images at a time.
    """

    samples: int = 5
    seed: int = 0
    sampling: SamplingConfig = SamplingConfig()
    alphas: tuple[float, ...] = ALPHAS
    batch_size: int = 4


def calibration_cases(trained: TrainedModel, store: Store, split: CalibrationSplit, scheme: str | None) -> list[str]:
    """The cases of a calibration, after a check that the model was not trained on any.

    Args:
        trained: the model.
        store: the data, as returned by `matched_store`.
        split: a part of the split, or all cases.
        scheme: the requested split scheme; see `split_of`.

    Returns:
        Their ids.

    Raises:
        DataLeakError: a case was trained on.
        InputError: the store does not fit the model.
    """
    if split != "all":
        return held_out_cases(trained, store, split, scheme)
    check_no_leakage(store.ids, "test", store, trained.provenance, trained.training_ids)
    leak = find_leak(trained, store, store.ids)
    if leak.cases:
        raise DataLeakError(
            f"{len(leak.cases)} of {len(store.ids)} images look like images that the model was trained on",
            cases=leak.cases,
        )
    return list(store.ids)


def calibrate(
    trained: TrainedModel,
    store: Store,
    config: CalibrationConfig = CalibrationConfig(),
    split: CalibrationSplit = "val",
    scheme: str | None = None,
    limit: int | None = None,
    progress: bool = True,
) -> Calibration:
    """Fit everything that results promise.

    Args:
        trained: a segmenter.
        store: labelled images, as returned by `matched_store`.
        config: how masks are drawn, and what is promised.
        split: which of the images; those that the model was trained on are refused.
        scheme: split scheme of the store; the model's own if None.
        limit: use at most so many cases, evenly spaced.
        progress: whether a bar is shown.

    Returns:
        The calibration.

    Raises:
        DataLeakError: a case was trained on.
        InputError: there are too few cases, or none with a lesion.
    """
    model = trained.segmenter.to(default_device()).eval()
    ids = evenly_spaced(calibration_cases(trained, store, split, scheme), limit)
    _check_enough(len(ids), config.alphas)
    if len({store.groups[case] for case in ids}) < 2:
        raise InputError(
            f"all {len(ids)} cases are of one group (a patient, a volume): what is fitted on some is checked on others, so at "
            "least two groups are needed"
        )
    seen = _observe(model, store, ids, config, progress)
    if not any(seen.held):
        raise InputError(f"none of the {len(ids)} cases holds a lesion: there is nothing to calibrate on")
    folds = folds_of(seen.groups, config.seed)
    notes: list[str] = []
    presence, presence_scores = _presence(model, store, seen, folds, config, notes, progress)
    quality = fit_quality(np.array(seen.evidence), np.array(seen.dice), folds)
    confidence = fit_confidence(seen.counts, folds)
    missed, false = np.array(seen.missed), np.array(seen.false)
    return Calibration(
        origin=_origin(trained, store, seen, config, split, scheme),
        confidence=confidence,
        risks=tuple(control(missed, false, alpha) for alpha in config.alphas),
        quality=quality,
        presence=presence,
        foreign=_foreign(trained, store, seen, notes, progress),
        held_out=presence_scores,
        notes=tuple(notes),
    )


def _origin(
    trained: TrainedModel,
    store: Store,
    seen: Observations,
    config: CalibrationConfig,
    split: CalibrationSplit,
    scheme: str | None,
) -> Origin:
    return Origin(
        weights_sha256=trained.fingerprint,
        settings_sha256=trained.settings_sha256,
        data=store.name,
        data_hash=store.hash,
        scheme=split_of(trained, store, scheme),
        split=split,
        cases=tuple(seen.cases),
        groups=len(set(seen.groups)),
        failures=int((np.array(seen.dice) < FAILURE).sum()),
        sampling=sampling_record(trained.segmenter, config.samples, config.sampling),
        seed=config.seed,
        git=git_revision(),
        created=now(),
    )


def sampling_record(model: MaskSampler, samples: int, sampling: SamplingConfig | None) -> dict[str, Any]:
    """How masks are drawn, as calibrations and results record it: equal records give comparable masks."""
    return model.resolve(sampling).record(samples)


def folds_of(groups: Sequence[str], seed: int) -> np.ndarray:
    """A fold for each case, all cases of a group in one, sizes as equal as groups allow.

    Args:
        groups: of each case.
        seed: of the order of the groups.

    Returns:
        (N,) int from 0.
    """
    names, index, sizes = np.unique(np.array(groups), return_inverse=True, return_counts=True)
    count = min(FOLDS, len(names))
    order = np.random.default_rng(seed_of("folds", seed) % 2**32).permutation(len(names))
    fold_of = dealt(order.tolist(), dict(enumerate(sizes.tolist())), count)
    return np.array([fold_of[name] for name in index.tolist()])


def _check_enough(count: int, alphas: Sequence[float]) -> None:
    least = max([LEAST, *(needed(alpha) for alpha in alphas)])
    if count < least:
        raise InputError(
            f"{count} cases are too few to calibrate: it takes {least} (for at most {100 * min(alphas):g} % of pixels)"
        )


def _observe(
    model: MaskSampler, store: Store, ids: Sequence[str], config: CalibrationConfig, progress: bool
) -> Observations:
    seen = Observations()
    every_rater = learns_raters(model)
    with Progress(total=len(ids), desc="calibrate", unit="case", disable=not progress) as bar:
        for batch in store.batches(ids, config.batch_size, default_device()):
            for case, drawn in zip(
                batch.ids, draw(model, batch, config.samples, config.seed, config.sampling), strict=True
            ):
                if not np.isfinite(drawn.masks).all():
                    raise InputError(f"case {case}: the model draws values that are not finite")
                seen.add(case, store.groups[case], drawn, store.native_masks(case), every_rater)
                bar.update()
    return seen


def _foreign(
    trained: TrainedModel, store: Store, seen: Observations, notes: list[str], progress: bool
) -> Foreignness | None:
    """Fitted to training images if the store holds them; else an earlier calibration's stays."""
    if any(embedding is None for embedding in seen.embeddings):
        notes.append("Whether an image is foreign is not known: the model has no features of images.")
        return None
    held = set(store.ids)
    training = [case for case in trained.training_ids if case in held]
    if not store.holds(trained.provenance.data_hash) or not training:
        earlier = None if trained.calibration is None else trained.calibration.foreign
        if earlier is None:
            notes.append("Whether an image is foreign is not known: the training images are not in this store.")
        return earlier
    return fit_foreignness(
        embeddings(trained.segmenter, store, evenly_spaced(training, REFERENCE), progress),
        np.array([e for e in seen.embeddings if e is not None]),
    )


def _presence(
    model: MaskSampler,
    store: Store,
    seen: Observations,
    folds: np.ndarray,
    config: CalibrationConfig,
    notes: list[str],
    progress: bool,
) -> tuple[PresenceMap | None, dict[str, Any]]:
    """Needs cases with and without a lesion; where fewer than `LEAST` hold none, windows without one are added."""
    held = np.array(seen.held)
    rows = np.array(seen.evidence)
    kind = "cases that fewer than half of the raters marked" if store.raters > 1 else "cases without a lesion"
    bare = int((held < 0.5).sum())
    if bare < LEAST:
        empty = without_lesion(store, seen.cases, model, config.samples, config.seed, config.sampling, progress)
        if bare + len(empty) < LEAST:
            notes.append(
                f"Presence is not calibrated: {bare} cases hold no lesion, and {len(empty)} have room for a window "
                f"without one; it takes {LEAST}."
            )
            return None, {}
        kind = "windows without a lesion" if bare == 0 else f"windows without a lesion and {bare} {kind}"
        where = {case: i for i, case in enumerate(seen.cases)}
        folds = np.concatenate([folds, [folds[where[case]] for case in empty]])
        rows = np.concatenate([rows, list(empty.values())])
        held = np.concatenate([held, np.zeros(len(empty))])
    weight = (
        np.where(held > 0, 1.0, (held > 0).sum() / max((held == 0).sum(), 1))
        if kind.startswith("windows")
        else np.ones(len(held))
    )
    out = np.zeros(len(held))
    for fold in np.unique(folds):
        kept = folds != fold
        out[~kept] = fit_presence(rows[kept], held[kept], weight[kept])(rows[~kept])
    scores = {
        "without": kind,
        "n_without": int((held < 0.5).sum()),
        "n": len(held),
        "presence_auroc": auroc(out, held >= 0.5),
        "presence_brier": float(np.average((out - held) ** 2, weights=weight)),
    }
    return fit_presence(rows, held, weight), scores
