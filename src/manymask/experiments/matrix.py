"""The matrix of an experiment: which models stand in which table. Data, not code: see `ABLATIONS`, `MODELS`, `Budget`.

A row names a table and a recipe; rows whose recipes are equal are one cell, trained once. Add a variant by a recipe in
`recipes.py` and a line in `MODELS`, or by a line in `ABLATIONS` that says what it changes of the main recipe.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from manymask.data.augment import Augment
from manymask.diffusion.guidance import PairClassifier
from manymask.diffusion.process import GaussianDiffusion, RectifiedFlow
from manymask.diffusion.samplers import DDIM, SAMPLERS, Euler, Sampler
from manymask.diffusion.sampling import SamplingConfig
from manymask.errors import ConfigError
from manymask.models.denoisers import ConcatUNet, MedSegDiff
from manymask.models.latent_diffusion import LatentDiffusion
from manymask.nn.losses import MSE, Dice, Focal, Loss
from manymask.nn.quantizers import FSQ, KL, VQ
from manymask.recipes import RECIPES, Recipe, Stage, get_recipe, stages_of

Change = Callable[[Recipe], Recipe]

# of a model's time; what a model does not train falls to the rest, so that a network alone gets all of it
SHARES: dict[Stage, float] = {Stage.IMAGE_CODEC: 0.15, Stage.MASK_CODEC: 0.15, Stage.SEGMENTER: 0.70}

MAIN = "ours"

# name, label, what the name of its recipe ends in
MODELS: tuple[tuple[str, str, str], ...] = (
    (MAIN, "manymask (fast)", ""),
    ("paper", "manymask (as the paper)", "-paper"),
    ("imagenet", "manymask (encoder from ImageNet)", "-imagenet"),
    ("unet", "U-Net", "-unet"),
    ("unetpp", "U-Net++", "-unetpp"),
    ("resunet", "ResUNet", "-resunet"),
    ("nnunet", "nnU-Net's network", "-nnunet"),
    ("ensemblediff", "EnsembleDiff", "-ensemblediff"),
    ("segdiff", "SegDiff", "-segdiff"),
    ("medsegdiff", "MedSegDiff", "-medsegdiff"),
    ("ensemblediff-x0", "EnsembleDiff, x₀-prediction", "-ensemblediff-x0"),
    ("segdiff-x0", "SegDiff, x₀-prediction", "-segdiff-x0"),
    ("medsegdiff-x0", "MedSegDiff, x₀-prediction", "-medsegdiff-x0"),
    ("ldseg", "manymask, mask codec trained along (LDSeg)", "-ldseg"),
    ("sdseg", "SDSeg, one step", "-sdseg"),
    ("prob-unet", "Probabilistic U-Net", "-prob-unet"),
    ("twin", "the same encoder with a plain mask head", "-twin"),
    ("random-reader", "ResUNet, one rater at random, cross-entropy", "-random-reader"),
)


def _codecs(**changes: object) -> Change:
    """Both autoencoders changed alike."""
    return lambda row: replace(
        row,
        image_codec=replace(row.image_codec, **changes),  # type: ignore[arg-type]
        mask_codec=replace(row.mask_codec, **changes),  # type: ignore[arg-type]
    )


def _factor(f: int) -> Change:
    """f by the patch size, which takes what the levels below it leave."""
    return lambda row: _codecs(patch_size=f // 2 ** (len(row.mask_codec.channels) - 1))(row)  # type: ignore[arg-type]


def _mask_loss(loss: Loss | None) -> Change:
    return lambda row: row if loss is None else replace(row, mask_codec=replace(row.mask_codec, loss=loss))  # type: ignore[arg-type]


def _narrow(loss: Loss | None) -> Change:
    """The mask in one latent channel and learnt from the consensus, as in the paper; the codec's width is ours."""
    return lambda row: _mask_loss(loss)(
        replace(row, mask_codec=replace(row.mask_codec, latent_channels=1, target="consensus"))  # type: ignore[arg-type]
    )


def _segmenter(**changes: object) -> Change:
    return lambda row: replace(row, segmenter=replace(row.segmenter, **changes))  # type: ignore[arg-type]


# the paper's way to condition, as wide as ours: the image latent alone, its encoder frozen or trained along
_LATENT_ALONE = ConcatUNet((32, 48, 64), 1)

# table, name, label, what is changed of the main recipe (nothing: the main model itself)
ABLATIONS: tuple[tuple[str, str, str, Change], ...] = (
    ("factor", "factor-4", "f = 4", _factor(4)),
    ("factor", "factor-8", "f = 8", _factor(8)),
    ("factor", "factor-16", "f = 16", _factor(16)),
    ("loss", "loss-wce", "weighted CE", _mask_loss(None)),
    ("loss", "loss-mse", "MSE", _mask_loss(MSE(sigmoid=True))),
    ("loss", "loss-focal", "Focal", _mask_loss(Focal())),
    ("loss", "loss-dice", "Dice", _mask_loss(Dice())),
    ("narrow", "narrow-wce", "weighted CE", _narrow(None)),
    ("narrow", "narrow-mse", "MSE", _narrow(MSE(sigmoid=True))),
    ("bottleneck", "bottleneck-vq", "VQ", _codecs(bottleneck=VQ())),
    ("bottleneck", "bottleneck-kl", "KL", _codecs(bottleneck=KL())),
    ("bottleneck", "bottleneck-fsq", "FSQ", _codecs(bottleneck=FSQ())),
    ("latents", "latents-continuous", "continuous z", _codecs(quantized=False)),
    ("latents", "latents-snapped", "continuous z, snapped on decoding", _codecs(quantized=False, quantize_on_decode=True)),
    ("latents", "latents-quantised", "quantised z̄", _codecs(quantized=True)),
    ("condition", "condition-pyramid", "pixels by a trained pyramid", _segmenter()),
    ("condition", "condition-frozen", "image latent, frozen", _segmenter(denoiser=_LATENT_ALONE, presence=False)),
    ("condition", "condition-trained", "image latent, encoder trained along",
     _segmenter(denoiser=_LATENT_ALONE, presence=False, train_image_codec=True)),
    ("prediction", "prediction-x0", "x₀", _segmenter(process=GaussianDiffusion("x0"))),
    ("prediction", "prediction-epsilon", "ε", _segmenter(process=GaussianDiffusion("epsilon"))),
    ("prediction", "prediction-v", "v", _segmenter(process=GaussianDiffusion("v"))),
    ("prediction", "prediction-flow", "velocity (flow matching)", _segmenter(process=RectifiedFlow(), sampler=Euler())),
    ("guidance", "guidance-none", "none", _segmenter()),
    ("guidance", "guidance-free", "condition dropped with 10 %, not guided", _segmenter(condition_dropout=0.1)),
    ("guidance", "guidance-classifier", "classifier, scale 1", _segmenter(classifier=PairClassifier())),
    ("training", "training-ours", "as it is", _segmenter()),
    ("training", "training-dice", "a Dice term of 0.2 on the decoded x̂₀", _segmenter(dice_weight=0.2)),
    ("training", "training-levels", "one noise level an image, not four", _segmenter(noise_levels_per_image=1)),
    ("training", "training-min-snr", "Min-SNR weights, γ = 5", _segmenter(process=GaussianDiffusion("x0", min_snr=5.0))),
    ("training", "training-estimate", "the mean absolute error of x̂₀ as well", _segmenter(estimate_weight=1.0)),
    ("training", "training-end-to-end", "the mask codec trained along", _segmenter(train_mask_codec=True)),
    ("training", "training-flips", "flips and quarter turns alone", lambda row: replace(row, augment=Augment(dihedral=True))),
    ("target", "target-consensus", "the raters' consensus", _segmenter(target="consensus")),
    ("target", "target-reader", "one rater at random", _segmenter(target="rater")),
)  # fmt: skip

TITLES = {
    "models": "Models",
    "factor": "Downsampling factor f",
    "loss": "Reconstruction loss of the mask codec",
    "narrow": "Reconstruction loss of a mask codec with one latent channel, learnt from the consensus",
    "bottleneck": "Bottleneck of both codecs",
    "latents": "Which latent diffuses",
    "condition": "Condition",
    "prediction": "What the network predicts",
    "guidance": "Guidance",
    "training": "How it is trained",
    "target": "What is learnt of several raters",
}


def compared_samplers(process: type) -> tuple[Sampler, ...]:
    """Those that the sweep over steps compares on a process: each on the first that it serves, and there alone."""
    return tuple(kind() for kind in SAMPLERS.values() if kind.serves[0] is process)


@dataclass(frozen=True)
class Budget:
    """What is the same for every cell, so that nothing but the recipe differs between two rows."""

    minutes: float | None = None
    """of wall time to train a model, its codecs included; all steps of the recipe if not given"""
    cases: int | None = None
    """of the test part, evenly spaced; all if not given"""
    samples: int = 5
    """masks that make the consensus; networks that answer once get as many flips and turns"""
    steps: int = 20
    """of the sampler that every diffusion model is scored with"""
    most_samples: int = 30
    """where the curve of Dice against n ends"""
    guidance: tuple[float, ...] = (0.0, 0.5, 1.0, 1.5, 2.0, 4.0)
    """scales, on the models trained for guidance"""
    sweep_steps: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 1000)
    """of every sampler, on the main model and on the flow"""
    sweep_cases: int = 32
    """test cases of the sweeps"""
    long_cases: int = 8
    """test cases where a sampler takes more than 50 steps"""
    validation_cases: int = 16
    """of each validation while training, whose time counts"""


@dataclass(frozen=True)
class Variant:
    """A line of a table: `cell` is the name of the first row with an equal recipe, whose trained model it shows."""

    table: str
    name: str
    label: str
    recipe: Recipe
    run_id: str


def resized(row: Recipe, size: int | None) -> Recipe:
    """The recipe for images stored at another size, without a margin; f stays, so the latents grow or shrink with it."""
    if size is None or size == row.stored:
        return row
    denoiser = getattr(row.segmenter, "denoiser", None)
    if isinstance(denoiser, MedSegDiff):  # it learns a weight for each frequency
        row = _segmenter(denoiser=replace(denoiser, size=size))(row)
    return replace(row, size=size, margin=0)


def matrix(name: str, raters: int, size: int | None = None, budget: Budget = Budget()) -> list[Variant]:
    """All rows for a main recipe, e.g. `cvc_clinicdb`. Targets are compared where there are several raters."""
    main = get_recipe(name)
    if "-" in name:  # a variant is a row of the matrix, not its start
        raise ConfigError(f"the matrix starts from a main recipe such as {name.partition('-')[0]!r}, not {name!r}")
    models = ((n, label, RECIPES.get(name + end)) for n, label, end in MODELS)
    asked = [("models", n, label, row) for n, label, row in models if row is not None and row.dataset == main.dataset]
    asked += [
        (table, n, label, change(main)) for table, n, label, change in ABLATIONS if table != "target" or raters > 1
    ]
    first: dict[Recipe, str] = {}
    rows = []
    for table, n, label, found in asked:
        training = replace(found.training, validation_cases=budget.validation_cases)
        codec_training = replace(found.codec_training, validation_cases=budget.validation_cases)
        row = replace(resized(found, size), training=training, codec_training=codec_training)
        rows.append(Variant(table, n, label, row, first.setdefault(row, n)))
    return rows


def minutes(row: Recipe, stage: Stage, budget: float | None) -> float | None:
    """A stage's part of the model's time, by `SHARES` among the stages that the recipe trains."""
    return None if budget is None else budget * SHARES[stage] / sum(SHARES[s] for s in stages_of(row))


def sampling_of(row: Recipe, steps: int) -> SamplingConfig:
    """How a model is scored: the image as it is; DDIM, for a flow Euler (the same steps); no sampler where it has none. What
    was made to draw in one step does."""
    if not isinstance(row.segmenter, LatentDiffusion):
        return SamplingConfig()
    steps = 1 if row.segmenter.sampler.steps == 1 else steps
    sampler = Euler(steps) if isinstance(row.segmenter.process, RectifiedFlow) else DDIM(steps)
    return SamplingConfig(sampler, orientations=1)


def selected(rows: list[Variant], only: tuple[str, ...]) -> list[Variant]:
    """The rows of these tables, rows or cells; all if none is named. Raises `ConfigError` for a name that is none."""
    known = {name for row in rows for name in (row.table, row.name, row.run_id)}
    strange = [name for name in only if name not in known]
    if strange:
        raise ConfigError(
            f"{strange[0]}: no such table or row; choose of {', '.join(dict.fromkeys(_names(rows)))}", parameter="only"
        )
    return [row for row in rows if not only or {row.table, row.name, row.run_id} & set(only)]


def _names(rows: list[Variant]) -> list[str]:
    return [row.table for row in rows] + [row.name for row in rows]
