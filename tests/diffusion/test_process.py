"""The noise process by literal values: times, clocks, knots, and which sampler is taken with how many steps."""

from types import SimpleNamespace

import pytest
import torch

from manymask.diffusion.process import Diffusion, Flow, stratified
from manymask.diffusion.samplers import DDIM, DDPM, Euler, choose
from manymask.errors import UserError
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
    times = Diffusion(steps=steps).draw_times(Drawn(0.0, 0.55, ALMOST_ONE), 3)
    assert times.tolist() == [1, 1 + int(0.55 * steps), steps]


def test_late_draws_noisy_times_more_often():
    """t = T u^(1/late): a quarter becomes a half."""
    assert Diffusion(steps=10, late=2.0).draw_times(Drawn(0.25, ALMOST_ONE), 2).tolist() == [6, 10]


def test_noise_levels_of_an_image_are_evenly_spread_from_where_it_starts():
    found = stratified(Drawn(0.1, 0.9), 2, 4)
    assert torch.allclose(found, torch.tensor([0.1, 0.35, 0.6, 0.85, 0.9, 0.15, 0.4, 0.65]))
    assert torch.equal(Flow().draw_times(Drawn(0.1, 0.9), 2, 4), found)


def test_clock_of_both_processes_runs_to_1000():
    assert Diffusion().clock(torch.tensor([1, 1000])).tolist() == [1, 1000]
    assert torch.allclose(Flow().clock(torch.tensor([0.25, 1.0])), torch.tensor([250.0, 1000.0]))


def test_knots_are_rounded_and_end_where_no_noise_is():
    assert Diffusion().knots(3) == [1000, 667, 333, 0]
    assert Diffusion(steps=10).knots(4) == [10, 8, 5, 2, 0]
    assert Flow().knots(4) == [1, 0.75, 0.5, 0.25, 0]


@pytest.mark.parametrize("process", [Diffusion(), Flow()])
@pytest.mark.parametrize("steps", [0, 1001])
def test_knots_beyond_the_process_are_refused(process, steps):
    with pytest.raises(ValueError, match=f"1 … 1000, not {steps}"):
        process.knots(steps)


def test_corruption_target_and_estimate_of_a_process_of_two_steps():
    """β = ½, ½: γ = 1, ½, ¼."""
    process = Diffusion("v", 2, 0.5, 0.5)
    assert process.gamma.tolist() == [1, 0.5, 0.25] and process.latest == 2
    assert process.level(2) == (0.5, 0.75**0.5)
    z0, epsilon, t = torch.tensor([[2.0], [2.0]]), torch.tensor([[4.0], [4.0]]), torch.tensor([1, 2])
    z, v = process.corrupt(z0, epsilon, t), process.target(z0, epsilon, t)
    assert z.flatten().tolist() == pytest.approx([6 * 0.5**0.5, 1 + 4 * 0.75**0.5])
    assert v.flatten().tolist() == pytest.approx([2 * 0.5**0.5, 2 - 2 * 0.75**0.5])
    assert torch.allclose(process.estimate(v, z, t)[0], z0) and torch.allclose(process.estimate(v, z, t)[1], epsilon)


def model(**setting):
    return SimpleNamespace(setting=SimpleNamespace(**setting))


def test_chosen_sampler_takes_no_more_steps_than_the_process_has():
    short = model(sampler=DDIM(5, 0.5), process=Diffusion(steps=20))
    assert choose("ddpm", None, short) == DDPM(20)
    assert choose("ddpm", 7, short) == DDPM(7)
    assert choose("ddim", None, short) == DDIM(5, 0.5), "what is not given stays as the model has it"
    assert choose(None, 9, short) == DDIM(9, 0.5)
    assert choose("euler", None, model(sampler=Euler(3), process=Flow())) == Euler(3)
    assert choose(None, None, short) is None and choose("ddim", 5, model()) is None


@pytest.mark.parametrize("steps", [0, 21])
def test_steps_outside_of_the_process_are_refused(steps):
    with pytest.raises(UserError, match=f"1 … 20, not {steps}"):
        choose(None, steps, model(sampler=DDIM(5), process=Diffusion(steps=20)))


def test_every_case_and_every_training_step_has_noise_of_its_own():
    of_cases = SampleNoise(0, ["a", "b"], 2).normal(4)
    assert len({tuple(row.tolist()) for row in of_cases}) == 4
    of_steps = [TrainingNoise(seed, step).normal(4) for seed in (0, 1) for step in (0, 1)]
    assert len({tuple(row.tolist()) for row in of_steps}) == 4


def test_samples_counted_from_a_later_one_are_the_later_ones():
    assert torch.equal(SampleNoise(0, ["a"], 2, first=3).normal(4), SampleNoise(0, ["a"], 5).normal(4)[3:])
