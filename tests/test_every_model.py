"""Every model of every family passes one and the same tester: codecs, diffusion segmenters, networks, the conditional VAE."""

from dataclasses import replace

import pytest
import torch

from manymask.data.case import Batch, Source
from manymask.data.datasets import phantom
from manymask.data.store import prepare
from manymask.diffusion.guidance import PairClassifier
from manymask.diffusion.process import Diffusion, Flow
from manymask.diffusion.samplers import DDIM, DDPM, PLMS, DPMSolver, Euler, Heun
from manymask.evaluation.evaluator import Protocol, evaluate
from manymask.hub.model_folder import TrainedModel, load_model, save_model
from manymask.hub.provenance import Provenance
from manymask.models.autoencoder import Pixels
from manymask.models.denoisers import ConcatUNet, MedSegDiff, PyramidUNet, SegDiff
from manymask.models.deterministic import NNUNet, OneToOne, Pyramid, ResUNet, UNet, UNetPlusPlus
from manymask.models.latent_diffusion import LatentDiffusion
from manymask.models.prob_unet import ProbUNet
from manymask.nn.losses import Dice, Focal, WeightedCE
from manymask.nn.quantizers import FSQ, KL, VQ
from manymask.rng import TrainingNoise
from manymask.training.trainer import Job, fit

from .conftest import perturb, tiny_recipe

SIZE = 32
CONCAT = ConcatUNet((8, 8), 1)
PYRAMID = PyramidUNet((8, 8), 1, (8, 8, 16), 1)
SIX = (8, 8, 8, 8, 8, 8)
LATENT = {
    "concat-epsilon": LatentDiffusion(CONCAT, Diffusion("epsilon"), DDIM(5), noise_levels=1),
    "concat-v": LatentDiffusion(CONCAT, Diffusion("v"), PLMS(5)),
    "pyramid-x0": LatentDiffusion(PYRAMID, Diffusion("x0"), DDIM(3), noise_levels=3),
    "pyramid-reader": LatentDiffusion(PYRAMID, Diffusion("x0"), DPMSolver(4), "reader"),
    "ddpm": LatentDiffusion(CONCAT, Diffusion("x0"), DDPM(5)),
    "trainable-condition": LatentDiffusion(CONCAT, Diffusion("x0"), DDIM(3), train_image_codec=True),
    "trainable-quantised": LatentDiffusion(CONCAT, Diffusion("x0"), DDIM(3), train_image_codec=True),
    "presence": LatentDiffusion(PYRAMID, Diffusion("x0"), DDIM(3), "reader", noise_levels=2, presence=True, turns=2),
    "turns": LatentDiffusion(PYRAMID, Diffusion("x0"), DDIM(3), turns=3),
    "dice": LatentDiffusion(PYRAMID, Diffusion("v"), DDIM(3), noise_levels=2, dice=0.5),
    "imagenet": LatentDiffusion(PyramidUNet((8, 8), 1, (8, 16), backbone="efficientnet-lite0"), Diffusion("x0"), DDIM(3)),
    "flow-euler": LatentDiffusion(PYRAMID, Flow(), Euler(4), noise_levels=2),
    "flow-heun": LatentDiffusion(CONCAT, Flow(), Heun(2)),
    "classifier-free": LatentDiffusion(PYRAMID, Diffusion("x0"), DDIM(3), drop_condition=0.5, guidance=2.0),
    "classifier": LatentDiffusion(CONCAT, Diffusion("x0"), DDIM(3), noise_levels=2, classifier=PairClassifier((8, 16))),
    "both-on-flow": LatentDiffusion(
        CONCAT, Flow(), Euler(3), drop_condition=0.5, guidance=0.5, classifier=PairClassifier((8,))
    ),
}  # fmt: skip
PIXEL = {
    "ensemblediff": LatentDiffusion(ConcatUNet((8, 8, 8), 1), Diffusion("epsilon"), DDIM(3)),
    "segdiff": LatentDiffusion(SegDiff((8, 8), 1, dense_blocks=1, growth=4), Diffusion("epsilon"), DDIM(3)),
    "medsegdiff": LatentDiffusion(MedSegDiff((8, 16), 1, size=SIZE), Diffusion("epsilon"), DDIM(3)),
    "pixel-flow": LatentDiffusion(SegDiff((8, 8), 1, dense_blocks=1, growth=4), Flow(), Heun(2), drop_condition=0.5),
}
ONCE = {
    "unet": OneToOne(UNet(SIX)),
    "unetpp": OneToOne(UNetPlusPlus(SIX)),
    "resunet": OneToOne(ResUNet((8, 8, 16))),
    "nnunet": OneToOne(NNUNet((8, 8, 8, 8))),
    "twin": OneToOne(Pyramid((8, 8, 16), 1, factor=2, width=8)),
    "random-reader": OneToOne(Pyramid((8, 16), backbone="efficientnet-lite0", width=8), WeightedCE(1), "reader"),
}
MANY = {"prob-unet": ProbUNet(SIX, (8, 8), 1)}
SEGMENTERS = {**LATENT, **PIXEL, **ONCE, **MANY}
CODECS = {
    "image-vq": {"image_codec": {"bottleneck": VQ(codes=16), "quantised": True}},
    "image-kl": {"image_codec": {"bottleneck": KL()}},
    "mask-fsq": {"mask_codec": {"bottleneck": FSQ(5), "loss": Dice(), "snap": True}},
    "mask-f16": {"mask_codec": {"stem": 8, "loss": Focal()}},
}
MODELS = [*SEGMENTERS, *CODECS]
every_model = pytest.mark.parametrize("name", MODELS)
every_segmenter = pytest.mark.parametrize("name", SEGMENTERS)


def stage_of(name):
    return "segmenter" if name in SEGMENTERS else f"{name.split('-')[0]}-codec"


def recipe_of(name):
    recipe = tiny_recipe()
    if name in CODECS:
        return replace(recipe, **{k: replace(getattr(recipe, k), **v) for k, v in CODECS[name].items()})
    recipe = replace(recipe, segmenter=SEGMENTERS[name])
    if name in PIXEL:
        return replace(recipe, image_codec=Pixels(1), mask_codec=Pixels(1))
    if name == "trainable-quantised":
        return replace(recipe, image_codec=replace(recipe.image_codec, quantised=True))
    return recipe


def build(name):
    torch.manual_seed(0)
    return perturb(recipe_of(name).build(stage_of(name))).eval()


def batch(n=3, step=0):
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(n, 1, SIZE, SIZE, generator=generator)
    masks = (torch.rand(n, 4, SIZE, SIZE, generator=generator) > 0.6).float()
    return Batch([f"case-{i}" for i in range(n)], image, masks, TrainingNoise(0, step))


def answer(model, b, n=2, seed=0):
    """What the model is for: n masks for each image, or a codec's reconstruction; (B, n, H, W)."""
    if hasattr(model, "predict"):
        return model.predict(b, n, seed)
    with torch.no_grad():
        return model.reconstruct(b)[1]


def row(b, i):
    return Batch(b.ids[i : i + 1], b.image[i : i + 1], b.truth()[i : i + 1], b.noise)


@every_model
def test_answer_has_shape_and_range(name):
    found = answer(build(name), batch(), 4)
    assert found.shape == (3, 4 if name in SEGMENTERS else 1, SIZE, SIZE)
    assert found.min() >= 0 and found.max() <= 1


@every_model
def test_gradients_reach_every_trained_parameter_and_no_frozen_one(name):
    model = build(name).train()
    losses = model(batch())
    losses["loss"].backward()
    assert torch.isfinite(losses["loss"])
    for parameter_name, p in model.named_parameters():
        reached = p.grad is not None and p.grad.abs().sum() > 0
        assert reached == p.requires_grad, parameter_name


@every_model
def test_half_precision_gives_nearly_the_same_loss(name):
    model = build(name).eval()
    with torch.autocast("cpu", torch.bfloat16):
        half = model(batch())["loss"]
    half.backward()
    assert half.item() == pytest.approx(model(batch())["loss"].item(), rel=0.1)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


@every_model
def test_batched_equals_single(name):
    model, b = build(name), batch()
    together = answer(model, b)
    for i in range(3):
        assert torch.allclose(together[i], answer(model, row(b, i))[0], atol=1e-4)


@every_segmenter
def test_same_seed_same_masks_and_few_are_the_first_of_many(name):
    model = build(name)
    many = model.predict(batch(), 5, seed=0)
    assert torch.allclose(model.predict(batch(), 2, seed=0), many[:, :2], atol=1e-4)


@pytest.mark.parametrize("name", [*LATENT, *PIXEL, *MANY])
def test_other_seed_other_masks_and_samples_differ(name):
    model = build(name)
    masks = model.predict(batch(), 2, seed=0)
    assert not torch.equal(masks, model.predict(batch(), 2, seed=1))
    assert not torch.equal(masks[:, 0], masks[:, 1])


@every_segmenter
def test_image_changes_the_masks(name):
    """The condition is heard: another image under the same noise gives other masks."""
    model, b = build(name), batch()
    other = Batch(b.ids, b.image.flip(0))
    assert (model.predict(b, 1, seed=0) - model.predict(other, 1, seed=0)).abs().max() > 1e-5


@every_model
def test_weights_saved_and_loaded_give_the_same_answer(name, tmp_path):
    model = build(name)
    save_model(TrainedModel(model, recipe_of(name), stage_of(name), Provenance(), ["a"]), tmp_path / "model")
    again = load_model(tmp_path / "model").model
    assert torch.equal(answer(again, batch()), answer(model, batch()))


# one of each kind: the others go through the same code; no ε-prediction (at t = T it amplifies errors 157-fold): it takes
# many times as long
FITTED = [
    "concat-v",
    "pyramid-x0",
    "trainable-condition",
    "dice",
    "flow-euler",
    "classifier-free",
    *PIXEL,
    *ONCE,
    *MANY,
    *CODECS,
]


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """A store of four phantoms, which are train, val and test at once."""
    cases = phantom.read().cases[:4]
    ids = [case.id for case in cases]
    source = Source("phantom", cases, {"four": {"train": ids, "val": [], "test": []}}, "Apache-2.0")
    store = prepare(source, tmp_path_factory.mktemp("four") / "store", SIZE, 1)
    store.manifest["schemes"]["four"] = {"train": ids, "val": ids, "test": ids}  # no stored split may hold a case twice
    return store


def fitted_recipe(name):
    """Long enough to know four phantoms by heart; the denoisers in pixel space are asked for x₀ instead of ε."""
    recipe = replace(recipe_of(name), size=SIZE)
    if name in SEGMENTERS:
        recipe = replace(recipe, segmenter=replace(recipe.segmenter, target="consensus"))
    if name in PIXEL and isinstance(recipe.segmenter.process, Diffusion):
        recipe = replace(recipe, segmenter=replace(recipe.segmenter, process=Diffusion("x0")))
    codecs = {k: replace(getattr(recipe, k), latent=4) for k in ("image_codec", "mask_codec") if name not in PIXEL}
    steps = 200 if name in ONCE or name in MANY else 1000
    training = replace(recipe.training, steps=steps, learning_rate=2e-3, ema=0.99, validate_every=5000)
    codec_training = replace(training, steps=400, learning_rate=3e-3)
    return replace(recipe, **codecs, training=training, codec_training=codec_training)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", FITTED)
def test_overfits_four_phantoms(name, four, tmp_path):
    """Trained on four phantoms alone, it finds them again."""
    stages = ("image-codec", "mask-codec", "segmenter") if name in LATENT else (stage_of(name),)
    for stage in stages:
        folder = fit(Job(fitted_recipe(name), stage, four, tmp_path, precision="fp32"))
    metrics = evaluate(load_model(folder).model, four, four.ids, Protocol(), progress=False).metrics
    assert metrics["dice"]["mean"] > 0.8 if "dice" in metrics else metrics["psnr"]["mean"] > 20
