"""MaskEnsemble, by its definition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manymask import ensemble as consensus
from manymask.data.raters import majority, random_rater, raters_consensus, training_target
from manymask.ensemble import fuse, level_sets


@given(st.integers(1, 6), st.integers(0, 100))
@settings(max_examples=30)
def test_maps_keep_their_bounds_and_forget_the_order_of_masks(n, seed):
    masks = torch.rand(n, 5, 7, generator=torch.Generator().manual_seed(seed))
    fused, shuffled = fuse(masks), fuse(masks.flip(0))
    assert torch.allclose(fused.confidence, masks.mean(0)) and torch.allclose(fused.confidence, shuffled.confidence)
    assert ((fused.entropy >= 0) & (fused.entropy <= 1 + 1e-6)).all()
    assert ((fused.disagreement >= 0) & (fused.disagreement <= 0.5 + 1e-6)).all()
    assert (fused.consensus == (fused.confidence >= 0.5)).all()


def test_equal_masks_leave_nothing_to_disagree_about():
    fused = fuse((torch.rand(1, 6, 6) > 0.5).float().repeat(5, 1, 1))
    assert fused.disagreement.max() == 0 and fused.entropy.max() < 1e-5
    assert (fused.votes == fused.confidence).all()


def test_raters_consensus_counts_only_filled_slots():
    masks = torch.zeros(1, 4, 2, 2)
    masks[0, 0, 0, 0] = masks[0, 1, 0, 0] = masks[0, 1, 1, 1] = 1
    assert raters_consensus(masks)[0, 0].tolist() == [[1, 0], [0, 1]]
    assert majority(masks)[0, 0].tolist() == [[1, 0], [0, 0]]
    assert raters_consensus(torch.zeros(1, 4, 2, 2)).sum() == 0
    masks[0, 2, 1, 1] = masks[0, 2, 1, 0] = 1
    assert raters_consensus(masks)[0, 0].tolist() == [[1, 0], [0, 1]], "one of three who marked is no half"


def test_random_rater_takes_every_slot():
    masks = torch.arange(4.0).reshape(1, 4, 1, 1).repeat(1000, 1, 1, 1)
    drawn = random_rater(masks, torch.rand(1000, generator=torch.Generator().manual_seed(0))).flatten()
    assert all(150 < int((drawn == k).sum()) < 350 for k in range(4))


def test_level_sets_hold_a_pixel_as_often_as_its_probability_says():
    masks = level_sets(torch.tensor([[0.0, 0.1, 0.5, 0.9, 1.0]]), 4)
    assert masks.shape == (4, 1, 5)
    assert masks.mean(0)[0].tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert masks[:, 0, 2].tolist() == [1, 1, 0, 0]  # from the lowest level to the highest


def test_every_map_by_hand_ties_included():
    """Two masks: probabilities ½ and ½; 0 and 1; ¼ and ¼; 0.2 and 0.5."""
    fused = fuse(torch.tensor([[[0.5, 0.0, 0.25, 0.2]], [[0.5, 1.0, 0.25, 0.5]]]))
    assert torch.allclose(fused.confidence, torch.tensor([[0.5, 0.5, 0.25, 0.35]]))
    assert fused.consensus.tolist() == [[True, True, False, False]]
    assert fused.votes.tolist() == [[1.0, 0.5, 0.0, 0.5]]
    assert torch.allclose(fused.disagreement, torch.tensor([[0.0, 0.5, 0.0, 0.15]]), atol=1e-6)
    assert torch.allclose(fused.entropy, torch.tensor([[1.0, 1.0, 0.8112781, 0.9340681]]), atol=1e-5)
    assert fuse(torch.full((1, 1, 1), 0.35), 0.3).consensus.all()


def test_half_of_the_raters_are_enough():
    masks = torch.tensor([1.0, 1.0, 0.0, 0.0]).reshape(1, 4, 1, 1).repeat(1, 1, 1, 2)
    masks[0, 2:, 0, 1] = 1  # so that every slot is filled
    assert raters_consensus(masks).flatten().tolist() == majority(masks).flatten().tolist() == [1, 1]


def test_training_target_is_the_consensus_or_the_chosen_slot():
    masks = torch.tensor([1.0, 1.0, 0.0]).reshape(1, 3, 1, 1)
    choice = torch.tensor([0.7])
    assert training_target(masks, "consensus", choice).item() == 1
    assert training_target(masks, "rater", choice).item() == 0
    assert training_target(masks, "rater", torch.tensor([0.65])).item() == 1


@pytest.mark.parametrize("block", [1, 100, 10_000])
def test_maps_are_those_of_the_whole_image_bit_for_bit(monkeypatch, block):
    """Computed in blocks: of one value, of a hundred with some left over, and one that is larger than the image."""
    masks = torch.rand(2, 5, 37, 41, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(consensus, "_BLOCK", block)
    found = fuse(masks, 0.4)
    p = masks.mean(dim=1)
    assert torch.equal(found.confidence, p) and torch.equal(found.consensus, p >= 0.4)
    assert torch.equal(found.votes, (masks >= 0.5).float().mean(dim=1))
    assert torch.equal(found.entropy, -(p * p.log2() + (1 - p) * (1 - p).log2()))
    assert torch.allclose(fuse(masks.transpose(-1, -2)).entropy, found.entropy.transpose(-1, -2))
