"""Both codecs are one class; every f, bottleneck and loss goes through it."""

from dataclasses import replace

import pytest
import torch

from manymask.data.case import Batch
from manymask.models.autoencoder import FOLLOWED, Autoencoder, Pixels
from manymask.nn.losses import MSE, Dice, Focal, WeightedCE
from manymask.nn.quantizers import FSQ, KL, VQ
from manymask.rng import TrainingNoise
from tests.factories import perturb

SMALL = Autoencoder(
    "mask",
    1,
    latent_channels=2,
    channels=(8, 16),
    blocks_per_level=1,
    patch_size=2,
    bottleneck=VQ(codebook_size=16),
    loss=WeightedCE(5),
)


def batch(n=4, size=32):
    generator = torch.Generator().manual_seed(0)
    masks = (torch.rand(n, 2, size, size, generator=generator) > 0.7).float()
    return Batch(
        [str(i) for i in range(n)], torch.rand(n, 1, size, size, generator=generator), masks, TrainingNoise(0, 0)
    )


@pytest.mark.parametrize(
    ("channels", "patch_size", "f"),
    [((8,), 1, 1), ((8, 8), 1, 2), ((8, 16, 16), 1, 4), ((8, 8), 4, 8), ((8, 8, 8), 4, 16)],
)
def test_any_power_of_two_can_be_the_factor(channels, patch_size, f):
    codec = replace(SMALL, channels=channels, patch_size=patch_size).build()
    z = codec.encode(torch.rand(2, 1, 32, 32))
    assert codec.factor == f and z.shape == (2, 2, 32 // f, 32 // f)
    assert codec.decode(z).shape == (2, 1, 32, 32)


@pytest.mark.parametrize("bottleneck", [VQ(codebook_size=16), KL(), FSQ(5)])
@pytest.mark.parametrize("loss", [MSE(sigmoid=True), WeightedCE(5), Focal(), Dice()])
def test_every_bottleneck_with_every_loss_trains_all_parameters(bottleneck, loss):
    codec = perturb(replace(SMALL, bottleneck=bottleneck, loss=loss).build()).train()
    losses = codec(batch())
    losses["loss"].backward()
    assert torch.isfinite(losses["loss"])
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in codec.parameters())


def test_loss_is_the_sum_of_equation_10():
    codec = perturb(SMALL.build()).eval()
    b = batch()
    losses = codec(b)
    x = codec._subject(Batch(b.ids, b.image, b.masks, TrainingNoise(0, 0)))
    h = codec.encoder(x)
    z = codec.bottleneck.quantize(h)
    expected = SMALL.loss(codec.decoder(z), x) + (1 + 0.25) * (h - z).square().mean()
    assert torch.allclose(losses["loss"], expected, atol=1e-5)


def test_finish_standardises_the_latents():
    codec = perturb(SMALL.build(), scale=0.3).eval()
    codec.calibrate_latents(iter([batch(16)]))
    z = codec.encode(codec._subject(batch(16)))
    assert torch.allclose(z.mean(dim=(0, 2, 3)), torch.zeros(2), atol=1e-4)
    assert torch.allclose(z.std(dim=(0, 2, 3), correction=0), torch.ones(2), atol=1e-3)


def test_latents_are_measured_over_the_masks_that_the_segmenter_learns():
    """One rater of two left every case blank: the consensus is the other's mask, and half of what a rater at random is."""
    b = batch(16)
    b = replace(b, masks=b.masks * torch.tensor([1.0, 0.0])[:, None, None])
    codec = perturb(SMALL.build(), scale=0.3).eval()
    codec.calibrate_latents([b], "consensus")
    z = codec.encode(b.masks[:, :1])
    assert torch.allclose(z.mean(dim=(0, 2, 3)), torch.zeros(2), atol=1e-4)
    assert torch.allclose(z.std(dim=(0, 2, 3), correction=0), torch.ones(2), atol=1e-3)
    with_blanks = perturb(SMALL.build(), scale=0.3).eval()
    with_blanks.calibrate_latents([b])
    assert not torch.allclose(with_blanks.mean, codec.mean, atol=1e-3)


def test_reconstruction_of_a_mask_is_of_the_consensus_and_snapped_to_codes():
    """The mean of two filled slots ≥ 0.5 is their union; decoding the continuous latent gives something else."""
    codec, b = perturb(replace(SMALL, quantized=False).build(), scale=0.3).eval(), batch()
    x, y = codec.reconstruct(b)
    assert torch.equal(x, b.masks.amax(dim=1, keepdim=True)) and codec.decodes_unquantized
    z = codec.bottleneck.quantize(codec.encoder(x))
    assert torch.allclose(y, torch.sigmoid(codec.decoder(z)), atol=1e-6)
    assert not torch.allclose(y, codec.decode(codec.encode(x)), atol=1e-3)


@pytest.mark.parametrize("quantized", [True, False])
def test_decoding_with_snap_equals_reconstruction(quantized):
    """Whichever latent diffuses, encode → decode with `snap` is what training reconstructed."""
    codec = perturb(replace(SMALL, quantized=quantized, quantize_on_decode=True).build(), scale=0.2).eval()
    codec.mean.fill_(0.3)
    codec.std.fill_(1.7)
    x, reconstruction = codec.reconstruct(batch())
    assert torch.allclose(codec.decode(codec.encode(x)), reconstruction, atol=1e-5)


def test_pixels_are_given_back():
    codec, x = Pixels(3).build(), torch.rand(2, 3, 8, 8)
    assert torch.allclose(codec.decode(codec.encode(x)), x, atol=1e-6) and codec.factor == 1


def test_latents_that_are_trained_along_have_unit_moments_and_lead_the_kept_ones():
    codec, b = perturb(replace(SMALL, quantized=False).build(), scale=0.3).train(), batch()
    x = codec._subject(b)
    raw = codec.raw_latent(x)
    before = codec.std.clone()
    z, loss = codec.encode_along(x)
    assert torch.allclose(z.mean((0, 2, 3)), torch.zeros(codec.latent_channels), atol=1e-5)
    assert torch.allclose(z.var((0, 2, 3), correction=0), torch.ones(codec.latent_channels), atol=1e-4)
    own = raw.std((0, 2, 3), correction=0)[:, None, None]
    assert torch.allclose(codec.std, before + FOLLOWED * (own - before))
    assert torch.allclose(codec.mean, FOLLOWED * raw.mean((0, 2, 3))[:, None, None])
    assert float(loss.detach()) == pytest.approx(float(codec.setting.loss(codec.decoder(raw), x).detach()))


def test_smaller_latents_are_no_easier_to_predict():
    """The loss of the standardised latents does not change with their scale, so that nothing is gained by shrinking it."""
    codec, b = perturb(replace(SMALL, quantized=False).build(), scale=0.3).train(), batch()
    x = codec._subject(b)
    z, _ = codec.encode_along(x)
    raw_latent = codec.raw_latent
    codec.raw_latent = lambda y: 0.1 * raw_latent(y)
    assert torch.allclose(codec.encode_along(x)[0], z, atol=1e-3)
