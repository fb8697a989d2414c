"""Losses by hand."""

import math

import pytest
import torch

from manymask.nn.losses import MSE, Dice, Focal, WeightedCE


def test_weighted_ce_equals_hand_computed_value():
    logits, target = torch.tensor([[[[0.0, 2.0], [-1.0, 0.5]]]]), torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    p = torch.sigmoid(logits)
    by_hand = -(50 * target * p.log() + (1 - target) * (1 - p).log()).mean()
    assert torch.allclose(WeightedCE(50)(logits, target), by_hand)


@pytest.mark.parametrize("weight", [1.0, 5.0, 50.0])
def test_unbias_undoes_what_the_weight_does_to_the_optimum(weight):
    p = 0.3
    optimum = math.log(weight * p / (1 - p))  # where the derivative of the weighted loss vanishes
    logit = torch.tensor([[[[optimum]]]], requires_grad=True)
    loss = p * WeightedCE(weight)(logit, torch.ones_like(logit)) + (1 - p) * WeightedCE(weight)(
        logit, torch.zeros_like(logit)
    )
    loss.backward()
    assert abs(float(logit.grad)) < 1e-6
    assert float(WeightedCE(weight, unbias=True).probability(logit.detach())) == pytest.approx(p, abs=1e-6)


def test_focal_without_focus_is_cross_entropy():
    logits, target = torch.randn(2, 1, 4, 4), (torch.rand(2, 1, 4, 4) > 0.5).float()
    assert torch.allclose(Focal(0.0)(logits, target), WeightedCE(1.0)(logits, target), atol=1e-6)


def test_dice_of_an_empty_answer_to_an_empty_mask_costs_nothing():
    assert float(Dice()(torch.full((1, 1, 8, 8), -30.0), torch.zeros(1, 1, 8, 8))) < 1e-6


@pytest.mark.parametrize("loss", [MSE(sigmoid=True), WeightedCE(), Focal(), Dice(), Dice(cross_entropy=1.0)])
def test_every_mask_loss_falls_when_the_answer_gets_better(loss):
    target = torch.zeros(1, 1, 8, 8)
    target[..., 2:6, 2:6] = 1
    sign = 2 * target - 1
    assert loss(4 * sign, target) < loss(sign, target) < loss(-sign, target)
    assert ((loss.probability(4 * sign) > 0.5).float() == target).all()


def square(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(1, 1, 2, 2)


def test_mse_is_the_mean_of_squares():
    assert float(MSE()(square(0, 3, 1, 1), square(1, 1, 1, 1))) == pytest.approx(1.25)
    assert float(MSE(sigmoid=True)(square(0, 0, 0, 0), square(1, 1, 1, 0))) == pytest.approx(0.25)


@pytest.mark.parametrize("gamma", [1.0, 2.0])
def test_focal_weighs_cross_entropy_by_a_power_of_the_error(gamma):
    p = 1 / (1 + math.exp(-2))
    found = float(Focal(gamma)(square(2, 2, -2, -2), square(1, 0, 0, 0)))
    right, wrong = -((1 - p) ** gamma) * math.log(p), -(p**gamma) * math.log(1 - p)
    assert found == pytest.approx((3 * right + wrong) / 4, rel=1e-5)


def test_dice_and_its_cross_entropy_by_hand():
    """p = ½ everywhere, one pixel of four marked: 1 − (2 · ½ + 1)/(2 + 1 + 1) = ½, and ln 2."""
    logits, mask = square(0, 0, 0, 0), square(1, 0, 0, 0)
    assert float(Dice()(logits, mask)) == pytest.approx(0.5)
    assert float(Dice(cross_entropy=0.5)(logits, mask)) == pytest.approx(0.5 + 0.5 * math.log(2))


def test_probability_is_what_the_output_stands_for():
    output = square(0, math.log(3), 2, -1)
    assert torch.equal(MSE().probability(output), output)
    for loss in (MSE(sigmoid=True), WeightedCE(), Focal(), Dice()):
        assert torch.allclose(loss.probability(output)[0, 0, 0], torch.tensor([0.5, 0.75]))
