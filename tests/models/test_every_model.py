"""Every model of every family passes one and the same tester: codecs, diffusion segmenters, networks, the conditional VAE."""

from dataclasses import replace

import pytest
import torch

from manymask.data.case import Batch, Source
from manymask.data.datasets import phantom
from manymask.data.store import prepare
from manymask.diffusion.process import GaussianDiffusion
from manymask.evaluation.evaluator import EvalConfig, evaluate
from manymask.hub.model_folder import TrainedModel, load_model, save_model
from manymask.hub.provenance import Provenance
from manymask.training.trainer import TrainConfig, fit
from tests.factories import (
    CODECS,
    LATENT,
    MANY,
    MODELS,
    ONCE,
    PIXEL,
    SEGMENTERS,
    SIZE,
    answer,
    batch,
    build,
    recipe_of,
    row,
    stage_of,
)

every_model = pytest.mark.parametrize("name", MODELS)
every_segmenter = pytest.mark.parametrize("name", SEGMENTERS)


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
    many = model.sample_all(batch(), 5, seed=0)
    assert torch.allclose(model.sample_all(batch(), 2, seed=0), many[:, :2], atol=1e-4)


@pytest.mark.parametrize("name", [*LATENT, *PIXEL, *MANY])
def test_other_seed_other_masks_and_samples_differ(name):
    model = build(name)
    masks = model.sample_all(batch(), 2, seed=0)
    assert not torch.equal(masks, model.sample_all(batch(), 2, seed=1))
    assert not torch.equal(masks[:, 0], masks[:, 1])


@every_segmenter
def test_image_changes_the_masks(name):
    """The condition is heard: another image under the same noise gives other masks."""
    model, b = build(name), batch()
    other = Batch(b.ids, b.image.flip(0))
    assert (model.sample_all(b, 1, seed=0) - model.sample_all(other, 1, seed=0)).abs().max() > 1e-5


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
    if name in PIXEL and isinstance(recipe.segmenter.process, GaussianDiffusion):
        recipe = replace(recipe, segmenter=replace(recipe.segmenter, process=GaussianDiffusion("x0")))
    codecs = {
        k: replace(getattr(recipe, k), latent_channels=4) for k in ("image_codec", "mask_codec") if name not in PIXEL
    }
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
        folder = fit(TrainConfig(fitted_recipe(name), stage, four, tmp_path, precision="fp32"))
    metrics = evaluate(load_model(folder).model, four, four.ids, EvalConfig(), progress=False).metrics
    assert metrics["dice"]["mean"] > 0.8 if "dice" in metrics else metrics["psnr"]["mean"] > 20
