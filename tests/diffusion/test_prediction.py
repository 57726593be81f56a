"""Conversions against their inverses and the geometry of v."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tinyldm.diffusion.prediction import PREDICTIONS, check_prediction, eps_of, target, to_x0_eps
from tinyldm.diffusion.schedule import Level, NoiseSchedule

angles = st.floats(0.01, math.pi / 2 - 0.01)  # x_t = size (cos(angle) x0 + sin(angle) eps)
sizes = st.one_of(st.just(1.0), st.floats(0.3, 3))  # 1 where variance is preserved


def pair(dtype=torch.float64):
    return torch.randn(2, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.mark.parametrize("kind", PREDICTIONS)
@given(angle=angles, size=sizes)
def test_pitfall_17_conversions_invert_each_other(kind, angle, size):
    x0, eps = pair()
    level = Level(0, size * math.cos(angle), size * math.sin(angle))
    x_t = level.alpha * x0 + level.sigma * eps
    found = to_x0_eps(target(x0, eps, level, kind), x_t, level, kind)
    assert torch.allclose(found[0], x0, atol=1e-12)
    assert torch.allclose(found[1], eps, atol=1e-12)
    assert torch.allclose(eps_of(x0, x_t, level), eps, atol=1e-12)


@pytest.mark.parametrize("kind", PREDICTIONS)
@given(angle=angles, size=sizes)
def test_pitfall_17_any_answer_means_one_pair(kind, angle, size):
    """Whatever a network says, the x0 and eps that it means make up x_t, and would have been
    answered so."""
    said, x_t = pair()
    level = Level(0, size * math.cos(angle), size * math.sin(angle))
    x0, eps = to_x0_eps(said, x_t, level, kind)
    assert torch.allclose(level.alpha * x0 + level.sigma * eps, x_t, atol=1e-12)
    assert torch.allclose(target(x0, eps, level, kind), said, atol=1e-12)


@given(angle=angles)
def test_v_is_the_velocity_of_the_rotation(angle):
    x0, eps = pair()

    def x(a):
        return math.cos(a) * x0 + math.sin(a) * eps

    v = target(x0, eps, Level(0, math.cos(angle), math.sin(angle)), "v")
    assert torch.allclose(v, (x(angle + 1e-5) - x(angle - 1e-5)) / 2e-5, atol=1e-8)


def test_tensor_levels_convert_each_sample_by_its_own():
    x0, eps = pair(torch.float32)
    t = torch.tensor([3, 500, 998])
    schedule = NoiseSchedule()
    v = target(x0, eps, schedule.level(t).like(x0), "v")
    for k in range(3):
        assert torch.allclose(
            v[k], target(x0[k], eps[k], schedule.level(t[k].item()), "v"), atol=1e-6
        )


def test_pitfall_15_eps_is_refused_at_zero_terminal_snr():
    with pytest.raises(ValueError, match="zero_snr"):
        check_prediction("eps", NoiseSchedule(zero_snr=True))
    for kind in ("v", "x0"):
        check_prediction(kind, NoiseSchedule(zero_snr=True))
        found = to_x0_eps(
            torch.ones(1), torch.full((1,), 2.0), NoiseSchedule(zero_snr=True).level(999), kind
        )
        assert all(part.isfinite().all() for part in found)
        assert found[1] == 2
    with pytest.raises(ValueError, match="unknown prediction"):
        check_prediction("epsilon", NoiseSchedule())
    with pytest.raises(ValueError, match="unknown prediction"):
        to_x0_eps(torch.ones(1), torch.ones(1), NoiseSchedule().level(3), "epsilon")
