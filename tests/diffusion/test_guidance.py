"""Guidance: what a scale does, and what it leaves alone."""

from dataclasses import replace

import pytest
import torch

from manymask.diffusion.guidance import PairClassifier, classifier_free, classifier_guided
from manymask.diffusion.process import GaussianDiffusion, RectifiedFlow
from manymask.diffusion.sampling import SamplingConfig
from manymask.errors import ConfigError
from tests.factories import batch, build, perturb

Z = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0))


def scaled(name, **changes):
    model = build(name)
    model.setting = replace(model.setting, **changes)
    return model


def hidden(model):
    return model.condition(batch().image, torch.ones(3, dtype=torch.bool))


def test_scale_one_is_unguided():
    model = scaled("classifier-free", guidance_scale=1.0)
    plain, z = model._denoise_fn(model.condition(batch().image)), torch.randn(3, 2, 8, 8)
    with torch.no_grad():
        found, expected = model.denoise(model.encode_condition(batch().image))(z, 700), plain(z, 700)
        close = classifier_free(plain, model._denoise_fn(hidden(model)), 1.0)(z, 700)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    assert torch.allclose(close[0], expected[0], atol=1e-5) and torch.allclose(close[1], expected[1], atol=1e-5)


def test_scale_zero_never_hears_the_image():
    model, b = scaled("classifier-free", guidance_scale=0.0), batch()
    other = replace(b, image=b.image.flip(0))
    assert torch.equal(model.sample_all(b, 2, seed=0), model.sample_all(other, 2, seed=0))
    with torch.no_grad():
        z = Z[:1].expand(3, -1, -1, -1)
        expected = model._denoise_fn(hidden(model))(z, 500)
        assert torch.equal(model.denoise(model.encode_condition(b.image))(z, 500)[0], expected[0])


def test_scale_two_goes_as_far_again():
    with_image, without = (lambda z, t: (z + t, 2 * z)), (lambda z, t: (z, z))
    z0, epsilon = classifier_free(with_image, without, 2.0)(Z, 0.5)
    assert torch.allclose(z0, Z + 1.0) and torch.allclose(epsilon, 3 * Z)


def test_hidden_rows_and_no_others_are_told_nothing():
    model, image = build("classifier-free"), batch().image
    rows = torch.tensor([False, True, False])
    some, full, none = model.condition(image, rows), model.condition(image), hidden(model)
    for a, b, c in zip(some, full, none, strict=True):
        assert torch.allclose(a[[0, 2]], b[[0, 2]], atol=1e-5) and torch.allclose(a[1], c[1], atol=1e-5)
        assert not torch.allclose(a[1], b[1], atol=1e-3)


def test_guiding_a_model_that_always_saw_its_image_is_refused():
    with pytest.raises(ConfigError, match="condition_dropout above 0"):
        scaled("pyramid-x0", guidance_scale=3.0).sample_all(batch(), 1, seed=0)


def classifier():
    return perturb(PairClassifier((8, 8)).build(3, 2)).eval()


def test_gradient_of_the_classifier_equals_finite_differences():
    net, image, t = classifier(), torch.randn(2, 3, 8, 8), torch.tensor([100, 900])
    gradient, direction = net.gradient(Z, t, image), torch.randn(2, 2, 8, 8)
    with torch.no_grad():
        up, down = (net(Z + s * direction, t, image) for s in (0.02, -0.02))
    assert torch.allclose((gradient * direction).sum(dim=(1, 2, 3)), (up - down) / 0.04, rtol=0.02, atol=1e-4)
    assert gradient.abs().max() > 1e-4


@pytest.mark.parametrize(("process", "t"), [(GaussianDiffusion("x0"), 400), (RectifiedFlow(), 0.4)])
def test_classifier_pulls_towards_what_it_finds_likelier_and_keeps_the_state(process, t):
    """ẑ_0 and ε̂ move together, so that a ẑ_0 + s ε̂ stays z_t; a small pull raises log p at the new ẑ_0's noise level."""
    net, image = classifier(), torch.randn(2, 3, 8, 8)
    (a, s), times = process.alpha_sigma(t), process.time_input(torch.full((2,), t))

    def plain(z, t):
        return z / 2, (z - a * z / 2) / s

    z0, epsilon = classifier_guided(plain, net, image, process, 5.0)(Z, t)
    assert torch.allclose(a * z0 + s * epsilon, Z, atol=1e-5)
    moved = z0 - plain(Z, t)[0]
    assert float((moved * net.gradient(Z, times, image)).sum()) > 0
    still = classifier_guided(plain, net, image, process, 0.0)(Z, t)
    assert torch.equal(still[0], plain(Z, t)[0])


class ExactLogit:
    """log p(x | z_t) − log p(x), up to what does not depend on z_t, for x = z_0 + τ η and z_0 ~ N(0, 1)."""

    def __init__(self, process, t, tau):
        (self.a, self.s), self.tau = process.alpha_sigma(t), tau

    def gradient(self, z, t, x):
        return self.a * (x - self.a * z) / (self.s**2 + self.tau**2)


def test_scale_one_is_bayes_rule_on_a_denoiser_that_never_saw_the_image():
    """z_0 ~ N(0, 1): E[z_0 | z_t] = a z_t becomes E[z_0 | z_t, x] of the closed form, and ε̂ with it."""
    process, t, tau = GaussianDiffusion(), 300, 0.5
    (a, s), x = process.alpha_sigma(t), torch.randn(2, 2, 8, 8)
    guided = classifier_guided(lambda z, t: (a * z, s * z), ExactLogit(process, t, tau), x, process, 1.0)
    z0, epsilon = guided(Z, t)
    expected = (a * Z / s**2 + x / tau**2) / (1 / s**2 + 1 / tau**2)
    assert torch.allclose(z0, expected, atol=1e-5)
    assert torch.allclose(a * z0 + s * epsilon, Z, atol=1e-5)


def test_at_pure_noise_of_a_flow_nothing_is_guided():
    guided = classifier_guided(lambda z, t: (z, z), classifier(), torch.randn(2, 3, 8, 8), RectifiedFlow(), 5.0)
    assert torch.equal(guided(Z, 1.0)[0], Z)


def test_scale_of_the_classifier_changes_the_masks_and_zero_does_not():
    b, model = batch(), build("classifier")
    masks = [model.sample_all(b, 2, 0, SamplingConfig(guidance_scale=s)) for s in (0.0, 1.0, 8.0)]
    model.classifier = None
    plain = model.sample_all(b, 2, 0)
    assert torch.equal(masks[0], plain)
    assert not torch.equal(masks[1], plain) and (masks[2] - plain).abs().sum() > (masks[1] - plain).abs().sum()


def test_classifier_is_trained_apart_from_the_denoiser():
    """Its loss reaches no weight of the denoiser, and the denoiser's gradient is what it is without a classifier."""
    model = build("classifier").train()
    model(batch())["loss"].backward()
    own = [p.grad.clone() for p in model.denoiser.parameters()]
    model.zero_grad()
    classifier, model.classifier = model.classifier, None
    model(batch())["loss"].backward()
    assert all(torch.equal(p.grad, g) for p, g in zip(model.denoiser.parameters(), own, strict=True))
    assert all(p.grad is None or not p.grad.any() for p in classifier.parameters())


def test_classifier_learns_to_tell_pairs():
    """Where the mask is the image with noise, pairs are told from shuffled ones."""
    torch.manual_seed(0)
    net, process = PairClassifier((16,)).build(1, 1), GaussianDiffusion()
    optimiser, generator = torch.optim.AdamW(net.parameters(), lr=5e-3), torch.Generator().manual_seed(0)
    for _ in range(60):
        image = torch.randn(16, 1, 1, 1, generator=generator).expand(-1, -1, 4, 4)
        t = torch.randint(1, 300, (16,), generator=generator)
        z = process.add_noise(image, torch.randn(16, 1, 4, 4, generator=generator), t)
        loss = net.loss(z, t, image)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.55


def test_guidance_works_in_half_precision():
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(build("both-on-flow").sample_all(batch(), 2, seed=0)).all()
