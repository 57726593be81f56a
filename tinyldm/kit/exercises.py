"""The exercises of the assignment kit: which functions are blank, and what a student is told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Exercise:
    """Functions for a student to write.

    name:      what the grader calls it
    module:    the file, below the package
    functions: the blank ones, dotted where they belong to a class or another function
    title:     what it is, in a few words
    task:      what to write: the formula, its source, what to look out for
    """

    name: str
    module: str
    functions: tuple[str, ...]
    title: str
    task: str


EXERCISES = (
    Exercise(
        "schedule",
        "diffusion/schedule.py",
        ("NoiseSchedule.betas", "NoiseSchedule.alpha_bar"),
        title="The noise schedule",
        task="beta_t is the variance that step t adds, alpha_bar_t the product of 1 - beta up to "
        "t (DDPM, 2006.11239, section 2), in float64, (T,). The linear betas are evenly spaced "
        "from beta_start to beta_end, the scaled_linear ones are evenly spaced in their square "
        "root; the cosine schedule is 2102.09672, eq. 17, with betas of at most 0.999. Then "
        "zero_snr: alpha = sqrt(alpha_bar) is shifted and scaled so that its last value is 0 and "
        "its first stays (2305.08891, algorithm 1); and shift multiplies alpha / sigma, so "
        "alpha_bar / (1 - alpha_bar) by its square. ValueError for a kind without betas.",
    ),
    Exercise(
        "loss",
        "diffusion/loss.py",
        ("draw_noise", "prediction_error"),
        title="Noise a batch, and compare",
        task="draw_noise: t uniform from 0 to T - 1, eps normal, x_t = alpha_t x0 + sigma_t eps "
        "(2006.11239, eq. 4), where schedule.level(t).like(x0) has alpha and sigma in the shape of "
        "x0. Draw t first, then eps, from the generator. prediction_error: the mean square error "
        "of each sample, (b,), against what target() says should have been predicted, times "
        "loss_weight(). ValueError for a prediction of another shape.",
    ),
    Exercise(
        "ddim",
        "diffusion/ddim.py",
        ("DDIM.step",),
        title="DDIM",
        task="From x_t to x_s, of which x0 and eps are the parts: x_s = alpha_s x0 + sigma_s eps "
        "for eta = 0 (2010.02502, eq. 12). With eta, part of sigma_s^2 is fresh noise: the share "
        "eta^2 (1 - rho^2), where rho is now.correlation(nxt). The variance of all noise "
        "stays sigma_s^2. Returns (x_s, ()). ValueError where noise is needed and missing.",
    ),
    Exercise(
        "ddpm",
        "diffusion/ddpm.py",
        ("DDPM.step",),
        title="DDPM",
        task="Draw x_s from q(x_s | x_t, x0), a Gaussian (2006.11239, eq. 6 and 7, between any two "
        "levels). Given x0, x_t and x_s are correlated by rho = now.correlation(nxt), so the mean "
        "moves by rho sigma_s / sigma_t times what x_t is away from its own, and the variance is "
        "sigma_s^2 (1 - rho^2). variance='large' multiplies it by (sigma_t / sigma_s)^2 "
        "(alpha_s^2 + sigma_s^2) / (alpha_t^2 + sigma_t^2). No noise on the way to clean data. "
        "Returns (x_s, ()). ValueError where noise is needed and missing.",
    ),
    Exercise(
        "guidance",
        "diffusion/guidance.py",
        ("Guidance.__call__",),
        title="Classifier-free guidance",
        task="Return a denoiser (x_t, t, condition) -> prediction: null + scale (conditional - "
        "null) (2207.12598). self.scale_at(t, self.scale) is (b,): where all are 1, call "
        "the network once with the condition; where all are 0, once with the null condition, "
        "expanded to b rows; else once for both, by predictions_of. End with self.rescaled. "
        "ValueError without a condition.",
    ),
    Exercise(
        "dpm-solver",
        "diffusion/dpm_solver.py",
        ("DPMSolver.step", "DPMSolver.bend"),
        title="DPM-Solver++",
        task="step: with a constant prediction it is DDIM's; where order_of says 2, add bend of "
        "what history holds. Return x_s and the new history, ((lambda, x0), ...), the newest "
        "first, of at most order - 1 entries. bend: with the default midpoint rule (2211.01095, "
        "algorithm 2), D_1 = (m_0 - m_1) / r is the slope, r = (lambda_t - lambda_1) / h; what is "
        "added is alpha_s (1 - e^-h) / 2 D_1. The grader looks at order 1 and 2 of the x0 form; "
        "the docstrings say the rest, should you want to go on.",
    ),
    Exercise(
        "attention",
        "nn/blocks.py",
        ("_attend", "Attention.forward"),
        title="Attention",
        task="_attend: softmax(q k^T / sqrt(d)) v for q (b, heads, n, d) and k, v (b, heads, m, d) "
        "(1706.03762, eq. 1); where mask (b, 1, 1, m) is False, a token is not seen. forward: "
        "queries from x, keys and values from context, or from x where there is none; "
        "self._split them into heads, attend, put the heads side by side again, (b, n, c), and end "
        "with self.to_out.",
    ),
)
