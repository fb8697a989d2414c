"""Is there anything: how often, how evenly, and what the diffusion then learns."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from manymask.data.case import Batch
from manymask.models.latent_diffusion import LatentDiffusion
from manymask.models.presence import Presence, mean_over_marked
from manymask.recipes import ROWS
from manymask.rng import TrainingNoise, strata
from tests.factories import tiny_recipe


@given(st.integers(0, 10**6), st.integers(0, 6), st.floats(0, 1))
def test_the_first_samples_lie_in_equal_parts_one_in_each(seed, m, _):
    drawn = strata(seed, ["a", "b"], range(2**m))
    parts = (drawn * 2**m).long().sort(dim=1).values
    assert torch.equal(parts, torch.arange(2**m).expand(2, -1))


def test_a_sample_is_the_same_however_many_are_drawn_and_each_is_uniform():
    assert torch.equal(strata(3, ["a"], range(2, 5)), strata(3, ["a"], range(8))[:, 2:5])
    third = torch.stack([strata(seed, ["a"], range(3))[0, 2] for seed in range(2000)])
    assert abs(third.mean() - 1 / 2) < 0.02 and abs(third.var() - 1 / 12) < 0.005
    assert not torch.equal(strata(0, ["a"], range(8)), strata(1, ["a"], range(8)))


def test_errors_of_empty_masks_do_not_count():
    errors = torch.tensor([1.0, 5.0, 3.0])
    assert mean_over_marked(errors, torch.tensor([True, False, True])) == 2
    assert mean_over_marked(errors, torch.zeros(3, dtype=torch.bool)) == 0


def test_the_loss_is_cross_entropy_against_the_share_of_raters():
    head = Presence((2, 3))
    torch.nn.init.zeros_(head.head[-1].weight)
    torch.nn.init.constant_(head.head[-1].bias, 1.0)
    features = [torch.rand(2, 2, 4, 4), torch.rand(2, 3, 2, 2)]
    p = torch.tensor(1.0).sigmoid()
    expected = -(0.75 * p.log() + 0.25 * (1 - p).log())
    assert head.loss(features, torch.tensor([0.75, 0.75])).item() == pytest.approx(expected.item(), abs=1e-6)


@pytest.fixture
def model():
    row = tiny_recipe()
    assert isinstance(row.segmenter, LatentDiffusion)
    torch.manual_seed(0)
    return replace(row, segmenter=replace(row.segmenter, presence=True, orientations=2)).build("segmenter").eval()


def asked(masks):
    return Batch(
        ["a", "b"], torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0)), masks, TrainingNoise(0, 0)
    )


def test_a_share_p_of_the_masks_holds_anything(model):
    last = model.presence.head[-1]
    torch.nn.init.zeros_(last.weight)
    with torch.inference_mode():
        for share in (0.0, 0.25, 1.0):
            torch.nn.init.constant_(last.bias, float(torch.logit(torch.tensor(share), eps=1e-6)))
            drawn = model.sample_all(asked(None), 16, 0)
            assert (drawn.flatten(2).amax(dim=2) > 0).sum(dim=1).tolist() == [16 * share] * 2


def test_a_shift_is_taken_off_the_logit_in_drawing_and_not_in_learning(model):
    torch.nn.init.zeros_(model.presence.head[-1].weight)
    torch.nn.init.constant_(model.presence.head[-1].bias, 2.0)
    learnt = model.train()(asked(torch.ones(2, 4, 64, 64)))["presence"]
    model.eval().presence.shift = 2.0 + float(torch.logit(torch.tensor(0.75)))
    assert torch.equal(model.train()(asked(torch.ones(2, 4, 64, 64)))["presence"], learnt)
    with torch.inference_mode():
        drawn = model.eval().sample_all(asked(None), 16, 0)
    assert (drawn.flatten(2).amax(dim=2) > 0).sum(dim=1).tolist() == [4, 4]


def test_the_shift_is_that_of_the_setting(model):
    row = replace(tiny_recipe(), segmenter=replace(model.setting, presence_shift=0.8))
    assert row.build("segmenter").presence.shift == 0.8


def test_the_diffusion_learns_marked_masks_alone(model):
    """Of a batch without any mark only presence is learnt."""
    model.train()
    terms = model(asked(torch.zeros(2, 4, 64, 64)))
    assert terms["denoising"] == 0 and terms["presence"] > 0
    assert model(asked(torch.ones(2, 4, 64, 64)))["denoising"] > 0


def test_the_share_is_the_mean_over_the_turns_of_each_image(model):
    """Rows stand turn by turn: images a, b as they are, then both turned."""
    share = torch.tensor([0.0, 1.0, 0.5, 1.0])
    model.presence.forward = lambda features: torch.logit(share, eps=1e-6)
    with torch.inference_mode():
        drawn = model.sample_all(asked(None), 16, 0)
    assert (drawn.flatten(2).amax(dim=2) > 0).sum(dim=1).tolist() == [4, 16]


def test_recipes_of_images_that_may_hold_nothing_learn_presence():
    assert {name for name, row in ROWS.items() if getattr(row.segmenter, "presence", False)} == {
        "lidc_idri_readers", "polyps", "polyps-256", "polyps-320",
    }  # fmt: skip


def test_presence_is_learnt_from_the_mean_over_the_raters_drawn(model):
    last = model.train().presence.head[-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.constant_(last.bias, 1.0)
    p = torch.tensor(1.0).sigmoid()
    assert model(asked(torch.ones(2, 4, 64, 64)))["presence"].item() == pytest.approx(-p.log().item(), abs=1e-6)
    assert model(asked(torch.zeros(2, 4, 64, 64)))["presence"].item() == pytest.approx(-(1 - p).log().item(), abs=1e-6)


def test_strata_are_numbers_below_one():
    drawn = strata(0, [str(i) for i in range(50)], range(40))
    assert drawn.min() >= 0 and drawn.max() < 1
