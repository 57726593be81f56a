"""Schedulers against diffusers: whole trajectories over the grid of settings, and ours right where
it errs."""

import copy
import itertools
import json
import math
import pickle
import random

import numpy as np
import pytest
import torch
from doubled import make_double

from tinyldm import DPMSolver, NoiseSchedule, compat, sample

diffusers = pytest.importorskip("diffusers")
from diffusers.schedulers import (  # noqa: E402 - only where diffusers is there
    scheduling_ddim,
    scheduling_ddpm,
    scheduling_dpmsolver_multistep,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:the last of the", "ignore:.*deprecated", "ignore:__array__"
)

SCHEDULES = {
    "linear": dict(beta_schedule="linear"),
    "scaled_linear": dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
    "cosine": dict(beta_schedule="squaredcos_cap_v2"),
    "short": dict(beta_schedule="linear", num_train_timesteps=200, beta_start=0.0005, beta_end=0.1),
    "table": dict(trained_betas=np.linspace(1e-4, 0.1, 150) ** 1.2),
    "zero_snr": dict(beta_schedule="scaled_linear", rescale_betas_zero_snr=True),
}
PREDICTIONS = ("epsilon", "sample", "v_prediction")
SPACINGS = ("linspace", "leading", "trailing")
CASES = [
    *itertools.product(("linear", "scaled_linear", "cosine"), PREDICTIONS),
    ("short", "epsilon"),
    ("table", "sample"),
    ("zero_snr", "sample"),
    ("zero_snr", "v_prediction"),
]


def network(x, t):
    """Smooth, neither linear nor odd, and different at each t."""
    return torch.tanh(0.7 * x.roll(1, -1) + 0.3 * x) + 0.2 * torch.cos(x + t / 300) - 0.1


@pytest.fixture
def double(monkeypatch):
    make_double(monkeypatch, scheduling_ddpm, scheduling_ddim, scheduling_dpmsolver_multistep)


def both(name, **settings):
    if settings.get("trained_betas") is not None:
        settings["num_train_timesteps"] = len(settings["trained_betas"])
    return getattr(compat, name)(**settings), getattr(diffusers, name)(**settings)


def start():
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def close(got, expected, what):
    size = expected.abs().max().clamp(min=1)
    assert ((got - expected).abs().max() <= 1e-6 * size).item(), what


def products(**choices):
    return (
        dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())
    )


@pytest.mark.parametrize(("schedule", "prediction"), CASES)
def test_ddpm(schedule, prediction, double):
    for more in products(
        timestep_spacing=SPACINGS,
        variance_type=("fixed_small", "fixed_small_log", "fixed_large"),
        clip=((True, 1.0), (True, 2.5), (False, 1.0)),
        steps=(1, 13),
    ):
        n, (clip, bound) = more.pop("steps"), more.pop("clip")
        ours, theirs = both(
            "DDPMScheduler",
            **SCHEDULES[schedule],
            prediction_type=prediction,
            **more,
            clip_sample=clip,
            clip_sample_range=bound,
            steps_offset=more["timestep_spacing"] == "leading",
        )
        if n == 1 and more["timestep_spacing"] == "linspace":
            continue  # diffusers starts from t = 0, where there is no noise; see test_pitfall_02
        ours.set_timesteps(n)
        theirs.set_timesteps(n)
        assert torch.equal(ours.timesteps, theirs.timesteps)
        x, y = start(), start()
        g, h = (torch.Generator().manual_seed(1) for _ in "gh")
        for k, t in enumerate(ours.timesteps):
            a = ours.step(network(x, t), t, x, generator=g)
            b = theirs.step(network(y, t), t, y, generator=h)
            close(a.pred_original_sample, b.pred_original_sample, (more, n, k))
            x, y = a.prev_sample, b.prev_sample
            if k < n - 1 or more["variance_type"] != "fixed_large":
                close(
                    x, y, (more, n, k)
                )  # diffusers adds noise even on the last step, unless it starts at t = 0
        torch.testing.assert_close(x, a.pred_original_sample)


@pytest.mark.parametrize(("schedule", "prediction"), CASES)
def test_ddim(schedule, prediction, double):
    """diffusers steps to t - T // n, wherever the list goes on (pitfall 1); so it is told the place
    of each step."""
    for more in products(
        timestep_spacing=SPACINGS,
        one=(True, False),
        eta=(0.0, 0.6, 1.0),
        steps=(3, 13),
        clip=((True, 1.5, False), (True, 1.0, True), (False, 1.0, False)),
    ):
        n, eta, one, (clip, bound, again) = (
            more.pop(name) for name in ("steps", "eta", "one", "clip")
        )
        ours, theirs = both(
            "DDIMScheduler",
            **SCHEDULES[schedule],
            prediction_type=prediction,
            clip_sample=clip,
            clip_sample_range=bound,
            set_alpha_to_one=one,
            steps_offset=0 if one else 1,
            **more,
        )
        ours.set_timesteps(n)
        theirs.set_timesteps(n)
        assert torch.equal(ours.timesteps, theirs.timesteps)
        x, y = start(), start()
        g, h = (torch.Generator().manual_seed(1) for _ in "gh")
        theirs.num_inference_steps = 1
        for k, (t, s) in enumerate(itertools.pairwise([*ours.timesteps.tolist(), -1])):
            theirs.register_to_config(num_train_timesteps=t - s)  # // 1 is how far it goes
            a = ours.step(network(x, t), t, x, eta, again, g)
            b = theirs.step(network(y, t), t, y, eta, again, h)
            close(a.pred_original_sample, b.pred_original_sample, (more, n, k))
            x, y = a.prev_sample, b.prev_sample
            if (
                schedule == "zero_snr" and eta == 1 and y.isnan().all()
            ):  # the root of a variance rounded to below 0
                assert x.isfinite().all()
                y = x
            close(x, y, (more, n, eta, k))


@pytest.mark.parametrize(
    ("spacing", "n"), [("leading", 20), ("trailing", 20), ("leading", 50), ("trailing", 10)]
)
def test_ddim_as_it_is_where_its_place_is_right(spacing, n, double):
    ours, theirs = both(
        "DDIMScheduler", **SCHEDULES["scaled_linear"], timestep_spacing=spacing, clip_sample=False
    )
    x, y = start(), start()
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(n)
    for t in ours.timesteps:
        x, y = (
            ours.step(network(x, t), t, x).prev_sample,
            theirs.step(network(y, t), t, y).prev_sample,
        )
        close(x, y, t)


class Whole(diffusers.DPMSolverMultistepScheduler):
    """diffusers' solver for lists with repeated timesteps: its position is counted from the
    start."""

    def set_timesteps(self, *args, **more):
        super().set_timesteps(*args, **more)
        self.set_begin_index(0)


@pytest.mark.parametrize("algorithm", ["dpmsolver++", "dpmsolver", "sde-dpmsolver++"])
@pytest.mark.parametrize(("schedule", "prediction"), CASES)
def test_dpm_solver(schedule, prediction, algorithm, double):
    ways = ((1, "midpoint"), (2, "midpoint"), (2, "heun"), (3, "midpoint"))
    ends = (("zero", True, False), ("sigma_min", True, True), ("sigma_min", False, False))
    spacings = (*SPACINGS, "karras", "lu")
    for more in products(timestep_spacing=spacings, way=ways, end=ends, steps=(4, 15)):
        n, (final, lower, euler), (order, kind) = (
            more.pop("steps"),
            more.pop("end"),
            more.pop("way"),
        )
        if (final == "zero" and algorithm == "dpmsolver") or (
            order == 3 and algorithm == "sde-dpmsolver++"
        ):
            continue  # diffusers refuses the one, and errs in the other: see the next test
        karras, lu = (more["timestep_spacing"] == name for name in ("karras", "lu"))
        if karras or lu:
            more["timestep_spacing"] = "trailing"
        more |= dict(
            solver_order=order,
            solver_type=kind,
            prediction_type=prediction,
            algorithm_type=algorithm,
            lower_order_final=lower,
            euler_at_final=euler,
            final_sigmas_type=final,
            use_karras_sigmas=karras,
            use_lu_lambdas=lu,
            **SCHEDULES[schedule],
        )
        ours, theirs = both("DPMSolverMultistepScheduler", **more)
        theirs = Whole.from_config(theirs.config)
        ours.set_timesteps(n)
        theirs.set_timesteps(n)
        torch.testing.assert_close(ours.sigmas, theirs.sigmas.float(), rtol=1e-6, atol=1e-9)
        if not ((karras or lu) and schedule == "cosine"):
            assert torch.equal(ours.timesteps, theirs.timesteps)
        x, y = start(), start()
        g, h = (torch.Generator().manual_seed(1) for _ in "gh")
        for k, (t, other) in enumerate(zip(ours.timesteps, theirs.timesteps, strict=True)):
            x = ours.step(network(x, t), t, x, generator=g).prev_sample
            y = theirs.step(network(y, t), other, y, generator=h).prev_sample
            if not y.isfinite().all():  # its formulas divide by the length of a step of no length
                assert x.isfinite().all()
                assert ours.sigmas[k] == ours.sigmas[k + 1]
                break
            close(x, y, (more, n, k))


@pytest.mark.parametrize("n", [5, 30])
@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "cosine"])
def test_the_library_draws_on_the_same_even_lambdas(schedule, n, double):
    """sample() on its grid 'logsnr' against diffusers, with a denoiser that never asks for t, as
    diffusers rounds it."""
    theirs = diffusers.DPMSolverMultistepScheduler(
        **SCHEDULES[schedule], prediction_type="sample", use_lu_lambdas=True
    )
    theirs.set_timesteps(n)
    theirs.set_begin_index(0)  # several levels may have one rounded timestep
    y = start()
    for t in theirs.timesteps:
        y = theirs.step(network(y, 0), t, y).prev_sample
    settings = dict(SCHEDULES[schedule])
    kind = {"squaredcos_cap_v2": "cosine"}.get(name := settings.pop("beta_schedule"), name)
    x = sample(
        lambda x, t, condition: network(x, 0),
        start().shape,
        NoiseSchedule(kind, **settings),
        DPMSolver(2, reach=math.inf),
        n,
        prediction="x0",
        spacing="logsnr",
        noise=start(),
        dtype=torch.float64,
    )
    close(x, y, n)


def test_another_scheduler_has_no_even_lambdas():
    """A face of UniPC made from a config with them ignores them, as diffusers' does."""
    for lib in (compat, diffusers):
        config = lib.DPMSolverMultistepScheduler(use_lu_lambdas=True).config
        scheduler = lib.UniPCMultistepScheduler.from_config(config)
        scheduler.set_timesteps(10)
        plain = lib.UniPCMultistepScheduler()
        plain.set_timesteps(10)
        assert torch.equal(scheduler.timesteps, plain.timesteps)


def drawn(seed):
    """A class, its settings, the arguments of its steps and their number: any combination that
    diffusers has."""
    r = random.Random(seed)
    name = r.choice(["DDPMScheduler", "DDIMScheduler", *["DPMSolverMultistepScheduler"] * 2])
    schedule, prediction = r.choice(CASES)
    settings = SCHEDULES[schedule] | dict(
        prediction_type=prediction,
        timestep_spacing=r.choice(SPACINGS),
        steps_offset=r.choice([0, 1]),
        rescale_betas_zero_snr=schedule == "zero_snr"
        or (prediction != "epsilon" and r.random() < 0.3),
    )
    how = {}
    if name != "DPMSolverMultistepScheduler":
        settings |= dict(
            clip_sample=r.choice([True, False]), clip_sample_range=r.choice([0.5, 1.0, 3.0])
        )
    if name == "DDPMScheduler":
        settings |= dict(variance_type=r.choice(["fixed_small", "fixed_small_log", "fixed_large"]))
    elif name == "DDIMScheduler":
        settings |= dict(set_alpha_to_one=r.choice([True, False]))
        how = dict(
            eta=r.choice([0.0, 0.0, 0.3, 1.0]), use_clipped_model_output=r.choice([True, False])
        )
    else:
        algorithm = r.choice(["dpmsolver++", "sde-dpmsolver++", "dpmsolver"])
        settings |= dict(
            algorithm_type=algorithm,
            solver_order=r.randint(1, 2 if algorithm[0] == "s" else 3),
            solver_type=r.choice(["midpoint", "heun"]),
            lower_order_final=r.choice([True, True, False]),
            euler_at_final=r.choice([True, False]),
            use_karras_sigmas=schedule != "cosine" and r.random() < 0.4,
            final_sigmas_type="sigma_min"
            if algorithm == "dpmsolver"
            else r.choice(["zero", "sigma_min"]),
            use_lu_lambdas=schedule != "cosine" and r.random() < 0.4,
        )
    return name, settings, how, r.choice([1, 2, 3, 5, 10, 15, 20, 25, 50, 50, 100, 150])


def comparable(name, ours, theirs):
    """Whether diffusers takes the steps that it lists; each reason is a row of docs/compat.md."""
    t = theirs.timesteps.tolist()
    if not torch.equal(
        ours.timesteps, theirs.timesteps
    ):  # it lists others than were asked for (pitfall 2)
        assert (
            len(set(t)) != ours.num_inference_steps or min(t) < 0 or max(t) >= len(ours) or t == [0]
        )
        return False
    if name == "DDIMScheduler":  # it goes to t - T // n (pitfall 1)
        return (
            all(a - b == len(ours) // len(t) for a, b in itertools.pairwise(t))
            and t[-1] - len(ours) // len(t) < 0
        )
    return not (
        name == "DPMSolverMultistepScheduler" and len(set(t)) < len(t)
    )  # it guesses its place


def assert_same_run(seed, dtype, worst):
    """The runs of a draw, step by step; worst: the largest error, relative to x."""
    name, settings, how, n = drawn(seed)
    ours, theirs = both(name, **settings)
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(n)
    if not comparable(name, ours, theirs):
        return
    x = y = start().to(dtype)
    g, h = (torch.Generator().manual_seed(1) for _ in "gh")
    for k, t in enumerate(ours.timesteps):
        if settings.get("variance_type") == "fixed_large" and k == n - 1:
            break  # there diffusers adds noise (pitfall 16)
        x = ours.step(network(x, t), t, x, generator=g, **how).prev_sample
        y = theirs.step(network(y, t), t, y, generator=h, **how).prev_sample
        if (
            not y.isfinite().all()
        ):  # a step of no length, or the root of a variance rounded to below 0
            assert x.isfinite().all()
            assert settings["rescale_betas_zero_snr"] or ours.sigmas[k] == ours.sigmas[k + 1]
            break
        assert (x - y).abs().max() <= worst * y.abs().max().clamp(min=1), (
            name,
            settings,
            how,
            n,
            k,
        )


@pytest.mark.parametrize("seed", range(200))
def test_drawn_settings(seed, double):
    assert_same_run(seed, torch.float64, 1e-6)


def float32_will_do(seed):
    """Not where diffusers divides by an alpha that is nearly nothing, or rescales betas in
    float32."""
    _, settings, _, _ = drawn(seed)
    noise = (
        settings.get("algorithm_type") == "dpmsolver"
        and settings.get("beta_schedule") == "squaredcos_cap_v2"
    )
    return not settings["rescale_betas_zero_snr"] and not noise


@pytest.mark.parametrize("seed", [seed for seed in range(400) if float32_will_do(seed)])
def test_drawn_settings_as_diffusers_runs_them(seed):
    """Its code as it is, in float32."""
    assert_same_run(seed, torch.float32, 1e-4)


def test_third_order_of_the_sde(double):
    """diffusers' last coefficient does not vanish with the step: a sign is wrong in it. Ours is
    nearer to the truth."""

    def end(kind, order, n):
        scheduler = kind(
            solver_order=order,
            algorithm_type="sde-dpmsolver++",
            prediction_type="sample",
            use_karras_sigmas=True,
            final_sigmas_type="sigma_min",
            lower_order_final=False,
        )
        scheduler.set_timesteps(n)
        x = start()
        for t, sigma in zip(scheduler.timesteps[:-1], scheduler.sigmas, strict=False):
            x0 = torch.full_like(x, math.cos(math.log(sigma)))
            x = scheduler.step(x0, t, x, variance_noise=torch.zeros_like(x)).prev_sample
        return x

    truth = end(diffusers.DPMSolverMultistepScheduler, 2, 999)
    ours, theirs = (
        [(end(lib.DPMSolverMultistepScheduler, 3, n) - truth).abs().max() for n in (100, 200)]
        for lib in (compat, diffusers)
    )
    assert ours[1] < 0.2 * theirs[1]
    assert ours[0] > 4 * ours[1]
    assert theirs[0] < 3 * theirs[1]


@pytest.mark.parametrize("n", [5, 10, 13, 50])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_pitfall_01_marginal_step(spacing, n, double):
    """The truth (x0, eps) leads from each listed timestep to the marginal at the next, by
    diffusers' own add_noise."""
    ours, theirs = both(
        "DDIMScheduler", **SCHEDULES["scaled_linear"], timestep_spacing=spacing, clip_sample=False
    )
    ours.set_timesteps(n)
    x0, eps = start(), start().flip(0)
    for t, s in itertools.pairwise(ours.timesteps):
        x_t, x_s = (theirs.add_noise(x0, eps, k[None]) for k in (t, s))
        assert (ours.step(eps, t, x_t).prev_sample - x_s).abs().max() < 1e-6


@pytest.mark.parametrize("name", ["DDPMScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler"])
def test_pitfall_02_grids(name):
    for spacing in SPACINGS:
        scheduler = getattr(compat, name)(timestep_spacing=spacing)
        for n in (*range(1, 40), 53, 61, 103, 250, 499, 501, 999, 1000):
            scheduler.set_timesteps(n)
            t = scheduler.timesteps
            assert len(t) == n, (spacing, n)
            assert (t.diff() < 0).all(), (spacing, n)
            assert t[-1] >= 0, (spacing, n)
            assert t[0] <= 999, (spacing, n)
            assert spacing == "leading" or t[0] == 999
        with pytest.raises(ValueError, match="1001"):
            scheduler.set_timesteps(1001)


@pytest.mark.parametrize("n", [5, 20, 79, 100])
def test_pitfall_03_karras_with_the_cosine_schedule(n):
    scheduler = compat.DPMSolverMultistepScheduler(
        beta_schedule="squaredcos_cap_v2", use_karras_sigmas=True
    )
    scheduler.set_timesteps(n)
    assert len(scheduler.timesteps) == n
    assert (scheduler.timesteps.diff() < 0).all()
    assert (scheduler.sigmas.diff() < 0).all()
    x = start()
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t), t, x).prev_sample
    assert x.isfinite().all()


@pytest.mark.parametrize(
    "more",
    [{}, {"use_karras_sigmas": True}, {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}],
)
def test_pitfall_05_no_hidden_state(more):
    def steps(scheduler, seed, shape):
        g = torch.Generator().manual_seed(seed)
        x = torch.randn(shape, generator=g)
        for t in scheduler.timesteps:
            x = scheduler.step(network(x, t), t, x, generator=g).prev_sample
            yield x

    def make():
        scheduler = compat.DPMSolverMultistepScheduler(beta_schedule="scaled_linear", **more)
        scheduler.set_timesteps(25)  # Karras repeats some whole timesteps
        return scheduler

    one = make()
    alone = [[*steps(make(), seed, (2, 3, 4, 4))] for seed in (1, 2)]
    for xs in zip(steps(one, 1, (2, 3, 4, 4)), steps(one, 2, (2, 3, 4, 4)), *alone, strict=True):
        assert torch.equal(xs[0], xs[2])
        assert torch.equal(xs[1], xs[3])
    assert torch.equal([*steps(one, 3, (1, 3, 6, 6))][-1], [*steps(make(), 3, (1, 3, 6, 6))][-1])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_pitfall_05_a_copy_goes_on_where_the_scheduler_was(copied):
    scheduler = compat.DPMSolverMultistepScheduler(solver_order=3)
    scheduler.set_timesteps(20)
    x = start()
    for t in scheduler.timesteps[:5]:
        x = scheduler.step(network(x, t), t, x).prev_sample
    again, y = copied(scheduler), x.clone()
    for t in scheduler.timesteps[5:]:
        x = scheduler.step(network(x, t), t, x).prev_sample
        y = again.step(network(y, t), t, y).prev_sample
    assert torch.equal(x, y)


def test_pitfall_05_what_a_step_left_goes_with_its_sample():
    scheduler = compat.DPMSolverMultistepScheduler()
    scheduler.set_timesteps(20)
    x = start()
    for t in scheduler.timesteps[:3]:
        x = scheduler.step(network(x, t), t, x).prev_sample
    assert len(scheduler._left) == 1  # those of samples that nobody holds are gone
    del x
    assert len(scheduler._left) == 0


def test_pitfall_05_a_run_that_broke_off_leaves_nothing_to_images_of_another_size():
    """Even where the next one, an image that was noised, starts at the very step that was never
    made."""
    ends = []
    for broken in (True, False):
        scheduler = compat.DPMSolverMultistepScheduler(solver_order=3)
        scheduler.set_timesteps(20)
        x = start()
        for t in scheduler.timesteps[: 5 if broken else 0]:
            x = scheduler.step(network(x, t), t, x).prev_sample
        x = start()[:1, :, :3]
        for t in scheduler.timesteps[5:]:
            x = scheduler.step(network(x, t), t, x).prev_sample
        ends.append(x)
    assert torch.equal(*ends)


@pytest.mark.parametrize("n", [13, 14, 15, 16])
def test_the_order_falls_at_the_end_of_runs_of_less_than_15_steps(n, double):
    for order, lower in itertools.product((2, 3), (True, False)):
        ours, theirs = both(
            "DPMSolverMultistepScheduler",
            solver_order=order,
            lower_order_final=lower,
            final_sigmas_type="sigma_min",
        )
        theirs = Whole.from_config(theirs.config)
        x = y = start()
        for scheduler in (ours, theirs):
            scheduler.set_timesteps(n)
        for t in ours.timesteps:
            x, y = (
                ours.step(network(x, t), t, x).prev_sample,
                theirs.step(network(y, t), t, y).prev_sample,
            )
            close(x, y, (n, order, lower, t))


def test_a_script_may_change_the_sample_between_steps(double):
    ours, theirs = both("DPMSolverMultistepScheduler", **SCHEDULES["scaled_linear"])
    theirs = Whole.from_config(theirs.config)
    x = y = start()
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(20)
    for t in ours.timesteps:
        x = ours.step(network(x, t), t, x).prev_sample * 0.99 + 0.01
        y = theirs.step(network(y, t), t, y).prev_sample * 0.99 + 0.01
        close(x, y, t)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", ["DDPMScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler"])
def test_tables(name, schedule):
    ours, theirs = both(name, **SCHEDULES[schedule], prediction_type="sample")
    torch.testing.assert_close(ours.alphas_cumprod, theirs.alphas_cumprod, rtol=3e-4, atol=1e-7)
    if (
        schedule != "zero_snr"
    ):  # their rescaling rounds the betas, and forgets to floor the last one
        torch.testing.assert_close(ours.betas, theirs.betas, rtol=1e-5, atol=2e-7)
        torch.testing.assert_close(ours.alphas, theirs.alphas)
    assert len(ours) == len(theirs)
    assert ours.init_noise_sigma == theirs.init_noise_sigma


@pytest.mark.parametrize("name", ["DDPMScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler"])
def test_noising(name, double):
    """As diffusers does in double; in bfloat16 the noise at t = 0 and 1 keeps its size
    (pitfall 7)."""
    ours, _ = both(name, **SCHEDULES["linear"])
    _, theirs = both("DDPMScheduler", **SCHEDULES["linear"])
    x0, noise, t = start(), start().flip(0), torch.tensor([0, 700])
    close(ours.add_noise(x0, noise, t), theirs.add_noise(x0, noise, t), name)
    close(ours.get_velocity(x0, noise, t), theirs.get_velocity(x0, noise, t), name)
    zeros, ones = torch.zeros(2, 999).bfloat16(), torch.ones(2, 999).bfloat16()
    half = ours.add_noise(zeros, ones, torch.tensor([0, 1]))
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(
        half[:, 0].double(), (1 - theirs.alphas_cumprod[:2]).sqrt(), rtol=0.01, atol=0
    )


def test_attributes_and_outputs():
    scheduler = compat.DDPMScheduler()
    assert (
        len(scheduler)
        == scheduler.config.num_train_timesteps
        == scheduler.config["num_train_timesteps"]
        == 1000
    )
    assert scheduler.init_noise_sigma == 1.0
    assert scheduler.order == 1
    assert scheduler.timesteps.tolist() == [*range(999, -1, -1)]
    x = start()
    assert scheduler.scale_model_input(x, 3) is x
    out = scheduler.step(x, 999, x, generator=torch.Generator().manual_seed(0))
    again = scheduler.step(
        x, torch.tensor(999), x, torch.Generator().manual_seed(0), return_dict=False
    )
    assert torch.equal(out.prev_sample, again[0])
    assert torch.equal(out.pred_original_sample, again[1])
    rows = compat.DDPMScheduler().step(
        x, 999, x, generator=[torch.Generator().manual_seed(k) for k in (0, 1)]
    )
    alone = compat.DDPMScheduler().step(
        x[1:], 999, x[1:], generator=torch.Generator().manual_seed(1)
    )
    assert torch.equal(rows.prev_sample[1:], alone.prev_sample)
    scheduler.set_timesteps(timesteps=[900, 500, 3])
    assert scheduler.timesteps.tolist() == [900, 500, 3]
    assert scheduler.num_inference_steps == 3
    with pytest.raises(ValueError, match="timestep 4 "):
        scheduler.step(x, 4, x)
    for name in ("DDIMScheduler", "DPMSolverMultistepScheduler"):
        with pytest.raises(ValueError, match="set_timesteps"):
            getattr(compat, name)().step(x, 999, x)
    half = compat.DDIMScheduler()
    half.set_timesteps(10)
    assert half.step(x.bfloat16(), 900, x.bfloat16(), eta=1.0).prev_sample.dtype == torch.bfloat16


REFUSED = [
    ("DDPMScheduler", dict(variance_type="learned_range")),
    ("DDPMScheduler", dict(beta_schedule="sigmoid")),
    ("DDPMScheduler", dict(variance_type="fixed_large_log")),
    ("DDIMScheduler", dict(prediction_type="flow_prediction")),
    ("DDIMScheduler", dict(nonsense=3)),
    ("DDIMScheduler", dict(timestep_spacing="other")),
    ("DPMSolverMultistepScheduler", dict(use_beta_sigmas=True)),
    ("DPMSolverMultistepScheduler", dict(algorithm_type="sde-dpmsolver")),
    ("DPMSolverMultistepScheduler", dict(solver_order=4)),
    ("DPMSolverMultistepScheduler", dict(lambda_min_clipped=-5.1, timestep_spacing="trailing")),
    ("DPMSolverMultistepScheduler", dict(variance_type="learned")),
]


@pytest.mark.parametrize(("name", "settings"), REFUSED, ids=str)
def test_what_is_not_supported_is_named(name, settings):
    with pytest.raises((ValueError, TypeError), match=next(iter(settings))):
        getattr(compat, name)(**settings)


@pytest.mark.parametrize("name", ["DDPMScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler"])
def test_pitfall_15_zero_snr_with_eps_is_refused(name):
    with pytest.raises(ValueError, match="eps prediction"):
        getattr(compat, name)(rescale_betas_zero_snr=True)


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("name", ["DDPMScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler"])
def test_pitfall_15_zero_snr_of_v_is_finite(name, schedule):
    for spacing, n in itertools.product(SPACINGS, (1, 2, 20, 300)):
        scheduler = getattr(compat, name)(
            beta_schedule=schedule,
            rescale_betas_zero_snr=True,
            timestep_spacing=spacing,
            prediction_type="v_prediction",
        )
        scheduler.set_timesteps(n)
        x = start()
        for t in scheduler.timesteps:
            x = scheduler.step(
                network(x, t), t, x, generator=torch.Generator().manual_seed(0)
            ).prev_sample
        assert x.isfinite().all()
        assert x.abs().max() < 10


def test_lambda_min_clipped():
    for spacing in ("linspace", "leading"):
        more = dict(
            beta_schedule="squaredcos_cap_v2", lambda_min_clipped=-5.1, timestep_spacing=spacing
        )
        ours, theirs = both("DPMSolverMultistepScheduler", **more)
        for n in (7, 20):
            ours.set_timesteps(n)
            theirs.set_timesteps(n)
            assert torch.equal(ours.timesteps, theirs.timesteps)


STABLE_DIFFUSION = {  # scheduler_config.json of CompVis/stable-diffusion-v1-4
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.7.0.dev0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}


@pytest.mark.parametrize("name", ["DDPMScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler"])
def test_folders_both_ways(name, tmp_path):
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(STABLE_DIFFUSION))
    ours = getattr(compat, name).from_pretrained(tmp_path, subfolder="scheduler")
    theirs = getattr(diffusers, name).from_pretrained(tmp_path, subfolder="scheduler")
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(20)
    assert torch.equal(ours.timesteps, theirs.timesteps)
    assert ours.config.skip_prk_steps is True
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    back, forth = (
        getattr(lib, name).from_pretrained(tmp_path / folder)
        for lib, folder in ((diffusers, "ours"), (compat, "theirs"))
    )
    for key in theirs.config:
        if key[0] != "_":
            assert (
                back.config[key] == ours.config[key] == forth.config[key] == theirs.config[key]
            ), key
    assert (
        json.loads((tmp_path / "ours" / "scheduler_config.json").read_text())["_class_name"] == name
    )


def test_one_scheduler_from_another():
    """What nobody set takes the default of the new class, as in diffusers; what only the old one
    knows is kept."""
    for lib in (compat, diffusers):
        solver = lib.DPMSolverMultistepScheduler.from_config(
            lib.DDIMScheduler(beta_end=0.01, clip_sample=False).config
        )
        assert solver.config.timestep_spacing == "linspace"
        assert solver.config.beta_end == 0.01
        assert lib.DDIMScheduler.from_config(solver.config).config.clip_sample is False
        changed = lib.DPMSolverMultistepScheduler.from_config(solver.config, solver_order=3)
        assert changed.config.solver_order == 3
    with pytest.raises(ValueError, match="unheard_of"):
        compat.DDIMScheduler.from_config({"unheard_of": 1})
