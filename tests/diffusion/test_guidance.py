"""Guidance against what the conditional and the null model say by themselves."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tinyldm.condition import Condition
from tinyldm.diffusion.guidance import Guidance
from tinyldm.diffusion.schedule import NoiseSchedule
from tinyldm.methods.composition import IndependentGuidance, StepwiseGuidance

COSINE = NoiseSchedule()
NULL = Condition(tokens=torch.zeros(1, 2, 3), vector=torch.full((1, 4), -1.0))


class Network:
    """A made-up network that mixes x, t and what the mask lets it see, and counts the rows that it
    is given."""

    def __init__(self):
        self.rows, self.seen = [], []

    def __call__(self, x, t, c):
        self.rows.append(len(x))
        self.seen.append(c)
        tokens = c.tokens if c.mask is None else c.tokens * c.mask[..., None]
        told = tokens.sum((1, 2)) + c.vector.sum(1) + t / 1000
        return torch.tanh(x + told.view(-1, 1, 1, 1)) * torch.arange(1, x.shape[1] + 1).view(
            -1, 1, 1
        )


def inputs(b=3):
    g = torch.Generator().manual_seed(0)
    condition = Condition(
        tokens=torch.randn(b, 5, 3, generator=g), vector=torch.randn(b, 4, generator=g)
    )
    return torch.randn(b, 4, 2, 2, generator=g), torch.full((b,), 500.0), condition


def test_pitfall_13_scale_one_is_conditional_and_zero_is_null():
    x, t, c = inputs()
    net = Network()
    assert torch.equal(Guidance(1.0, NULL)(net)(x, t, c), net(x, t, c))
    assert torch.equal(Guidance(0.0, NULL)(net)(x, t, c), net(x, t, NULL.expand(3)))
    assert net.rows == [3, 3, 3, 3]  # neither pays for the other half


@given(
    b=st.integers(1, 5),
    rescale=st.floats(0, 1),
    low=st.floats(0, 5),
    width=st.floats(0.01, 50),
    first=st.integers(0, 999),
)
def test_pitfall_13_scale_one_and_zero_whatever_else_is_set(b, rescale, low, width, first):
    x, _, c = inputs(b)
    t = (
        torch.arange(b) * 333.0 + first
    ) % 1000  # some of the samples within the interval, or none, or all
    net = Network()
    conditional, null = net(x, t, c), net(x, t, NULL.expand(b))
    more = dict(rescale=rescale, interval=(low, low + width), schedule=COSINE)
    assert torch.equal(Guidance(1.0, NULL, **more)(net)(x, t, c), conditional)
    noise_level = ((1 - COSINE.alpha_bar) / COSINE.alpha_bar).sqrt()[t.long()]
    inside = (low < noise_level) & (noise_level <= low + width)
    zero = Guidance(0.0, NULL, interval=(low, low + width), schedule=COSINE)(net)(x, t, c)
    torch.testing.assert_close(zero, torch.where(inside[:, None, None, None], null, conditional))
    assert torch.equal(Guidance(0.0, NULL, rescale=rescale)(net)(x, t, c), null)
    # the two halves in one call say the same: nearly 1 is nearly the conditional, nearly 0 nearly
    # the null
    for scale, expected in ((1 + 1e-6, conditional), (1e-6, null)):
        torch.testing.assert_close(
            Guidance(scale, NULL)(net)(x, t, c), expected, rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("scale", [-1.0, 0.5, 3.0, 7.5])
def test_pitfall_13_every_channel_is_guided_by_one_call(scale):
    x, t, c = inputs()
    net = Network()
    guided = Guidance(scale, NULL)(net)(x, t, c)
    assert net.rows == [6]
    conditional, null = net(x, t, c), net(x, t, NULL.expand(3))
    assert torch.allclose(
        (guided - null) / (conditional - null), torch.full_like(x, scale), rtol=1e-3
    )


def test_pitfall_13_training_drops_to_the_null_that_sampling_uses():
    x, t, c = inputs()
    net = Network()
    Guidance(3.0, NULL)(net)(x, t, c)
    trained = c.drop(NULL, torch.ones(3, dtype=torch.bool))
    sampled = net.seen[0][3:]
    assert all(
        torch.equal(trained.parts()[k], sampled.parts()[k]) for k in ("tokens", "mask", "vector")
    )


def test_guidance_of_a_batch_is_guidance_of_each():
    x, t, c = inputs()
    guided = Guidance(4.0, NULL, rescale=0.7)(Network())
    assert torch.allclose(
        guided(x, t, c), torch.cat([guided(x[[k]], t[[k]], c[[k]]) for k in range(3)]), atol=1e-6
    )


def test_rescale_gives_back_the_spread_of_the_conditional():
    x, t, c = inputs()
    net = Network()
    spread = net(x, t, c).flatten(1).std(1)
    plain = Guidance(8.0, NULL)(net)(x, t, c)
    full = Guidance(8.0, NULL, rescale=1.0)(net)(x, t, c)
    assert torch.allclose(full.flatten(1).std(1), spread, rtol=1e-5)
    half = Guidance(8.0, NULL, rescale=0.5)(net)(x, t, c)
    assert torch.allclose(half, (plain + full) / 2, atol=1e-5)
    assert torch.allclose(
        full / plain, (full / plain)[:, :1, :1, :1].expand_as(x), rtol=1e-4
    )  # a factor, no shift


def test_the_interval_skips_the_null_half():
    x, _, c = inputs()
    net = Network()
    guided = Guidance(3.0, NULL, interval=(0.28, 2.9), schedule=COSINE)(net)
    for level in COSINE.grid(20)[:-1]:
        net.rows.clear()
        found = guided(x, torch.full((3,), level.t), c)
        inside = 0.28 < level.sigma / level.alpha <= 2.9
        assert net.rows == [6 if inside else 3]
        assert inside or torch.equal(found, net(x, torch.full((3,), level.t), c))
    net.rows.clear()
    ts = torch.tensor([999.0, 500.0, 0.0])  # each sample by its own t
    mixed = guided(x, ts, c)
    assert net.rows == [6]
    assert torch.allclose(mixed[[0, 2]], net(x, ts, c)[[0, 2]])
    assert torch.allclose(mixed[1], Guidance(3.0, NULL)(net)(x, ts, c)[1])


def test_the_interval_is_open_below_and_closed_above():
    """2404.07724: guided where low < sigma <= high, and the noise levels may be those of the grid
    itself."""
    x, _, c = inputs()
    low, high = ((-COSINE.lambda_(t)).exp().item() for t in (200, 700))
    for t, rows in ((199, 3), (200, 3), (201, 6), (450, 6), (700, 6), (701, 3)):
        net = Network()
        Guidance(3.0, NULL, interval=(low, high), schedule=COSINE)(net)(
            x, torch.full((3,), float(t)), c
        )
        assert net.rows == [rows], t


@pytest.mark.parametrize(
    "options",
    [
        {"null": NULL.expand(2)},
        {"rescale": 1.5},
        {"interval": (2.0, 1.0), "schedule": COSINE},
        {"interval": (1.0, 2.0)},
        {"schedule": COSINE},
    ],
)
def test_impossible_guidance_is_refused(options):
    with pytest.raises(ValueError, match=r"one row|between 0 and 1|lower first|go together"):
        Guidance(**{"scale": 3.0, "null": NULL, **options})
    with pytest.raises(ValueError, match="needs a condition"):
        Guidance(3.0, NULL)(Network())(*inputs()[:2], None)


SCENE_NULL = Condition(vector=torch.full((1, 2), -1.0), maps=torch.zeros(1, 2, 3, 3))


def scene_denoiser(x, t, c):
    """A formula that is linear in the vector and the maps, and mixes nothing between samples."""
    told = c.vector.sum(1) + (c.maps * torch.tensor([1.0, -3.0])[:, None, None]).sum((1, 2, 3))
    return torch.sin(x + t.view(-1, 1, 1, 1) / 300) + told.view(-1, 1, 1, 1) * x.square()


def scene_inputs(b=3):
    g = torch.Generator().manual_seed(1)
    c = Condition(vector=torch.randn(b, 2, generator=g), maps=torch.randn(b, 2, 3, 3, generator=g))
    return torch.randn(b, 4, 3, 3, generator=g), torch.rand(b, generator=g) * 999, c


def null_map_both(full):
    """c_0 knows nothing, c_1 the maps, c_2 the vector too."""
    nothing = SCENE_NULL.expand(len(full))
    return [nothing, replace(nothing, maps=full.maps), full]


@pytest.mark.parametrize("scales", [(3.7, 2.3), (1.0, 4.0), (0.0, -1.5)])
def test_stepwise_guidance_scales_what_each_condition_adds(scales):
    """2211.09800, eq. 3, in the order in which landscapes have always added it up: equal bit by
    bit."""
    x, t, c = scene_inputs()
    null, maps, both = (scene_denoiser(x, t, part) for part in null_map_both(c))
    expected = null + scales[0] * (maps - null) + scales[1] * (both - maps)
    assert torch.equal(StepwiseGuidance(scales, null_map_both)(scene_denoiser)(x, t, c), expected)


@pytest.mark.parametrize("kind", [StepwiseGuidance, IndependentGuidance])
def test_several_conditions_take_one_call_the_full_one_first(kind):
    x, t, c = scene_inputs(2)
    calls = []

    def counting(x, t, c):
        calls.append((x, t, c))
        return scene_denoiser(x, t, c)

    kind((2.0, 3.0), null_map_both)(counting)(x, t, c)
    ((rows, times, told),) = calls
    assert torch.equal(rows, torch.cat([x, x, x]))
    assert torch.equal(times, torch.cat([t, t, t]))
    null, maps, both = null_map_both(c)
    for k, part in enumerate((both, maps, null)):
        assert torch.equal(told[2 * k : 2 * k + 2].vector, part.vector)
        assert torch.equal(told[2 * k : 2 * k + 2].maps, part.maps)


def test_independent_guidance_compares_each_condition_with_none():
    """2206.01714: what each of three conditions changes, times its scale."""
    x, t, c = scene_inputs()
    nothing = SCENE_NULL.expand(3)
    several = [nothing, replace(nothing, maps=c.maps), replace(nothing, vector=c.vector), c]
    d = [scene_denoiser(x, t, part) for part in several]
    guided = IndependentGuidance((3.0, 0.5, -2.0), lambda full: several)(scene_denoiser)(x, t, c)
    expected = d[0] + 3.0 * (d[1] - d[0]) + 0.5 * (d[2] - d[0]) - 2.0 * (d[3] - d[0])
    torch.testing.assert_close(guided, expected)
    # the formula is linear in what it is told, so map and vector add up to both
    linear = IndependentGuidance((1.0, 1.0), lambda full: several[:3])(scene_denoiser)(x, t, c)
    torch.testing.assert_close(linear, d[3], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [StepwiseGuidance, IndependentGuidance])
@pytest.mark.parametrize("scale", [-1.0, 0.5, 1.0, 3.0])
def test_one_condition_is_classifier_free_guidance(kind, scale):
    x, t, c = inputs()
    net = Network()
    # a condition of one row stands for all samples
    guided = kind((scale,), lambda full: [NULL, full])(net)(x, t, c)
    torch.testing.assert_close(guided, Guidance(scale, NULL)(net)(x, t, c))
    assert net.rows[0] == 6


def test_stepwise_guidance_with_scales_of_one_is_the_full_condition():
    x, t, c = scene_inputs()
    guided = StepwiseGuidance((1.0, 1.0), null_map_both)(scene_denoiser)(x, t, c)
    torch.testing.assert_close(guided, scene_denoiser(x, t, c), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [StepwiseGuidance, IndependentGuidance])
def test_impossible_guidance_by_several_conditions_is_refused(kind):
    x, t, c = scene_inputs()
    with pytest.raises(ValueError, match="needs a condition"):
        kind((1.0, 2.0), null_map_both)(scene_denoiser)(x, t, None)
    with pytest.raises(ValueError, match="3 scales need as many conditions"):
        kind((1.0, 2.0, 3.0), null_map_both)(scene_denoiser)(x, t, c)
