"""What can be trained: one table, a row a data set × variant. Look at `ROWS` to see what each differs in.

`fast`, the default, is ours: codecs that shrink early, a trainable condition at every level, continuous latents,
x₀-prediction. `paper` is as faithful as the paper lets one be (Section IV-B). Every `fast` row brings all baselines with it
(`VARIANTS`), which share its data, augmentation, training and target, and differ in the segmenter alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from typing import Any, Literal

import torch

from manymask.data.augment import Augment
from manymask.data.datasets import DATASETS
from manymask.diffusion.process import GaussianDiffusion
from manymask.diffusion.samplers import DDIM, DDPM
from manymask.errors import ConfigError, guesses
from manymask.models.autoencoder import Autoencoder, CodecSetting, Pixels
from manymask.models.base import TrainableModel
from manymask.models.denoisers import ConcatUNet, Denoiser, MedSegDiff, PyramidUNet, SegDiff
from manymask.models.denoisers.pyramid_unet import Backbone
from manymask.models.deterministic import Network, NNUNet, OneToOne, Pyramid, ResUNet, UNet, UNetPlusPlus
from manymask.models.ensembled import Ensembled, SegmenterSetting
from manymask.models.latent_diffusion import LatentDiffusion
from manymask.models.prob_unet import ProbUNet
from manymask.nn.losses import MSE, Dice, WeightedCE


class Stage(StrEnum):
    """What is trained, in this order."""

    IMAGE_CODEC = "image-codec"
    MASK_CODEC = "mask-codec"
    SEGMENTER = "segmenter"

    @property
    def attribute(self) -> str:
        """The name of the part in recipes, models and provenance: `image_codec`, `mask_codec`, `segmenter`."""
        return self.value.replace("-", "_")


STAGES = tuple(Stage)
CODECS = (Stage.IMAGE_CODEC, Stage.MASK_CODEC)


@dataclass(frozen=True)
class Training:
    """How a stage is optimised. The learning rate warms up, stays, and beyond `decay_after` steps falls as 1/√step;
    it never depends on the budget, so that budgets and resuming agree.

    part: `decoder` trains a codec's decoder alone and leaves its latents as they were (`--init`), so that a segmenter of
    these latents can be shipped with it (`publish --mask-codec`); `presence` trains a segmenter's answer to whether there is
    anything, and leaves what it draws as it was.
    """

    steps: int = 100_000
    batch_size: int = 32
    learning_rate: float = 1e-4
    warmup: int = 500
    decay_after: int = 20_000
    weight_decay: float = 1e-2
    max_grad_norm: float = 1.0
    ema_decay: float = 0.9999
    validate_every: int = 1000
    validation_cases: int = 64
    seed: int = 0
    part: Literal["all", "decoder", "presence"] = "all"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a trained model but the data themselves.

    margin: pixels around what the model sees in what the store holds; training draws the window at random within them,
    evaluation takes the middle;
    crop: it was trained on crops of `size`² at native scale, so it segments regions of interest, not a whole image;
    stretch: what the model sees is stretched from its own minimum to its maximum (after cropping, at the full depth of
    the pixels); window: the one that the model sees DICOM through, whichever people use (`values`: none, Hounsfield units).
    """

    dataset: str
    size: int
    channels: int
    image_codec: CodecSetting
    mask_codec: CodecSetting
    segmenter: SegmenterSetting
    codec_training: Training = Training()
    training: Training = Training()
    codec_augment: Augment = Augment()
    augment: Augment = Augment()
    margin: int = 0
    crop: bool = False
    stretch: bool = False
    window: str = "header"

    def build(self, stage: Stage) -> TrainableModel:
        """The untrained model of a stage, its weights laid out channels last: training takes 0.86 and drawing masks 0.8 of
        the time so on a CPU."""
        model: TrainableModel = self._build(stage).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model

    def _build(self, stage: Stage) -> TrainableModel:
        if stage == Stage.SEGMENTER:
            return self.segmenter.build(self.channels, self.image_codec, self.mask_codec)
        codec = self.image_codec if stage == Stage.IMAGE_CODEC else self.mask_codec
        if isinstance(codec, Pixels):
            raise ConfigError(f"this recipe works on the pixels themselves: it has no {stage} to train")
        return codec.build()

    @property
    def stored(self) -> int:
        """Side of the images in a prepared store, in pixels."""
        return self.size + 2 * self.margin

    @property
    def encoder(self) -> str:
        """The segmenter's image encoder: `own`, or the pretrained one that it starts from."""
        setting = self.segmenter.member if isinstance(self.segmenter, Ensembled) else self.segmenter
        network = getattr(setting, "denoiser", getattr(setting, "network", None))
        return str(getattr(network, "backbone", "own"))

    def plan(self, stage: Stage) -> tuple[Training, Augment]:
        """How a stage is trained."""
        return (self.training, self.augment) if stage == Stage.SEGMENTER else (self.codec_training, self.codec_augment)


def _paper(name: str, size: int, batch: int, widths: tuple[int, ...] = (64, 128, 256)) -> Recipe:
    """Section IV-B: f = 4, base 64 × [1, 2, 4], ε-prediction, T = 1000, quantised latents, frozen condition."""
    data, training = DATASETS[name], Training(batch_size=batch)
    loss = WeightedCE(data.positive_weight)
    return Recipe(
        name,
        size,
        data.channels,
        image_codec=Autoencoder("image", data.channels, latent_channels=data.channels, channels=widths, loss=MSE()),
        mask_codec=Autoencoder("mask", 1, latent_channels=1, channels=widths, loss=loss, target="consensus"),
        segmenter=LatentDiffusion(ConcatUNet(widths), GaussianDiffusion("epsilon"), DDPM()),
        codec_training=training,
        training=training,
    )


def _fast(name: str, size: int | None = None, **drawing: Any) -> Recipe:
    """Latents of 32² (phantom: 16²) whatever the size, so that two CPU cores can train and run it.

    Args:
        name: of the data set, whose module holds channels, weight, augmentation and target.
        size: of the images in pixels; the data set's if not given.
        drawing: other fields of `LatentDiffusion`.
    """
    data = DATASETS[name]
    side = size or data.size
    shape: dict[str, Any] = {
        "channels": (32, 64), "blocks_per_level": 1, "patch_size": max(2, side // 64), "quantized": False,
    }  # fmt: skip
    fields = {"sampler": DDIM(10), "target": data.target, "orientations": 5} | drawing
    loss = WeightedCE(data.positive_weight, unbias=True)
    return Recipe(
        name,
        side,
        data.channels,
        image_codec=Autoencoder("image", data.channels, latent_channels=4, loss=MSE(), **shape),
        mask_codec=Autoencoder("mask", 1, latent_channels=4, loss=loss, **shape),
        segmenter=LatentDiffusion(PyramidUNet(), GaussianDiffusion("x0"), noise_levels_per_image=4, **fields),
        codec_training=Training(batch_size=16, learning_rate=1e-3, warmup=100, decay_after=4000, validate_every=500),
        training=Training(batch_size=16, learning_rate=5e-4, warmup=200, validate_every=500),
        codec_augment=replace(data.augment, brightness=0, contrast=0, colour=0),
        augment=data.augment,
    )


def _imagenet(fast: Recipe, backbone: Backbone = "efficientnet-lite0") -> Recipe:
    """The `fast` row with an encoder that starts from ImageNet (extra `imagenet`). Where one mask is the aim, with a Dice
    term and an auxiliary head, which has a share in what is drawn: they would teach a model of several raters to hedge less
    than they do. Its features end at H/32."""
    segmenter, levels = fast.segmenter, {4: 4, 8: 3}[fast.mask_codec.factor]
    assert isinstance(segmenter, LatentDiffusion)
    denoiser = PyramidUNet(encoder_channels=(64, 96, 128, 192)[-levels:], backbone=backbone)
    if segmenter.target == "consensus":
        segmenter = replace(
            segmenter,
            noise_levels_per_image=2,
            dice_weight=0.2,
            auxiliary=Dice(cross_entropy=1.0),
            auxiliary_weight=1.0,
            head_share=0.45,
        )
    return replace(fast, segmenter=replace(segmenter, denoiser=denoiser))


def planned(
    name: str, size: int, channels: int, factor: int, positive_weight: float, imagenet: bool, **drawing: Any
) -> Recipe:
    """A `fast` row of one's own measures, with ImageNet's encoder or our own.

    Args:
        name: of the data set.
        size: of the images in pixels.
        channels: 1 or 3.
        factor: f of both codecs, 4 or 8.
        positive_weight: of the pixels within a mask, in the loss of the mask codec.
        imagenet: whether the encoder starts from ImageNet.
        drawing: fields of `LatentDiffusion` that replace those of the row.
    """
    row = _fast(name, size)
    shape = {"patch_size": factor // 2}
    loss = WeightedCE(positive_weight, unbias=True)
    row = replace(
        row,
        channels=channels,
        image_codec=replace(row.image_codec, in_channels=channels, **shape),  # type: ignore[arg-type]
        mask_codec=replace(row.mask_codec, loss=loss, **shape),  # type: ignore[arg-type]
    )
    row = _imagenet(row) if imagenet else row
    return replace(row, segmenter=replace(row.segmenter, **drawing))


def _once(network: Network) -> Callable[[Recipe], Recipe]:
    """One-to-one: a network that answers once, learning the consensus."""
    return lambda row: replace(row, segmenter=OneToOne(network))


def _random_rater(row: Recipe, network: Network = ResUNet((16, 32, 64, 128))) -> Recipe:
    """A network that answers once, learning one rater at random by cross-entropy: its map is the share of raters."""
    return replace(row, segmenter=OneToOne(network, WeightedCE(1), "rater"))


def _plain(row: Recipe) -> Network:
    """The row's image encoder with a plain mask head on the finest features that it has."""
    denoiser = row.segmenter.denoiser  # type: ignore[union-attr]
    assert isinstance(denoiser, PyramidUNet)
    if denoiser.backbone != "own":
        return Pyramid(backbone=denoiser.backbone)
    return Pyramid(denoiser.encoder_channels, denoiser.encoder_blocks_per_level, factor=row.mask_codec.factor // 2)


def _twin(row: Recipe) -> Recipe:
    """The deterministic twin: the same encoder, one pass, no codec, Dice + cross-entropy."""
    return replace(row, segmenter=OneToOne(_plain(row)))


def _in_pixels(denoiser: Denoiser, process: GaussianDiffusion) -> Callable[[Recipe], Recipe]:
    """One-to-many in pixel space, T = 1000; DDIM-20 in place of ancestral sampling. The papers predict ε; with x₀, as our
    own rows have it, the same network learns several times as fast."""

    def make(row: Recipe) -> Recipe:
        fitted = replace(denoiser, size=row.size) if isinstance(denoiser, MedSegDiff) else denoiser
        segmenter = LatentDiffusion(fitted, process, DDIM(20), row.segmenter.target)
        return replace(row, image_codec=Pixels(row.channels), mask_codec=Pixels(1), segmenter=segmenter)

    return make


# begins and ends as Stable Diffusion's, so that x̂₀ of the noisiest ε is off by 25 times its error, not 157
_STABLE = GaussianDiffusion("epsilon", beta_start=8.5e-4, beta_end=0.012)


def _ldseg(row: Recipe) -> Recipe:
    """LDSeg's training (Zaman et al. 2025) of the row's network: mask codec and denoiser end to end, ε, and the decoded x̂₀
    against the mask."""
    along = replace(row.segmenter, process=_STABLE, train_mask_codec=True, dice_weight=0.2)  # type: ignore[arg-type]
    return replace(row, segmenter=along)


def _sdseg(row: Recipe) -> Recipe:
    """SDSeg (Lin et al. 2024): ε and the one-step estimate of x₀ are learnt, the image codec's encoder is trained along, and
    one step draws. β as Stable Diffusion begins and ends; LSegDiff (Vu Quoc et al. 2023) differs in its frozen encoder."""
    segmenter = LatentDiffusion(
        ConcatUNet((32, 48, 64), 1),
        _STABLE,
        DDIM(1),
        row.segmenter.target,
        train_image_codec=True,
        estimate_weight=1.0,
    )
    return replace(row, segmenter=segmenter)


def _regions(row: Recipe) -> Recipe:
    """Trained on crops at native scale, each stretched to 8 bits: all grey values of a CT, no window."""
    return replace(row, margin=(128 - row.size) // 2, crop=True, stretch=True, window="values")


def _maybe_nothing(row: Recipe) -> Recipe:
    """Whether there is anything to outline is answered by itself."""
    return replace(row, segmenter=replace(row.segmenter, presence=True))  # type: ignore[arg-type]


# name: data set, size, …; a data set without a line of its own gets `_fast` under its name
_TABLE: dict[str, Recipe] = {
    "phantom":            _fast("phantom", orientations=1),
    "folder":             _fast("folder"),
    "cvc_clinicdb":       _fast("cvc_clinicdb"),
    "isic2018":           _fast("isic2018"),
    "polyps":             _maybe_nothing(_fast("polyps")),
    "lidc_idri":          _regions(_fast("lidc_idri")),
    "lidc_idri_readers":  _regions(_maybe_nothing(_fast("lidc_idri", target="rater", sampler=DDPM(10), orientations=8))),
    "folder-256":         _imagenet(_fast("folder", 256)),  # near the 224² of ImageNet's weights
    "cvc_clinicdb-256":   _imagenet(_fast("cvc_clinicdb", 256)),
    "isic2018-256":       _imagenet(_fast("isic2018", 256)),
    "polyps-256":         _maybe_nothing(_imagenet(_fast("polyps", 256))),
    "polyps-320":         replace(_maybe_nothing(_imagenet(_fast("polyps", 256))), size=320),  # for small ones; latents of 40²
    "phantom-paper":      _paper("phantom", 64, 16, (16, 32, 64)),  # small, for a try on any machine
    "cvc_clinicdb-paper": _paper("cvc_clinicdb", 256, 32),
    "isic2018-paper":     _paper("isic2018", 256, 32),
    "lidc_idri_slices":   replace(_fast("lidc_idri_slices"), window="lung"),
    "lidc_idri_slices-paper": replace(_paper("lidc_idri_slices", 128, 64), window="lung"),
}  # fmt: skip
ROWS: dict[str, Recipe] = _TABLE | {name: _fast(name) for name in DATASETS if name not in _TABLE}

# the row to take first for each data set: what the shipped models were trained with, and the quick ones
RECOMMENDED = ("phantom", "folder", "isic2018", "cvc_clinicdb-256", "polyps-320", "lidc_idri-imagenet",
               "lidc_idri_readers-imagenet")  # fmt: skip

# widths that two CPU cores can train at 64²; the fields hold whatever an accelerator can
_PIXEL_WIDTHS = (16, 32, 64, 128)
_IN_PIXELS: dict[str, Denoiser] = {
    "ensemblediff": ConcatUNet(_PIXEL_WIDTHS, 1),
    "segdiff": SegDiff(_PIXEL_WIDTHS, 1, dense_blocks=2, growth=8),
    "medsegdiff": MedSegDiff(_PIXEL_WIDTHS, 1),
}
VARIANTS: dict[str, Callable[[Recipe], Recipe]] = {
    "imagenet":     _imagenet,
    "imagenet-lite2": lambda row: _imagenet(row, "efficientnet-lite2"),
    "unet":         _once(UNet()),
    "unetpp":       _once(UNetPlusPlus((16, 32, 64, 128, 128, 16))),
    "resunet":      _once(ResUNet()),
    "nnunet":       _once(NNUNet((16, 32, 64, 128, 256))),
    "random-reader": _random_rater,
    "twin":         _twin,
    "imagenet-twin": lambda row: _twin(_imagenet(row)),
    "imagenet-random-reader": lambda row: _random_rater(row, _plain(_imagenet(row))),
    **{name: _in_pixels(denoiser, GaussianDiffusion("epsilon")) for name, denoiser in _IN_PIXELS.items()},
    **{f"{name}-x0": _in_pixels(denoiser, GaussianDiffusion("x0")) for name, denoiser in _IN_PIXELS.items()},
    "ldseg":        _ldseg,
    "sdseg":        _sdseg,
    "prob-unet":    lambda row: replace(row, segmenter=ProbUNet(encoder_channels=_PIXEL_WIDTHS, target=row.segmenter.target)),
}  # fmt: skip

RECIPES: dict[str, Recipe] = {
    **ROWS,
    **{f"{n}-{b}": make(row) for n, row in ROWS.items() if "-" not in n for b, make in VARIANTS.items()},
    **{f"{n}-twin": _twin(row) for n, row in ROWS.items() if n.endswith(("-256", "-320"))},
    "lidc_idri-paper": ROWS["lidc_idri_slices-paper"],  # what the paper calls LIDC-IDRI
}


def get_recipe(name: str) -> Recipe:
    """The row of this name, or `ConfigError` with those that are like it."""
    if name not in RECIPES:
        raise ConfigError(
            f"there is no recipe {name!r}{guesses(name, RECIPES)} (`manymask recipes` lists all {len(RECIPES)})"
        )
    return RECIPES[name]


def name_of(row: Recipe) -> str:
    """The name of a recipe's row; of one that is no row, such as a shipped model that draws in another way than it was
    trained with, the row that trains the same: data set, codecs, network, process and target, if possible size. Else the
    data set's name."""

    def essence(of: Recipe) -> tuple[object, ...]:
        setting = of.segmenter.member if isinstance(of.segmenter, Ensembled) else of.segmenter
        network = getattr(setting, "denoiser", getattr(setting, "network", None))
        learnt = [getattr(setting, x, None) for x in ("target", "process", "train_image_codec", "train_mask_codec")]
        return of.dataset, of.channels, type(setting), type(network), of.encoder, learnt, type(of.image_codec)

    exact = [name for name, other in RECIPES.items() if other == row]
    alike = [name for name, other in RECIPES.items() if essence(other) == essence(row)]
    as_large = [name for name in alike if RECIPES[name].size == row.size]
    return [*exact, *as_large, *alike, row.dataset][0]


def list_recipes() -> list[str]:
    """The names of all recipes; `manymask recipes` shows what they differ in."""
    return list(RECIPES)


@lru_cache
def stages_of(row: Recipe) -> list[Stage]:
    """What a recipe has to train, in order: the codecs that its segmenter holds, and the segmenter."""
    with torch.device("meta"):
        model = row.build(Stage.SEGMENTER)
    held = {stage: getattr(model, stage.attribute, None) for stage in CODECS}
    trained = [stage for stage, codec in held.items() if codec is not None and any(True for _ in codec.parameters())]
    return [*trained, Stage.SEGMENTER]
