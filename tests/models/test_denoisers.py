"""What is particular to the baselines' denoisers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from manymask.models.autoencoder import Pixels
from manymask.models.denoisers import MedSegDiff, SegDiff
from manymask.models.denoisers.medsegdiff import Attend, FFParser
from manymask.models.denoisers.segdiff import RRDB, DenseBlock
from manymask.nn.unet import UNet
from tests.factories import perturb


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def segdiff():
    return perturb(SegDiff((8, 16), 1, dense_blocks=2, growth=4).build(1, Pixels(3).build(), Pixels(1).build())).eval()


@pytest.mark.parametrize("side", [16, 15, 8, 24])
def test_ff_parser_begins_as_the_identity_at_any_size(side):
    x = noise(2, 3, side, side)
    assert torch.allclose(FFParser(3, 16)(x), x, atol=1e-5)


def test_ff_parser_multiplies_the_spectrum_by_its_map():
    parser, x = FFParser(2, 8), noise(1, 2, 8, 8)
    perturb(parser, scale=1.0)
    weight = np.fft.ifftshift(parser.weight.detach().double().numpy(), axes=-2)
    spectrum = np.fft.rfft2(x.double().numpy()) * (weight[:, 0] + 1j * weight[:, 1])
    assert torch.allclose(parser(x).double(), torch.from_numpy(np.fft.irfft2(spectrum, s=(8, 8))), atol=1e-5)


def test_ff_parser_can_drop_the_high_frequencies():
    """A map that is 0 beyond the middle leaves a slow wave and takes a fast one, at the map's size and at twice it."""
    parser = FFParser(1, 16)
    with torch.no_grad():
        rows = torch.arange(16)[:, None] - 8
        parser.weight[:] *= (rows.abs() <= 4) & (torch.arange(9)[None] <= 4)
    for side in (16, 32):
        place = torch.arange(side) / side
        slow, fast = (
            torch.cos(2 * torch.pi * k * place)[None, None, :, None].expand(1, 1, side, side)
            for k in (1, side // 2 - 1)
        )
        assert torch.allclose(parser(slow + fast), slow, atol=1e-4)


def test_ff_parser_runs_under_half_precision():
    with torch.autocast("cpu", torch.bfloat16):
        assert FFParser(2, 8)(noise(1, 2, 8, 8).bfloat16()).dtype == torch.bfloat16


def test_attention_is_the_product_of_both_normalised_maps_and_the_image():
    attend = perturb(Attend(8, 4)).eval()
    image, mask = noise(2, 8, 4, 4), noise(2, 8, 4, 4, seed=1)

    def norm(x, layer):
        return F.layer_norm(x.permute(0, 2, 3, 1), (8,), layer.weight, layer.bias).permute(0, 3, 1, 2)

    expected = norm(image, attend.norm_image) * norm(attend.parser(mask), attend.norm_mask) * image
    assert torch.allclose(attend(image, mask), attend.mix(expected), atol=1e-6)


def test_medsegdiff_encodes_the_image_by_what_is_in_the_noisy_mask():
    """The condition is dynamic: with the U-Net's skips held fast, the bottom still changes with the mask."""
    model = perturb(MedSegDiff((8, 8), 1, size=16).build(1, Pixels(1).build(), Pixels(1).build())).eval()
    seen = []
    model.attend[-1].register_forward_hook(lambda *call: seen.append(call[2]))
    condition, t = model.condition(noise(1, 1, 16, 16), noise(1, 1, 16, 16)), torch.tensor([500])
    for seed in (1, 2):
        model(noise(1, 1, 16, 16, seed=seed), t, condition)
    assert not torch.allclose(seen[0], seen[1], atol=1e-3)


def test_segdiff_adds_the_encoded_image_to_the_encoded_mask():
    model, z, t = segdiff(), noise(2, 1, 16, 16), torch.tensor([3, 700])
    image = noise(2, 3, 16, 16, seed=1)
    total = model.mask_encoder(z) + model.image_encoder(image)
    assert torch.equal(model(z, t, model.condition(image, image)), model.unet(total, t))


def test_dense_blocks_are_residual():
    x = noise(1, 8, 8, 8)
    for block in (DenseBlock(8, 4), RRDB(8, 4)):
        with torch.no_grad():
            for p in block.parameters():
                p.zero_()
        assert torch.allclose(block(x), x if isinstance(block, DenseBlock) else x + 0.2 * x)


def test_unet_in_steps_is_the_unet():
    unet = perturb(UNet(2, 1, (8, 16, 16), 2)).eval()
    x, t = noise(2, 2, 16, 16), torch.tensor([1, 900])
    e, h, skips = unet.time(t), unet.stem(x), []
    for level in range(3):
        h = unet.descend(level, h, e)
        skips.append(h)
    assert torch.equal(unet(x, t), unet.ascend(skips, e))
