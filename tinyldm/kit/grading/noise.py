"""The exercises schedule and loss."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from .compare import MANY, compare, demand, normal, refused


def check_schedule() -> None:
    """alpha_bar of each kind, with the product taken in plain Python."""
    from tinyldm.diffusion.schedule import NoiseSchedule

    n = 200
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 200 linear steps do not end in noise
        linear = NoiseSchedule("linear", n)
        scaled = NoiseSchedule("scaled_linear", n, beta_start=0.001, beta_end=0.1)
        cosine = NoiseSchedule("cosine", n)
        to_noise = NoiseSchedule("linear", n, zero_snr=True)
        shifted = NoiseSchedule("cosine", n, shift=0.5)

    def evenly(a: float, b: float) -> list[float]:
        return [a + (b - a) * k / (n - 1) for k in range(n)]

    def product(betas: list[float]) -> Tensor:
        kept, total = [], 1.0
        for beta in betas:
            total *= 1 - beta
            kept.append(total)
        return torch.tensor(kept, dtype=torch.float64)

    def f(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = evenly(1e-4, 0.02)
    expected = product(betas)
    demand(linear.alpha_bar.dtype == torch.float64, "your alpha_bar is not float64")
    mistakes = {
        "it is the product of beta": torch.tensor(betas, dtype=torch.float64).cumprod(0),
        "the product is missing": 1 - torch.tensor(betas, dtype=torch.float64),
        "it is the root, alpha": expected.sqrt(),
        "the product begins with 1": torch.cat([expected.new_ones(1), expected[:-1]]),
    }
    compare("alpha_bar of the linear schedule", linear.alpha_bar, expected, mistakes)
    rooted = product([root**2 for root in evenly(0.001**0.5, 0.1**0.5)])
    mistakes = {"its betas, not their roots, are evenly spaced": product(evenly(0.001, 0.1))}
    compare("alpha_bar of scaled_linear", scaled.alpha_bar, rooted, mistakes)
    wavy = product([min(1 - f((k + 1) / n) / f(k / n), 0.999) for k in range(n)])
    free = torch.tensor([f((k + 1) / n) / f(0) for k in range(n)], dtype=torch.float64)
    mistakes = {"the betas are not cut at 0.999": free}
    compare("alpha_bar of the cosine schedule", cosine.alpha_bar, wavy, mistakes)
    alpha = expected.sqrt()
    end = ((alpha - alpha[-1]) / (alpha[0] - alpha[-1]) * alpha[0]) ** 2
    mistakes = {
        "zero_snr does nothing": expected,
        "alpha_bar was shifted and scaled, not alpha": (
            (expected - expected[-1]) / (expected[0] - expected[-1]) * expected[0]
        ),
    }
    compare("alpha_bar with zero_snr", to_noise.alpha_bar, end, mistakes)
    ratio = 0.25 * wavy / (1 - wavy)
    once = 0.5 * wavy / (1 - wavy)
    mistakes = {"shift does nothing": wavy, "shift is not squared": once / (1 + once)}
    compare("alpha_bar with shift 0.5", shifted.alpha_bar, ratio / (1 + ratio), mistakes)
    refused(lambda: NoiseSchedule("flow").alpha_bar, "for alpha_bar of 'flow', which has no betas")


class TwoLevels:
    """A schedule that the grader brings along: sigma = (t + 1) / T."""

    timesteps = 50

    def level(self, t: Tensor) -> Any:
        """The levels at t (b,)."""
        from tinyldm.diffusion.schedule import BatchLevel

        sigma = (t.double() + 1) / self.timesteps
        return BatchLevel(t, (1 - sigma**2).sqrt(), sigma)


def check_loss() -> None:
    """x_t at known t and eps; what is drawn; errors that can be counted by hand."""
    from tinyldm.diffusion.loss import Noised, draw_noise, prediction_error
    from tinyldm.diffusion.prediction import target

    schedule: Any = TwoLevels()
    x0, eps = 3 * normal(4, 2, 50, 50), normal(4, 2, 50, 50, seed=1)
    t = torch.tensor([0, 9, 30, 49])
    known = schedule.level(t).like(x0)
    noised: Any = draw_noise(x0, schedule, t=t, eps=eps)
    kind = type(noised).__name__
    demand(isinstance(noised, Noised), f"your draw_noise returns a {kind}, expected a Noised")
    for name, got, given in (("t", noised.t, t), ("eps", noised.eps, eps)):
        told = f"your draw_noise does not take the {name} that it is given: draw where it is None"
        demand(isinstance(got, Tensor) and torch.equal(got, given), told)
    mistakes = {
        "alpha and sigma changed places": known.sigma * x0 + known.alpha * eps,
        "alpha and sigma are squared": known.alpha**2 * x0 + known.sigma**2 * eps,
        "the noise is missing": known.alpha * x0,
        "x0 is not scaled by alpha": x0 + known.sigma * eps,
    }
    compare("x_t", noised.x_t, known.alpha * x0 + known.sigma * eps, mistakes)
    many = draw_noise(torch.zeros(MANY, 1), schedule, torch.Generator().manual_seed(0))
    lowest, highest = int(many.t.min()), int(many.t.max())
    demand(
        (lowest, highest) == (0, 49),
        f"your t lie between {lowest} and {highest}, expected 0 and 49 for T = 50",
    )
    share = torch.bincount(many.t, minlength=50).double() / MANY
    demand(bool((share - 0.02).abs().max() < 0.005), "your t are not equally frequent")
    spread = many.eps.var().item()
    demand(abs(spread - 1) < 0.03, f"your eps has the variance {spread:.2f}, expected 1.00")
    again = draw_noise(torch.zeros(MANY, 1), schedule, torch.Generator().manual_seed(0))
    demand(torch.equal(again.eps, many.eps), "your noise does not come from the generator")

    noised = Noised(x0, eps, t, known, x_t=known.alpha * x0 + known.sigma * eps)
    for kind in ("eps", "v"):
        predicted = normal(4, 2, 50, 50, seed=2)
        square = (predicted - target(x0, eps, known, kind)) ** 2
        error = prediction_error(predicted, noised, kind, schedule)
        mistakes = {
            "the target is eps, whatever is predicted": ((predicted - eps) ** 2).flatten(1).mean(1),
            "the target is x0, whatever is predicted": ((predicted - x0) ** 2).flatten(1).mean(1),
            "you took the sum over a sample, not the mean": square.flatten(1).sum(1),
            "the difference is not squared": square.sqrt().flatten(1).mean(1),
        }
        compare(f"error of {kind}", error, square.flatten(1).mean(1), mistakes)
    fixed = Noised(x0[:1], eps[:1], t[1:2], schedule.level(t[1:2]).like(x0), x_t=x0[:1])
    ratio = (1 - 0.2**2) / 0.2**2  # alpha^2 / sigma^2 at t = 9
    plain = prediction_error(x0[:1] + 1, fixed, "x0", schedule)
    weighed = prediction_error(x0[:1] + 1, fixed, "x0", schedule, snr_gamma=5.0)
    mistakes = {"snr_gamma does nothing": plain}
    expected = torch.full((1,), min(ratio, 5.0))
    compare("error of x0 with snr_gamma 5", weighed, expected, mistakes)
    wrong = "for a prediction of another shape than x_t"
    refused(lambda: prediction_error(x0[:, :1], noised, "v", schedule), wrong)
