"""Schedules and grids against closed forms, inverses and the definitions of the papers."""

import itertools
import json
import math
import warnings
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tinyldm.diffusion.schedule import CLEAN, SPACINGS, Level, NoiseSchedule
from tinyldm.errors import InputError
from tinyldm.typed import as_type

SCHEDULES = [
    NoiseSchedule(kind, zero_snr=z)
    for kind in ("linear", "scaled_linear", "cosine")
    for z in (False, True)
]
COSINE = NoiseSchedule()


def test_linear_has_the_published_ends():
    s = NoiseSchedule("linear")
    assert 1 - s.alpha_bar[0].item() == pytest.approx(1e-4)
    assert 1 - (s.alpha_bar[-1] / s.alpha_bar[-2]).item() == pytest.approx(0.02)
    # the log of a product of 1 - beta, betas in a line: the integral of log(1 - beta), the
    # trapezoid rule made exact
    a, b = 1 - 1e-4, 1 - 0.02
    integral = (b * math.log(b) - b - a * math.log(a) + a) / (b - a) * 999 + 0.5 * (
        math.log(a) + math.log(b)
    )
    assert s.alpha_bar[-1].log().item() == pytest.approx(integral, rel=1e-6)


def test_scaled_linear_is_a_line_in_the_root_of_beta():
    ab = NoiseSchedule("scaled_linear").alpha_bar
    root = torch.cat([1 - ab[:1], 1 - ab[1:] / ab[:-1]]).sqrt()
    assert torch.allclose(root.diff(), root.diff().mean().expand(999), rtol=1e-6)
    assert root[0].item() ** 2 == pytest.approx(0.00085)
    assert root[-1].item() ** 2 == pytest.approx(0.012)


def test_cosine_is_a_cosine_where_betas_are_not_clipped():
    k = torch.arange(990, dtype=torch.float64)
    angle = COSINE.alpha_bar[:990].sqrt() * math.cos(0.008 / 1.008 * math.pi / 2)
    assert torch.allclose(angle.acos(), ((k + 1) / 1000 + 0.008) / 1.008 * math.pi / 2, atol=1e-9)


@pytest.mark.parametrize("s", SCHEDULES, ids=str)
def test_schedule_is_monotone_and_invertible(s):
    t = torch.linspace(0, 999, 5000, dtype=torch.float64)
    lam = s.lambda_(t)
    assert (lam.diff() < 0).all()
    assert s.alpha_bar.dtype == torch.float64
    assert torch.allclose(s.t_of_lambda(lam), t, atol=1e-6)
    level = s.level(t)
    assert torch.allclose(level.alpha**2 + level.sigma**2, torch.ones_like(t), atol=1e-15)
    assert torch.allclose(s.level(torch.arange(1000)).alpha ** 2, s.alpha_bar, atol=1e-15)
    finite = lam.isfinite()
    assert torch.allclose((level.alpha / level.sigma).log()[finite], lam[finite], atol=1e-9)


def test_timesteps_outside_the_table_are_refused():
    for t in (-1, 1000, 999.5):
        with pytest.raises(ValueError, match="999"):
            COSINE.lambda_(t)


def test_levels_of_floats_and_of_tensors_agree():
    t = torch.tensor([0, 500, 999])
    batch = COSINE.level(t).like(torch.zeros(3, 2, 4, 4, dtype=torch.bfloat16))
    assert batch.alpha.shape == (3, 1, 1, 1)
    assert batch.alpha.dtype == torch.float32
    for k, one in enumerate(map(COSINE.level, t.tolist())):
        assert isinstance(one.alpha, float)
        assert batch.alpha[k].item() == pytest.approx(one.alpha)
        assert batch.sigma[k].item() == pytest.approx(one.sigma)
        assert one.lambda_ == pytest.approx(COSINE.lambda_(t[k]).item())
        assert one.alpha**2 == pytest.approx(COSINE.alpha_bar[t[k]].item())
    back = Level.of_sigma(3.0, 2.5)
    assert back.sigma / back.alpha == pytest.approx(2.5)
    assert back.alpha**2 + back.sigma**2 == pytest.approx(1)
    assert CLEAN.lambda_ == math.inf
    assert NoiseSchedule(zero_snr=True).level(999).lambda_ == -math.inf


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "cosine"])
def test_pitfall_02_grids(spacing, kind):
    s = NoiseSchedule(kind)
    counts = range(1, 1001) if kind == "cosine" else (1, 2, 5, 13, 53, 61, 103, 999, 1000)
    for n in counts:
        grid = s.grid(n, spacing)
        ts = [level.t for level in grid[:-1]]
        assert len(ts) == n == len(set(ts))
        assert grid[-1] == CLEAN
        assert all(a > b for a, b in itertools.pairwise(ts))
        assert ts[-1] >= 0
        assert ts[0] <= 999
        assert all(a.alpha < b.alpha and a.sigma > b.sigma for a, b in itertools.pairwise(grid))
    for n in (0, -3, 1001):
        with pytest.raises(ValueError, match="between 1 and 1000"):
            s.grid(n, spacing)


def test_grids_of_2305_08891_table_2():
    assert (
        [level.t for level in COSINE.grid(4)]
        == [999, 749, 499, 249, -1]
        == [*(np.round(np.arange(1000, 0, -250)) - 1), -1]
    )
    assert [level.t for level in COSINE.grid(4, "leading")] == [750, 500, 250, 0, -1]
    assert [level.t for level in COSINE.grid(4, "linspace")] == [999, 666, 333, 0, -1]
    assert all(COSINE.grid(n)[0].t == 999 for n in range(1, 1001))


@pytest.mark.parametrize("n", [5, 20, 79, 100])
def test_pitfall_03_cosine_with_karras_spacing(n):
    levels = COSINE.grid(n, "karras")[:-1]
    sigmas = np.array([level.sigma / level.alpha for level in levels])
    assert len(set(sigmas)) == n
    assert np.isfinite(sigmas).all()
    # 2206.00364, eq. 5: a line in sigma^(1/7), from the schedule's largest to its smallest
    assert np.allclose(np.diff(sigmas ** (1 / 7)), np.diff(sigmas ** (1 / 7)).mean())
    ends = (-COSINE.lambda_(torch.tensor([999, 0]))).exp().numpy()
    assert np.allclose(sigmas[[0, -1]], ends)
    for level in levels:  # the timestep that the network is told has that much noise
        assert COSINE.lambda_(level.t).item() == pytest.approx(level.lambda_, abs=1e-6)


@pytest.mark.parametrize("n", [1, 2, 7, 30, 1000])
@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "cosine"])
def test_logsnr_is_even_in_lambda(kind, n):
    """From the schedule's own alpha_bar, with numpy alone: even lambdas from the last level to the
    first, and the times at which straight lines between the levels reach them."""
    schedule = NoiseSchedule(kind)
    bar = np.cumprod(1 - schedule.betas.numpy())
    lambdas = np.log(bar / (1 - bar)) / 2
    even = lambdas[-1] + np.arange(n) / max(n - 1, 1) * (lambdas[0] - lambdas[-1])
    times = np.interp(even, lambdas[::-1], np.arange(1000)[::-1])
    grid = schedule.grid(n, "logsnr")
    assert grid[-1] == CLEAN
    assert np.allclose([level.lambda_ for level in grid[:-1]], even, atol=1e-8)
    assert np.allclose([level.t for level in grid[:-1]], times, atol=1e-6)


@pytest.mark.parametrize("n", [2, 3, 7, 30, 1000])
@pytest.mark.parametrize(
    "schedule",
    [NoiseSchedule("flow"), NoiseSchedule("flow", shift=0.3), *SCHEDULES[1::2]],
    ids=str,
)
def test_logsnr_from_pure_noise(schedule, n):
    """alpha / sigma + n^-2 is a geometric sequence, from pure noise to the first level."""
    *levels, end = schedule.grid(n, "logsnr")
    assert end == CLEAN
    assert (levels[0].t, levels[0].alpha, levels[0].sigma) == (999, 0, 1)
    assert levels[-1].t == pytest.approx(0, abs=1e-6)
    shown = np.log([level.alpha / level.sigma + n**-2.0 for level in levels])
    assert np.allclose(np.diff(shown), (shown[-1] - shown[0]) / (n - 1), atol=1e-8)
    for level in levels:
        assert schedule.level(level.t).alpha == pytest.approx(level.alpha, abs=1e-12)


def test_karras_needs_a_finite_sigma():
    with pytest.raises(ValueError, match="zero_snr"):
        NoiseSchedule(zero_snr=True).grid(5, "karras")
    with pytest.raises(ValueError, match="unknown spacing"):
        COSINE.grid(5, "uniform")


def test_grid_of_any_timesteps():
    grid = COSINE.levels([900, 500.5, 3])
    assert [level.t for level in grid] == [900, 500.5, 3, -1]
    assert COSINE.level(501).alpha < grid[1].alpha < COSINE.level(500).alpha
    with pytest.raises(ValueError, match="decreasing"):
        COSINE.levels([5, 5, 1])


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "cosine"])
def test_pitfall_15_zero_terminal_snr(kind):
    plain, zero = NoiseSchedule(kind), NoiseSchedule(kind, zero_snr=True)
    assert zero.alpha_bar[-1] == 0
    assert zero.alpha_bar[0].item() == pytest.approx(plain.alpha_bar[0].item())
    # algorithm 1 is affine in alpha: ratios of differences survive it
    a, b = plain.alpha_bar.sqrt(), zero.alpha_bar.sqrt()
    assert torch.allclose(
        (a[100:] - a[-1]) / (a[0] - a[-1]), (b[100:] - b[-1]) / (b[0] - b[-1]), atol=1e-12
    )


def test_pitfall_18_a_schedule_that_leaves_signal_warns():
    with pytest.warns(UserWarning, match="250 levels keeps 28% of the signal"):
        NoiseSchedule("linear", 250)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in ("linear", "scaled_linear", "cosine"):
            NoiseSchedule(kind)
        NoiseSchedule("cosine", 50)
        NoiseSchedule("linear", 250, zero_snr=True)


@st.composite
def schedules(draw):
    """A schedule with any settings; many leave signal, which is warned of."""
    kind = draw(st.sampled_from(["linear", "scaled_linear", "cosine"]))
    ends = (
        {}
        if kind == "cosine"
        else {end: draw(st.floats(1e-6, 0.9)) for end in ("beta_start", "beta_end")}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return NoiseSchedule(
            kind,
            draw(st.integers(2, 60)),
            **ends,
            zero_snr=draw(st.booleans()),
            shift=draw(st.floats(0.1, 2)),
        )


@given(schedules(), st.data())
def test_any_schedule_is_monotone_and_invertible(s, data):
    t = torch.linspace(0, s.timesteps - 1, 7 * s.timesteps, dtype=torch.float64)
    lam, level = s.lambda_(t), s.level(t)
    assert (s.alpha_bar.diff() < 0).all()
    assert s.alpha_bar[-1] >= 0
    assert s.alpha_bar[0] < 1
    assert (lam.diff() < 0).all()
    assert lam[:-1].isfinite().all()
    assert torch.allclose(s.t_of_lambda(lam), t, atol=1e-5)
    assert (level.alpha.diff() < 0).all()
    assert (level.sigma.diff() >= 0).all()
    assert torch.allclose(level.alpha**2 + level.sigma**2, torch.ones_like(t), atol=1e-14)
    n, spacing = data.draw(st.integers(1, s.timesteps)), data.draw(st.sampled_from(SPACINGS))
    if not (spacing == "karras" and s.zero_snr):
        grid = s.grid(n, spacing)
        assert len(grid) == n + 1 == len({level.t for level in grid})
        assert grid[-1] == CLEAN
        assert all(a.t > b.t and a.lambda_ < b.lambda_ for a, b in itertools.pairwise(grid))


@given(
    st.sampled_from(["linear", "scaled_linear"]),
    st.integers(3, 60),
    st.floats(1e-6, 0.9),
    st.floats(1e-6, 0.9),
)
@pytest.mark.filterwarnings("ignore:the last of the")
def test_any_betas_lie_on_a_line_between_their_ends(kind, timesteps, start, end):
    ab = NoiseSchedule(kind, timesteps, start, end).alpha_bar.numpy()
    betas = 1 - ab / np.concatenate([[1], ab[:-1]])  # what each level adds to the one before
    assert betas[[0, -1]] == pytest.approx([start, end], rel=1e-6)
    line = betas if kind == "linear" else np.sqrt(betas)
    assert np.allclose(np.diff(line, n=2), 0, atol=1e-7)


@pytest.mark.parametrize(
    ("kind", "zero_snr"),
    [
        ("linear", False),
        ("scaled_linear", False),
        ("cosine", False),
        ("linear", True),
        ("cosine", True),
    ],
)
def test_tables_of_diffusers(kind, zero_snr):
    diffusers = pytest.importorskip("diffusers")
    s = NoiseSchedule(kind, zero_snr=zero_snr)
    theirs = diffusers.DDIMScheduler(
        beta_schedule={"cosine": "squaredcos_cap_v2"}.get(kind, kind),
        rescale_betas_zero_snr=zero_snr,
        **{} if kind == "cosine" else {"beta_start": s.beta_start, "beta_end": s.beta_end},
    ).alphas_cumprod
    assert torch.allclose(
        s.alpha_bar, theirs.double(), rtol=1e-3, atol=1e-6
    )  # theirs are float32 products


def test_schedule_is_a_value():
    assert NoiseSchedule("linear") == NoiseSchedule("linear", beta_start=1e-4, beta_end=0.02)
    assert (
        NoiseSchedule("linear")
        != NoiseSchedule("linear", zero_snr=True)
        != NoiseSchedule("cosine", zero_snr=True)
    )
    assert len({COSINE, NoiseSchedule(), NoiseSchedule("linear")}) == 2
    for s in SCHEDULES:
        assert as_type(json.loads(json.dumps(asdict(s))), "schedule", NoiseSchedule) == s
    with pytest.raises(InputError, match="schedule: unknown key 'beta_max'"):
        as_type({"kind": "linear", "beta_max": 1}, "schedule", NoiseSchedule)
    with pytest.raises(Exception, match="kind"):
        COSINE.kind = "linear"


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "sigmoid"},
        {"kind": "cosine", "beta_end": 0.02},
        {"timesteps": 1},
        {"kind": "linear", "beta_end": 1.5},
        {"kind": "linear", "beta_start": 0.0},
    ],
)
def test_impossible_schedules_are_refused(fields):
    with pytest.raises(
        ValueError, match=r"unknown schedule|belong to the linear|at least 2 timesteps"
    ):
        NoiseSchedule(**fields)


@pytest.mark.parametrize("kind", ["cosine", "linear", "scaled_linear"])
def test_shift_multiplies_the_ratio_of_signal_to_noise(kind):
    """2301.11093: log(alpha / sigma) moves by log(shift) at every t, as averaging over 1/shift^2
    pixels would do."""
    plain, shifted, t = NoiseSchedule(kind), NoiseSchedule(kind, shift=0.5), torch.arange(1000)
    assert torch.allclose(shifted.lambda_(t), plain.lambda_(t) - math.log(2), rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match="shift is a factor above 0, got 0"):
        NoiseSchedule(kind, shift=0)
