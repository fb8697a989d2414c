"""The Probabilistic U-Net: its bound, its latents, and what its masks depend on."""

import torch
import torch.nn.functional as F
from torch.distributions import Independent, Normal
from torch.distributions import kl_divergence as torch_kl

from manymask.data.case import Batch
from manymask.models.prob_unet import kl_divergence
from manymask.rng import SampleNoise
from tests.factories import SIZE, batch, build


def gaussian(mean, log_variance):
    return Independent(Normal(mean, (0.5 * log_variance).exp()), 1)


def test_kl_equals_torch_distributions():
    generator = torch.Generator().manual_seed(0)
    numbers = [torch.randn(7, 6, generator=generator, dtype=torch.float64) for _ in range(4)]
    expected = torch_kl(gaussian(*numbers[:2]), gaussian(*numbers[2:]))
    assert torch.allclose(kl_divergence(*numbers), expected)
    assert torch.allclose(kl_divergence(*numbers[:2], *numbers[:2]), torch.zeros(7, dtype=torch.float64))


def test_loss_is_the_evidence_lower_bound_over_pixels():
    model, b = build("prob-unet").train(), batch()
    losses = model(b)
    again = batch()
    choice = again.noise.uniform(3)
    mask = again.truth()[torch.arange(3), (choice * 4).long()][:, None]
    mean, log_variance = model.posterior(torch.cat([b.image, 2 * mask - 1], dim=1))
    z = mean + (0.5 * log_variance).exp() * again.noise.normal(3, 6)
    logits = model._decode(model.unet(b.image), z)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, mask, reduction="sum") / 3
    kl = torch_kl(gaussian(mean, log_variance), gaussian(*model.prior(b.image))).mean()
    assert torch.allclose(losses["loss"], (cross_entropy + model.setting.kl_weight * kl) / SIZE**2, rtol=1e-5)


def test_masks_come_from_the_prior_with_noise_of_seed_case_and_sample_alone():
    model, b = build("prob-unet"), batch()
    with torch.no_grad():
        mean, log_variance = model.prior(b.image)
        noise = SampleNoise(5, b.ids, 2).normal(6).reshape(3, 2, 6)
        z = mean[:, None] + (0.5 * log_variance).exp()[:, None] * noise
        expected = torch.sigmoid(model._decode(model.unet(b.image), z[:, 1]))[:, 0]
        for p in model.posterior.parameters():
            p.fill_(float("nan"))  # nothing of it may be asked
    assert torch.allclose(model.sample_all(b, 2, seed=5)[:, 1], expected, atol=1e-6)
    assert not torch.allclose(model.sample_all(Batch(["other"], b.image[:1]), 2, 5)[0, 1], expected[0], atol=1e-6)
