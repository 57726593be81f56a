"""Image to image and inpainting on Gaussians, where their answers are known in closed form."""

import math

import pytest
import torch
from gaussian import Gaussian
from scipy.integrate import solve_ivp

from tinyldm.diffusion.ddim import DDIM
from tinyldm.diffusion.ddpm import DDPM
from tinyldm.diffusion.dpm_solver import DPMSolver
from tinyldm.diffusion.heun import Heun
from tinyldm.diffusion.sampler import sample
from tinyldm.diffusion.schedule import CLEAN, NoiseSchedule
from tinyldm.diffusion.unipc import UniPC
from tinyldm.methods.editing import (
    Inpainting,
    begin,
    cells_to_draw,
    noised_up,
    passages,
    remaining,
    resample,
)

COSINE = NoiseSchedule()
ODE = [DDIM(), DPMSolver(2), DPMSolver(3), DPMSolver(2, form="eps"), UniPC(2), Heun()]
SDE = [DDPM(), DDIM(0.5), DPMSolver(2, sde=True)]


def noise_of(shape, seed):
    """What sample() draws first for one sample of this seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ---- image to image


@pytest.mark.parametrize("solver", [*ODE, *SDE], ids=str)
@pytest.mark.parametrize("schedule", [COSINE, NoiseSchedule("flow")], ids=["cosine", "flow"])
def test_all_of_the_strength_is_the_plain_drawing_and_none_is_the_picture(solver, schedule):
    denoiser = Gaussian.on(schedule, 0.5, 0.7).denoiser("x0")
    x0 = torch.linspace(-3, 3, 2 * 8).view(2, 8)
    drawn = {}
    for strength in (0.0, 0.5, 1.0, None):
        spacing, init = schedule.grid(10), None
        if strength is not None:
            spacing, init = begin(x0, spacing, strength)
        drawn[strength] = sample(
            denoiser,
            (2, 8),
            schedule,
            solver,
            spacing=spacing,
            init=init,
            prediction="x0",
            seeds=[3, 4],
        )
    assert torch.equal(drawn[1.0], drawn[None])
    assert torch.equal(drawn[0.0], x0)
    assert not torch.equal(drawn[0.5], x0)


@pytest.mark.parametrize("strength", [0.2, 0.5, 0.8])
def test_image_to_image_of_a_gaussian(strength):
    """The picture a and the noise eps make x_t = alpha a + sigma eps; the flow of N(m, s^2) leads
    it to m + s z, where z is how many deviations x_t is from the mean of all x_t."""
    m, s, a = 0.5, 0.3, -2.0
    truth = Gaussian.on(COSINE, m, s)
    spacing, init = begin(torch.full((1, 500), a), COSINE.grid(500), strength)
    level = spacing[0]
    assert level.t == 1000 * strength - 1
    drawn = sample(
        truth.denoiser(),
        (1, 500),
        COSINE,
        DPMSolver(2),
        spacing=spacing,
        init=init,
        prediction="x0",
        seeds=[7],
    )
    x_t = level.alpha * a + level.sigma * noise_of(500, 7)
    z = (x_t - level.alpha * m) / truth.spread(level)
    torch.testing.assert_close(drawn[0], m + s * z, atol=2e-3, rtol=0)


def test_the_share_of_the_steps_that_is_left():
    grid = COSINE.grid(20)
    assert remaining(grid, 0) == (CLEAN,)
    assert remaining(grid, 0.35) == grid[-8:]
    assert remaining(grid, 0.001) == grid[-2:]  # something, unless it is nothing
    assert remaining(grid, 1) == grid
    for strength in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            remaining(grid, strength)


# ---- inpainting


def paint(solver, known, drawn, schedule=COSINE, steps=25, seed=5):
    """Inpaint (1, 1, h, w) with the denoiser of N(0.2, 0.6^2); returns the end and what it passed:
    the level that each x should have, and x."""
    passed = []
    grid = schedule.grid(steps)
    end = sample(
        Gaussian.on(schedule, 0.2, 0.6).denoiser("v"),
        known.shape,
        schedule,
        solver,
        spacing=grid,
        init=known,
        seeds=[seed],
        clip=Inpainting(known, drawn),
        callback=lambda step, x, x0: passed.append((grid[step + 1], x)),
    )
    return end, passed


def square(h=16):
    """A picture that no model would draw, and a mask: the inner quarter is drawn."""
    drawn = torch.zeros(1, 1, h, h, dtype=torch.bool)
    drawn[:, :, h // 4 : -h // 4, h // 4 : -h // 4] = True
    return torch.linspace(-9, 9, h * h).view(1, 1, h, h), drawn


@pytest.mark.parametrize("solver", ODE, ids=str)
@pytest.mark.parametrize("schedule", [COSINE, NoiseSchedule("flow")], ids=["cosine", "flow"])
def test_what_is_known_has_the_noise_of_the_level_that_a_step_goes_to(solver, schedule):
    """alpha_s x0 + sigma_s eps at every level s, with the eps that it began with; x0 at the end."""
    known, drawn = square()
    end, passed = paint(solver, known, drawn, schedule)
    eps = noise_of(known.shape[1:], 5)[None]
    for level, x in passed:
        error = (x - level.alpha * known - level.sigma * eps)[~drawn].abs().max()
        assert error < 2e-4
    assert torch.equal(end[~drawn], known[~drawn])
    assert end[drawn].abs().max() < 5  # the rest is drawn as the model would


@pytest.mark.parametrize("solver", SDE, ids=str)
def test_what_is_known_is_noised_as_in_the_forward_process(solver):
    """With a solver that draws noise: x_s ~ N(alpha_s x0, sigma_s^2), at the level s of each step.
    At the level before it, the deviation would be off by 4 % or more."""
    known, drawn = square(64)
    end, passed = paint(solver, known, drawn)
    n = int((~drawn).sum())
    for level, x in passed[:-1]:
        z = ((x - level.alpha * known) / level.sigma)[~drawn]
        assert abs(z.mean()) < 4 / math.sqrt(n)
        assert abs(z.std() - 1) < 4 / math.sqrt(2 * n)
    assert torch.equal(end[~drawn], known[~drawn])


@pytest.mark.parametrize("solver", [*ODE, *SDE], ids=str)
def test_what_is_known_does_not_disturb_what_is_independent_of_it(solver):
    """Of independent pixels, those to draw are drawn as if nothing were known."""
    known, drawn = square()
    end, _ = paint(solver, known, drawn)
    free, _ = paint(solver, known, torch.ones_like(drawn))
    assert torch.equal(end[drawn], free[drawn])
    assert not torch.equal(end[~drawn], free[~drawn])


RHO, KNOWN = 0.8, 1.5
COVARIANCE = torch.tensor([[1, RHO], [RHO, 1]], dtype=torch.float64)


def correlated(x, t, condition):
    """E[x0 | x_t] of two correlated pixels, N(0, COVARIANCE)."""
    level = COSINE.level(t[0].item())
    of_x = level.alpha**2 * COVARIANCE + level.sigma**2 * torch.eye(2, dtype=torch.float64)
    gain = level.alpha * COVARIANCE @ torch.linalg.inv(of_x)
    return (gain @ x.view(-1, 2, 1)).view_as(x)


def mean_of_the_unknown(solver, steps):
    """All is linear, so without noise one sees the mean over all noise."""
    known = torch.tensor([KNOWN, 0.0], dtype=torch.float64).view(1, 1, 1, 2)
    drawn = torch.tensor([False, True]).view(1, 1, 1, 2)
    end = sample(
        correlated,
        known.shape,
        COSINE,
        solver,
        steps,
        prediction="x0",
        init=known,
        noise=torch.zeros_like(known),
        clip=Inpainting(known, drawn),
        dtype=torch.float64,
    )
    assert end[0, 0, 0, 0] == KNOWN
    return end[0, 0, 0, 1].item()


def test_inpainting_of_a_correlated_gaussian():
    """What the method comes to, integrated by another program; and that it is of use.

    It is exact where the unknown is independent of what is known, and no further: each step sees
    what is known through the noise of its level, and what was decided early on is never taken back.
    So the mean moves from 0, which is chance, towards the right one, and does not reach it. (That
    of a solver with noise comes nearer, .75 of 1.2 here: noise lets it change its mind.)
    """

    def slope(t, b):  # of b / alpha by k = sigma / alpha, which is eps, over t
        level, step = COSINE.level(t), 1e-3
        ahead, behind = COSINE.level(t + step), COSINE.level(t - step)
        dk = (ahead.sigma / ahead.alpha - behind.sigma / behind.alpha) / (2 * step)
        x = torch.tensor([level.alpha * KNOWN, level.alpha * b[0]], dtype=torch.float64)
        x0 = correlated(x.view(1, 1, 1, 2), torch.tensor([t]), None).view(2)[1].item()
        return [(level.alpha * b[0] - level.alpha * x0) / level.sigma * dk]

    found = solve_ivp(slope, (998.99, 0.01), [0.0], rtol=1e-6, atol=1e-8)
    limit, right = found.y[0, -1], RHO * KNOWN
    errors = [abs(mean_of_the_unknown(DDIM(), n) - limit) for n in (125, 500)]
    assert errors[1] < errors[0] / 2
    assert errors[1] < 0.003
    assert abs(limit - right) < 0.6 * right


# ---- resampling


def test_a_grid_is_walked_as_in_algorithm_1():
    """Each step but the last `times` times, from noise to clean data; jumps lead back j steps."""
    a, b, c, d = COSINE.grid(4)[:-1]
    assert passages((a, b, c, CLEAN), 2) == [(a, b), (a, b), (b, c), (b, c, CLEAN)]
    assert passages((a, b, c, d, CLEAN), 2, jump=2) == [
        *((a, b, c), (a, b, c)),
        *((c, d), (c, d, CLEAN)),
    ]
    assert passages((a, b, c, CLEAN), 1, jump=9) == [(a, b, c, CLEAN)]
    assert passages((a, CLEAN), 7) == [(a, CLEAN)]
    assert passages((CLEAN,), 7) == [(CLEAN,)]
    for times, jump in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least one"):
            passages((a, b, CLEAN), times, jump)


@pytest.mark.parametrize("schedule", [COSINE, NoiseSchedule("flow")], ids=["cosine", "flow"])
def test_the_way_up_is_that_of_the_forward_process(schedule):
    """x_s = alpha_s a + sigma_s eps becomes alpha_t a + sigma_t (normal noise), t above s."""
    for t, s in ((999, 500), (500, 499), (40, 3)):
        at, of = schedule.level(float(t)), schedule.level(float(s))
        moved = noised_up(torch.tensor([of.alpha, of.sigma]), of, at, torch.zeros(2))
        noise = noised_up(torch.zeros(1), of, at, torch.ones(1))
        assert moved[0].item() == pytest.approx(at.alpha, abs=1e-6)
        assert math.hypot(moved[1].item(), noise.item()) == pytest.approx(at.sigma, abs=1e-6)


def pairs(solver, times, steps=25, jump=1, n=4000, **more):
    """Of n pairs of correlated pixels the second ones, drawn beside the known first ones."""
    known = torch.tensor([KNOWN, 0.0], dtype=torch.float64).expand(1, 1, n, 2)
    return resample(
        correlated,
        known.shape,
        COSINE,
        solver,
        spacing=COSINE.grid(steps),
        times=times,
        jump=jump,
        seeds=[0],
        prediction="x0",
        clip=Inpainting(known, torch.tensor([False, True]).expand(1, 1, n, 2)),
        dtype=torch.float64,
        **more,
    )[0, 0, :, 1]


@pytest.mark.parametrize(
    ("solver", "jump"), [(DDIM(), 1), (DDPM("large"), 1), (DPMSolver(2), 3)], ids=str
)
def test_resampling_leads_to_the_conditional_distribution(solver, jump):
    """That of the unknown is N(RHO KNOWN, 1 - RHO^2), if the other is KNOWN. Each resampling
    brings mean and spread nearer to it."""
    drawn = [pairs(solver, times, jump=jump) for times in (1, 5, 25)]
    means = [abs(each.mean().item() - RHO * KNOWN) for each in drawn]
    spreads = [abs(each.std().item() - math.sqrt(1 - RHO**2)) for each in drawn]
    assert means[1] < means[0] / 2
    assert means[2] < means[1] / 2
    assert means[2] < 0.08
    assert spreads[2] < 0.06


@pytest.mark.parametrize("solver", [*ODE, *SDE], ids=str)
def test_once_is_the_plain_drawing(solver):
    """In one part; it starts from the same noise as sample(), and counts the same steps."""
    seen = []
    end = pairs(solver, 1, steps=6, jump=6, n=5, callback=lambda step, x, x0: seen.append(step))
    known = torch.tensor([KNOWN, 0.0], dtype=torch.float64).expand(1, 1, 5, 2)
    plain = sample(
        correlated,
        known.shape,
        COSINE,
        solver,
        6,
        seeds=[0],
        prediction="x0",
        clip=Inpainting(known, torch.tensor([False, True]).expand(1, 1, 5, 2)),
        dtype=torch.float64,
    )
    assert torch.equal(end, plain[0, 0, :, 1])
    assert seen == list(range(6))


@pytest.mark.parametrize("solver", [DDIM(), Heun(), DDPM()], ids=str)
def test_what_is_known_has_the_noise_of_its_level_each_time(solver):
    known, drawn = square(64)
    passed, grid = [], COSINE.grid(10)
    end = resample(
        Gaussian.on(COSINE, 0.2, 0.6).denoiser("v"),
        known.shape,
        COSINE,
        solver,
        spacing=grid,
        times=3,
        init=known,
        seeds=[5],
        clip=Inpainting(known, drawn),
        callback=lambda step, x, x0: passed.append((step, x)),
    )
    levels = [level for level in grid[1:-1] for _ in range(3)] + [CLEAN]
    assert [step for step, _ in passed] == list(range(len(levels)))
    n, found = int((~drawn).sum()), []
    for (_, x), level in zip(passed[:-1], levels[:-1], strict=True):
        z = ((x - level.alpha * known) / level.sigma)[~drawn]
        assert abs(z.mean()) < 4 / math.sqrt(n)
        assert abs(z.std() - 1) < 4 / math.sqrt(2 * n)
        found.append(z)
    assert torch.equal(end[~drawn], known[~drawn])
    assert (found[-1] - found[0]).std() > 0.5  # and is other noise than at the start


def test_each_sample_follows_from_its_seed():
    def ends(seeds):
        return resample(
            Gaussian.on(COSINE, 0.2, 0.6).denoiser("v"),
            (len(seeds), 8),
            COSINE,
            DDPM(),
            spacing=COSINE.grid(5),
            times=2,
            seeds=seeds,
        )

    both = ends([3, 4])
    torch.testing.assert_close(both[0], ends([3])[0])
    torch.testing.assert_close(both[1], ends([4])[0])
    assert not torch.equal(both[0], both[1])


@pytest.mark.parametrize(("h", "w", "size"), [(16, 16, (4, 4)), (17, 23, (4, 5)), (3, 3, (8, 8))])
def test_no_cell_that_stays_holds_a_pixel_that_is_drawn(h, w, size):
    for place in range(h * w):
        mask = torch.zeros(1, 1, h, w)
        mask.view(-1)[place] = 1
        cells = cells_to_draw(mask, size)[0, 0]
        row, column = divmod(place, w)
        for i in range(size[0]):
            for j in range(size[1]):
                # the pixel covers [row, row + 1), the cell [i h / n, (i + 1) h / n)
                over = row < (i + 1) * h / size[0] and row + 1 > i * h / size[0]
                across = column < (j + 1) * w / size[1] and column + 1 > j * w / size[1]
                assert cells[i, j] == (over and across)
