"""Vector quantisation by its equations, with diffusers' quantiser as oracle; KL and FSQ by closed forms."""

import pytest
import torch
from diffusers.models.autoencoders.vq_model import VectorQuantizer

from manymask.bottlenecks import FSQ, KL, VQ


def test_vq_equals_diffusers_value_and_gradients():
    torch.manual_seed(0)
    ours = VQ(codes=16, beta=0.25).build(4).eval()
    other = VectorQuantizer(16, 4, beta=0.25, legacy=False)
    other.embedding.weight.data.copy_(ours.codebook.data)
    a, b = (torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2))
    z, loss, _ = ours(a)
    z_other, loss_other, _ = other(b)
    assert torch.allclose(z, z_other, atol=1e-6) and torch.allclose(loss, loss_other, atol=1e-6)
    (z.square().sum() + loss).backward()
    (z_other.square().sum() + loss_other).backward()
    assert torch.allclose(a.grad, b.grad, atol=1e-5)
    assert torch.allclose(ours.codebook.grad, other.embedding.weight.grad, atol=1e-5)


def test_commitment_moves_the_encoder_and_codebook_loss_the_codes():
    quantiser = VQ(codes=8, beta=0.25).build(2).eval()
    h = torch.randn(1, 2, 3, 3, requires_grad=True)
    _, loss, _ = quantiser(h)
    loss.backward()
    error = (h - quantiser.snap(h)).detach()
    assert torch.allclose(h.grad, 0.25 * 2 * error / error.numel(), atol=1e-6)  # Eq. 9; sg stops Eq. 8


def test_codebook_starts_from_data_and_dead_codes_come_back():
    torch.manual_seed(0)
    quantiser = VQ(codes=32, patience=3).build(2).train()
    far = torch.randn(4, 2, 8, 8) + 50
    quantiser(far)
    assert quantiser.codebook.mean() > 40  # data initialisation
    elsewhere = torch.randn(4, 2, 8, 8) - 50
    for _ in range(8):
        _, _, logs = quantiser(elsewhere)
    assert (quantiser.codebook.mean(dim=1) < 0).float().mean() > 0.5
    assert logs["perplexity"] > 4


def test_snap_is_idempotent_and_lands_on_codes():
    for setting in (VQ(codes=8), FSQ(levels=5), KL()):
        bottleneck = setting.build(3).eval()
        z = bottleneck.snap(torch.randn(2, 3, 4, 4).clamp(-1, 1))
        assert torch.allclose(bottleneck.snap(z), z, atol=1e-6)


def test_kl_equals_closed_form():
    bottleneck = KL(weight=1.0).build(2).eval()
    mean, log_variance = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    _, loss, _ = bottleneck(torch.cat([mean, log_variance], dim=1))
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).mean()
    assert torch.allclose(loss, expected, atol=1e-5)


@pytest.mark.parametrize("levels", [2, 5, 8])
def test_fsq_uses_exactly_its_levels_and_passes_gradients(levels):
    bottleneck = FSQ(levels).build(1).train()
    h = torch.linspace(-4, 4, 400).reshape(1, 1, 20, 20).requires_grad_()
    z, _, _ = bottleneck(h)
    assert len(z.detach().unique()) == levels
    z.sum().backward()
    assert torch.allclose(h.grad, 1 - torch.tanh(h.detach()) ** 2, atol=1e-5)
