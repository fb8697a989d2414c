"""The arguments of `Segmenter.segment`, checked and put together, and what a segmenter is, in a line."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from manymask.calibration.calibration import Calibration
from manymask.diffusion.sampling import SamplingConfig
from manymask.errors import ConfigError, InputError
from manymask.hub.model_folder import TrainedModel
from manymask.inference.preprocess import Point
from manymask.io.record import Record
from manymask.models.base import MaskSampler
from manymask.models.latent_diffusion import DiffusionSegmenter

_DOWNLOAD = {"revision", "token", "cache_dir", "force_download", "local_files_only"}  # arguments for the Hub alone
_IN_WORDS = {"samples": "the number of masks", "sampler": "the sampler or its steps", "orientations": "the orientations",
             "guidance_scale": "the guidance", "head_share": "the mask head's share"}  # fmt: skip
TOGETHER = 4  # images at a time, where a list is given


def check_download(given: Iterable[str]) -> None:
    """Check the names of further arguments of `from_pretrained`.

    Args:
        given: the names.

    Raises:
        ConfigError: one of them is unknown.
    """
    unknown = sorted(set(given) - _DOWNLOAD)
    if unknown:
        raise ConfigError(f"from_pretrained has no argument {', '.join(unknown)}")


def centres(rois: Any) -> tuple[Point, ...]:
    """Regions of interest as pairs of whole numbers.

    Args:
        rois: centres (x, y) in pixels: pairs, or an array (K, 2).

    Returns:
        One pair each.

    Raises:
        ConfigError: they are something else.
    """
    try:
        found = [tuple(float(value) for value in point) for point in rois]
    except (TypeError, ValueError):
        found = [()]
    if any(len(point) != 2 or not all(value.is_integer() for value in point) for point in found):
        raise ConfigError(f"rois must be centres in whole pixels, such as [(210, 145)], not {rois!r}", parameter="rois")
    return tuple((int(x), int(y)) for x, y in found)


def merged_sampling(sampling: SamplingConfig | None, sampler: Any, steps: int | None) -> SamplingConfig | None:
    """Merge the shorthands into `sampling`.

    Args:
        sampling: how masks are drawn.
        sampler: goes before the one of `sampling`.
        steps: goes before those of `sampling`.

    Returns:
        All of it; None if nothing was asked for.

    Raises:
        ConfigError: it is no such thing.
    """
    if sampling is not None and not isinstance(sampling, SamplingConfig):
        raise ConfigError(f"sampling must be a SamplingConfig, not {sampling!r}", parameter="sampling")
    if sampler is None and steps is None:
        return sampling
    return SamplingConfig(sampler, steps).over(sampling or SamplingConfig())


def one_pass(model: MaskSampler) -> SamplingConfig:
    """How a single mask is drawn that stands for the consensus of many: in one step, in the image's own orientation.

    At the first step the noisy latent says nothing, so x₀ is predicted from the image alone: the mean of all masks.

    Args:
        model: the segmenter.

    Returns:
        Its sampler with one step; for one mask.

    Raises:
        ConfigError: one step of this model is no such mean.
    """
    setting = model.setting
    if not isinstance(model, DiffusionSegmenter):
        raise ConfigError(f"a {type(setting).__name__} takes no steps to leave out: draw fewer masks", parameter="fast")
    if getattr(setting.process, "prediction", "") == "epsilon":
        raise ConfigError("a model that predicts the noise draws no mask in one step", parameter="fast")
    if model.presence is not None:
        raise ConfigError(
            "this model decides by chance which masks are empty: one of them is no consensus", parameter="fast"
        )
    return SamplingConfig(steps=1, orientations=1)


def check_asked(samples: object, seed: object, threshold: object) -> None:
    """Check the numbers of a call.

    Args:
        samples: a whole number.
        seed: a whole number.
        threshold: in (0, 1).

    Raises:
        ConfigError: one of them is something else.
    """
    for name, value in (("samples", samples), ("seed", seed)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise ConfigError(f"{name} must be a whole number, not {value!r}", parameter=name)
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not 0 < threshold < 1:
        raise ConfigError(f"threshold must lie between 0 and 1, not {threshold!r}", parameter="threshold")


def off_calibration(record: Record, calibration: Calibration | None) -> str:
    """Why results that were drawn in this way are not calibrated.

    Args:
        record: of the settings.
        calibration: of the model.

    Returns:
        A sentence; empty if they are calibrated.
    """
    nothing = "no Dice is predicted, and no outline is promised."
    if calibration is None:
        return f"The model is not calibrated: {nothing}"
    if record.left_out:
        return f"Masks were left out by hand, and the calibration holds for all of them together: {nothing}"
    if record.tile is not None:
        return (
            f"This result is off the calibration, which holds for whole images (this one was drawn in windows of {record.tile} "
            f"pixels): {nothing}"
        )
    ours, theirs = record.drawn_as(), calibration.origin.sampling
    if ours == theirs:
        return ""
    what = ", ".join(_IN_WORDS[name] for name in ours | theirs if ours.get(name) != theirs.get(name))
    return (
        f"This result is off the calibration, which holds for {theirs['samples']} masks drawn as by default "
        f"(other here: {what}): {nothing}"
    )


def chosen_alpha(alpha: float | None, calibration: Calibration | None, why_not: str) -> float | None:
    """The share for which results have an inner and an outer outline; see `Segmenter.outline_alpha`.

    Args:
        alpha: the requested share.
        calibration: of the model.
        why_not: why results are not calibrated; empty if they are.

    Returns:
        The share; None if none was requested and results are not calibrated.

    Raises:
        InputError: a share was requested for which there are no outlines.
    """
    if calibration is None or why_not:
        if alpha is not None:
            raise InputError(why_not, parameter="alpha")
        return None
    return calibration.default_alpha if alpha is None else calibration.risk(alpha).alpha


def about(trained: TrainedModel) -> str:
    """A segmenter in a line: what it looks at, and whether it is calibrated.

    Args:
        trained: the model.

    Returns:
        Its name, size and kind of images.
    """
    recipe = trained.recipe
    seen = f"{'regions of' if recipe.crop else 'whole images at'} {recipe.size}×{recipe.size}"
    promises = "calibrated" if trained.calibration else "not calibrated"
    return f"{trained.record.name!r}: {seen}, {'grey' if recipe.channels == 1 else 'colour'}, {promises}"
