"""A solver of your own, an example of the Solver contract: Adams-Bashforth of second order.

    sample(denoiser, shape, schedule, AdamsBashforth(), steps=20)

With k = sigma / alpha, the probability-flow ODE is d(x / alpha) / dk = eps (2010.02502, eq. 14).
Euler's method, which is DDIM, takes eps to be constant during a step. Adams-Bashforth draws a line
through it and the eps of the step before (Hairer, Norsett, Wanner: Solving ODEs I, sec. III.5).
"""

from dataclasses import dataclass

from torch import Tensor

from tinyldm.diffusion.schedule import Level


@dataclass(frozen=True)
class AdamsBashforth:
    """Remembers one step: its eps and its length in k. Without any, the first step is Euler's."""

    stochastic: bool = False

    def step(
        self, x: Tensor, x0: Tensor, eps: Tensor, now: Level, nxt: Level, history=(), noise=None
    ) -> tuple[Tensor, tuple]:
        """From x_t to x_s. Arguments: see Solver in tinyldm/diffusion/sampler.py."""
        if now.alpha == 0:  # k is infinite; x_t is eps
            return nxt.alpha * x0 + nxt.sigma * eps, ()
        h = nxt.sigma / nxt.alpha - now.sigma / now.alpha
        slope = eps
        if history:
            eps_before, h_before = history
            slope = eps + h / (2 * h_before) * (eps - eps_before)
        return nxt.alpha * (x / now.alpha + h * slope), (eps, h)
