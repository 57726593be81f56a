"""UniPC, Heun and FlowMatchEuler against diffusers, whole trajectories in double precision."""

import itertools

import pytest
import torch
from doubled import make_double
from test_more_schedulers import PREDICTIONS, SCHEDULES, SPACINGS, assert_same, ends, network

from tinyldm import compat

diffusers = pytest.importorskip("diffusers")
from diffusers.schedulers import (  # noqa: E402 - only where diffusers is there
    scheduling_flow_match_euler_discrete,
    scheduling_heun_discrete,
    scheduling_unipc_multistep,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:the last of the", "ignore:.*deprecated", "ignore:__array__"
)


@pytest.fixture(autouse=True)
def double(monkeypatch):
    make_double(
        monkeypatch,
        scheduling_flow_match_euler_discrete,
        scheduling_heun_discrete,
        scheduling_unipc_multistep,
    )


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc(schedule, prediction, order):
    for spacing, n, last, lower in itertools.product(
        SPACINGS, (3, 10, 17), ("zero", "sigma_min"), (True, False)
    ):
        if last == "zero" and not lower and order > 1:
            continue  # its formulas take the infinite step to clean data with the full order
        settings = SCHEDULES[schedule] | dict(
            prediction_type=prediction,
            timestep_spacing=spacing,
            solver_order=order,
            final_sigmas_type=last,
            lower_order_final=lower,
            steps_offset=int(spacing == "leading"),
        )
        assert_same(*ends("UniPCMultistepScheduler", settings, n))


def test_unipc_with_other_settings():
    for more in (
        dict(use_karras_sigmas=True, beta_schedule="scaled_linear"),
        dict(disable_corrector=[0, 1, 4]),
        dict(thresholding=True, dynamic_thresholding_ratio=0.8, sample_max_value=1.3),
        dict(rescale_betas_zero_snr=True, prediction_type="v_prediction", solver_order=3),
        dict(solver_type="midpoint"),
    ):
        assert_same(*ends("UniPCMultistepScheduler", more, 12))
    with pytest.raises(ValueError, match="predict_x0"):
        compat.UniPCMultistepScheduler(predict_x0=False)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_heun(schedule, prediction, spacing):
    for n, karras, clip in itertools.product((2, 10), (False, True), (False, True)):
        settings = SCHEDULES[schedule] | dict(
            prediction_type=prediction,
            timestep_spacing=spacing,
            use_karras_sigmas=karras,
            clip_sample=clip,
            clip_sample_range=1.5,
            steps_offset=int(spacing == "leading"),
        )
        ours, theirs = ends("HeunDiscreteScheduler", settings, n)
        torch.testing.assert_close(ours[2].sigmas, theirs[2].sigmas.float(), rtol=1e-6, atol=1e-6)
        assert ours[2].order == theirs[2].order == 2
        assert_same(ours, theirs)


def test_heun_in_the_middle_of_its_list():
    assert_same(*ends("HeunDiscreteScheduler", {}, 10, begin=8))


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow(shift):
    found = []
    for lib in (compat, diffusers):
        scheduler = lib.FlowMatchEulerDiscreteScheduler(shift=shift)
        assert scheduler.shift == shift
        runs = [(scheduler.timesteps.double(), scheduler.sigmas.double()[:1000])]
        for more in (dict(num_inference_steps=9), dict(sigmas=[1.0, 0.7, 0.2])):
            scheduler.set_timesteps(**more)
            g = torch.Generator().manual_seed(0)
            x = torch.randn(2, 3, 4, 4, generator=g).double()
            xs = [scheduler.timesteps.double(), scheduler.sigmas.double()]
            for t in scheduler.timesteps:
                x = scheduler.step(network(x, t), t, x).prev_sample
                xs.append(x)
            image, noise = torch.rand(2, 3), torch.randn(2, 3, generator=g)
            scheduler.set_timesteps(**more)
            times = scheduler.timesteps[1:3]
            xs.append(scheduler.scale_noise(torch.ones(2, 3), times, noise).double())
            assert image.shape == noise.shape
            runs.append(xs)
        found.append(list(itertools.chain(*runs)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_flow_of_constant_velocity_arrives():
    """x_t = (1 - sigma) x0 + sigma eps with the true velocity eps - x0: the end is x0."""
    scheduler = compat.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(5)
    x0, eps = torch.rand(1, 4), torch.randn(1, 4)
    x = eps
    for t in scheduler.timesteps:
        torch.testing.assert_close(x, scheduler.scale_noise(x0, t[None], eps))
        x = scheduler.step(eps - x0, t, x).prev_sample
    torch.testing.assert_close(x, x0)
    with pytest.raises(ValueError, match="mu"):
        scheduler.set_timesteps(5, mu=1.0)
