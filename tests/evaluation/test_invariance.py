"""What commutes is told from what does not."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from manymask.evaluation.invariance import SHIFT, TRANSFORMS, invariance, rotate, shift
from manymask.nn.quantizers import FSQ, KL, VQ
from tests.factories import SIZE, batch, perturb, tiny_recipe


def codec(stage="image_codec", **changes):
    torch.manual_seed(0)
    return perturb(replace(getattr(tiny_recipe(), stage), **changes).build(), scale=0.1).eval()


class Averaging(torch.nn.Module):
    """A codec known by heart: pixels are averaged in fours, or left alone; `ramp` adds what depends on the place."""

    def __init__(self, subject, factor=1, ramp=0.0):
        super().__init__()
        self.setting, self.factor, self.ramp = replace(tiny_recipe().mask_codec, subject=subject), factor, ramp

    def encode(self, x):
        z = F.avg_pool2d(x, self.factor)
        return z + self.ramp * torch.linspace(0, 1, z.shape[-1])

    def decode(self, z):
        return F.interpolate(z, scale_factor=float(self.factor), mode="nearest")

    def round_trip(self, x):
        return self.decode(self.encode(x))


@pytest.mark.parametrize("subject", ["image", "mask"])
def test_codec_that_changes_nothing_commutes_with_all_geometry(subject):
    found = invariance(Averaging(subject), [batch()])
    assert found["flip"]["latent_error"] == 0
    if subject == "image":
        assert found["flip"]["psnr"] == 100
        assert found["shift"]["latent_error"] < 1e-6 and found["rotation"]["latent_error"] < 1e-6
    else:
        assert {found[name]["dice"] for name in ("flip", "shift", "rotation")} == {1}


def test_noise_through_the_identity_is_the_noise():
    found = invariance(Averaging("image"), [batch(8)])["noise"]
    assert found["latent_error"] == pytest.approx(0.05, rel=0.05)
    assert found["psnr"] == pytest.approx(26, abs=0.5)  # −20 log₁₀ 0.05, a little more for what is clamped


def test_coarse_grid_does_not_commute_with_a_shift_that_is_no_multiple_of_it():
    fine, coarse = (invariance(Averaging("image", f), [batch()])["shift"]["psnr"] for f in (1, 4))
    assert coarse < 40 < fine
    assert invariance(Averaging("image", 4), [batch()])["flip"]["psnr"] == 100


def test_latent_that_knows_its_place_does_not_commute_with_a_flip():
    """E(T x) − T E(x) is the ramp minus its mirror image: 2u over the inner part u ∈ [−½, ½] · 0.7."""
    found = invariance(Averaging("image", ramp=1.0), [batch()])["flip"]["latent_error"]
    assert found == pytest.approx(0.7 / 3**0.5, rel=0.1)


def test_shift_moves_by_three_pixels_and_by_its_share_of_a_coarser_grid():
    x = torch.zeros(1, 1, SIZE, SIZE)
    x[..., 10, 12] = 1
    assert shift(x, 1)[0, 0, 10 + SHIFT, 12 + SHIFT] == pytest.approx(1, abs=1e-5)
    assert shift(x, SHIFT)[0, 0, 11, 13] == pytest.approx(1, abs=1e-5)


def test_rotation_turns_about_the_middle():
    x = torch.rand(1, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    assert rotate(x, 1)[0, 0, 4, 4] == pytest.approx(float(x[0, 0, 4, 4]), abs=1e-5)


@pytest.mark.parametrize("bottleneck", [VQ(codebook_size=16), KL(), FSQ(5)])
@pytest.mark.parametrize("stage", ["image_codec", "mask_codec"])
def test_every_codec_variant_can_be_measured_and_repeats(stage, bottleneck):
    model = codec(stage, bottleneck=bottleneck)
    first, again = (invariance(model, [batch()]) for _ in range(2))
    assert first == again and set(first) == set(TRANSFORMS)
    for row in first.values():
        alike = "dice" if stage == "mask_codec" else "psnr"
        assert set(row) == {alike, "latent_error"}
        assert 0 < row[alike] <= 100 and row["latent_error"] > 0


def test_codes_are_snapped_to_before_reconstructions_are_compared():
    """Two codecs alike but for the codebook: with two codes even noise that moves no latent far changes pixels."""
    few, many = (invariance(codec(bottleneck=FSQ(levels)), [batch()])["noise"] for levels in (2, 33))
    assert few["psnr"] != many["psnr"]
    x = batch().image
    model = codec(bottleneck=FSQ(2))
    assert not torch.allclose(model.round_trip(x), model.decode(model.encode(x)), atol=1e-3)
