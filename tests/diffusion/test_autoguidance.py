"""Guidance by a weaker denoiser: on Gaussians in closed form, and by what it costs."""

from dataclasses import replace

import pytest
import torch
from gaussian import Gaussian
from test_guidance import COSINE, NULL, Network, inputs

from tinyldm.diffusion.dpm_solver import DPMSolver
from tinyldm.diffusion.guidance import Guidance
from tinyldm.diffusion.sampler import sample
from tinyldm.diffusion.schedule import NoiseSchedule
from tinyldm.methods.autoguidance import predicting


class Weak(Network):
    """Another made-up network."""

    def __call__(self, x, t, c):
        return 0.5 * super().__call__(x, t, c) - 0.25 * x


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0, 3.5])
def test_autoguidance_of_a_gaussian_is_known_in_closed_form(scale):
    """The strong denoiser knows N(m, c1^2), the weak one N(m, c0^2).

    With y = x / alpha and s = sigma / alpha, the guided flow is
    d log(y - m) = (w s / (c1^2 + s^2) + (1 - w) s / (c0^2 + s^2)) ds, and so y - m is proportional
    to (c1^2 + s^2)^(w / 2) (c0^2 + s^2)^((1 - w) / 2).
    """
    mean, c1, c0 = 0.7, 0.5, 0.9
    grid = COSINE.grid(500)
    strong, weak = Gaussian(mean, c1, grid), Gaussian(mean, c0, grid)
    guidance = Guidance(1.0, NULL, guide=weak.denoiser("v"), guide_scale=scale)
    noise = torch.linspace(-2, 2, 9, dtype=torch.float64).view(9, 1)
    found = sample(
        lambda x, t, c: strong.denoiser("v")(x, t, c),
        noise.shape,
        COSINE,
        DPMSolver(2),
        spacing=grid,
        condition=NULL.expand(9),
        guidance=guidance,
        noise=noise,
        dtype=torch.float64,
    )
    s = grid[0].sigma / grid[0].alpha
    start = noise / grid[0].alpha - mean
    shrunk = c1**scale * c0 ** (1 - scale)
    shrunk /= (c1**2 + s**2) ** (scale / 2) * (c0**2 + s**2) ** ((1 - scale) / 2)
    torch.testing.assert_close(found, mean + start * shrunk, rtol=0, atol=2e-3)
    # beyond 1, what is drawn is narrower than what the strong one knows
    assert (c1**scale * c0 ** (1 - scale) < c1) == (scale > 1)


@pytest.mark.parametrize("scale", [-1.0, 0.5, 3.0])
def test_it_is_the_weak_model_plus_the_scaled_difference(scale):
    x, t, c = inputs()
    strong, weak = Network(), Weak()
    guided = Guidance(1.0, NULL, guide=weak, guide_scale=scale)(strong)(x, t, c)
    assert (strong.rows, weak.rows) == ([3], [3])
    d1, d0 = strong(x, t, c), weak(x, t, c)
    torch.testing.assert_close(guided, d0 + scale * (d1 - d0))


def test_scale_one_is_the_strong_model_and_costs_nothing_more():
    x, t, c = inputs()
    strong, weak = Network(), Weak()
    guided = Guidance(1.0, NULL, guide=weak, guide_scale=1.0)(strong)(x, t, c)
    assert (strong.rows, weak.rows) == ([3], [])
    assert torch.equal(guided, strong(x, t, c))


@pytest.mark.parametrize(("scale", "guide_scale"), [(3.0, 2.0), (0.0, 2.0), (2.5, 0.0)])
def test_with_the_null_condition_both_differences_are_added(scale, guide_scale):
    x, t, c = inputs()
    strong, weak = Network(), Weak()
    guidance = Guidance(scale, NULL, guide=weak, guide_scale=guide_scale)
    guided = guidance(strong)(x, t, c)
    assert (strong.rows, weak.rows) == ([6], [3])
    d1, d0, null = strong(x, t, c), weak(x, t, c), strong(x, t, NULL.expand(3))
    expected = d1 + (scale - 1) * (d1 - null) + (guide_scale - 1) * (d1 - d0)
    torch.testing.assert_close(guided, expected)
    # each scale alone is what it is without the other
    alone = replace(guidance, guide_scale=1.0)(strong)(x, t, c)
    assert torch.equal(alone, Guidance(scale, NULL)(strong)(x, t, c))


def test_a_network_that_guides_itself_draws_its_own_samples():
    _, _, c = inputs()
    net = Network()

    def drawn(guidance):
        return sample(
            net, (3, 4, 2, 2), COSINE, steps=6, condition=c, seeds=[1, 2, 3], guidance=guidance
        )

    itself = drawn(Guidance(1.0, NULL, guide=net, guide_scale=4.0))
    assert torch.equal(itself, drawn(None))
    assert not torch.equal(itself, drawn(Guidance(1.0, NULL, guide=Weak(), guide_scale=4.0)))


def test_outside_of_the_interval_the_weak_model_is_not_asked():
    x, _, c = inputs()
    strong, weak = Network(), Weak()
    how = {"interval": (0.28, 2.9), "schedule": COSINE, "guide": weak, "guide_scale": 2.0}
    for scale in (1.0, 3.0):
        for level in COSINE.grid(20)[:-1]:
            weak.rows.clear()
            t = torch.full((3,), level.t)
            guided = Guidance(scale, NULL, **how)(strong)(x, t, c)
            inside = 0.28 < level.sigma / level.alpha <= 2.9
            assert weak.rows == ([3] if inside else [])
            assert inside or torch.equal(guided, strong(x, t, c))
    ts = torch.tensor([999.0, 500.0, 0.0])  # each sample by its own t
    mixed = Guidance(1.0, NULL, **how)(strong)(x, ts, c)
    d1, d0 = strong(x, ts, c), weak(x, ts, c)
    torch.testing.assert_close(mixed[[0, 2]], d1[[0, 2]])
    torch.testing.assert_close(mixed[1], (d0 + 2 * (d1 - d0))[1])


def test_rescaling_undoes_the_contrast_of_both():
    x, t, c = inputs()
    guidance = Guidance(4.0, NULL, rescale=1.0, guide=Weak(), guide_scale=3.0)
    guided, plain = guidance(Network())(x, t, c), Network()(x, t, c)
    torch.testing.assert_close(guided.flatten(1).std(1), plain.flatten(1).std(1))


def test_a_scale_without_a_guide_is_refused():
    with pytest.raises(ValueError, match="a guide scale of 2.0 needs a guide"):
        Guidance(1.0, NULL, guide_scale=2.0)


@pytest.mark.parametrize("schedule", [COSINE, NoiseSchedule("flow", shift=0.5)])
def test_a_guide_that_predicts_something_else_guides_the_same(schedule):
    """What the denoiser of a Gaussian predicts is known in each form, and the samples agree."""
    grid = schedule.grid(12)
    strong, weak = Gaussian(0.3, 0.6, grid), Gaussian(0.3, 1.1, grid)
    kinds = [k for k in ("eps", "x0", "v", "flow") if k != "eps" or not schedule.ends_in_noise]
    drawn = []
    for wanted in kinds:
        for made in kinds:
            guide = predicting(weak.denoiser(made), made, wanted, schedule)
            x = sample(
                strong.denoiser(wanted),
                (4, 2),
                schedule,
                spacing=grid,
                prediction=wanted,
                condition=NULL.expand(4),
                seeds=[1, 2, 3, 4],
                guidance=Guidance(1.0, NULL, guide=guide, guide_scale=2.5),
                dtype=torch.float64,
            )
            drawn.append(x)
    for x in drawn[1:]:
        torch.testing.assert_close(x, drawn[0], rtol=1e-4, atol=1e-4)
