"""The segmenter's training loss recomputed by hand, with a denoiser that answers with its condition.

On the pixels themselves z_0 is 2 · mask − 1 and the condition 2 · image − 1, so a row that is matched with the wrong
image, mask, time or noise level changes the loss.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from manymask.data.case import Batch
from manymask.diffusion.guidance import PairClassifier, PairNetwork
from manymask.diffusion.process import GaussianDiffusion
from manymask.diffusion.samplers import DDIM
from manymask.models.autoencoder import Pixels
from manymask.models.denoisers import ConcatUNet
from manymask.models.latent_diffusion import DiffusionSegmenter, LatentDiffusion
from manymask.rng import TrainingNoise

IMAGES, LEVELS, SIDE = 3, 4, 8


class Echo(nn.Module):
    """Answers with the image latent; its features are the image."""

    features = (1,)

    def __init__(self):
        super().__init__()
        self.asked: list[tuple[Tensor, Tensor, Tensor]] = []

    def condition(self, image: Tensor, z_image: Tensor) -> list[Tensor]:
        return [z_image, image]

    def forward(self, z: Tensor, t: Tensor, condition: list[Tensor]) -> Tensor:
        self.asked.append((z, t, condition[0]))
        return condition[0]


def segmenter(prediction="x0", **setting) -> DiffusionSegmenter:
    whole = LatentDiffusion(
        ConcatUNet((8,), 1), GaussianDiffusion(prediction), DDIM(2), noise_levels_per_image=LEVELS, **setting
    )
    model = DiffusionSegmenter(whole, 1, Pixels(1), Pixels(1))
    model.denoiser = Echo()
    return model.train()


def batch(images=IMAGES, raters=1, side=SIDE) -> Batch:
    generator = torch.Generator().manual_seed(5)
    image = torch.rand(images, 1, side, side, generator=generator)
    masks = (torch.rand(images, raters, side, side, generator=generator) > 0.6).float()
    return Batch([str(i) for i in range(images)], image, masks, TrainingNoise(7, 11))


def drawn(process: GaussianDiffusion) -> tuple[Tensor, Tensor]:
    """Times and noise as the loss draws them: the choice of raters first, then times, then ε."""
    noise = TrainingNoise(7, 11)
    noise.uniform(IMAGES)
    t = process.draw_times(noise, IMAGES, LEVELS)
    return t, noise.normal(IMAGES * LEVELS, 1, SIDE, SIDE)


def rows(b: Batch) -> list[tuple[Tensor, Tensor]]:
    """(z_image, z_0) of every pair of image and noise level, image by image."""
    return [(2 * b.image[i] - 1, 2 * b.truth()[i, :1] - 1) for i in range(IMAGES) for _ in range(LEVELS)]


@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v"])
def test_denoising_loss_is_the_mean_square_over_matching_rows(prediction):
    b, model = batch(), segmenter(prediction)
    found = model(b)
    t, epsilon = drawn(model.setting.process)
    a, s = model.setting.process.gamma[t].sqrt(), (1 - model.setting.process.gamma[t]).sqrt()
    squares = []
    for k, (z_image, z0) in enumerate(rows(b)):
        target = {"epsilon": epsilon[k], "x0": z0, "v": float(a[k]) * epsilon[k] - float(s[k]) * z0}[prediction]
        squares.append(float((z_image - target).square().mean()))
    assert float(found["denoising"]) == pytest.approx(sum(squares) / len(squares), rel=1e-5)
    assert float(found["loss"]) == pytest.approx(float(found["denoising"]))


@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v"])
def test_min_snr_weighs_the_error_of_x0_alike_whatever_is_predicted(prediction):
    """Each row's loss is min(SNR, 5) times its square error of x₀, here of the x₀ that the answer stands for."""
    b, model = batch(), segmenter(prediction)
    model.setting = replace(model.setting, process=GaussianDiffusion(prediction, min_snr=5.0))
    found = model(b)
    t, epsilon = drawn(model.setting.process)
    losses = []
    for k, (z_image, z0) in enumerate(rows(b)):
        a, s = model.setting.process.alpha_sigma(int(t[k]))
        z = a * z0 + s * epsilon[k]
        guess = {"epsilon": (z - s * z_image) / a, "x0": z_image, "v": a * z - s * z_image}[prediction]
        losses.append(min(a**2 / s**2, 5.0) * float((guess - z0).square().mean()))
    assert float(found["denoising"]) == pytest.approx(sum(losses) / len(losses), rel=1e-3)


def test_estimate_term_is_the_mean_absolute_error_of_x0_over_all_levels():
    b, model = batch(), segmenter("v", estimate_weight=0.4)
    found = model(b)
    t, epsilon = drawn(model.setting.process)
    errors = []
    for k, (z_image, z0) in enumerate(rows(b)):
        a, s = model.setting.process.alpha_sigma(int(t[k]))
        errors.append(float((a * (a * z0 + s * epsilon[k]) - s * z_image - z0).abs().mean()))
    assert float(found["estimate"]) == pytest.approx(0.4 * sum(errors) / len(errors), rel=1e-4)
    assert float(found["loss"]) == pytest.approx(float(found["denoising"] + found["estimate"]), rel=1e-5)


def test_denoiser_gets_every_noisy_mask_with_its_time_and_its_own_image():
    b, model = batch(), segmenter()
    model(b)
    t, epsilon = drawn(model.setting.process)
    z, clock, condition = model.denoiser.asked[0]
    assert clock.tolist() == t.tolist()
    for k, (z_image, z0) in enumerate(rows(b)):
        a, s = model.setting.process.alpha_sigma(int(t[k]))
        assert torch.allclose(z[k], a * z0 + s * epsilon[k], atol=1e-5) and torch.equal(condition[k], z_image)


def soft_dice_loss(drawn: Tensor, mask: Tensor) -> float:
    return float(1 - (2 * (drawn * mask).sum() + 1) / (drawn.sum() + mask.sum() + 1))


@pytest.mark.parametrize("target", ["consensus", "rater"])
def test_dice_term_holds_the_first_level_of_each_image_against_its_mask(target):
    """v-prediction, so that ẑ_0 = √γ z − √(1−γ) v needs the matching z and t too."""
    b, model = batch(), segmenter("v", dice_weight=0.3, target=target)
    found = model(b)
    t, epsilon = drawn(model.setting.process)
    losses = []
    for i in range(IMAGES):
        k = i * LEVELS
        z_image, z0 = rows(b)[k]
        a, s = model.setting.process.alpha_sigma(int(t[k]))
        guess = (((a * (a * z0 + s * epsilon[k]) - s * z_image) + 1) / 2).clamp(0, 1)
        losses.append(soft_dice_loss(guess, b.truth()[i, :1]))
    assert float(found["dice"]) == pytest.approx(0.3 * sum(losses) / IMAGES, rel=1e-4)
    assert float(found["loss"]) == pytest.approx(float(found["denoising"] + found["dice"]))


def test_the_share_of_images_that_are_hidden_is_as_asked(monkeypatch):
    model, hidden = segmenter(condition_dropout=0.1), []
    monkeypatch.setattr(model, "_encode", lambda image, rows: (hidden.append(rows) or [2 * image - 1, image], None))
    model(batch(2000, side=1))
    assert 0.08 < float(hidden[0].float().mean()) < 0.12


def test_classifier_sees_one_level_of_each_image_with_its_own_image(monkeypatch):
    b, model, seen = batch(), segmenter(classifier=PairClassifier((8,))), []
    monkeypatch.setattr(model.classifier, "loss", lambda *given: seen.append(given) or torch.tensor(2.0))
    found = model(b)
    z, clock, _ = model.denoiser.asked[0]
    assert torch.equal(seen[0][0], z[::LEVELS]) and torch.equal(seen[0][1], clock[::LEVELS])
    assert torch.equal(seen[0][2], 2 * b.image - 1)
    assert float(found["loss"]) == pytest.approx(float(found["denoising"]) + 2)


def test_classifier_loses_little_where_it_finds_true_pairs_and_rejects_shuffled_ones():
    """Logit 3 for the own image and −3 for another's: both terms are softplus(−3)."""

    def matcher(z, t, z_image):
        return torch.where((z == z_image).flatten(1).all(1), 3.0, -3.0)

    z = torch.arange(4.0).reshape(4, 1, 1, 1)
    assert float(PairNetwork.loss(matcher, z, torch.ones(4), z)) == pytest.approx(0.04858735, rel=1e-5)
