"""Randomness that names what it is for."""

import torch

from manymask.rng import SampleNoise, TrainingNoise, coupled, independent_pairs, seed_of


def test_sample_noise_depends_on_seed_case_and_sample_alone():
    alone = SampleNoise(0, ["b"], 2).normal(3)
    together = SampleNoise(0, ["a", "b"], 5).normal(3)
    assert torch.equal(alone[0], together[5]) and torch.equal(alone[1], together[6])
    assert not torch.equal(SampleNoise(1, ["b"], 2).normal(3), alone)


def test_every_second_eight_samples_come_from_opposite_noise():
    drawn = SampleNoise(0, ["a"], 32).normal(3)
    assert torch.equal(drawn[8:16], -drawn[:8]) and torch.equal(drawn[24:], -drawn[16:24])
    assert len({tuple(row) for row in torch.cat([drawn[:8], drawn[16:24]]).abs().tolist()}) == 16
    assert torch.equal(SampleNoise(0, ["a"], 2, first=9).normal(3), drawn[9:11]), "however many are drawn"
    noise = SampleNoise(0, ["a"], 16)
    assert torch.equal(noise.normal(3)[8:], drawn[8:16]) and torch.equal((again := noise.normal(3))[8:], -again[:8])


def test_pairs_of_opposite_samples_are_not_independent():
    assert [coupled(k) for k in (0, 7, 8, 15, 16, 24)] == [(0, 1), (7, 1), (0, -1), (7, -1), (16, 1), (16, -1)]
    pairs = independent_pairs(16)
    assert len(pairs) == 16 * 15 / 2 - 8 and (0, 8) not in pairs and (0, 9) in pairs and len(set(pairs)) == len(pairs)


def test_two_processes_share_what_one_would_draw():
    one = TrainingNoise(0, 7)
    halves = [TrainingNoise(0, 7, rank, 2) for rank in range(2)]
    for draw in ("normal", "uniform"):
        whole = getattr(one, draw)(6, 2)
        assert torch.equal(torch.cat([getattr(h, draw)(3, 2) for h in halves]), whole)


def test_seeds_tell_parts_apart():
    assert seed_of("a", "bc") != seed_of("ab", "c")
    assert 0 <= seed_of("x") < 2**63
