"""Consistency models of Gaussian data, for which the consistency function is known.

The flow keeps the quantile, so x_t = alpha m + hypot(alpha s, sigma) z leads to m + s z. Hence
f(x_t, t) = m + s (x_t - alpha m) / hypot(alpha s, sigma), for any alpha and sigma.
"""

import copy
import math

import pytest
import torch
from torch import nn

from tinyldm.condition import Condition
from tinyldm.diffusion.ddim import DDIM
from tinyldm.diffusion.guidance import Guidance
from tinyldm.diffusion.loss import draw_noise
from tinyldm.diffusion.prediction import to_x0_eps
from tinyldm.diffusion.sampler import sample
from tinyldm.diffusion.schedule import NoiseSchedule
from tinyldm.methods.consistency import ConsistencyLoss, ConsistencySolver

MEAN, STD = 0.7, 0.4
SCHEDULES = [
    NoiseSchedule("cosine"),
    NoiseSchedule("cosine", shift=0.5),
    NoiseSchedule("linear", zero_snr=True),
    NoiseSchedule("flow"),
]
KINDS = ("v", "flow", "x0")


def spread(level, std):
    return (level.alpha**2 * std**2 + level.sigma**2) ** 0.5


def consistent(x, level, mean=MEAN, std=STD):
    """f(x_t, t), in closed form."""
    return mean + std * (x - level.alpha * mean) / spread(level, std)


def denoised(x, level, mean=MEAN, std=STD):
    """E[x0 | x_t], by the formula for two Gaussians."""
    return mean + level.alpha * std**2 / spread(level, std) ** 2 * (x - level.alpha * mean)


def as_denoiser(x0_of, schedule, kind, **of):
    """What x0_of(x, level) sees, as a denoiser that predicts `kind`."""

    def denoiser(x, t, condition):
        level = schedule.level(t.double())
        shape = (-1,) + (1,) * (x.ndim - 1)
        level = type(level)(t, level.alpha.view(shape), level.sigma.view(shape))
        x0 = x0_of(x.double(), level, **of)
        eps = (x.double() - level.alpha * x0) / level.sigma
        v = level.alpha * eps - level.sigma * x0
        return {"x0": x0, "v": v, "flow": eps - x0}[kind]

    return denoiser


# ---- drawing


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_one_step_leads_where_the_flow_leads(schedule, kind):
    noise = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    how = {"prediction": kind, "noise": noise, "dtype": torch.float64}
    one = as_denoiser(consistent, schedule, kind)
    drawn = sample(one, noise.shape, schedule, ConsistencySolver(), 1, **how)
    slow = as_denoiser(denoised, schedule, kind)
    flowed = sample(slow, noise.shape, schedule, DDIM(), schedule.timesteps, **how)
    assert (drawn - flowed).abs().max() < 0.01
    assert (drawn - noise).abs().max() > 0.3


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_any_number_of_steps_draws_the_data(schedule, steps):
    """Other noise in each step: its x0 is forgotten more and more, its distribution is not."""
    n = 40_000
    f = as_denoiser(consistent, schedule, "v")
    torch.manual_seed(1)
    noise = torch.randn(1, n)  # one sample of n dimensions, whose noise one generator draws
    drawn = sample(f, (1, n), schedule, ConsistencySolver(), steps, noise=noise, seeds=[3])
    assert abs(drawn.mean() - MEAN) < 5 * STD / n**0.5
    assert abs(drawn.std() - STD) < 5 * STD / (2 * n) ** 0.5
    alone = consistent(noise, schedule.level(float(schedule.timesteps - 1)))
    kept = torch.corrcoef(torch.cat([alone, drawn]))[0, 1]
    assert kept > 0.999 if steps == 1 else kept < 0.9


def test_a_step_without_noise_is_refused():
    level = SCHEDULES[0].level(5.0)
    with pytest.raises(ValueError, match="needs noise"):
        ConsistencySolver().step(torch.ones(1), torch.ones(1), torch.ones(1), level, level)


# ---- the loss


def loss_of(f, schedule, kind="v", steps=100, teacher=True, c=0.0, n=2000, seed=0):
    """The mean loss of a denoiser on Gaussian data, with steps of T / `steps`."""
    generator = torch.Generator().manual_seed(seed)
    x0 = MEAN + STD * torch.randn(n, 4, generator=generator)
    noised = draw_noise(x0, schedule, generator)
    frozen = as_denoiser(denoised, schedule, kind) if teacher else None
    loss = ConsistencyLoss(schedule, kind, frozen, first=steps, last=steps, c=c)
    return loss(f, noised, None, 0.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_the_loss_of_the_consistency_function_is_the_error_of_a_teachers_step(schedule, kind):
    """DDIM's error in one step is of second order; a denoiser is no consistency function."""
    f = as_denoiser(consistent, schedule, kind)
    coarse, fine = (loss_of(f, schedule, kind, n).median() for n in (25, 50))
    assert 3 < coarse / fine < 5
    other = as_denoiser(denoised, schedule, kind)
    coarse, fine = (loss_of(other, schedule, kind, n).median() for n in (25, 50))
    assert 1.5 < coarse / fine < 2.5


@pytest.mark.parametrize("teacher", [True, False], ids=["teacher", "data"])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_the_loss_has_its_minimum_at_the_consistency_function(schedule, teacher):
    """Of f_q, which leads to N(m, q^2) and is consistent for q = s, the gradient vanishes there.

    c is large, so that the loss is the square distance, whose mean the noise of data leaves alone.
    """

    def slope(q):
        q = torch.tensor(q, dtype=torch.float64, requires_grad=True)
        f = as_denoiser(consistent, schedule, "v", std=q)
        how = {"steps": 250, "teacher": teacher, "c": 100.0, "n": 20_000}
        (gradient,) = torch.autograd.grad(loss_of(f, schedule, **how).mean(), q)
        return gradient.item()

    low, high = 0.5 * STD, 2 * STD
    assert slope(low) < 0 < slope(high)
    for _ in range(7):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    assert abs(low / STD - 1) < 0.04


class Small(nn.Module):
    """A network of two thousand weights that predicts v of numbers, with dropout if asked for."""

    def __init__(self, dropout=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Linear(4, 32), nn.SiLU(), nn.Dropout(dropout), nn.Linear(32, 32), nn.SiLU()
        )
        self.out = nn.Linear(32, 1)

    def forward(self, x, t, condition):
        angle = math.pi / 2 * (t.view(-1, 1).to(x) + 1) / 1000
        asked = torch.zeros(len(x), 1) if condition is None else condition.vector
        seen = torch.cat([x, angle.cos(), angle.sin(), asked], 1)
        return self.out(self.layers(seen))


@pytest.mark.parametrize("teacher", [True, False], ids=["guided teacher", "data"])
def test_a_small_network_learns_the_consistency_function(teacher):
    """Under condition y, the data is N(y, s^2). Then the guided flow is that of N(w y, s^2).

    Without a teacher, the target has the noise of the data, whose mean the square distance keeps.
    """
    schedule, scale = NoiseSchedule("cosine"), 2.0
    generator = torch.Generator().manual_seed(0)

    def conditional(x, t, condition):
        mean = condition.vector.double()
        return as_denoiser(denoised, schedule, "v", mean=mean)(x, t, None)

    guided = Guidance(scale, Condition(vector=torch.zeros(1, 1)))(conditional) if teacher else None
    loss = ConsistencyLoss(schedule, "v", guided, first=2, last=32, c=0.01 if teacher else 1.0)
    network = Small()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=0.0)
    steps = 500
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / steps)
        y = 0.6 * (2 * torch.rand(256, 1, generator=generator) - 1)
        x0 = y + STD * torch.randn(256, 1, generator=generator)
        noised = draw_noise(x0, schedule, generator)
        optimizer.zero_grad()
        loss(network, noised, Condition(vector=y), step / steps).mean().backward()
        optimizer.step()

    y = torch.linspace(-0.5, 0.5, 11).repeat_interleave(11)[:, None]
    z = torch.linspace(-1.5, 1.5, 11).repeat(11)[:, None]
    mean = scale * y if teacher else y
    with torch.no_grad():
        for t in (999.0, 700.0, 400.0):
            level = schedule.level(t)
            x_t = level.alpha * mean + spread(level, STD) * z
            seen = network(x_t, torch.full((len(y),), t), Condition(vector=y))
            f, _ = to_x0_eps(seen, x_t, level, "v")
            assert (f - (mean + STD * z)).square().mean() ** 0.5 < 0.08


def test_both_calls_have_the_same_dropout_and_the_teacher_has_none_of_it():
    schedule = NoiseSchedule("cosine")
    drawn = []

    def denoiser(x, t, condition):
        drawn.append(torch.rand(3))
        return x

    def teacher(x, t, condition):
        torch.rand(5)
        return x

    for frozen in (None, teacher):
        drawn.clear()
        torch.manual_seed(5)
        noised = draw_noise(torch.ones(2, 1), schedule, torch.Generator().manual_seed(0))
        ConsistencyLoss(schedule, "v", frozen)(denoiser, noised, None, 0.5)
        assert len(drawn) == 2
        assert torch.equal(*drawn)


def test_no_gradient_flows_through_the_target_or_the_teacher():
    schedule = NoiseSchedule("cosine")
    noised = draw_noise(torch.ones(8, 1), schedule, torch.Generator().manual_seed(0))
    network, teacher = Small(), Small().requires_grad_(True)
    loss = ConsistencyLoss(schedule, "v", teacher, first=4, last=4)
    loss(network, noised, None, 0.0).mean().backward()
    assert all(p.grad is None for p in teacher.parameters())
    fixed = copy.deepcopy(network)

    def half(x, t, condition):  # the target by a copy, the prediction by the network itself
        return (network if torch.is_grad_enabled() else fixed)(x, t, condition)

    expected = [p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    loss(half, noised, None, 0.0).mean().backward()
    assert all(map(torch.equal, expected, [p.grad for p in network.parameters()]))
    assert all(p.grad is None for p in fixed.parameters())


def test_steps_become_shorter_and_are_those_of_the_grid():
    schedule = NoiseSchedule("cosine")
    loss = ConsistencyLoss(schedule, first=2, last=8)
    for progress, n in ((0.0, 2), (0.5, 4), (1.0, 8)):
        visited, t = [], torch.tensor([999])
        while True:
            visited.append(t.item())
            t, clean = loss.earlier(t, progress)
            if clean:
                break
        assert visited == pytest.approx([level.t for level in schedule.grid(n)[:-1]], abs=0.5)


def test_at_clean_data_the_target_is_x0_itself():
    """With one step, the loss of data is that of a denoiser, in x0."""
    schedule = NoiseSchedule("cosine")
    x0 = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    noised = draw_noise(x0, schedule, torch.Generator().manual_seed(1))
    loss = ConsistencyLoss(schedule, "x0", None, first=1, last=1, c=0.0)
    found = loss(lambda x, t, c: torch.full_like(x, 0.3), noised, None, 0.0)
    weight = 1000 / (noised.t + 1)
    assert found == pytest.approx((x0 - 0.3).square().mean(1).sqrt() * weight, rel=1e-5)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"prediction": "eps"}, "eps prediction can't become a consistency function"),
        ({"first": 0.5}, "expected 1 <= first <= last <= 1000"),
        ({"first": 9, "last": 8}, "expected 1 <= first <= last <= 1000"),
    ],
)
def test_what_cannot_be_learned_is_refused(how, said):
    with pytest.raises(ValueError, match=said):
        ConsistencyLoss(NoiseSchedule("cosine"), **how)
