"""The plan of a training run: a few decisions in RUN/plan.yaml, which its owner may edit."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import yaml

from manymask.config import from_dict
from manymask.data.raters import Target
from manymask.errors import ConfigError, decoding
from manymask.hub.model_folder import read_settings
from manymask.io.atomic import atomic_file
from manymask.io.tensors import writing
from manymask.io.text import read_text
from manymask.models.autoencoder import Autoencoder
from manymask.models.latent_diffusion import LatentDiffusion
from manymask.recipes import ROWS, Recipe, Stage, Training, planned

FILE = "plan.yaml"
MOST_BYTES = 100_000


@dataclass(frozen=True)
class Plan:
    """What is decided before training; see `EXPLAINED` for each field."""

    data: str
    minutes: float
    image_codec_minutes: float
    mask_codec_minutes: float
    segmenter_minutes: float
    scheme: str
    size: int
    channels: int
    factor: int
    positive_weight: float
    encoder: Literal["own", "efficientnet-lite0"]
    target: Target
    init: str | None = None
    folds: int = 0
    noise_levels_per_image: int = 4
    dice_weight: float = 0.0
    orientations: int = 5
    batch_size: int = 16
    learning_rate: float = 5e-4
    warmup: int = 50
    decay_after: int = 400
    codec_learning_rate: float = 1e-3
    validation_cases: int = 64
    patience: int = 5

    def lasting(self, minutes: float) -> "Plan":
        """This plan for other minutes in all: more are the segmenter's, fewer are taken from every stage alike."""
        more = max(minutes - self.minutes, 0.0)
        share = min(minutes / self.minutes, 1.0)
        return replace(
            self,
            minutes=minutes,
            image_codec_minutes=share * self.image_codec_minutes,
            mask_codec_minutes=share * self.mask_codec_minutes,
            segmenter_minutes=share * self.segmenter_minutes + more,
        )

    def minutes_of(self, stage: Stage) -> float:
        """How long a stage trains in all."""
        return float(getattr(self, f"{stage.attribute}_minutes"))


EXPLAINED = {
    "data": "the folder of images and masks, or the prepared store",
    "minutes": "of training in all; folds share them",
    "image_codec_minutes": "0: the codec of `init` is taken as it is",
    "mask_codec_minutes": "0: the codec of `init` is taken as it is",
    "segmenter_minutes": "what the codecs leave of their time goes to the segmenter",
    "scheme": "the split",
    "size": "side of the images in pixels; other shapes are squeezed into the square",
    "channels": "1 grey, 3 colour",
    "factor": "f, side of the pixels that one latent position covers: 4 or 8",
    "positive_weight": "of lesion pixels in the loss of the mask codec",
    "encoder": "own, or efficientnet-lite0 (starts from ImageNet, or from `init`)",
    "target": "what is learnt of several raters: consensus, or rater (one at random)",
    "init": "the model (a name, or its folder) that training starts from; null: from zero",
    "folds": "train so many models on group-disjoint folds; 0: a single model",
    "noise_levels_per_image": "noise levels per image and step",
    "dice_weight": "of a Dice loss on the decoded mask",
    "orientations": "flips and quarter turns that the masks of an image are spread over",
    "batch_size": "images a step",
    "learning_rate": "of the segmenter",
    "warmup": "steps until it is reached",
    "decay_after": "steps from which it falls as 1/√step",
    "codec_learning_rate": "of the codecs",
    "validation_cases": "so many validation images are scored ten times",
    "patience": "a stage stops after so many validations without a gain",
}

HEAD = """\
Plan of `manymask train`. Edit it and give the same command again; delete it to plan again.
Once training has begun, only the minutes and `patience` may change; for the rest, name another run folder.
"""


def write_plan(plan: Plan, found: Sequence[str], reasons: Sequence[str], folder: Path) -> None:
    """RUN/plan.yaml: what was found and why it was decided so, as comments; then every setting with its meaning."""
    comment = [*HEAD.splitlines(), "", "Found:", *(f"  {line}" for line in found), "Decided:"]
    comment += [f"  {line}" for line in reasons]
    lines = [part for line in comment for part in textwrap.wrap(line, 110, subsequent_indent="    ") or [""]]
    text = "".join(f"# {line}".rstrip() + "\n" for line in lines) + "\n"
    for name, value in vars(plan).items():
        setting = yaml.safe_dump({name: value}, allow_unicode=True, width=10**6).strip()
        text += f"{setting:<30}  # {EXPLAINED[name]}\n"
    path = folder / FILE
    with writing(path), atomic_file(path) as beside:
        beside.write_text(text, encoding="utf-8")


def with_values(folder: Path, plan: Plan) -> None:
    """Writes changed settings into plan.yaml, whose comments stay."""
    path = folder / FILE
    old, lines = read_plan(folder), []
    for line in read_text(path).splitlines():
        name = line.partition(":")[0]
        if name in EXPLAINED and getattr(plan, name) != getattr(old, name):
            setting = yaml.safe_dump({name: getattr(plan, name)}, allow_unicode=True, width=10**6).strip()
            line = f"{setting:<30}  # {EXPLAINED[name]}"
        lines.append(line)
    with writing(path), atomic_file(path) as beside:
        beside.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_plan(folder: Path) -> Plan:
    """The plan in a run folder; `ConfigError` names the setting that does not fit."""
    path = folder / FILE
    with decoding(path):
        values = yaml.safe_load(read_text(path, MOST_BYTES))
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no settings: delete it to plan again", path=path)
    plan: Plan = from_dict(Plan, values, str(path))
    if plan.factor not in (4, 8):
        raise ConfigError(f"{path}: factor must be 4 or 8, not {plan.factor}", path=path)
    return plan


def recipe_of(plan: Plan, dataset: str) -> Recipe:
    """The recipe that the plan describes, for a store of this data set.

    Raises:
        ConfigError: the plan does not fit the model that it starts from.
    """
    home = ROWS[dataset]
    row = _from_zero(plan, dataset) if plan.init is None else _from_model(plan, plan.init)
    margin = home.margin if plan.size == home.size else 0
    shared = {"batch_size": plan.batch_size, "validation_cases": plan.validation_cases}
    training = Training(learning_rate=plan.learning_rate, warmup=plan.warmup, decay_after=plan.decay_after, **shared)  # type: ignore[arg-type]
    codec = Training(learning_rate=plan.codec_learning_rate, warmup=plan.warmup, decay_after=4000, **shared)  # type: ignore[arg-type]
    drawing = {
        "target": plan.target,
        "noise_levels_per_image": plan.noise_levels_per_image,
        "dice_weight": plan.dice_weight,
        "orientations": plan.orientations,
    }
    return replace(
        row,
        dataset=dataset,
        size=plan.size,
        segmenter=replace(row.segmenter, **drawing),  # type: ignore[arg-type]
        training=training,
        codec_training=codec,
        augment=home.augment,
        codec_augment=replace(home.augment, brightness=0, contrast=0, colour=0),
        margin=margin,
        crop=home.crop,
        stretch=home.stretch,
        window=home.window,
    )


def _from_zero(plan: Plan, dataset: str) -> Recipe:
    imagenet = plan.encoder != "own"
    return planned(dataset, plan.size, plan.channels, plan.factor, plan.positive_weight, imagenet)


def _from_model(plan: Plan, init: str) -> Recipe:
    """The recipe of the model that training starts from, which decides the networks."""
    given = read_settings(init)[0]
    if not isinstance(given.segmenter, LatentDiffusion) or not isinstance(given.mask_codec, Autoencoder):
        raise ConfigError(f"{init} is no latent diffusion segmenter: training cannot start from it", path=init)
    own = {"channels": given.channels, "factor": given.mask_codec.factor, "encoder": given.encoder}
    wrong = [
        f"{name} is {value}, the plan says {getattr(plan, name)}"
        for name, value in own.items()
        if getattr(plan, name) != value
    ]
    if wrong:
        raise ConfigError(f"{init} does not fit the plan: {'; '.join(wrong)}", path=init)
    return replace(given, segmenter=replace(given.segmenter, presence=False))
