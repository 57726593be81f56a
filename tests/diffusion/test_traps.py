"""Traps of docs/pitfalls.md, each written out as it was made: it fails, and ours does not."""

import math
from itertools import pairwise

import pytest
import torch
from gaussian import Gaussian
from scipy.optimize import linear_sum_assignment

from tinyldm.diffusion.ddim import DDIM
from tinyldm.diffusion.ddpm import DDPM
from tinyldm.diffusion.dpm_solver import DPMSolver
from tinyldm.diffusion.heun import Heun
from tinyldm.diffusion.loss import draw_noise, loss_weight
from tinyldm.diffusion.sampler import sample
from tinyldm.diffusion.schedule import NoiseSchedule
from tinyldm.diffusion.unipc import UniPC
from tinyldm.training.timesteps import draw_timesteps

COSINE, FLOW = NoiseSchedule(), NoiseSchedule("flow")
STD = 0.5


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("schedule", [COSINE, FLOW], ids=str)
@pytest.mark.parametrize("k", [25, 40, 45])
def test_pitfall_33_a_warm_start_has_the_noise_of_its_first_level(schedule, k):
    """Data N(0, 1/100), drowned to a level of the grid and drawn from there, is N(0, 1/100) again.

    With the noise of the level above, as in CompVis' img2img.py, some of it stays in the picture.
    The flow is linear, so one number tells how much of the start is left.
    """
    data, grid = Gaussian.on(schedule, 0.0, 0.1), schedule.grid(50)
    fine = tuple(level for level in schedule.grid(1000) if level.t <= grid[k].t)
    start = torch.ones(1, 1, dtype=torch.float64)
    left = sample(
        data.denoiser(),
        start.shape,
        schedule,
        DPMSolver(3),
        prediction="x0",
        spacing=fine,
        noise=start,
        dtype=torch.float64,
    ).item()

    def spread(level):
        x0, eps = torch.eye(2)[:, :, None]
        t = torch.full((2,), level.t)
        x_t = draw_noise(0.1 * x0, schedule, t=t, eps=eps).x_t
        return left * x_t.norm().item()

    assert spread(grid[k]) == pytest.approx(0.1, rel=0.01)
    assert spread(grid[k - 1]) > 1.02 * 0.1


def test_pitfall_34_noise_is_drawn_without_a_look_at_the_data():
    """Two classes, -1 and 1 with some spread. Sampling starts from N(0, 1) for either.

    Paired by optimal transport over the batch, each class is trained with a half of the noise
    alone: its mean is E|N(0, 1)|, about 0.8, on its own side, so conditional samples start where
    the network was never trained. To pair within each class leaves its noise as it is.
    """
    classes = torch.tensor([-1.0, 1.0]).repeat(200).double()
    x0, eps = classes[:, None] + 0.1 * normal(400, 1), normal(400, 1, seed=1)

    def transported(rows):
        cost = torch.cdist(x0[rows], eps[rows]) ** 2
        return eps[rows][linear_sum_assignment(cost.numpy())[1]]

    paired = transported(slice(None))
    noised = draw_noise(x0, FLOW, torch.Generator().manual_seed(0))
    for side in (-1, 1):
        rows = classes == side
        bound = 3.5 / math.sqrt(200)
        assert abs(noised.eps[rows].mean()) < bound
        assert abs(transported(rows).mean()) < bound
        assert side * paired[rows].mean() > 0.6
    assert abs(paired.mean()) < 3.5 / math.sqrt(400)  # without conditions there is no trap


@pytest.mark.parametrize("factor", [3.0, 0.5])
def test_pitfall_35_a_shift_is_applied_once(factor):
    """On a grid of all T levels they are those of training.

    The trap takes its ends from the shifted levels, and shifts what lies between them again.
    """

    def shifted(sigma):  # 2403.03206, eq. 23
        return factor * sigma / (1 + (factor - 1) * sigma)

    schedule = NoiseSchedule("flow", shift=1 / factor)
    trained = [schedule.level(float(t)).sigma for t in reversed(range(1000))]
    visited = [level.sigma for level in schedule.grid(1000)[:-1]]
    once = shifted(torch.linspace(1, 0.001, 1000, dtype=torch.float64))
    twice = shifted(torch.linspace(shifted(1.0), shifted(0.001), 1000, dtype=torch.float64))
    assert visited == pytest.approx(trained)
    torch.testing.assert_close(torch.tensor(visited).double(), once, rtol=1e-5, atol=1e-7)
    assert (twice[-1] / once[-1] - 1).abs() > 0.4


@pytest.mark.parametrize("schedule", [FLOW, NoiseSchedule(zero_snr=True)], ids=str)
@pytest.mark.parametrize(
    "solver", [DPMSolver(2), DPMSolver(3), UniPC(2), UniPC(3), DPMSolver(2, sde=True)], ids=str
)
def test_pitfall_36_the_first_step_from_pure_noise_is_finite(solver, schedule):
    """There alpha is 0 and lambda -inf, so a formula of r = h_before / h has no value."""
    grid = schedule.grid(8)
    h = [b.lambda_ - a.lambda_ for a, b in pairwise(grid)]
    assert math.isinf(h[0])
    naive = 1 / (2 * (h[0] / h[1])) * (h[0] - h[0])  # D_1 by the papers' formula
    assert math.isnan(naive)
    data = Gaussian.on(schedule, 0.3, STD)
    x = sample(
        data.denoiser(),
        (4, 5000),
        schedule,
        solver,
        8,
        prediction="x0",
        seeds=range(4),
    )
    assert x.isfinite().all()
    assert x.mean().item() == pytest.approx(0.3, abs=0.06)
    assert x.std().item() == pytest.approx(STD, rel=0.25)


def test_pitfall_37_min_snr_takes_the_smaller():
    """w(x0) = min(SNR, gamma): never above gamma, and SNR where that is smaller. max() turns it
    round: the noisiest levels weigh gamma, the cleanest a million."""
    t = torch.arange(1000)
    level = COSINE.level(t)
    snr = (level.alpha / level.sigma) ** 2
    weight = loss_weight(t, COSINE, "x0", 5.0)
    assert weight.max() <= 5
    torch.testing.assert_close(weight[snr < 5], snr[snr < 5])
    trap = snr.clamp(min=5.0)
    assert (weight.diff() <= 0).all()
    assert trap.min() == 5
    assert trap.max() > 1000 * weight.max()


def test_pitfall_38_the_logit_normal_law_is_that_of_t():
    """t follows it, and the weight of a loss follows from t. A number of that law in the weight's
    place is noise: t stays uniform, and equal t weigh differently."""
    generator = torch.Generator().manual_seed(0)
    t = draw_timesteps("logit-normal", 20_000, 1000, generator)
    uniform = torch.randint(1000, (20_000,), generator=generator)
    trap = torch.randn(20_000, generator=generator).sigmoid()  # drawn, whatever t is
    middle = [((x > 250) & (x < 750)).float().mean().item() for x in (t, uniform)]
    # P(|N(0, 1)| < log 3) of the logit-normal law
    assert middle[0] == pytest.approx(math.erf(math.log(3) / math.sqrt(2)), abs=0.01)
    assert middle[1] == pytest.approx(0.5, abs=0.012)
    weighted = trap[(uniform > 250) & (uniform < 750)].sum() / trap.sum()
    assert weighted.item() == pytest.approx(0.5, abs=0.015)
    for gamma in (None, 5.0):
        a, b = loss_weight(torch.tensor([400, 400]), FLOW, "flow", gamma)
        assert a == b


def test_pitfall_39_noise_of_a_step_is_paid_for_by_its_drift():
    """A step that only adds noise to Euler's leaves too much of it; ours keep the variance.

    Data N(0, 1/4) on the straight path, 100 steps, by the variance of a linear recursion.
    """
    data, grid = Gaussian(0.0, STD, ()), FLOW.grid(100)

    def variance(step):
        found = 1.0
        for now, nxt in pairwise(grid[:-1]):
            a, b = step(now, nxt)
            found = a**2 * found + b**2
        return found / data.spread(grid[-2]) ** 2

    def of(solver):
        def step(now, nxt):
            one, none = (torch.tensor([v], dtype=torch.float64) for v in (1.0, 0.0))

            def go(x, noise):
                return solver.step(x, *data.pair(x, now), now, nxt, (), noise)[0].item()

            return go(one, none), go(none, one)

        return step

    def trap(now, nxt):
        a, _ = of(DDIM())(now, nxt)
        return a, math.sqrt(now.sigma * (now.sigma - nxt.sigma))  # the noise of zea's sampler

    for solver in (DDIM(), DDIM(1.0), DDPM(), DPMSolver(1, sde=True)):
        assert variance(of(solver)) == pytest.approx(1, abs=0.08)
    assert variance(trap) > 1.5


@pytest.mark.parametrize("k", range(1, 9))
def test_pitfall_40_both_looks_of_a_step_belong_to_it(k):
    """Heun's method from the k-th level of a grid on, for odd and even k.

    A list in which timesteps stand twice, cut at some place, may begin with a second look. Read in
    pairs from there, each step is taken for the correction of another, and the sample is noise.
    """
    grid = COSINE.grid(20)
    data, z = Gaussian.on(COSINE, 0.0, STD), normal(1000, 1)
    calls = []

    def watched(x, t, condition):
        calls.append(t[0].item())
        return data.denoiser()(x, t, condition)

    def ends(spacing):
        return sample(
            watched,
            z.shape,
            COSINE,
            Heun(),
            prediction="x0",
            spacing=spacing,
            noise=data.at(z, spacing[0]),
            dtype=torch.float64,
        )

    assert (ends(grid[k:]) - STD * z).abs().max() < 0.02
    timesteps = [level.t for level in grid[k:-1]]
    assert calls[0] == timesteps[0]
    assert sorted(set(calls), reverse=True) == timesteps
    assert max(calls.count(t) for t in timesteps) == 2

    x = data.at(z, grid[k])  # the trap: no step leads anywhere
    doubled = [level for level in grid[k:-1] for _ in range(2)]
    for now, nxt in zip(doubled[0::2], doubled[1::2], strict=True):
        x0, eps = data.pair(x, now)
        moved, again = Heun().step(x, x0, eps, now, nxt)
        x, _ = again.step(*data.pair(moved, nxt))
    assert data.x0(x, grid[-2]).std() > 1.5 * STD
