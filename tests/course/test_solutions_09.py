"""Chapter 9: the floor of a loss, what an average is made of, and what a denoiser predicts."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tinyldm import EMA, NoiseSchedule
from tinyldm.diffusion.loss import training_loss
from tinyldm.diffusion.prediction import PREDICTIONS

FILE = Path(__file__).parents[2] / "docs" / "course" / "solutions" / "09_training.py"
chapter = SimpleNamespace(**runpy.run_path(str(FILE)))


def best_denoiser(schedule, prediction, size):
    """The mean of what is to be predicted, given x_t, for data N(0, size^2): by regression.

    Everything is jointly Gaussian with mean 0, so it is Cov(target, x_t) / Var(x_t) times x_t.
    """

    def denoiser(x_t, t, condition):
        level = schedule.level(t).like(x_t)
        of_x0 = {"eps": 0, "x0": 1, "v": -level.sigma, "flow": -1}[prediction]
        of_eps = {"eps": 1, "x0": 0, "v": level.alpha, "flow": 1}[prediction]
        covariance = of_x0 * level.alpha * size**2 + of_eps * level.sigma
        return x_t * covariance / (level.alpha**2 * size**2 + level.sigma**2)

    return denoiser


@pytest.mark.parametrize("kind", ["cosine", "flow"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("size", [1.0, 0.5])
def test_the_best_denoiser_has_the_least_loss(kind, prediction, size):
    if (kind, prediction) == ("flow", "eps"):
        pytest.skip("refused: the path ends in pure noise")
    schedule = NoiseSchedule(kind)
    generator = torch.Generator().manual_seed(0)
    x0 = size * torch.randn(100_000, 1, generator=generator)
    for t in (100, 500, 900):
        loss = training_loss(
            best_denoiser(schedule, prediction, size),
            x0,
            None,
            schedule,
            prediction,
            generator=generator,
            t=torch.full((len(x0),), t),
        )
        expected = chapter.least_loss(schedule.level(t), prediction, size)
        assert loss.mean().item() == pytest.approx(expected, rel=0.02)


def test_what_knows_only_the_size_of_the_data_has_a_loss_of_one():
    for t in (0, 300, 999):
        assert chapter.least_loss(NoiseSchedule().level(t), "v", 1.0) == pytest.approx(1)


@pytest.mark.parametrize("warmup", [True, False])
def test_the_average_is_made_of_these_shares(warmup):
    """Weights that are e_0, e_1, e_2, ... leave their shares in the average."""
    layer = torch.nn.Linear(31, 1, bias=False)
    axes = torch.eye(31)
    layer.weight.data = axes[:1].clone()
    ema = EMA(layer, decay=0.9, warmup=warmup)
    for k in range(30):
        layer.weight.data = axes[k + 1 : k + 2].clone()
        ema.update(layer)
    shares = chapter.weights_of_average(0.9, 30, warmup)
    torch.testing.assert_close(shares.float(), ema.network.weight[0])
    assert shares.sum().item() == pytest.approx(1)


def test_little_is_left_of_the_start_after_a_warm_up():
    assert chapter.weights_of_average(0.9999, 2000, False)[0].item() == pytest.approx(
        0.8187, abs=1e-4
    )
    product = 1.0
    for k in range(1, 10):  # 9! 50! / 59!
        product *= k / (50 + k)
    assert chapter.weights_of_average(0.9999, 50)[0].item() == pytest.approx(product)


@pytest.mark.parametrize("size", [1.0, 0.4])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_it_is_found_out_what_is_predicted(prediction, size):
    for kind in ("cosine", "linear"):
        schedule = NoiseSchedule(kind)
        x0 = size * torch.randn(50, 8, generator=torch.Generator().manual_seed(1))
        denoiser = best_denoiser(schedule, prediction, size)
        assert chapter.what_is_predicted(denoiser, x0, schedule) == prediction
