"""Every segmenter passes one and the same tester."""

from dataclasses import replace

import pytest
import torch

from manymask.codec import Pixels
from manymask.data.augment import quarter_turn, quarter_turn_back
from manymask.data.case import Batch
from manymask.denoisers import ConcatUNet, PyramidUNet
from manymask.networks import UNet
from manymask.noise import TrainingNoise
from manymask.process import Diffusion
from manymask.samplers import DDIM, DDPM, PLMS, DPMSolver
from manymask.segmenters import LatentDiffusion, OneToOne

from .conftest import perturb, tiny_recipe

CONCAT = ConcatUNet((8, 8), 1)
PYRAMID = PyramidUNet((8, 8), 1, (8, 8, 16), 1)
SETTINGS = {
    "concat-epsilon": LatentDiffusion(CONCAT, Diffusion("epsilon"), DDIM(5), noise_levels=1),
    "concat-v": LatentDiffusion(CONCAT, Diffusion("v"), PLMS(5)),
    "pyramid-x0": LatentDiffusion(PYRAMID, Diffusion("x0"), DDIM(3), noise_levels=3),
    "pyramid-reader": LatentDiffusion(PYRAMID, Diffusion("x0"), DPMSolver(4), "reader"),
    "ddpm": LatentDiffusion(CONCAT, Diffusion("x0"), DDPM(5)),
    "trainable-condition": LatentDiffusion(CONCAT, Diffusion("x0"), DDIM(3), train_image_codec=True),
    "trainable-quantised": LatentDiffusion(CONCAT, Diffusion("x0"), DDIM(3), train_image_codec=True),
    "turns": LatentDiffusion(PYRAMID, Diffusion("x0"), DDIM(3), turns=3),
    "dice": LatentDiffusion(PYRAMID, Diffusion("v"), DDIM(3), noise_levels=2, dice=0.5),
    "imagenet": LatentDiffusion(PyramidUNet((8, 8), 1, (8, 16), backbone="efficientnet-lite0"), Diffusion("x0"), DDIM(3)),
    "unet": OneToOne(UNet((8, 8, 8, 8, 8, 8))),
}  # fmt: skip


def recipe_of(name):
    recipe = replace(tiny_recipe(), segmenter=SETTINGS[name])
    if name == "trainable-quantised":
        return replace(recipe, image_codec=replace(recipe.image_codec, quantised=True))
    return recipe


def build(name):
    torch.manual_seed(0)
    return perturb(recipe_of(name).build("segmenter")).eval()


def batch(n=3, step=0):
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(n, 1, 64, 64, generator=generator)
    masks = (torch.rand(n, 4, 64, 64, generator=generator) > 0.6).float()
    return Batch([f"case-{i}" for i in range(n)], image, masks, TrainingNoise(0, step))


every_segmenter = pytest.mark.parametrize("name", SETTINGS)


@every_segmenter
def test_masks_have_shape_and_range(name):
    masks = build(name).predict(batch(), 4, seed=0)
    assert masks.shape == (3, 4, 64, 64)
    assert masks.min() >= 0 and masks.max() <= 1


@every_segmenter
def test_gradients_reach_every_trained_parameter_and_no_frozen_one(name):
    model = build(name).train()
    model(batch())["loss"].backward()
    for parameter_name, p in model.named_parameters():
        reached = p.grad is not None and p.grad.abs().sum() > 0
        assert reached == p.requires_grad, parameter_name


@every_segmenter
def test_batched_equals_single(name):
    model, b = build(name), batch()
    together = model.predict(b, 2, seed=0)
    for i in range(3):
        alone = model.predict(Batch(b.ids[i : i + 1], b.image[i : i + 1]), 2, seed=0)
        assert torch.allclose(together[i], alone[0], atol=1e-4)


@every_segmenter
def test_same_seed_same_masks_and_few_are_the_first_of_many(name):
    model = build(name)
    many = model.predict(batch(), 5, seed=0)
    assert torch.allclose(model.predict(batch(), 2, seed=0), many[:, :2], atol=1e-4)


@every_segmenter
def test_weights_saved_and_loaded_give_the_same_masks(name, tmp_path):
    from manymask.hub import Provenance, TrainedModel, load_model, save_model

    model = build(name)
    save_model(TrainedModel(model, recipe_of(name), "segmenter", Provenance(), ["a"]), tmp_path / "model")
    again = load_model(tmp_path / "model").model
    assert torch.equal(again.predict(batch(), 2, seed=0), model.predict(batch(), 2, seed=0))


@pytest.mark.parametrize("name", [n for n in SETTINGS if n != "unet"])
def test_other_seed_other_masks_and_samples_differ(name):
    model = build(name)
    masks = model.predict(batch(), 2, seed=0)
    assert not torch.equal(masks, model.predict(batch(), 2, seed=1))
    assert not torch.equal(masks[:, 0], masks[:, 1])


@pytest.mark.parametrize("name", ["concat-v", "pyramid-x0"])
def test_image_changes_the_masks(name):
    """The condition is heard: another image under the same noise gives other masks."""
    model, b = build(name), batch()
    other = Batch(b.ids, b.image.flip(0))
    assert not torch.allclose(model.predict(b, 1, seed=0), model.predict(other, 1, seed=0), atol=1e-4)


def test_condition_is_encoded_once_for_all_samples_and_steps(monkeypatch):
    model, calls = build("pyramid-x0"), []
    original = model.denoiser.pyramid.forward
    monkeypatch.setattr(model.denoiser.pyramid, "forward", lambda image: calls.append(len(image)) or original(image))
    model.predict(batch(), 5, seed=0)
    assert calls == [3]


def test_codecs_stay_in_evaluation_mode():
    model = build("concat-v").train()
    assert model.training and not model.mask_codec.training and not model.image_codec.training


def test_network_answers_five_turned_passes_turned_back():
    model = build("unet")
    b = batch()
    turned = Batch(b.ids, b.image.flip(-1))
    first = model.predict(b, 8, seed=0).mean(1)
    assert torch.allclose(model.predict(turned, 8, seed=0).mean(1).flip(-1), first, atol=1e-5)


def test_samples_spread_over_turns_are_drawn_from_the_turned_image():
    spread, b = build("turns"), batch()
    plain = replace(tiny_recipe(), segmenter=SETTINGS["pyramid-x0"]).build("segmenter").eval()
    plain.load_state_dict(spread.state_dict())
    drawn = spread.predict(b, 4, seed=0)
    for k in range(4):
        turned = Batch(b.ids, quarter_turn(b.image, k % 3))
        alone = quarter_turn_back(plain.predict(turned, 4, seed=0)[:, k], k % 3)
        assert torch.allclose(drawn[:, k], alone, atol=1e-4)


def test_dice_term_is_added_to_the_denoising_loss():
    logs = build("dice").train()(batch())
    assert torch.allclose(logs["loss"], logs["denoising"] + logs["dice"]) and 0 < logs["dice"] < 0.5


def test_pixel_space_is_the_identity_codec():
    recipe = replace(tiny_recipe(), image_codec=Pixels(1), mask_codec=Pixels(1), segmenter=SETTINGS["concat-epsilon"])
    model = perturb(recipe.build("segmenter")).eval()
    assert model.predict(batch(1), 2, seed=0).shape == (1, 2, 64, 64)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["concat-epsilon", "concat-v", "pyramid-x0", "unet"])
def test_overfits_four_phantoms(name, store, tmp_path):
    """Trained on four phantoms alone, the consensus finds them again."""
    from manymask.evaluate import Protocol, evaluate
    from manymask.train import Job, fit

    recipe = replace(tiny_recipe(), segmenter=replace(SETTINGS[name], target="consensus"))
    wide = {"image_codec": replace(recipe.image_codec, latent=4), "mask_codec": replace(recipe.mask_codec, latent=4)}
    steps = {"training": replace(recipe.training, steps=1500, learning_rate=2e-3, ema=0.99, validate_every=5000)}
    codec_steps = {
        "codec_training": replace(recipe.codec_training, steps=600, learning_rate=3e-3, ema=0.99, validate_every=5000)
    }
    recipe = replace(recipe, **wide, **steps, **codec_steps)
    four = store.ids[:4]
    store.manifest["schemes"]["four"] = {"train": four, "val": four, "test": four}
    stages = ("segmenter",) if name == "unet" else ("image-codec", "mask-codec", "segmenter")
    for stage in stages:
        folder = fit(Job(recipe, stage, store, tmp_path, "four", precision="fp32"))
    from manymask.hub import load_model

    scores = evaluate(load_model(folder).model, store, four, Protocol(), progress=False)
    assert scores.metrics["dice"]["mean"] > 0.8
