"""Each solver's step against exact solutions: flows, posteriors, marginals and orders of
convergence."""

import itertools
import math

import numpy as np
import pytest
import torch
from gaussian import Gaussian, level_at, log_snr_grid
from hypothesis import given
from hypothesis import strategies as st
from moments import moments, moments_step
from scipy.integrate import quad

from tinyldm.diffusion.ddim import DDIM
from tinyldm.diffusion.ddpm import DDPM
from tinyldm.diffusion.dpm_solver import DPMSolver, integral_weights
from tinyldm.diffusion.heun import Heun
from tinyldm.diffusion.prediction import eps_of
from tinyldm.diffusion.sampler import Again, sample
from tinyldm.diffusion.schedule import CLEAN, SPACINGS, NoiseSchedule
from tinyldm.diffusion.unipc import UniPC

DPM = [
    DPMSolver(order, sde, form, midpoint)
    for order in (1, 2, 3)
    for sde, form in ((False, "x0"), (True, "x0"), (False, "eps"))
    for midpoint in ((True, False) if order == 2 else (True,))
]
UNIPC = [UniPC(order) for order in (1, 2, 3)]
SOLVERS = [DDPM(), DDPM("large"), DDIM(), DDIM(0.5), DDIM(1.0), Heun(), *DPM, *UNIPC]
COSINE, FLOW = NoiseSchedule(), NoiseSchedule("flow")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exact_history(data, solver, levels):
    """What a solver would remember, had it come along the exact flow; levels, the newest first."""
    z = torch.tensor([1.3, -0.4, 0.0], dtype=torch.float64)
    return tuple(
        (level.lambda_, data.pair(data.at(z, level), level)[solver.form == "eps"])
        for level in levels
    )


def error_of(solver, n, mean, std, straight):
    """The error of n steps from lambda = -1 to 1 that start on the exact flow.

    Multistep solvers start with an exact history. UniPC's error is that of its last correction.
    """
    z = torch.tensor([1.3, -0.4, 0.0], dtype=torch.float64)
    grid = log_snr_grid(n + 3, -1.0 - 6 / n, 1.0, straight)
    data = Gaussian(mean, std, grid)
    history = ()
    if isinstance(solver, UniPC):
        past = exact_history(data, solver, (grid[2], grid[1], grid[0]))[: solver.order]
        history = (grid[2], data.pair(data.at(z, grid[2]), grid[2])[1], past)
    elif isinstance(solver, DPMSolver):
        history = exact_history(data, solver, (grid[2], grid[1]))[: solver.order - 1]
    x = data.at(z, grid[3])
    for now, nxt in itertools.pairwise(grid[3:]):
        x0, eps = data.pair(x, now)
        x, history = solver.step(x, x0, eps, now, nxt, history)
        while isinstance(history, Again):
            x, history = history.step(*data.pair(x, nxt))
    if isinstance(solver, UniPC):  # the last prediction, corrected by what is seen there
        _, (_, eps, ((_, x0), *_)) = solver.step(x, *data.pair(x, nxt), nxt, CLEAN, history)
        x = nxt.alpha * x0 + nxt.sigma * eps
    return (x - data.at(z, grid[-1])).abs().max().item()


ORDERS = [(DDIM(), 1), (Heun(), 2), *((s, s.order) for s in DPM if not s.sde)]
ORDERS += [(s, s.order + 1) for s in UNIPC]


@pytest.mark.parametrize("straight", [False, True])
@pytest.mark.parametrize(("solver", "order"), ORDERS, ids=str)
@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.3), (2.0, 1.0)])
def test_pitfall_06_convergence_order(solver, order, mean, std, straight):
    steps = np.array([40, 80, 160, 320]) * (1 if order < 4 else 2)
    errors = [error_of(solver, n, mean, std, straight) for n in steps]
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert slope == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("form", ["x0", "eps"])
def test_pitfall_06_convergence_of_whole_runs(order, form):
    """From the exact marginal, with the solver's own start: near pure noise its low order costs
    nothing."""
    errors = []
    for n in (40, 80, 160):
        grid = log_snr_grid(n, -4.0, 3.0)
        data = Gaussian(0.7, 0.5, grid)
        z = normal(8, 3)
        x = sample(
            data.denoiser(),
            z.shape,
            COSINE,
            DPMSolver(order, form=form),
            prediction="x0",
            spacing=grid,
            noise=data.at(z, grid[0]),
            dtype=torch.float64,
        )
        errors.append((x - data.at(z, grid[-1])).abs().max().item())
    assert math.log2(errors[0] / errors[-1]) / 2 > order - 0.1
    assert errors[-1] < 0.02**order * 10


@given(st.floats(0.01, 5), st.booleans(), st.integers(1, 4))
def test_the_weights_integrate_polynomials(k, negative, n):
    """Against scipy's integral, for a polynomial of n - 1 degrees and n points, unevenly spaced."""
    k = -k if negative else k
    points = [0.0, 1.0, -0.8, -2.1][:n]
    polynomial = np.polynomial.Polynomial([0.3, -1.1, 0.7, 0.4][:n])
    found = sum(w * polynomial(u) for w, u in zip(integral_weights(k, points), points, strict=True))
    exact = quad(lambda u: k * math.exp(-k * (1 - u)) * polynomial(u), 0, 1, epsabs=1e-13)[0]
    assert found == pytest.approx(exact, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("k", [1e-3, 0.1, 3.0, -0.1, -3.0])
def test_moments_are_the_integrals(k):
    for j, value in enumerate(moments(k)):
        integral = quad(lambda u, j=j: k * math.exp(-k * (1 - u)) * u**j, 0, 1, epsabs=1e-13)[0]
        assert value == pytest.approx(integral, rel=1e-6)


@pytest.mark.parametrize("solver", DPM, ids=str)
@pytest.mark.parametrize("h", [0.03, 0.4, 1.5])
def test_each_order_is_its_integral(solver, h):
    """The formulas of the papers against the same step as a sum of moments."""
    x0, eps, noise, m_1, m_2 = normal(5, 4)
    now, nxt = level_at(0.3), level_at(0.3 + h)
    x = now.alpha * x0 + now.sigma * eps
    history = ((0.3 - 0.9 * h, m_1), (0.3 - 2.1 * h, m_2))[: solver.order - 1]
    found, left = solver.step(x, x0, eps, now, nxt, history, noise)
    expected = moments_step(solver, x, x0, eps, now, nxt, history, noise)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    newest = (0.3, eps if solver.form == "eps" else x0)
    assert len(left) == solver.order - 1
    for (lambda_, m), (wanted, n) in zip(left, (newest, *history), strict=False):
        assert lambda_ == pytest.approx(wanted)
        assert torch.equal(m, n)


@pytest.mark.parametrize("form", ["x0", "eps"])
@pytest.mark.parametrize("h", [0.03, 0.4, 1.5])
def test_third_order_is_that_of_the_papers(form, h):
    """The authors' own names and formulas, with all of the last term: their code has half of it."""
    m_0, m_1, m_2 = normal(3, 4)
    now, nxt = level_at(0.3), level_at(0.3 + h)
    r_0, r_1 = 0.9, 1.2
    D_10, D_11 = (m_0 - m_1) / r_0, (m_1 - m_2) / r_1
    D_2 = (D_10 - D_11) / (r_0 + r_1)
    D_1 = D_10 + r_0 * D_2
    if form == "eps":  # 2206.00927
        phi_2 = math.expm1(h) / h - 1
        phi_3 = phi_2 / h - 1 / 2
        expected = -nxt.sigma * (phi_2 * D_1 + 2 * phi_3 * D_2)
    else:  # 2211.01095
        phi_2 = math.expm1(-h) / h + 1
        phi_3 = phi_2 / h - 1 / 2
        expected = nxt.alpha * (phi_2 * D_1 - 2 * phi_3 * D_2)
    others = ((0.3 - 0.9 * h, m_1), (0.3 - 2.1 * h, m_2))
    found = DPMSolver(3, form=form).bend(m_0, now, nxt, others)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("straight", [False, True])
def test_a_corrected_step_is_exact_for_one_degree_more(order, straight):
    """UniC knows m at order + 1 places; midpoint=False integrates a line as it is."""
    lambdas = [-0.7, -0.2, 0.1, 0.6]
    levels = [level_at(v, straight=straight) for v in lambdas]
    now, nxt = levels[2:]

    def m(v):
        powers = [0.3, -0.8, 0.7, -0.5][: order + 1]
        return torch.tensor(sum(c * v**j for j, c in enumerate(powers)), dtype=torch.float64)

    x, unlike = torch.tensor([0.4, 9.0], dtype=torch.float64)
    history = (now, eps_of(m(0.1), x, now), tuple((v, m(v)) for v in (0.1, -0.2, -0.7))[:order])
    solver = UniPC(order, midpoint=False)
    # what was predicted for x_s does not count, only what is seen in it
    _, (_, eps, _) = solver.step(unlike, m(0.6), unlike, nxt, CLEAN, history)
    found = (nxt.alpha * m(0.6) + nxt.sigma * eps).item()
    integral = quad(lambda v: math.exp(v) * m(v).item(), 0.1, 0.6, epsabs=1e-13)[0]
    assert found == pytest.approx(nxt.sigma / now.sigma * 0.4 + nxt.sigma * integral, abs=1e-10)


@pytest.mark.parametrize("straight", [False, True])
def test_heun_is_exact_for_noise_that_is_linear_in_sigma_over_alpha(straight):
    """d(x / alpha) / dk = eps, so with eps = 0.3 + 0.2 k the flow is a parabola in k."""
    now, nxt = level_at(-0.4, 1.0, straight), level_at(0.9, 0.0, straight)
    k_t, k_s = now.sigma / now.alpha, nxt.sigma / nxt.alpha
    found = sample(
        lambda x, t, c: torch.full_like(x, 0.3 + 0.2 * (k_t if t[0] == 1 else k_s)),
        (1,),
        COSINE,
        Heun(),
        prediction="eps",
        spacing=(now, nxt),
        noise=torch.tensor([0.4], dtype=torch.float64),
        dtype=torch.float64,
    )
    exact = 0.4 / now.alpha + 0.3 * (k_s - k_t) + 0.1 * (k_s**2 - k_t**2)
    assert found.item() == pytest.approx(nxt.alpha * exact, abs=1e-12)


def test_heun_looks_twice_but_on_the_way_from_pure_noise_and_to_clean_data():
    seen = []
    sample(lambda x, t, c: seen.append(t[0].item()) or x, (1, 2), FLOW, Heun(), 4, prediction="v")
    assert seen == [999, 749, 499, 499, 249, 249]


class Trapezoid:
    """The implicit rule by n further looks: a solver from outside."""

    stochastic = False

    def __init__(self, n):
        self.n = n

    def step(self, x, x0, eps, now, nxt, history=(), noise=None):
        def end(slope):
            k = nxt.sigma / nxt.alpha - now.sigma / now.alpha
            return nxt.alpha * (x / now.alpha + k * slope)

        def again(left):
            if not left:
                return ()
            return Again(lambda x0_s, eps_s: (end((eps + eps_s) / 2), again(left - 1)))

        return end(eps), again(self.n)


def test_a_solver_may_look_at_the_end_of_its_step_several_times():
    """Until x_s = x_t + (k_s - k_t) (eps_t + eps_s) / 2, for the eps of N(0, s^2), linear in x."""
    now, nxt = level_at(-0.4, 1.0), level_at(0.3, 0.0)
    data = Gaussian(0.0, 0.5, (now, nxt, CLEAN))
    start, seen = torch.tensor([0.7], dtype=torch.float64), []

    def denoiser(x, t, condition):
        seen.append(t[0].item())
        return data.denoiser()(x, t, condition)

    found = sample(
        denoiser,
        (1,),
        COSINE,
        Trapezoid(40),
        prediction="x0",
        spacing=(now, nxt),
        noise=start,
        dtype=torch.float64,
    )
    assert seen == [1.0] + [0.0] * 40
    k_t, k_s = (level.sigma / level.alpha for level in (now, nxt))
    slopes = [k / (k**2 + 0.25) for k in (k_t, k_s)]  # eps = slope x / alpha
    h = (k_s - k_t) / 2
    exact = (1 + h * slopes[0]) / (1 - h * slopes[1]) * start.item() / now.alpha
    assert found.item() == pytest.approx(nxt.alpha * exact, abs=1e-10)


@pytest.mark.parametrize("form", ["x0", "eps"])
def test_third_order_is_exact_for_parabolas(form):
    """A prediction that is a parabola in lambda has no error (2206.00927, eq. 3.4; 2211.01095)."""
    lambdas = [-0.9, -0.5, 0.2, 0.6]
    levels = [level_at(v) for v in lambdas]

    def m(v):
        return torch.tensor(0.3 - 0.8 * v + 0.7 * v**2, dtype=torch.float64)

    now, nxt = levels[2:]
    x = torch.tensor(0.4, dtype=torch.float64)
    x0, eps = (
        (m(0.2), (x - now.alpha * m(0.2)) / now.sigma)
        if form == "x0"
        else ((x - now.sigma * m(0.2)) / now.alpha, m(0.2))
    )
    history = tuple((v, m(v)) for v in (-0.5, -0.9))
    found = DPMSolver(3, form=form).step(x, x0, eps, now, nxt, history)[0].item()
    if form == "x0":
        integral = quad(lambda v: math.exp(v) * m(v).item(), 0.2, 0.6, epsabs=1e-13)[0]
        assert found == pytest.approx(nxt.sigma / now.sigma * 0.4 + nxt.sigma * integral, abs=1e-10)
    else:
        integral = quad(lambda v: math.exp(-v) * m(v).item(), 0.2, 0.6, epsabs=1e-13)[0]
        assert found == pytest.approx(nxt.alpha / now.alpha * 0.4 - nxt.alpha * integral, abs=1e-10)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("n", [5, 10, 13, 50])
def test_pitfall_01_marginal_step(spacing, n):
    x0, eps = normal(2, 4, 8, 8).float()
    for now, nxt in itertools.pairwise(COSINE.grid(n, spacing)):
        x_s, _ = DDIM().step(now.alpha * x0 + now.sigma * eps, x0, eps, now, nxt)
        # from the table itself, between whole timesteps on a line in log(alpha_bar / (1 -
        # alpha_bar))
        logit = np.interp(nxt.t, np.arange(1000), torch.special.logit(COSINE.alpha_bar).numpy())
        ab = 1.0 if nxt.t < 0 else 1 / (1 + math.exp(-logit))
        assert (x_s - (ab**0.5 * x0 + (1 - ab) ** 0.5 * eps)).abs().max() < 1e-6


@given(st.sampled_from([s for s in SOLVERS if not s.stochastic]), st.floats(-9, 9), st.data())
def test_pitfall_01_the_truth_leads_to_the_marginal_at_any_level(solver, lambda_, data):
    """Where x0 and eps are always the same, every solver that adds no noise is exact, whatever it
    remembers."""
    now = level_at(lambda_)
    nxt = data.draw(st.one_of(st.just(CLEAN), st.floats(lambda_ + 1e-3, 10).map(level_at)))
    x0, eps = normal(2, 4)
    m = eps if getattr(solver, "form", "x0") == "eps" else x0
    order = getattr(solver, "order", 1)
    history = tuple((lambda_ - back, m) for back in (0.3, 1.1, 1.5))
    if isinstance(solver, UniPC):
        history = (level_at(lambda_ - 0.3), eps, history[:order])
    else:
        history = history[: order - 1]
    x_s, _ = solver.step(now.alpha * x0 + now.sigma * eps, x0, eps, now, nxt, history)
    assert torch.allclose(x_s, nxt.alpha * x0 + nxt.sigma * eps, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
@pytest.mark.parametrize("zero", [False, True])
def test_pitfall_04_the_last_step_returns_x0(solver, zero):
    x0 = normal(2, 3).float()
    schedule = NoiseSchedule("linear", zero_snr=zero)
    for n in range(1, 51):
        x = sample(lambda *_: x0, (2, 3), schedule, solver, n, prediction="x0", seeds=[1, 2])
        assert (
            torch.equal(x, x0)
            if not isinstance(solver, DDPM)
            else torch.allclose(x, x0, rtol=0, atol=0)
        )


@pytest.mark.parametrize("schedule", [COSINE, FLOW, NoiseSchedule("flow", shift=0.3)], ids=str)
def test_pitfall_16_posterior_variance_of_skipped_steps(schedule):
    """q(x_s | x_t, x0) by Bayes' rule on the joint Gaussian of (x_s, x_t), for any t and s."""
    for t, s in [(999, 500), (500, 480), (40, 39), (1, 0)]:
        now, nxt = schedule.level(t), schedule.level(s)
        scale = now.alpha / nxt.alpha  # x_t = scale x_s + the noise in between
        joint = np.array(
            [[nxt.sigma**2, scale * nxt.sigma**2], [scale * nxt.sigma**2, now.sigma**2]]
        )
        x0, x_t = 0.7, -0.4
        mean = nxt.alpha * x0 + joint[0, 1] / joint[1, 1] * (x_t - now.alpha * x0)
        variance = joint[0, 0] - joint[0, 1] ** 2 / joint[1, 1]
        args = [
            torch.tensor(v, dtype=torch.float64)
            for v in (x_t, x0, (x_t - now.alpha * x0) / now.sigma)
        ]
        for solver in (
            DDPM(),
            DDIM(1.0),
            DPMSolver(1, sde=True),
        ):  # three ways to say the same step
            still, moved = (
                solver.step(*args, now, nxt, (), z)[0].item()
                for z in torch.tensor([0.0, 1.0]).double()
            )
            assert still == pytest.approx(mean, abs=1e-9)
            assert (moved - still) ** 2 == pytest.approx(variance, rel=1e-9)


@pytest.mark.parametrize("solver", [s for s in SOLVERS if s.stochastic], ids=str)
def test_pitfall_16_no_noise_on_the_last_step(solver):
    now, one = COSINE.level(30), torch.ones(1)
    results = {solver.step(one, one, one, now, CLEAN, (), z * one)[0].item() for z in (0.0, 5.0)}
    assert len(results) == 1


def linear_step(solver, data, now, nxt):
    """A step on zero-mean Gaussian data is x_s = a x + b z; (a, b) by probing."""
    probe = [torch.tensor(v, dtype=torch.float64) for v in ((1.0, 0.0), (0.0, 1.0))]
    return solver.step(probe[0], *data.pair(probe[0], now), now, nxt, (), probe[1])[0].tolist()


@pytest.mark.parametrize("solver", [DDPM(), DDIM(1.0), DDIM(0.4), DPMSolver(1, sde=True)], ids=str)
@pytest.mark.parametrize("schedule", [COSINE, FLOW], ids=str)
@pytest.mark.parametrize("n", [1, 4, 30, 1000])
def test_pitfall_32_exact_marginals_of_one_data_point(solver, schedule, n):
    """For data that is one point, x_s has exactly the standard deviation sigma_s, whatever the
    steps. Noise that follows from the level at t alone has too much of it."""
    for now, nxt in itertools.pairwise(schedule.grid(n)):
        a, b = linear_step(solver, Gaussian(0.0, 0.0, ()), now, nxt)
        assert a**2 * now.sigma**2 + b**2 == pytest.approx(nxt.sigma**2, abs=1e-12)


@pytest.mark.parametrize("schedule", [COSINE, FLOW], ids=str)
@pytest.mark.parametrize("n", [2, 4, 30])
def test_large_variance_keeps_unit_gaussian_data(schedule, n):
    """2006.11239, sec. 3.2: sigma_t^2 = beta_t is optimal for x0 ~ N(0, I), where every x_t is
    N(0, I), or on other paths N(0, (alpha_t^2 + sigma_t^2) I)."""
    data = Gaussian(0.0, 1.0, ())
    for now, nxt in itertools.pairwise(schedule.grid(n)[:-1]):
        a, b = linear_step(DDPM("large"), data, now, nxt)
        assert a**2 * data.spread(now) ** 2 + b**2 == pytest.approx(
            data.spread(nxt) ** 2, abs=1e-12
        )


@pytest.mark.parametrize("solver", [DDPM(), DDPM("large"), DDIM(0.5), DDIM(1.0)], ids=str)
def test_stochastic_solvers_reach_the_data_distribution(solver):
    """The variance of the samples, carried through exactly, tends to the data's as steps are
    added."""
    data, errors = Gaussian(0.0, 0.5, ()), []
    for n in (20, 40, 80, 160):
        variance = 1.0
        for now, nxt in itertools.pairwise(log_snr_grid(n, -5.0, 4.0)):
            a, b = linear_step(solver, data, now, nxt)
            variance = a**2 * variance + b**2
        errors.append(abs(variance - data.spread(nxt) ** 2))
    assert all(b < 0.6 * a for a, b in itertools.pairwise(errors))
    assert errors[-1] < 0.02


def sde_moments(solver, n, mean, std):
    """Errors of the end of an SDE run on Gaussian data: of its mean, given that x_T was one
    deviation up, and variance.

    Without sampling: x_n is linear in x_T and in the noise of each step
    """
    grid = log_snr_grid(n, -4.0, 3.0)
    data = Gaussian(mean, std, grid)
    # column 0: no noise; column 1: x_T one deviation up; column 2 + i: one unit of noise in step i
    x = torch.full((n + 2,), grid[0].alpha * mean, dtype=torch.float64)
    x[1] += data.spread(grid[0])
    history = ()
    for i, (now, nxt) in enumerate(itertools.pairwise(grid)):
        noise = torch.zeros(n + 2, dtype=torch.float64)
        noise[2 + i] = 1
        x, history = solver.step(x, *data.pair(x, now), now, nxt, history, noise)
    first, end = grid[0], grid[-1]
    # the reverse process has the joint law of the forward one: Cov(x_T, x_end) = alpha_T /
    # alpha_end Var(x_end)
    correlated = first.alpha / end.alpha * data.spread(end) ** 2 / data.spread(first)
    return (x[1] - x[0]).item() - correlated, ((x[1:] - x[0]) ** 2).sum().item() - data.spread(
        end
    ) ** 2


@pytest.mark.parametrize("order", [1, 2, 3])
def test_pitfall_06_sde_mean_and_variance(order):
    """The mean is exact, as E[x0 | x] is a martingale; the variance has order 2 at best, the path
    being rough."""
    found = np.abs(
        [sde_moments(DPMSolver(order, sde=True), n, 0.7, 0.5) for n in (40, 80, 160, 320)]
    )
    assert found[:, 0].max() < 1e-12
    slope = np.log2(found[0, 1] / found[-1, 1]) / 3
    assert slope == pytest.approx(min(order, 2), abs=0.2)


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("spacing", ["leading", "linspace"])
@pytest.mark.parametrize("n", [10, 20])
def test_no_extrapolation_over_the_leap_at_the_end_of_a_grid(order, spacing, n):
    """The last step to t = 0 of these grids is long in lambda; to extrapolate over it is worse than
    first order."""
    schedule = NoiseSchedule("linear")
    data, grid, z = Gaussian.on(schedule, 1.0, 1.0), schedule.grid(n, spacing), normal(50)

    def error(solver):
        x = sample(
            data.denoiser(),
            z.shape,
            schedule,
            solver,
            prediction="x0",
            spacing=grid,
            dtype=torch.float64,
            noise=data.at(z, grid[0]),
        )
        return (x - 1 - z).square().mean().sqrt().item()

    assert (
        error(DPMSolver(order))
        < 0.5 * error(DDIM())
        < 0.5 * error(DPMSolver(order, reach=math.inf))
    )


@pytest.mark.parametrize(
    "bad",
    [
        lambda: DDIM(1.5),
        lambda: DDPM("learned"),
        lambda: DPMSolver(4),
        lambda: DPMSolver(form="v"),
        lambda: DPMSolver(sde=True, form="eps"),
        lambda: UniPC(sde=True),
        lambda: UniPC(form="eps"),
        lambda: UniPC(4),
    ],
)
def test_impossible_solvers_are_refused(bad):
    with pytest.raises(
        ValueError, match=r"eta lies|unknown variance|order 1, 2 or 3|form is|in x0 form"
    ):
        bad()
