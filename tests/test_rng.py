"""Randomness that names what it is for."""

import torch

from manymask.rng import SampleNoise, TrainingNoise, seed_of


def test_sample_noise_depends_on_seed_case_and_sample_alone():
    alone = SampleNoise(0, ["b"], 2).normal(3)
    together = SampleNoise(0, ["a", "b"], 5).normal(3)
    assert torch.equal(alone[0], together[5]) and torch.equal(alone[1], together[6])
    assert not torch.equal(SampleNoise(1, ["b"], 2).normal(3), alone)


def test_two_processes_share_what_one_would_draw():
    one = TrainingNoise(0, 7)
    halves = [TrainingNoise(0, 7, rank, 2) for rank in range(2)]
    for draw in ("normal", "uniform"):
        whole = getattr(one, draw)(6, 2)
        assert torch.equal(torch.cat([getattr(h, draw)(3, 2) for h in halves]), whole)


def test_seeds_tell_parts_apart():
    assert seed_of("a", "bc") != seed_of("ab", "c")
    assert 0 <= seed_of("x") < 2**63
