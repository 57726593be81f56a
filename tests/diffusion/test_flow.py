"""The straight path against closed forms, against the variance-preserving one, and diffusers."""

import math
from itertools import pairwise

import pytest
import torch
from gaussian import Gaussian, log_snr_grid
from hypothesis import given
from hypothesis import strategies as st
from test_mixture import denoiser as best_denoiser

from tinyldm.diffusion.ddim import DDIM
from tinyldm.diffusion.ddpm import DDPM
from tinyldm.diffusion.dpm_solver import DPMSolver
from tinyldm.diffusion.heun import Heun
from tinyldm.diffusion.loss import draw_noise, training_loss
from tinyldm.diffusion.prediction import check_prediction, target
from tinyldm.diffusion.sampler import sample
from tinyldm.diffusion.schedule import CLEAN, SPACINGS, NoiseSchedule
from tinyldm.diffusion.unipc import UniPC
from tinyldm.nn.blocks import Sinusoidal
from tinyldm.training.timesteps import draw_timesteps

FLOW = NoiseSchedule("flow")
SOLVERS = [
    DDIM(),
    DDIM(0.5),
    DDIM(1.0),
    DDPM(),
    DDPM("large"),
    Heun(),
    *(DPMSolver(k, form=form) for k in (1, 2, 3) for form in ("x0", "eps")),
    *(DPMSolver(k, sde=True) for k in (1, 2, 3)),
    DPMSolver(2, midpoint=False),
    *(UniPC(k) for k in (1, 2, 3)),
]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(t=st.floats(0, 999), shift=st.floats(0.1, 10))
def test_the_path_is_straight_and_its_shift_multiplies_alpha_over_sigma(t, shift):
    schedule = NoiseSchedule("flow", shift=shift)
    level, plain = schedule.level(t), FLOW.level(t)
    assert plain.sigma == pytest.approx((t + 1) / 1000, abs=1e-12)
    assert level.alpha + level.sigma == pytest.approx(1, abs=1e-12)
    ratio = shift * (1 - plain.sigma) / plain.sigma
    assert level.alpha / level.sigma == pytest.approx(ratio, rel=1e-9)
    assert schedule.t_of_lambda(level.lambda_).item() == pytest.approx(t, abs=1e-6)


def test_the_path_begins_next_to_clean_data_and_ends_in_pure_noise():
    for schedule in (FLOW, NoiseSchedule("flow", 10), NoiseSchedule("flow", shift=0.2)):
        end = schedule.level(schedule.timesteps - 1)
        assert (end.alpha, end.sigma) == (0, 1)
        t = torch.arange(-1, schedule.timesteps)  # t = -1 is clean data
        assert FLOW.timesteps * FLOW.level(0).sigma == pytest.approx(t[1] - t[0])
        for spacing in set(SPACINGS) - {"karras"}:
            grid = schedule.grid(5, spacing)
            assert grid[-1] == CLEAN
            assert all(a.sigma > b.sigma for a, b in pairwise(grid))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: NoiseSchedule("flow", zero_snr=True), "changes nothing"),
        (lambda: NoiseSchedule("flow", beta_end=0.1), "belong to the linear"),
        (lambda: NoiseSchedule("flow", 1), "at least 2 timesteps"),
        (lambda: FLOW.alpha_bar, "no betas and no alpha_bar"),
        (lambda: FLOW.grid(5, "karras"), "zero_snr and 'flow' lack"),
        (lambda: FLOW.level(1000), "timesteps lie within"),
        (lambda: check_prediction("eps", FLOW), "can't work with the schedule 'flow'"),
    ],
)
def test_what_the_straight_path_does_not_have_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_the_samples_of_both_paths_are_the_same(solver):
    """x / alpha at a given alpha / sigma is the same on both, so for one denoiser of a mixture of
    Gaussians each solver draws the same from the same noise, be it the start's or a step's."""
    found = {}
    for straight in (False, True):
        grid = (*log_snr_grid(12, -4.0, 3.0, straight), CLEAN)
        noise = grid[0].sigma * normal(50, 1)
        found[straight] = sample(
            best_denoiser(grid[:-1]),
            noise.shape,
            FLOW,  # only the grid counts
            solver,
            prediction="x0",
            spacing=grid,
            noise=noise,
            seeds=range(50),
            dtype=torch.float64,
        )
    torch.testing.assert_close(found[True], found[False], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
@pytest.mark.parametrize("shift", [1.0, 0.4])
def test_gaussian_data_is_sampled_as_gaussian_data(solver, shift):
    """From pure noise to clean data on the default grid, by a prediction of u."""
    schedule = NoiseSchedule("flow", shift=shift)
    data = Gaussian.on(schedule, -1.0, 0.5)
    noisy = solver.stochastic and solver not in (DPMSolver(2, sde=True), DPMSolver(3, sde=True))
    x = sample(
        data.denoiser("flow"),
        (8, 4000),
        schedule,
        solver,
        250 if noisy else 50,
        prediction="flow",
        seeds=range(8),
    )
    assert x.mean().item() == pytest.approx(-1.0, abs=0.02)
    assert x.std().item() == pytest.approx(0.5, rel=0.06)


def test_pitfall_28_timesteps_go_to_the_network_on_the_scale_of_its_embedding():
    """Training and sampling feed 0 to 999; fed [0, 1], the embedding would hardly change."""
    seen = []

    def watch(x, t, condition):
        seen.append(t)
        return x

    training_loss(watch, torch.zeros(4000, 1), None, FLOW, "flow")
    sample(watch, (1, 1), FLOW, steps=100, prediction="flow")
    trained, sampled = seen[0], torch.cat(seen[1:])
    for t in (trained, sampled):
        assert t.dtype == torch.float32
        assert t.max() > 990
        assert 0 <= t.min() < 10
        assert (t == t.round()).all()
    embed = Sinusoidal(128)
    ends = torch.tensor([0.0, 999.0])
    apart, squeezed = (
        1 - torch.cosine_similarity(*embed(t), dim=0).item() for t in (ends, ends / 999)
    )
    assert apart > 0.3
    assert squeezed < 0.1


@pytest.mark.parametrize("factor", [3.0, 0.5])
def test_pitfall_29_the_shift_moves_the_noise_and_not_the_timestep(factor):
    """diffusers shifts the sigmas that it is given as 2403.03206, eq. 23, says; its factor is the
    inverse of ours. Training and sampling have the same noise at a t."""
    diffusers = pytest.importorskip("diffusers")
    schedule = NoiseSchedule("flow", shift=1 / factor)
    grid = schedule.grid(10)
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(shift=factor)
    theirs.set_timesteps(sigmas=[(level.t + 1) / 1000 for level in grid[:-1]])
    for level, sigma in zip(grid, theirs.sigmas.tolist(), strict=True):
        assert level.sigma == pytest.approx(sigma, abs=1e-6)
    t = torch.tensor([level.t for level in grid[:-1]])
    x0, eps = normal(2, 10, 3)
    noised = draw_noise(x0, schedule, t=t, eps=eps)
    sigma = theirs.sigmas[:-1, None]
    torch.testing.assert_close(noised.x_t, ((1 - sigma) * x0 + sigma * eps).float())


def test_pitfall_30_the_path_leads_from_data_to_noise_in_loss_and_sampler_alike():
    """u is the derivative of x_t by sigma, as the loss has it; one step against it from pure noise
    is x0, by the sampler and by hand."""
    x0, eps = normal(2, 1, 3)
    t = torch.tensor([400.0])
    step = [draw_noise(x0, FLOW, t=t + d, eps=eps) for d in (-50, 50)]
    slope = (step[1].x_t - step[0].x_t) / 0.1  # 100 timesteps are 0.1 of sigma
    wanted = target(x0, eps, FLOW.level(t), "flow")
    torch.testing.assert_close(slope.double(), wanted, rtol=1e-5, atol=1e-5)
    drawn = sample(
        lambda x, t, c: wanted.float(),
        x0.shape,
        FLOW,
        DDIM(),
        steps=1,
        prediction="flow",
        noise=eps,
    )
    torch.testing.assert_close(drawn, x0.float())
    torch.testing.assert_close(drawn, (eps - wanted).float())


@pytest.mark.parametrize("how", ["logit-normal", "stratified"])
@pytest.mark.parametrize("timesteps", [2, 7, 1000])
def test_pitfall_31_drawn_timesteps_stay_on_the_schedule(how, timesteps):
    t = draw_timesteps(how, 100_000, timesteps, torch.Generator().manual_seed(0))
    assert t.dtype == torch.int64
    assert t.min() >= 0
    assert t.max() <= timesteps - 1
    if timesteps < 10 or how == "stratified":
        assert len(t.unique()) == timesteps


def test_pitfall_38_logit_normal_timesteps_have_its_quantiles():
    """2403.03206, eq. 19: the logit of (t + 1/2) / T is normal, up to the rounding of t."""
    t = draw_timesteps("logit-normal", 100_000, 1000, torch.Generator().manual_seed(0))
    logit = torch.special.logit((t.double() + 0.5) / 1000)
    for q in (0.05, 0.3, 0.5, 0.8, 0.95):
        exact = math.sqrt(2) * torch.erfinv(torch.tensor(2 * q - 1)).item()
        assert logit.quantile(q).item() == pytest.approx(exact, abs=0.02)


def test_stratified_timesteps_are_spread_evenly_and_each_is_uniform():
    """2107.00630, appendix I.1."""
    generator = torch.Generator().manual_seed(0)
    batches = torch.stack([draw_timesteps("stratified", 8, 1000, generator) for _ in range(4000)])
    assert ((batches // 125).sort(1)[0] == torch.arange(8)).all()  # one in each eighth
    first = torch.bincount(batches[:, 0] // 100, minlength=10)
    assert ((first - 400) ** 2 / 400).sum() / 9 < 2.4  # chi-squared, 1 %
    with pytest.raises(ValueError, match="unknown way"):
        draw_timesteps("uniformly", 1, 10, generator)


@pytest.mark.parametrize("factor", [1.0, 3.0])
@pytest.mark.parametrize("n", [1, 4, 25])
def test_trajectories_are_those_of_diffusers(factor, n):
    """Euler on the velocity, step by step, for a network that is told diffusers' timesteps."""
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(shift=factor)
    theirs.set_timesteps(n)

    def velocity(x, t):
        return torch.sin(2 * x + t / 300) * 0.8

    x = noise = normal(2, 3).float()
    expected = []
    for t in theirs.timesteps:
        x = theirs.step(velocity(x, t), t, x).prev_sample
        expected.append(x)

    lambdas = torch.log((1 - theirs.sigmas[:-1]) / theirs.sigmas[:-1])
    schedule, found = NoiseSchedule("flow", shift=1 / factor), []
    grid = schedule.levels(schedule.t_of_lambda(lambdas).tolist())
    sample(
        lambda x, t, c: velocity(x, 1000 * schedule.level(t[0].item()).sigma),
        noise.shape,
        schedule,
        DDIM(),
        prediction="flow",
        spacing=grid,
        noise=noise,
        callback=lambda i, x, x0: found.append(x),
    )
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("n", [6, 20])
@pytest.mark.parametrize("prediction", ["v", "eps"])
def test_unipc_is_that_of_diffusers(order, n, prediction):
    """Every prediction of the run but the last, where ours and theirs go down to other levels."""
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.UniPCMultistepScheduler(
        beta_schedule="linear",
        solver_order=order,
        solver_type="bh2",
        lower_order_final=False,
        final_sigmas_type="sigma_min",
        timestep_spacing="trailing",
        prediction_type={"v": "v_prediction", "eps": "epsilon"}[prediction],
    )
    theirs.set_timesteps(n)
    schedule = NoiseSchedule("linear")

    def network(x, t):
        return torch.sin(2 * x + t / 300) * 0.8

    x = noise = normal(2, 3).float()
    expected = []
    for t in theirs.timesteps[:-1]:
        x = theirs.step(network(x, t), t, x).prev_sample
        expected.append(x)
    found = []
    sample(
        lambda x, t, c: network(x, t[0]),
        noise.shape,
        schedule,
        UniPC(order, reach=math.inf),
        prediction=prediction,
        spacing=schedule.levels([float(t) for t in theirs.timesteps]),
        noise=noise,
        callback=lambda i, x, x0: found.append(x),
    )
    for a, b in zip(found[:-1], expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
