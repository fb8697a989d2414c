"""From what a folder holds to a plan: every rule is here, with its reason in words."""

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from manymask.data.datasets import DATASETS
from manymask.data.datasets.base import Licence
from manymask.data.raters import Target
from manymask.errors import ConfigError, ManymaskError
from manymask.hub.licenses import licence
from manymask.hub.model_folder import read_settings
from manymask.hub.provenance import Provenance
from manymask.models.autoencoder import Autoencoder
from manymask.models.latent_diffusion import LatentDiffusion
from manymask.nn.efficientnet_lite import VARIANTS
from manymask.nn.losses import WeightedCE
from manymask.planning.look import SMALL, Found
from manymask.planning.plan import Plan
from manymask.recipes import Recipe, Stage

LARGE, MODEST = 256, 128  # pixels
ENCODER: Literal["efficientnet-lite0"] = "efficientnet-lite0"  # that a plan starts from, where its package is installed
FEWEST_STEPS = 100  # from zero at the larger size
LARGE_STEP = 3.0  # seconds at 256² with 16 images, one CPU core
CODEC_SHARE = 1 / 8  # of the minutes, each codec from zero
GOOD_CODEC = 0.97  # Dice of masks that a codec encodes and decodes
FEW_CASES = 16


@dataclass(frozen=True)
class Start:
    """A model that training may start from; `name` is what `load_model` takes."""

    name: str
    recipe: Recipe
    provenance: Provenance

    @classmethod
    def read(cls, name: str) -> "Start":
        """From the configuration of a model; `ConfigError` if training cannot start from it."""
        recipe, stage, provenance = read_settings(name)
        latent = isinstance(recipe.segmenter, LatentDiffusion) and isinstance(recipe.mask_codec, Autoencoder)
        if stage != Stage.SEGMENTER or not latent:
            raise ConfigError(
                f"{name} is no latent diffusion segmenter: training cannot start from it", parameter="init"
            )
        return cls(name, recipe, provenance)

    @property
    def terms(self) -> Licence:
        """That hold for a model that starts from this one."""
        return licence(*(self.provenance.data_sets or (self.recipe.dataset,)), encoder=self.recipe.encoder)

    @property
    def factor(self) -> int:
        """f of its codecs."""
        return self.recipe.mask_codec.factor

    def distance(self, size: int) -> tuple[bool, int, bool, bool, str]:
        """How far it is from what is wanted: whole images before crops, then by size, ImageNet's encoder before our own,
        terms that are no obstacle before others."""
        own = self.recipe
        return own.crop, abs(own.size - size), own.encoder == "own", self.terms.tag == "other", self.name


def starts(
    init: str, shipped: Collection[str], found: Found, dataset: str, fixed: tuple[int, int] | None
) -> list[Start]:
    """The models that training may start from, nearest first. A colour model takes grey images as three equal channels.

    Args:
        init: "auto" for shipped models, "none", or a model.
        shipped: the names of models that are installed.
        found: what is to be trained on.
        dataset: its name; models that have seen it are left out. Of users' own folders, whose name says nothing, images
            are compared later.
        fixed: size and channels of a prepared store.
    """
    if init == "none":
        return []
    if init != "auto":
        return [Start.read(init if init in shipped else str(Path(init).resolve()))]
    size, channels = fixed or (LARGE, None)
    fitting = []
    for name in shipped:
        with suppress(ManymaskError):  # another kind of model
            each = Start.read(name)
            enough = each.recipe.channels >= found.channels if channels is None else each.recipe.channels == channels
            seen = dataset in each.provenance.data_sets and not DATASETS[dataset].users_own
            if enough and each.factor in (4, 8) and not seen:
                fitting.append(each)
    return sorted(fitting, key=lambda each: each.distance(size))


def decide(
    found: Found,
    data: Path,
    scheme: str,
    minutes: float,
    folds: int,
    start: Start | None,
    learns: Target | None,
    fixed: tuple[int, int] | None,
    fast: bool,
) -> tuple[Plan, list[str]]:
    """The plan and its reasons, a line each.

    Args:
        found: what the folder holds.
        data: the folder.
        scheme: the split.
        minutes: of training in all.
        folds: 0 for a single model.
        start: the model that training starts from, if any.
        learns: the target of the data set; None to decide by the number of raters.
        fixed: size and channels of a prepared store.
        fast: whether there is an accelerator.
    """
    share = minutes / max(folds, 1)
    target: Target = learns or ("rater" if found.raters > 1 else "consensus")
    reasons = [_about_target(found, target)] if found.raters > 1 else []
    imagenet = start.recipe.encoder != "own" if start else find_spec(VARIANTS[ENCODER].package) is not None
    size, channels = fixed or _measures(found, start, share, fast)
    factor = start.factor if start else max(4, min(8, size // 32))
    weight = _weight(found, start)
    reasons += [_about_size(size, fixed, start), *_about_start(start), *_about_small(found, size)]
    codec = 0.0 if start else CODEC_SHARE * minutes
    plan = Plan(
        data=str(data.resolve()),
        minutes=minutes,
        image_codec_minutes=codec,
        mask_codec_minutes=codec,
        segmenter_minutes=minutes - 2 * codec,
        scheme=scheme,
        size=size,
        channels=channels,
        factor=factor,
        positive_weight=weight,
        encoder=ENCODER if imagenet else "own",
        target=target,
        init=start.name if start else None,
        folds=folds,
        noise_levels_per_image=2 if target == "consensus" and imagenet else 4,
        dice_weight=0.2 if target == "consensus" else 0.0,
        batch_size=16 if found.images >= FEW_CASES else 8,
        learning_rate=3e-4 if start else 5e-4,
        warmup=20 if start else 50,
        decay_after=20_000 if fast else 400,
        validation_cases=int(min(64, max(8, 1.5 * share))),
    )
    return plan, reasons


def _measures(found: Found, start: Start | None, minutes: float, fast: bool) -> tuple[int, int]:
    """Size and channels of the store that is prepared."""
    if start is not None:
        return start.recipe.size, start.recipe.channels
    affordable = fast or 0.75 * 60 * minutes / LARGE_STEP >= FEWEST_STEPS
    return (LARGE if affordable else MODEST), found.channels


def _weight(found: Found, start: Start | None) -> float:
    if start is not None:
        loss = getattr(start.recipe.mask_codec, "loss", None)
        return loss.weight if isinstance(loss, WeightedCE) else 5.0
    return 5.0 if found.lesion >= SMALL else 20.0


def with_codec(plan: Plan, dice: float) -> tuple[Plan, str]:
    """The plan once it is known how well the mask codec of `init` renders the new masks, and what is to be said of it."""
    if dice >= GOOD_CODEC:
        return plan, f"codecs of init: your masks come through them with Dice {dice:.3f}, so they are not trained"
    minutes = CODEC_SHARE * plan.minutes
    said = f"mask codec of init: your masks come through it with Dice {dice:.3f} only, so it is trained for a while"
    return replace(plan, mask_codec_minutes=minutes, segmenter_minutes=plan.minutes - minutes), said


def _about_target(found: Found, target: Target) -> str:
    what = "one rater at random, so that masks differ as raters do" if target == "rater" else "the raters' consensus"
    return f"target {target}: there are {found.raters} raters; the model learns {what}"


def _about_size(size: int, fixed: object, start: Start | None) -> str:
    if fixed is not None:
        return f"size {size}: that of the prepared store"
    if start is not None:
        return f"size {size}: that of the model it starts from"
    why = "the time allows for it" if size == LARGE else "at 256 there would be too few steps in this time"
    return f"size {size}: {why}"


def _about_start(start: Start | None) -> list[str]:
    if start is None:
        return ["init null: training starts from zero"]
    terms = start.provenance.licence or start.terms.tag
    return [
        f"init {Path(start.name).name}: the nearest model of those that have not seen these images",
        f"its terms then hold for your model too: {terms} (init: null avoids them)",
    ]


def _about_small(found: Found, size: int) -> list[str]:
    pixels = found.smallest * size * size
    if pixels >= 12:
        return []
    return [f"one lesion in twenty has fewer than {pixels:.0f} pixels at {size}²: crops around them would serve better"]
