"""EulerDiscrete, EulerAncestralDiscrete and PNDM against diffusers, whole trajectories."""

import itertools

import pytest
import torch
from doubled import make_double

from tinyldm import compat

diffusers = pytest.importorskip("diffusers")
from diffusers.schedulers import (  # noqa: E402 - only where diffusers is there
    scheduling_dpmsolver_multistep,
    scheduling_euler_ancestral_discrete,
    scheduling_euler_discrete,
    scheduling_pndm,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:the last of the", "ignore:.*deprecated", "ignore:__array__"
)

SCHEDULES = {
    "linear": dict(beta_schedule="linear"),
    "scaled_linear": dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
    "short": dict(num_train_timesteps=200, beta_start=0.0005, beta_end=0.1),
}
SPACINGS = ("linspace", "leading", "trailing")
PREDICTIONS = ("epsilon", "sample", "v_prediction")


@pytest.fixture(autouse=True)
def double(monkeypatch):
    make_double(
        monkeypatch,
        scheduling_dpmsolver_multistep,
        scheduling_euler_ancestral_discrete,
        scheduling_euler_discrete,
        scheduling_pndm,
    )


def network(x, t):
    """Smooth, neither linear nor odd, and different at each t."""
    return torch.tanh(0.7 * x.roll(1, -1) + 0.3 * x) + 0.2 * torch.cos(x + t / 300) - 0.1


def ends(name, settings, n, *, begin=0, **how):
    """What a run of n steps comes to with both libraries: [(samples, x0s), ...], ours first."""
    found = []
    size = None  # of the noise: one for both, as theirs is not rounded here
    for lib in (compat, diffusers):
        scheduler = getattr(lib, name)(**settings)
        scheduler.set_timesteps(n)
        size = size or float(scheduler.init_noise_sigma)
        if begin and lib is diffusers and name != "PNDMScheduler":
            scheduler.set_begin_index(begin)
        g = torch.Generator().manual_seed(0)
        x = torch.randn(2, 3, 4, 4, generator=g).double() * size
        if name == "EulerAncestralDiscreteScheduler":
            how["generator"] = g
        samples, x0s = [], []
        for t in scheduler.timesteps[begin:]:
            prediction = network(scheduler.scale_model_input(x, t), t.float())
            out = scheduler.step(prediction, t, x, **how)
            x = out.prev_sample
            samples.append(x)
            x0s.append(getattr(out, "pred_original_sample", None))
        found.append((samples, x0s, scheduler))
    return found


def assert_same(ours, theirs, worst=1e-6):
    torch.testing.assert_close(
        ours[2].timesteps, theirs[2].timesteps, rtol=1e-5, atol=1e-3, check_dtype=False
    )
    for mine, other in zip((*ours[0], *ours[1]), (*theirs[0], *theirs[1]), strict=True):
        if mine is not None:
            size = other.abs().max().clamp(min=1).item()
            torch.testing.assert_close(mine, other, rtol=0, atol=worst * size)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_euler(schedule, prediction, spacing):
    settings = SCHEDULES[schedule] | dict(prediction_type=prediction, timestep_spacing=spacing)
    settings["steps_offset"] = int(spacing == "leading")
    for n, karras, last in itertools.product((2, 10, 25), (False, True), ("zero", "sigma_min")):
        if last == "sigma_min" and spacing == "linspace":
            continue  # it ends at the first level, and diffusers goes there once more
        more = dict(use_karras_sigmas=karras, final_sigmas_type=last)
        ours, theirs = ends("EulerDiscreteScheduler", settings | more, n)
        torch.testing.assert_close(ours[2].sigmas, theirs[2].sigmas.float(), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(
            torch.as_tensor(ours[2].init_noise_sigma),
            torch.as_tensor(theirs[2].init_noise_sigma),
            check_dtype=False,
        )
        assert_same(ours, theirs)


def test_euler_from_sigmas_and_timesteps():
    found = []
    for lib in (compat, diffusers):
        scheduler = lib.EulerDiscreteScheduler()
        scheduler.set_timesteps(sigmas=[14.0, 3.0, 0.5, 0.0])
        assert scheduler.num_inference_steps == 3
        found += [scheduler.sigmas.float(), scheduler.timesteps.float()]
        scheduler.set_timesteps(timesteps=[900, 500, 3])
        assert scheduler.timesteps.tolist() == [900, 500, 3]
        found.append(scheduler.sigmas.float())
    for ours, theirs in zip(found[:3], found[3:], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="expected 0"):
        compat.EulerDiscreteScheduler().set_timesteps(sigmas=[14.0, 3.0])
    zeros, scheduler = torch.zeros(1, 1), compat.EulerDiscreteScheduler()
    with pytest.raises(ValueError, match="s_churn"):
        scheduler.step(zeros, 999, zeros, s_churn=1.0)


def test_velocity_of_a_timestep():
    """diffusers' Euler takes the place in its falling list for a timestep; its DDPM is right."""
    x0, noise, t = torch.rand(1, 4), torch.rand(1, 4), torch.tensor([900.0])
    right = diffusers.DDPMScheduler().get_velocity(x0, noise, t.long())
    ours = compat.EulerDiscreteScheduler().get_velocity(x0, noise, t)
    theirs = diffusers.EulerDiscreteScheduler().get_velocity(x0, noise, t)
    torch.testing.assert_close(ours, right)
    assert (theirs - right).abs().max() > 0.05


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_euler_ancestral(schedule, prediction, spacing):
    settings = SCHEDULES[schedule] | dict(prediction_type=prediction, timestep_spacing=spacing)
    if prediction == "sample":
        settings["prediction_type"] = "v_prediction"  # diffusers knows no other here
        settings["rescale_betas_zero_snr"] = True
    for n in (2, 10, 25):
        assert_same(*ends("EulerAncestralDiscreteScheduler", settings, n))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("skip", [True, False])
def test_pndm(schedule, prediction, skip):
    """Where timesteps lie T // n apart, and that is even: else diffusers leaves its own list."""
    for spacing, n, one in itertools.product(
        ("leading", "trailing"), (4, 5, 10, 20), (True, False)
    ):
        settings = SCHEDULES[schedule] | dict(
            prediction_type=prediction,
            timestep_spacing=spacing,
            skip_prk_steps=skip,
            set_alpha_to_one=one,
        )
        if spacing == "leading":
            settings["steps_offset"] = 1
        assert_same(*ends("PNDMScheduler", settings, n))


def test_pndm_of_few_steps():
    for n in (1, 2, 3):
        assert_same(*ends("PNDMScheduler", dict(skip_prk_steps=True), n))
        with pytest.raises(ValueError, match="num_inference_steps"):
            compat.PNDMScheduler().set_timesteps(n)


def test_pndm_in_the_middle_of_its_list_begins_as_at_the_start():
    """With constant predictions a run is exact, wherever on its list it begins."""
    scheduler = compat.PNDMScheduler(skip_prk_steps=True, steps_offset=1, set_alpha_to_one=True)
    scheduler.set_timesteps(20)
    c, eps = torch.full((1, 2), 0.3), torch.tensor([[0.5, -1.0]])
    for begin in (0, 2, 7, 20):
        x = scheduler.add_noise(c, eps, scheduler.timesteps[begin : begin + 1])
        for t in scheduler.timesteps[begin:]:
            x = scheduler.step(eps, t, x).prev_sample
        torch.testing.assert_close(x, c, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "PNDMScheduler"]
)
def test_runs_may_take_turns(name):
    """A scheduler keeps nothing that another run could disturb (pitfall 5)."""

    def steps(scheduler, seed):
        g = torch.Generator().manual_seed(seed)
        x = torch.randn(2, 3, generator=g) * scheduler.init_noise_sigma
        how = dict(generator=g) if "Euler" in name else {}
        for t in scheduler.timesteps:
            prediction = network(scheduler.scale_model_input(x, t), t)
            x = scheduler.step(prediction, t, x, **how).prev_sample
            yield x

    def made():
        scheduler = getattr(compat, name)()
        scheduler.set_timesteps(6)
        return scheduler

    one = made()
    alone = [[*steps(made(), seed)] for seed in (1, 2)]
    for xs in zip(steps(one, 1), steps(one, 2), *alone, strict=True):
        assert torch.equal(xs[0], xs[2])
        assert torch.equal(xs[1], xs[3])


def test_begin_index_and_noise_in_the_middle():
    """Image to image: noise to the level of a timestep of the list, and the rest of the run."""
    image, noise = torch.rand(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    for name in ("EulerDiscreteScheduler", "DPMSolverMultistepScheduler"):
        found = []
        for lib in (compat, diffusers):
            scheduler = getattr(lib, name)(beta_schedule="scaled_linear")
            scheduler.set_timesteps(20)
            scheduler.set_begin_index(12)
            later = scheduler.timesteps[12:]
            x = scheduler.add_noise(image, noise, later[:1].repeat(2))
            for t in later:
                prediction = network(scheduler.scale_model_input(x, t), t)
                x = scheduler.step(prediction, t, x).prev_sample
            assert scheduler.begin_index == 12
            found.append(x)
        torch.testing.assert_close(*found, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="begin_index"):
        compat.DDIMScheduler().set_begin_index(1000)


@pytest.mark.parametrize("name", ["DDPMScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_dynamic_thresholding(name, prediction):
    settings = dict(
        thresholding=True,
        dynamic_thresholding_ratio=0.8,
        sample_max_value=1.3,
        prediction_type=prediction,
        timestep_spacing="leading",
    )
    changed = 0.0
    for n in (5, 20):
        found = []
        for lib in (compat, diffusers):
            scheduler = getattr(lib, name)(**settings)
            scheduler.set_timesteps(n)
            g = torch.Generator().manual_seed(3)
            x = torch.randn(2, 3, 4, 4, generator=g)
            for t in scheduler.timesteps:
                how = dict(generator=g) if name == "DDPMScheduler" else {}
                x = scheduler.step(3 * network(x, t), t, x, **how).prev_sample
            found.append(x)
        torch.testing.assert_close(*found, rtol=0, atol=2e-4)
        changed = max(changed, found[0].abs().max().item())
    assert changed > 0.5


def test_previous_timestep():
    for lib in (compat, diffusers):
        scheduler = lib.DDPMScheduler()
        assert scheduler.previous_timestep(7) == 6
        scheduler.set_timesteps(10)
        assert scheduler.previous_timestep(900) == 800
        assert scheduler.previous_timestep(torch.tensor(0)) == -1
