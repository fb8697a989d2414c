"""Vector quantisation by its equations, with diffusers' quantiser as oracle; KL and FSQ by closed forms."""

import math

import pytest
import torch
from diffusers.models.autoencoders.vq_model import VectorQuantizer

from manymask.nn.quantizers import FSQ, KL, VQ


def test_vq_equals_diffusers_value_and_gradients():
    torch.manual_seed(0)
    ours = VQ(codebook_size=16, commitment_weight=0.25).build(4).eval()
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
    quantiser = VQ(codebook_size=8, commitment_weight=0.25).build(2).eval()
    h = torch.randn(1, 2, 3, 3, requires_grad=True)
    _, loss, _ = quantiser(h)
    loss.backward()
    error = (h - quantiser.quantize(h)).detach()
    assert torch.allclose(h.grad, 0.25 * 2 * error / error.numel(), atol=1e-6)  # Eq. 9; sg stops Eq. 8


def test_codebook_starts_from_data_and_dead_codes_come_back():
    torch.manual_seed(0)
    quantiser = VQ(codebook_size=32, revive_after=3).build(2).train()
    far = torch.randn(4, 2, 8, 8) + 50
    quantiser(far)
    assert quantiser.codebook.mean() > 40  # data initialisation
    elsewhere = torch.randn(4, 2, 8, 8) - 50
    for _ in range(8):
        _, _, logs = quantiser(elsewhere)
    assert (quantiser.codebook.mean(dim=1) < 0).float().mean() > 0.5
    assert logs["perplexity"] > 4


def test_snap_is_idempotent_and_lands_on_codes():
    for setting in (VQ(codebook_size=8), FSQ(levels=5), KL()):
        bottleneck = setting.build(3).eval()
        z = bottleneck.quantize(torch.randn(2, 3, 4, 4).clamp(-1, 1))
        assert torch.allclose(bottleneck.quantize(z), z, atol=1e-6)


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


def lone_code(patience: int, h: torch.Tensor):
    """A quantiser of the codes 0 and 100, of which h (N values) only ever uses the first."""
    quantiser = VQ(codebook_size=2, revive_after=patience).build(1).train()
    quantiser.codebook.data = torch.tensor([[0.0], [100.0]])
    quantiser.idle.zero_()
    return quantiser, h.reshape(1, 1, 1, -1)


def test_code_unused_for_exactly_its_patience_is_replaced_by_an_output_of_the_encoder():
    quantiser, h = lone_code(3, torch.tensor([-2.0, 2.0]))
    for _ in range(3):
        quantiser(h)
    assert quantiser.codebook[1].item() == 100 and quantiser.idle.tolist() == [0, 3]
    quantiser(h)
    assert abs(abs(quantiser.codebook[1].item()) - 2) < 0.05, "moved off it by a thousandth of the spread"


def test_a_replaced_code_is_given_its_patience_again():
    """All outputs are 0, so the new code equals the first and is not used either."""
    quantiser, h = lone_code(3, torch.zeros(4))
    for _ in range(4):
        quantiser(h)
    assert quantiser.codebook.flatten().tolist() == [0, 0] and quantiser.idle.tolist() == [0, 1]


def test_perplexity_is_how_many_codes_are_used_evenly():
    quantiser = VQ(codebook_size=4).build(1).eval()
    quantiser.codebook.data = torch.arange(4.0)[:, None]
    perplexity = quantiser(torch.tensor([0.0, 0.0, 2.0, 2.0]).reshape(1, 1, 2, 2))[2]["perplexity"]
    assert float(perplexity) == pytest.approx(2)


def test_kl_samples_its_posterior_in_training_and_gives_the_mean_otherwise():
    bottleneck = KL().build(1)
    h = torch.cat([torch.full((1, 1, 100, 100), 3.0), torch.full((1, 1, 100, 100), 2 * math.log(0.5))], dim=1)
    drawn = bottleneck.train()(h)[0]
    assert abs(float(drawn.mean()) - 3) < 0.03 and abs(float(drawn.std()) - 0.5) < 0.02
    assert torch.equal(bottleneck.eval()(h)[0], torch.full((1, 1, 100, 100), 3.0))
    assert torch.equal(bottleneck.latent(h), torch.full((1, 1, 100, 100), 3.0))


def test_kl_loss_is_weighted():
    h = torch.tensor([2.0, 0.0]).reshape(1, 2, 1, 1)  # mean 2, variance 1: KL = 2
    assert float(KL(weight=0.25).build(1).eval()(h)[1]) == pytest.approx(0.5)


def test_fsq_snaps_to_its_grid_and_counts_its_bits():
    bottleneck = FSQ(5).build(2)
    z = torch.tensor([-1.3, -0.3, 0.2, 0.3, 0.8]).reshape(1, 1, 1, 5)
    assert bottleneck.quantize(z).flatten().tolist() == [-1, -0.5, 0, 0.5, 1]
    _, loss, logs = bottleneck(torch.zeros(1, 2, 1, 1))
    assert float(loss) == 0 and float(logs["bits"]) == pytest.approx(2 * math.log2(5))


def test_first_codes_are_vectors_of_the_encoder_not_values_of_several_places():
    h = torch.tensor([1.0, 2, 3]).repeat_interleave(4).reshape(1, 3, 2, 2)  # every place holds (1, 2, 3)
    model = VQ(codebook_size=8).build(3).train()
    model(h)
    assert torch.allclose(model.codebook, torch.tensor([1.0, 2, 3]).expand(8, 3), atol=0.02)
