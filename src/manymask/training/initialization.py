"""What is trained, on what, where; and the model that a run starts from."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from manymask.choices import Precision, TrackerName
from manymask.config import from_dict, to_dict
from manymask.data.store import Store
from manymask.errors import ConfigError
from manymask.hub.model_folder import TrainedModel, load_model
from manymask.hub.provenance import Provenance
from manymask.hub.weights import first_difference
from manymask.migrations import FORMAT
from manymask.models.autoencoder import same_codec
from manymask.models.base import TrainableModel
from manymask.nn.efficientnet_lite import EfficientNetLite
from manymask.recipes import CODECS, Recipe, Stage
from manymask.rng import seed_of

# of each stage, what can be trained alone
PARTS = {Stage.IMAGE_CODEC: ("decoder",), Stage.MASK_CODEC: ("decoder",), Stage.SEGMENTER: ("presence",)}


@dataclass(frozen=True)
class TrainConfig:
    """What is trained, on what, where. `scheme` is the split (the store's default if None); `patience` the number of
    validations without a gain after which training stops (None: never); `track` names further trackers."""

    recipe: Recipe
    stage: Stage
    store: Store
    run: Path
    scheme: str | None = None
    init: Path | None = None
    precision: Precision = "auto"
    patience: int | None = None
    track: tuple[TrackerName, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "stage", Stage(self.stage))
        if self.part != "all" and (self.init is None or self.part not in PARTS[self.stage]):
            raise ConfigError(
                "part: only a codec's decoder and a segmenter's presence are trained alone, each from a trained model",
                remedies=("init",),
            )

    @property
    def folder(self) -> Path:
        return self.run / self.stage

    @property
    def part(self) -> str:
        """What is trained: `all`, or one of `PARTS`."""
        return self.recipe.plan(self.stage)[0].part

    @property
    def cautions(self) -> list[str]:
        """What may not be meant, a line each."""
        found, segmenter = [], self.recipe.segmenter
        if self.stage == Stage.SEGMENTER and segmenter.target == "consensus" and self.store.raters > 1:
            found.append(
                f"{self.store.raters} raters marked these images; this recipe learns their consensus, so its masks will "
                "differ less than the raters do (--recipe.segmenter.target rater learns one at random)"
            )
        process = getattr(segmenter, "process", None)
        along = getattr(segmenter, "train_mask_codec", False)
        if self.stage == Stage.SEGMENTER and along and getattr(process, "prediction", None) == "x0":
            found.append(
                "a mask codec that is trained along with x₀-prediction collapses: its latents soon show through any noise, and "
                "the image is ignored (--recipe.segmenter.process.prediction epsilon, as in the recipes …-ldseg)"
            )
        return found

    def config(self) -> dict[str, Any]:
        """All that decides the result; what an old run folder is compared with."""
        data = {"name": self.store.name, "hash": self.store.hash, "scheme": self.scheme or self.store.default_scheme}
        init = str(self.init) if self.init else None
        return {"format": FORMAT, "stage": self.stage.value, "data": data, "init": init, "recipe": to_dict(self.recipe)}


@dataclass(frozen=True)
class TrainOptions:
    """Where, how long and from what; every setting of the recipe can be changed too."""

    data: Path
    """the prepared store"""
    run: Path
    """where the stages leave their folders; the same command again goes on"""
    recipe: Recipe
    scheme: str | None = None
    """the split scheme of the store (its default if not given)"""
    max_minutes: float | None = None
    """stop cleanly after so many minutes, and validate ten times in them"""
    init: Path | None = None
    """start from the weights of this model folder"""
    precision: Precision = "auto"
    patience: int | None = None
    """stop after so many validations that gain nothing"""
    track: tuple[TrackerName, ...] = ()
    """also follow the run with wandb or mlflow (extra `track`); TensorBoard always does"""

    def job(self, stage: Stage) -> TrainConfig:
        """`ConfigError` for settings beyond their limits."""
        row = from_dict(Recipe, to_dict(self.recipe), "recipe")
        if self.patience is not None and self.patience < 1:
            raise ConfigError(f"patience must be at least 1, not {self.patience}", parameter="patience")
        if self.max_minutes is not None and not 0 < self.max_minutes < 10**6:
            raise ConfigError(f"max-minutes must be above 0, not {self.max_minutes}", parameter="max_minutes")
        how = (self.precision, self.patience, self.track)
        return TrainConfig(row, stage, Store(self.data), self.run, self.scheme, self.init, *how)


# of a segmenter: they come and go with settings of training and guidance
EXTRA_PARTS = {"null", "classifier", "presence", "auxiliary"}


@dataclass
class InitialState:
    """The model a fresh run starts from, the cases that its parts have seen already, and whose weights it took; of a
    segmenter also where its codecs come from, by `image_codec` and `mask_codec`."""

    model: TrainableModel
    seen: set[str]
    parent: Provenance | None = None
    codecs: dict[str, Provenance | None] = field(default_factory=dict)
    hashes: list[np.ndarray | None] = field(default_factory=list)  # of the images of those cases, by part


def initial_state(job: TrainConfig) -> InitialState:
    """From the seed's weights or `init`'s, a segmenter with the run's own trained codecs."""
    torch.manual_seed(seed_of("init", job.recipe.plan(job.stage)[0].seed))
    model = job.recipe.build(job.stage)
    if job.init is not None:
        return _start_from(job.init, model, job)
    for module in model.modules():
        if isinstance(module, EfficientNetLite):
            module.load_pretrained()
    start = InitialState(model, set())
    for stage in CODECS:
        codec = getattr(model, stage.attribute, None)
        if codec is not None and any(True for _ in codec.parameters()):
            _take_codec(start, stage, job)
    return start


def _take_codec(start: InitialState, stage: Stage, job: TrainConfig) -> None:
    """Puts the codec that was trained in the run into its segmenter."""
    folder, name = job.run / stage / "model", stage.attribute
    given = _matching_codec(job, stage, folder)
    _take_weights(getattr(start.model, name), given.model, folder)
    start.seen |= set(given.training_ids)
    start.hashes.append(given.training_hashes)
    start.codecs[name] = given.provenance


def _start_from(init: Path, model: TrainableModel, job: TrainConfig) -> InitialState:
    """`init`'s weights; a codec may also be taken out of a segmenter, and a segmenter takes the codecs of its own run
    where they were trained there."""
    given, name = load_model(init), job.stage.attribute
    _check_kind(given, init, job)
    parent, codecs = given.provenance, dict[str, Provenance | None]()
    if job.stage == Stage.SEGMENTER:
        for codec in ("image_codec", "mask_codec"):
            same_codec(getattr(given.recipe, codec), getattr(job.recipe, codec), init)
            codecs[codec] = getattr(parent, codec)
    elif given.stage == Stage.SEGMENTER:
        parent = getattr(parent, name) or parent
    _take_weights(model, getattr(given.model, name, given.model), init)
    if job.part == "decoder":
        same_codec(getattr(given.recipe, name), getattr(job.recipe, name), init)
        model.keep_latents()  # type: ignore[operator]
    elif job.part == "presence":
        model.keep_drawing()  # type: ignore[operator]
    start = InitialState(model, set(given.training_ids), parent, codecs, [given.training_hashes])
    own = [stage for stage in CODECS if job.stage == Stage.SEGMENTER and (job.run / stage / "model").exists()]
    for stage in own:
        _take_codec(start, stage, job)
    return start


def _check_kind(given: TrainedModel, init: Path, job: TrainConfig) -> None:
    """Refuses a model of another stage or number of channels; a codec may also be taken out of a segmenter."""
    if given.stage not in (job.stage, Stage.SEGMENTER):
        other = "" if job.stage == Stage.SEGMENTER else ", or from a segmenter"
        raise ConfigError(
            f"{init} is {_a(given.stage)}: {_a(job.stage)} starts from another{other}", path=init, parameter="init"
        )
    if given.recipe.channels != job.recipe.channels:
        raise ConfigError(
            f"{init} takes images of {given.recipe.channels} channel(s), this recipe has {job.recipe.channels}",
            path=init,
            parameter="init",
        )


def _a(stage: Stage) -> str:
    return f"{'an' if stage == Stage.IMAGE_CODEC else 'a'} {stage.value}"


def _matching_codec(job: TrainConfig, stage: Stage, folder: Path) -> TrainedModel:
    """The run's codec, refused unless it was trained as the recipe says, on this split of these data."""
    if not folder.exists():
        raise ConfigError(
            f"the segmenter needs a trained {stage}: train the {stage} in this run folder first", path=folder
        )
    given, name = load_model(folder), stage.attribute
    same_codec(getattr(given.recipe, name), getattr(job.recipe, name), folder)
    data = job.config()["data"]
    if not job.store.holds(given.provenance.data_hash) or given.provenance.scheme != data["scheme"]:
        raise ConfigError(
            f"{folder} was trained on other data or another split: train the {stage} again in a new run folder",
            path=folder,
            remedies=("run",),
        )
    return given


def _take_weights(model: nn.Module, given: nn.Module, place: Path) -> None:
    """All weights but those of `EXTRA_PARTS`, which only one of the two may have."""
    own, theirs = model.state_dict(), given.state_dict()
    extra = {k: v for k, v in own.items() if k.partition(".")[0] in EXTRA_PARTS and k not in theirs}
    kept = {k: v for k, v in theirs.items() if k in own or k.partition(".")[0] not in EXTRA_PARTS}
    try:
        model.load_state_dict(kept | extra)
    except RuntimeError as error:
        raise ConfigError(f"{place} does not fit this recipe ({first_difference(error)})") from None
