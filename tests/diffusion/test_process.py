"""The noise process by literal values: times, clocks, knots, and which sampler is taken with how many steps."""

import pytest
import torch

from manymask.diffusion.process import GaussianDiffusion, RectifiedFlow, stratified
from manymask.diffusion.samplers import DDIM, DDPM, Euler
from manymask.diffusion.sampling import SamplingConfig
from manymask.errors import ConfigError
from manymask.rng import SampleNoise, TrainingNoise

ALMOST_ONE = 1 - 2**-24


class Drawn:
    """Training noise whose uniform numbers are given."""

    def __init__(self, *values):
        self.values = torch.tensor(values)

    def uniform(self, *shape):
        return self.values.reshape(shape)


@pytest.mark.parametrize("steps", [10, 1000])
def test_training_times_run_from_one_to_t_and_both_ends_come(steps):
    times = GaussianDiffusion(steps=steps).draw_times(Drawn(0.0, 0.55, ALMOST_ONE), 3)
    assert times.tolist() == [1, 1 + int(0.55 * steps), steps]


def test_noise_levels_of_an_image_are_evenly_spread_from_where_it_starts():
    found = stratified(Drawn(0.1, 0.9), 2, 4)
    assert torch.allclose(found, torch.tensor([0.1, 0.35, 0.6, 0.85, 0.9, 0.15, 0.4, 0.65]))
    assert torch.equal(RectifiedFlow().draw_times(Drawn(0.1, 0.9), 2, 4), found)


def test_clock_of_both_processes_runs_to_1000():
    assert GaussianDiffusion().time_input(torch.tensor([1, 1000])).tolist() == [1, 1000]
    assert torch.allclose(RectifiedFlow().time_input(torch.tensor([0.25, 1.0])), torch.tensor([250.0, 1000.0]))


def test_knots_are_rounded_and_end_where_no_noise_is():
    assert GaussianDiffusion().timesteps(3) == [1000, 667, 333, 0]
    assert GaussianDiffusion(steps=10).timesteps(4) == [10, 8, 5, 2, 0]
    assert RectifiedFlow().timesteps(4) == [1, 0.75, 0.5, 0.25, 0]


@pytest.mark.parametrize("process", [GaussianDiffusion(), RectifiedFlow()])
@pytest.mark.parametrize("steps", [0, 1001])
def test_knots_beyond_the_process_are_refused(process, steps):
    with pytest.raises(ValueError, match=f"1 … 1000, not {steps}"):
        process.timesteps(steps)


def test_corruption_target_and_estimate_of_a_process_of_two_steps():
    """β = ½, ½: γ = 1, ½, ¼."""
    process = GaussianDiffusion("v", 2, 0.5, 0.5)
    assert process.gamma.tolist() == [1, 0.5, 0.25] and process.t_max == 2
    assert process.alpha_sigma(2) == (0.5, 0.75**0.5)
    z0, epsilon, t = torch.tensor([[2.0], [2.0]]), torch.tensor([[4.0], [4.0]]), torch.tensor([1, 2])
    z, v = process.add_noise(z0, epsilon, t), process.target(z0, epsilon, t)
    assert z.flatten().tolist() == pytest.approx([6 * 0.5**0.5, 1 + 4 * 0.75**0.5])
    assert v.flatten().tolist() == pytest.approx([2 * 0.5**0.5, 2 - 2 * 0.75**0.5])
    assert torch.allclose(process.to_x0_eps(v, z, t)[0], z0) and torch.allclose(process.to_x0_eps(v, z, t)[1], epsilon)


SHORT = GaussianDiffusion(steps=20)
OWN = SamplingConfig(DDIM(5, 0.5), 5, 3, 1.0)


@pytest.mark.parametrize(
    ("asked", "sampler"),
    [
        (SamplingConfig(), DDIM(5, 0.5)),
        (SamplingConfig("ddpm"), DDPM(20)),
        (SamplingConfig("ddpm", 7), DDPM(7)),
        (SamplingConfig("ddim"), DDIM(5, 0.5)),
        (SamplingConfig(steps=9), DDIM(9, 0.5)),
        (SamplingConfig(DDIM(11)), DDIM(11)),
        (SamplingConfig(DDIM(11), steps=4), DDIM(4)),
    ],
)
def test_sampling_that_is_not_requested_stays_as_the_model_has_it(asked, sampler):
    assert asked.resolved(OWN, SHORT) == SamplingConfig(sampler, sampler.steps, 3, 1.0)


def test_a_flow_keeps_its_own_sampler_when_it_is_named():
    own = SamplingConfig(Euler(3), 3, 1, 1.0)
    assert SamplingConfig("euler").resolved(own, RectifiedFlow()).sampler == Euler(3)


@pytest.mark.parametrize("asked", [SamplingConfig(steps=21), SamplingConfig(DDIM(21)), SamplingConfig("ddim", 21)])
def test_more_steps_than_the_process_has_are_refused(asked):
    with pytest.raises(ConfigError, match="takes 21 steps, the process has 1 … 20"):
        asked.resolved(OWN, SHORT)


@pytest.mark.parametrize(
    "values",
    [{"sampler": "dimm"}, {"sampler": 3}, {"steps": 0}, {"steps": 1.5}, {"steps": True}, {"orientations": 0},
     {"orientations": 9}, {"guidance_scale": "much"}],
)  # fmt: skip
def test_impossible_sampling_is_refused_when_it_is_written_down(values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        SamplingConfig(**values)


def test_every_case_and_every_training_step_has_noise_of_its_own():
    of_cases = SampleNoise(0, ["a", "b"], 2).normal(4)
    assert len({tuple(row.tolist()) for row in of_cases}) == 4
    of_steps = [TrainingNoise(seed, step).normal(4) for seed in (0, 1) for step in (0, 1)]
    assert len({tuple(row.tolist()) for row in of_steps}) == 4


def test_samples_counted_from_a_later_one_are_the_later_ones():
    assert torch.equal(SampleNoise(0, ["a"], 2, first=3).normal(4), SampleNoise(0, ["a"], 5).normal(4)[3:])
