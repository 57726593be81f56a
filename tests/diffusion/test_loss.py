"""The training loss against closed forms and statistics."""

import pytest
import torch

from tinyldm.condition import Condition
from tinyldm.diffusion.loss import (
    draw_noise,
    drop_condition,
    loss_weight,
    prediction_error,
    training_loss,
)
from tinyldm.diffusion.prediction import PREDICTIONS, target
from tinyldm.diffusion.schedule import NoiseSchedule

COSINE = NoiseSchedule()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def zeros(x_t, t, condition):
    return torch.zeros_like(x_t)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("t", [0, 1])
def test_pitfall_07_noise_of_the_right_size_at_small_t(dtype, t):
    x0 = (3 * torch.randn(4, 4, 32, 32, generator=seeded())).to(dtype)
    eps = torch.randn(4, 4, 32, 32, generator=seeded(1))
    x_t = draw_noise(x0, COSINE, t=torch.full((4,), t), eps=eps).x_t
    assert x_t.dtype == torch.float32
    signal = COSINE.alpha_bar[t].sqrt().item() * x0.double()
    added = (x_t - signal).square().mean().sqrt().item()
    assert added == pytest.approx((1 - COSINE.alpha_bar[t].item()) ** 0.5, rel=0.02)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_pitfall_07_noising_rounds_nothing_to_half_precision(dtype):
    """At any t x_t is the sum as double precision has it, of the latent and the noise as
    they came."""
    t, ab = torch.arange(0, 1000, 37), COSINE.alpha_bar[::37, None]
    x0, eps = (torch.randn(len(t), 64, generator=seeded(k)).to(dtype) for k in range(2))
    expected = ab.sqrt() * x0.double() + (1 - ab).sqrt() * eps.double()
    assert (draw_noise(x0, COSINE, t=t, eps=eps).x_t - expected).abs().max() < 1e-6


def test_noising_has_the_marginal_variance():
    x0 = torch.randn(1000, 64, generator=seeded())
    t = torch.arange(1000)
    eps = torch.randn(1000, 64, generator=seeded(1))
    x_t = draw_noise(x0, COSINE, t=t, eps=eps).x_t
    ratio = (x_t - COSINE.alpha_bar.sqrt()[:, None] * x0).var(1) / (1 - COSINE.alpha_bar)
    assert ratio.mean().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_a_perfect_denoiser_has_no_loss(kind):
    x0 = torch.randn(6, 3, 4, 4, generator=seeded())
    eps = torch.randn(6, 3, 4, 4, generator=seeded(1))
    t = torch.tensor([0, 10, 400, 600, 900, 999])

    def oracle(x_t, t, condition):
        return target(x0, eps, COSINE.level(t.long()).like(x0), kind)

    assert training_loss(oracle, x0, None, COSINE, kind, t=t, eps=eps).abs().max() < 1e-12


@pytest.mark.parametrize("gamma", [None, 1.0, 5.0])
@pytest.mark.parametrize("schedule", [COSINE, NoiseSchedule("flow")], ids=str)
def test_min_snr_makes_one_weighting_of_all_predictions(schedule, gamma):
    """The same wrong guess of x0, said in any of the four ways, costs min(SNR, gamma) times its
    squared error."""
    x0 = torch.randn(5, 2, 4, 4, generator=seeded(), dtype=torch.float64)
    eps = torch.randn(5, 2, 4, 4, generator=seeded(1), dtype=torch.float64)
    t = torch.tensor([50, 200, 400, 600, 800])
    s = (t + 1) / 1000 if schedule.kind == "flow" else (1 - COSINE.alpha_bar[t]).sqrt()
    a = 1 - s if schedule.kind == "flow" else COSINE.alpha_bar[t].sqrt()
    snr = a**2 / s**2
    a, s = a.view(-1, 1, 1, 1), s.view(-1, 1, 1, 1)
    x_t = a * x0 + s * eps
    guess = x0 + 0.1 * torch.randn(x0.shape, generator=seeded(2))
    noise = (x_t - a * guess) / s
    said = {"x0": guess, "eps": noise, "v": a * noise - s * guess, "flow": noise - guess}
    error = (guess - x0).square().mean((1, 2, 3))
    for kind in set(PREDICTIONS) - ({"eps"} if schedule.kind == "flow" else set()):
        loss = training_loss(
            lambda *_, kind=kind: said[kind], x0, None, schedule, kind, gamma, t=t, eps=eps
        )
        assert loss.shape == (5,)
        assert loss.dtype == torch.float32
        if gamma is not None:
            assert torch.allclose(loss.double(), snr.clamp(max=gamma) * error, rtol=1e-3)
        elif kind == "x0":
            assert torch.allclose(loss.double(), error, rtol=1e-3)


def test_pitfall_15_min_snr_of_v_is_finite_at_zero_snr():
    schedule = NoiseSchedule("linear", zero_snr=True)
    weight = loss_weight(torch.arange(1000), schedule, "v", 5.0)
    snr = schedule.alpha_bar / (1 - schedule.alpha_bar)
    assert torch.allclose(weight, torch.minimum(snr, torch.tensor(5.0)) / (snr + 1))
    assert weight[-1] == 0
    x0 = torch.randn(4, 1, 4, 4)
    assert training_loss(zeros, x0, None, schedule, t=torch.full((4,), 999)).isfinite().all()
    with pytest.raises(ValueError, match="zero_snr"):
        training_loss(zeros, x0, None, schedule, "eps")


def test_every_t_is_drawn_and_as_often():
    seen = []
    training_loss(
        lambda x, t, c: seen.append(t) or x,
        torch.zeros(50_000, 1),
        None,
        COSINE,
        generator=seeded(),
    )
    count = torch.bincount(seen[0].long(), minlength=1000)
    assert len(count) == 1000
    assert count.min() > 0
    assert ((count - 50) ** 2 / 50).sum() / 999 == pytest.approx(1, abs=0.2)  # chi-squared
    assert seen[0].dtype == torch.float32


def run(drop, b=1000, seed=0, **options):
    seen = []
    condition = Condition(
        tokens=torch.ones(b, 3, 2), mask=torch.ones(b, 3, dtype=torch.bool), vector=torch.ones(b, 4)
    )
    null = Condition(
        tokens=torch.zeros(1, 2, 2), mask=torch.tensor([[True, False]]), vector=torch.zeros(1, 4)
    )
    training_loss(
        lambda x, t, c: seen.append(c) or x,
        torch.zeros(b, 1),
        condition,
        COSINE,
        null=null,
        cfg_drop=drop,
        generator=seeded(seed),
        **options,
    )
    return seen[0], condition, null


def test_pitfall_13_drop_is_drawn_for_each_sample():
    c, _, _ = run(0.3)
    gone = c.vector[:, 0] == 0
    assert gone.float().mean().item() == pytest.approx(0.3, abs=0.05)
    assert torch.equal(gone, c.tokens.sum((1, 2)) == 0)
    assert torch.equal(gone, c.mask.sum(1) == 1)
    assert not torch.equal(gone, run(0.3, seed=1)[0].vector[:, 0] == 0)


def test_pitfall_13_drop_of_one_is_the_null_condition():
    c, _, null = run(1.0)
    assert torch.equal(c.tokens, null.padded(3).tokens.expand(1000, -1, -1))
    assert torch.equal(c.mask, null.padded(3).mask.expand(1000, -1))
    assert torch.equal(c.vector, null.vector.expand(1000, -1))
    assert run(0.0)[0] is not None
    assert torch.equal(run(0.0)[0].tokens, run(0.0)[1].tokens)


def test_bad_arguments_are_refused():
    x0, one = torch.zeros(2, 1), Condition(vector=torch.zeros(1, 3))
    with pytest.raises(ValueError, match="probability"):
        training_loss(zeros, x0, one.expand(2), COSINE, null=one, cfg_drop=1.5)
    with pytest.raises(ValueError, match="null"):
        training_loss(zeros, x0, one.expand(2), COSINE, cfg_drop=0.5)
    with pytest.raises(ValueError, match="returned"):
        training_loss(lambda x, t, c: x[:, :0], x0, None, COSINE)


def test_the_same_generator_gives_the_same_loss():
    x0 = torch.randn(8, 3, generator=seeded())
    losses = [training_loss(zeros, x0, None, COSINE, generator=seeded(5)) for _ in range(2)]
    assert torch.equal(*losses)
    assert losses[0].shape == (8,)


@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize("gamma", [None, 5.0])
def test_the_three_steps_are_the_loss(kind, gamma):
    """Drop, noise, predict, error: taken one by one they are training_loss, bit for bit."""
    x0 = torch.randn(6, 3, 4, 4, generator=seeded())
    condition = Condition(vector=torch.randn(6, 2, generator=seeded(1)))
    null = Condition(vector=torch.zeros(1, 2))

    def denoiser(x_t, t, c):
        return torch.tanh(x_t + c.vector.sum(1).view(-1, 1, 1, 1) + t.view(-1, 1, 1, 1) / 500)

    whole = training_loss(denoiser, x0, condition, COSINE, kind, gamma, null, 0.5, seeded(7))
    generator = seeded(7)
    dropped = drop_condition(condition, null, 0.5, generator)
    noised = draw_noise(x0, COSINE, generator)
    predicted = denoiser(noised.x_t, noised.t.float(), dropped)
    assert torch.equal(prediction_error(predicted, noised, kind, COSINE, gamma), whole)
    # and what lies between the steps is what it says
    assert torch.equal(noised.x_t, noised.level.alpha * noised.x0 + noised.level.sigma * noised.eps)
    assert noised.level.alpha.shape == (6, 1, 1, 1)
    given = draw_noise(x0, COSINE, t=noised.t, eps=noised.eps)
    assert torch.equal(given.x_t, noised.x_t)


def test_the_order_of_the_draws_is_drop_t_eps():
    x0, c = torch.zeros(5, 2, 3), Condition(vector=torch.ones(5, 1))
    seen = {}

    def denoiser(x_t, t, condition):
        seen.update(x_t=x_t, t=t, kept=condition.vector[:, 0] == 1)
        return x_t

    null = Condition(vector=torch.zeros(1, 1))
    training_loss(denoiser, x0, c, COSINE, null=null, cfg_drop=0.4, generator=seeded(3))
    generator = seeded(3)
    assert torch.equal(seen["kept"], torch.rand(5, generator=generator) >= 0.4)
    t = torch.randint(1000, (5,), generator=generator)
    assert torch.equal(seen["t"], t.float())
    eps = torch.randn(5, 2, 3, generator=generator)
    assert torch.equal(seen["x_t"], draw_noise(x0, COSINE, t=t, eps=eps).x_t)
