"""The auxiliary mask head: what it learns from, and what the denoiser receives."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from manymask.data.case import Batch
from manymask.data.dihedral import dihedral, dihedral_inverse
from manymask.diffusion.sampling import SamplingConfig
from manymask.errors import ConfigError
from manymask.models.auxiliary import AuxiliaryHead, blend
from manymask.models.denoisers import ConcatUNet
from manymask.models.denoisers.pyramid_unet import bottom_up
from manymask.nn.losses import WeightedCE
from manymask.recipes import get_recipe
from manymask.rng import TrainingNoise
from tests.factories import perturb, tiny_recipe


def built(**fields):
    row = tiny_recipe()
    torch.manual_seed(0)
    setting = replace(row.segmenter, auxiliary=WeightedCE(1), auxiliary_weight=2.0, **fields)
    return replace(row, segmenter=setting).build("segmenter")


@pytest.fixture
def model():
    return perturb(built())


def batch(masks):
    image = torch.rand(len(masks), 1, 64, 64, generator=torch.Generator().manual_seed(0))
    return Batch([str(i) for i in range(len(masks))], image, masks, TrainingNoise(0, 0))


def quarter(n: int) -> torch.Tensor:
    """A mask whose first n rows are marked."""
    mask = torch.zeros(64, 64)
    mask[:n] = 1
    return mask


def constant(model, logit: float):
    torch.nn.init.zeros_(model.auxiliary.head[-1].weight)
    torch.nn.init.constant_(model.auxiliary.head[-1].bias, logit)
    return model.train()


def test_it_learns_the_mean_of_the_marked_masks_of_each_image():
    """Two noise levels take raters 1 or 2 and 3 or 4; an empty mask leaves the mean to the other."""
    model = constant(built(presence=True), 1.0)
    nothing = torch.zeros(64, 64)
    masks = torch.stack(
        [torch.stack([quarter(16)] * 2 + [nothing] * 2), torch.stack([quarter(16)] * 2 + [quarter(32)] * 2)]
    )
    means = torch.stack([quarter(16), (quarter(16) + quarter(32)) / 2])
    expected = F.binary_cross_entropy_with_logits(torch.ones(2, 64, 64), means)
    assert float(model(batch(masks))["auxiliary"]) == pytest.approx(2 * float(expected), rel=1e-5)


def test_where_nothing_is_marked_it_learns_nothing_is_there():
    model = constant(built(presence=True), 1.0)
    expected = F.binary_cross_entropy_with_logits(torch.ones(1), torch.zeros(1))
    assert float(model(batch(torch.zeros(2, 4, 64, 64)))["auxiliary"]) == pytest.approx(2 * float(expected), rel=1e-5)


def test_the_denoiser_receives_the_latent_of_the_predicted_mask(model):
    image = batch(torch.zeros(2, 4, 64, 64)).image
    with torch.inference_mode():
        finer, features = model.denoiser.encode(image)
        predicted = model.auxiliary(finer, features[0]).sigmoid()
        expected = features[0] + model.auxiliary.mix(model.mask_codec.encode(predicted))
        found = model.condition(image)
    assert torch.allclose(found[1], expected, atol=1e-5)
    assert not torch.allclose(found[1], features[0], atol=1e-3)
    assert all(torch.equal(a, b) for a, b in zip(found[2:], features[1:], strict=True))


def test_before_training_it_changes_no_sample():
    """So a trained model without a head may go on with one."""
    model = built()
    perturb(model.denoiser)
    image = batch(torch.zeros(2, 4, 64, 64)).image
    with torch.inference_mode():
        assert torch.equal(model.condition(image)[1], model.denoiser.condition(image, None)[1])


def test_the_denoising_loss_does_not_train_the_head(model):
    """It trains on masks alone: what it predicts stays a probability."""
    model.train()
    model.setting = replace(model.setting, auxiliary_weight=0.0)
    model(batch((torch.rand(2, 4, 64, 64) > 0.5).float()))["loss"].backward()
    assert all(p.grad is None or not p.grad.any() for p in model.auxiliary.head.parameters())
    assert model.auxiliary.mix.weight.grad.any()


def test_a_denoiser_without_image_features_has_no_head():
    with pytest.raises(ConfigError, match="features of the image"):
        built(denoiser=ConcatUNet((8,), 1))


@pytest.mark.parametrize(("factor", "backbone"), [(4, "own"), (8, "own"), (2, "efficientnet-lite0"), (4, "efficientnet-lite0"),
                                                  (8, "efficientnet-lite0")])  # fmt: skip
def test_logits_have_the_size_of_the_image(factor, backbone):
    encoder = bottom_up(backbone, 1, (8, 16, 24)[-2:] if backbone != "own" else (8, 16, 24), 1, factor, 2)
    finer, levels = encoder.split(torch.rand(1, 1, 64, 64))
    assert [f.shape[1] for f in finer] == list(encoder.finer)
    head = AuxiliaryHead(levels[0].shape[1], encoder.finer, factor, 2)
    assert head(finer, levels[0]).shape == (1, 1, 64, 64)


def test_the_encoder_returns_the_same_features_with_and_without_the_finer_ones():
    encoder = bottom_up("own", 1, (8, 16, 24), 1, 4, 2)
    image = torch.rand(1, 1, 64, 64)
    assert all(torch.equal(a, b) for a, b in zip(encoder(image), encoder.split(image)[1], strict=True))


def test_the_heads_map_of_the_same_view_has_its_share_in_each_drawn_mask():
    model = perturb(built(orientations=3)).eval()
    images = Batch(["a", "b"], torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(1)))
    alone = model.sample_all(images, 5, 0)
    model.setting = replace(model.setting, head_share=0.3)
    with torch.no_grad():
        views = [model._encode(dihedral(images.image, k), None)[1].sigmoid()[:, 0] for k in range(3)]
    heads = torch.stack([dihedral_inverse(views[k % 3], k % 3) for k in range(5)], dim=1)
    assert (views[0] - dihedral_inverse(views[1], 1)).abs().max() > 1e-3
    assert torch.allclose(model.sample_all(images, 5, 0), 0.7 * alone + 0.3 * heads, atol=1e-5)
    asked = SamplingConfig(head_share=0.2)
    assert torch.allclose(model.sample_all(images, 5, 0, asked), 0.8 * alone + 0.2 * heads, atol=1e-5)
    assert torch.equal(model.sample_all(images, 5, 0, SamplingConfig(head_share=0)), alone)


def test_a_sure_mask_keeps_its_outline_below_one_half():
    drawn, head = torch.tensor([0.02, 0.98, 0.55]), torch.tensor([0.9, 0.1, 0.2])
    assert torch.equal(blend(drawn, head, 0.4) >= 0.5, torch.tensor([False, True, False]))
    assert blend(drawn, None, 0.4) is drawn


def test_a_share_needs_a_head():
    row = tiny_recipe()
    with pytest.raises(ConfigError, match="no auxiliary mask head"):
        replace(row, segmenter=replace(row.segmenter, head_share=0.3)).build("segmenter")
    with pytest.raises(ConfigError, match="no auxiliary mask head"):
        row.build("segmenter").resolve(SamplingConfig(head_share=0.3))
    with pytest.raises(ConfigError, match="a head's share"):
        get_recipe("phantom-unet").build("segmenter").resolve(SamplingConfig(head_share=0.3))


@pytest.mark.parametrize("share", [-0.1, 1.5, "0.4", True])
def test_a_share_lies_between_nothing_and_all(share):
    with pytest.raises(ConfigError, match="head_share"):
        SamplingConfig(head_share=share)
