"""Samplers against diffusers' from the same noise and γ in float64, and against a denoiser that is exactly known."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, PNDMScheduler
from hypothesis import given
from hypothesis import strategies as st

from manymask.diffusion.process import GaussianDiffusion, RectifiedFlow
from manymask.diffusion.samplers import DDIM, DDPM, PLMS, SAMPLERS, DPMSolver, Euler, Heun, check_fit
from manymask.errors import ConfigError
from manymask.rng import TrainingNoise

SHAPE = (2, 3, 4, 4)
PROCESS = GaussianDiffusion("epsilon")


class Given:
    """A noise source that hands out a prepared list, for both sides of a comparison."""

    def __init__(self, draws):
        self.draws = iter(draws)

    def normal(self, *shape):
        return next(self.draws)


def network(z, t):
    """Any smooth function of state and time will do for ε̂."""
    return torch.sin(1.3 * z) * (0.4 + t / 1500) + 0.2 * z


def denoise(z, t):
    return PROCESS.to_x0_eps(network(z, t), z, torch.full((len(z),), t))


def start(seed=0):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_our_gamma(scheduler):
    """diffusers keeps γ in float32; give it ours. Its index 0 is our t = 1."""
    scheduler.alphas_cumprod = PROCESS.gamma[1:].clone()
    scheduler.alphas = scheduler.alphas_cumprod / torch.cat([torch.ones(1).double(), scheduler.alphas_cumprod[:-1]])
    scheduler.betas = 1 - scheduler.alphas
    scheduler.one = torch.tensor(1.0, dtype=torch.float64)
    scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    return scheduler


def theirs(scheduler, z, **options):
    for t in scheduler.timesteps:
        z = scheduler.step(network(z, int(t) + 1), t, z, **options).prev_sample
    return z


def relative_error(a, b):
    return float((a - b).norm() / b.norm())


COMMON = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 20, 50, 1000])
def test_ddim_equals_diffusers(steps):
    other = with_our_gamma(DDIMScheduler(**COMMON, clip_sample=False, timestep_spacing="trailing"))
    other.set_timesteps(steps)
    assert relative_error(DDIM(steps)(denoise, PROCESS, start(), Given([])), theirs(other, start())) <= 1e-5


def test_ddim_with_eta_equals_diffusers():
    other = with_our_gamma(DDIMScheduler(**COMMON, clip_sample=False, timestep_spacing="trailing"))
    other.set_timesteps(20)
    draws = [start(i + 1) for i in range(20)]
    z = start()
    for t, noise in zip(other.timesteps, draws, strict=True):
        z = other.step(network(z, int(t) + 1), t, z, eta=0.7, variance_noise=noise).prev_sample
    # our last step lands on γ = 1, where the variance is 0, so it takes no draw
    assert relative_error(DDIM(20, eta=0.7)(denoise, PROCESS, start(), Given(draws)), z) <= 1e-5


@pytest.mark.parametrize("steps", [10, 1000])
def test_ddpm_equals_diffusers(steps, monkeypatch):
    other = with_our_gamma(DDPMScheduler(**COMMON, clip_sample=False, timestep_spacing="trailing"))
    other.set_timesteps(steps)
    draws = [start(i + 1) for i in range(steps)]
    theirs_draws = iter(draws)
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *a, **k: next(theirs_draws))
    ours = DDPM(steps)(denoise, PROCESS, start(), Given(draws))
    assert relative_error(ours, theirs(other, start())) <= 1e-5


@pytest.mark.parametrize("steps", [2, 5, 10, 20, 50])
def test_plms_equals_diffusers_without_runge_kutta(steps):
    other = with_our_gamma(
        PNDMScheduler(**COMMON, skip_prk_steps=True, set_alpha_to_one=True, timestep_spacing="trailing")
    )
    other.set_timesteps(steps)
    assert relative_error(PLMS(steps)(denoise, PROCESS, start(), Given([])), theirs(other, start())) <= 1e-5


@pytest.mark.parametrize("steps", [2, 5, 10, 20, 50])
def test_dpm_solver_equals_diffusers(steps):
    other = DPMSolverMultistepScheduler(
        **COMMON, algorithm_type="dpmsolver++", solver_order=2, timestep_spacing="trailing", final_sigmas_type="zero"
    )
    other.set_timesteps(steps)
    gamma = PROCESS.gamma[[int(t) + 1 for t in other.timesteps]]
    other.sigmas = torch.cat([((1 - gamma) / gamma).sqrt(), torch.zeros(1, dtype=torch.float64)])  # float64 for float32
    assert relative_error(DPMSolver(steps)(denoise, PROCESS, start(), Given([])), theirs(other, start())) <= 1e-5


# -- data ~ N(μ, s²): the exact denoiser is linear, so the answer of the probability flow is known in closed form --------

MU, SPREAD = 1.5, 0.4


class UntilQuarter(GaussianDiffusion):
    """Stops at T/4: towards t = 0 the noise level has an infinite slope in t, where no method keeps its order."""

    def timesteps(self, steps):
        return [round(self.steps * (1 - 0.75 * i / steps)) for i in range(steps + 1)]


FINE = UntilQuarter("epsilon", steps=6400, beta_start=1e-4 / 6.4, beta_end=0.02 / 6.4)


def exact(z, t, process=FINE):
    gamma = process.gamma[t]
    z0 = MU + SPREAD**2 * gamma.sqrt() / (SPREAD**2 * gamma + 1 - gamma) * (z - gamma.sqrt() * MU)
    return z0, (z - gamma.sqrt() * z0) / (1 - gamma).sqrt()


def flow_solution(z):
    """The probability-flow ODE from T to T/4: standardise at T, un-standardise there."""
    start, end = FINE.gamma[-1], FINE.gamma[FINE.steps // 4]
    unit = (z - start.sqrt() * MU) / (SPREAD**2 * start + 1 - start).sqrt()
    return end.sqrt() * MU + (SPREAD**2 * end + 1 - end).sqrt() * unit


def order_of(sampler, low=160, high=320):
    z = torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(1, 1, 3, 3)
    errors = [float((sampler(n)(exact, FINE, z, Given([])) - flow_solution(z)).abs().max()) for n in (low, high)]
    return np.log(errors[0] / errors[1]) / np.log(high / low)


def test_ddim_is_of_first_order():
    assert 0.95 <= order_of(DDIM) <= 1.05


def test_dpm_solver_is_of_second_order():
    assert order_of(DPMSolver) >= 1.9


def test_plms_is_of_second_order_or_better():
    assert order_of(PLMS) >= 1.9


def test_ddpm_reaches_mean_and_variance():
    generator = torch.Generator().manual_seed(0)
    process = GaussianDiffusion("epsilon")

    class Fresh:
        def normal(self, *shape):
            return torch.randn(4000, *shape, generator=generator, dtype=torch.float64)

    z = DDPM(1000)(lambda z, t: exact(z, t, process), process, Fresh().normal(1, 1, 1), Fresh())
    assert abs(float(z.mean()) - MU) < 4 * SPREAD / 4000**0.5
    assert abs(float(z.std()) / SPREAD - 1) < 0.05


def test_ddpm_mean_equals_the_posterior_in_its_x0_form():
    """q(z_{t−1} | z_t, x̂₀) = N(√γ_{t−1} β_t/(1−γ_t) x̂₀ + √α_t (1−γ_{t−1})/(1−γ_t) z_t, β̃_t) (Ho et al. 2020, Eq. 7)."""
    gamma, z = PROCESS.gamma, start()
    for t, s in list(pairwise(PROCESS.timesteps(1000)))[:-1:97]:
        steps = GaussianDiffusion("epsilon")
        z0, _ = denoise(z, t)
        alpha, beta = gamma[t] / gamma[s], 1 - gamma[t] / gamma[s]
        expected = gamma[s].sqrt() * beta / (1 - gamma[t]) * z0 + alpha.sqrt() * (1 - gamma[s]) / (1 - gamma[t]) * z
        unit = torch.ones(SHAPE, dtype=torch.float64)
        sigma = (beta * (1 - gamma[s]) / (1 - gamma[t])).sqrt()

        class OneStep(GaussianDiffusion):
            def timesteps(self, n, t=t, s=s):
                return [t, s]

        assert steps.gamma[-1] == gamma[-1]
        ours = DDPM(1)(denoise, OneStep("epsilon"), z, Given([unit]))
        assert relative_error(ours, expected + sigma * unit) <= 1e-10


@given(st.integers(1, 1000))
def test_knots_fall_from_t_to_zero(steps):
    knots = PROCESS.timesteps(steps)
    assert knots[0] == 1000 and knots[-1] == 0 and len(knots) == steps + 1
    assert all(a > b for a, b in pairwise(knots))


def test_more_steps_than_the_process_has_are_refused():
    with pytest.raises(ValueError, match="steps must lie in"):
        PROCESS.timesteps(1001)


@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v"])
def test_estimate_inverts_corruption(prediction):
    process = GaussianDiffusion(prediction)
    z0, epsilon, t = start(1), start(2), torch.tensor([1, 900])
    z = process.add_noise(z0, epsilon, t)
    x0_hat, epsilon_hat = process.to_x0_eps(process.target(z0, epsilon, t), z, t)
    assert torch.allclose(x0_hat, z0, atol=1e-9) and torch.allclose(epsilon_hat, epsilon, atol=1e-9)


STEPS = (1, 2, 5, 10, 20, 50, 1000)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("sampler", [DDPM, DDIM, PLMS, DPMSolver])
@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v"])
def test_every_sampler_takes_every_number_of_steps_with_every_prediction(sampler, steps, prediction):
    """The network knows the data, N(μ, s²), exactly; from twenty steps on a deterministic sampler finds its mean."""
    process = GaussianDiffusion(prediction)

    def known(z, t):
        times = torch.full((len(z),), t)
        z0, epsilon = exact(z, t, process)
        return process.to_x0_eps(process.target(z0, epsilon, times), z, times)

    z = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    noise = Given([torch.zeros(1, 1, 2, 2)] * steps)
    found = sampler(steps)(known, process, z, noise)
    assert torch.isfinite(found).all()
    if steps >= 20:
        assert (found - MU).abs().max() < 0.1


# -- flow matching: the same data, whose velocity field and flow are known ------------------------------------------------

FLOW = RectifiedFlow()


def velocity(z, t):
    """E[ε − z_0 | z_t] for z_0 ~ N(μ, s²): linear in z_t."""
    spread = (1 - t) ** 2 * SPREAD**2 + t**2
    centred = z - (1 - t) * MU
    return t / spread * centred - MU - (1 - t) * SPREAD**2 / spread * centred


def follow(z, t):
    return FLOW.to_x0_eps(velocity(z, t), z, torch.full((len(z),), float(t), dtype=torch.float64))


def flow_order(sampler, low=40, high=80):
    z = torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(1, 1, 3, 3)
    errors = [float((sampler(n)(follow, FLOW, z, Given([])) - (MU + SPREAD * z)).abs().max()) for n in (low, high)]
    return np.log(errors[0] / errors[1]) / np.log(high / low)


def test_euler_is_of_first_order_and_heun_of_second():
    assert 0.9 <= flow_order(Euler) <= 1.1
    assert 1.9 <= flow_order(Heun) <= 2.1


def test_dpm_solver_and_ddim_sample_a_flow_too():
    z = torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(1, 1, 3, 3)
    assert torch.allclose(DPMSolver(100)(follow, FLOW, z, Given([])), MU + SPREAD * z, atol=0.02)
    assert torch.allclose(DPMSolver(1000)(follow, FLOW, z, Given([])), MU + SPREAD * z, atol=0.01)
    assert torch.allclose(DDIM(7)(follow, FLOW, z, Given([])), Euler(7)(follow, FLOW, z, Given([])), atol=1e-12)


def test_ancestral_ddim_of_a_flow_reaches_mean_and_variance():
    generator = torch.Generator().manual_seed(0)

    class Fresh:
        def normal(self, *shape):
            return torch.randn(4000, *shape, generator=generator, dtype=torch.float64)

    z = DDIM(200, eta=1.0)(follow, FLOW, Fresh().normal(1, 1, 1), Fresh())
    assert abs(float(z.mean()) - MU) < 4 * SPREAD / 4000**0.5
    assert abs(float(z.std()) / SPREAD - 1) < 0.05


def test_a_straight_flow_needs_one_step():
    """To a single point every path is a straight line of constant speed."""
    point, z = torch.full(SHAPE, 0.7, dtype=torch.float64), start()

    def straight(z, t):
        return point, (z - (1 - t) * point) / t if t > 0 else z

    assert torch.allclose(Euler(1)(straight, FLOW, z, Given([])), point)


@given(st.floats(0, 1))
def test_flow_estimate_inverts_corruption(t):
    z0, epsilon, times = start(1), start(2), torch.full((2,), t, dtype=torch.float64)
    z = FLOW.add_noise(z0, epsilon, times)
    a, s = FLOW.alpha_sigma(t)
    assert torch.allclose(z, a * z0 + s * epsilon)
    found = FLOW.to_x0_eps(FLOW.target(z0, epsilon, times), z, times)
    assert torch.allclose(found[0], z0, atol=1e-9) and torch.allclose(found[1], epsilon, atol=1e-9)


def test_velocity_is_the_time_derivative_of_the_path():
    z0, epsilon, t = start(1), start(2), torch.tensor([0.3, 0.9], dtype=torch.float64)
    slope = (FLOW.add_noise(z0, epsilon, t + 1e-6) - FLOW.add_noise(z0, epsilon, t - 1e-6)) / 2e-6
    assert torch.allclose(slope, FLOW.target(z0, epsilon, t), atol=1e-6)


@pytest.mark.parametrize("process", [PROCESS, FLOW])
def test_level_says_what_corruption_does(process):
    t = process.timesteps(4)[1]
    a, s = process.alpha_sigma(t)
    z = process.add_noise(start(1), start(2), torch.full((2,), t))
    assert torch.allclose(z, a * start(1) + s * start(2), atol=1e-6)


@pytest.mark.parametrize(
    ("sampler", "process"), [(Euler(), PROCESS), (Heun(), PROCESS), (DDPM(), FLOW), (PLMS(), FLOW)]
)
def test_wrong_sampler_for_a_process_is_a_line_that_names_the_right_ones(sampler, process):
    with pytest.raises(ConfigError, match=r"cannot sample a (RectifiedFlow|GaussianDiffusion): choose .*DDIM, "):
        check_fit(sampler, process)


@pytest.mark.parametrize("process", [GaussianDiffusion(), RectifiedFlow()])
def test_levels_of_one_image_are_spread_and_all_times_come(process):
    longest = process.timesteps(1)[0]
    u = process.draw_times(TrainingNoise(0, 0), 5000, 4).double() / longest
    assert u.min() >= 0 and u.max() <= 1 and u.shape == (20000,)
    assert torch.histc(u, 10, 0, 1).sub(2000).abs().max() < 120
    by_image = u.reshape(5000, 4).sort(dim=1).values
    assert torch.allclose(by_image.diff(dim=1), torch.full((5000, 3), 0.25, dtype=torch.float64), atol=5e-3)


def test_gamma_is_the_product_of_alphas():
    beta = np.linspace(1e-4, 0.02, 1000)
    assert np.allclose(PROCESS.gamma[1:].numpy(), np.cumprod(1 - beta))
    assert PROCESS.gamma[0] == 1


@pytest.mark.parametrize("kind", SAMPLERS.values(), ids=SAMPLERS)
def test_every_registered_sampler_draws_noise_or_none_as_it_says(kind):
    """On each process that it serves; a source without draws ends in StopIteration."""
    for process in (each for each in (PROCESS, FLOW) if isinstance(each, kind.serves)):

        def known(z, t, process=process):
            a, s = process.alpha_sigma(t)
            return torch.full_like(z, 0.3), (z - 0.3 * a) / max(s, 1e-9)

        if kind.deterministic:
            assert torch.isfinite(kind(steps=20)(known, process, start(), Given([]))).all()
        else:
            with pytest.raises(StopIteration):
                kind(steps=20)(known, process, start(), Given([]))
