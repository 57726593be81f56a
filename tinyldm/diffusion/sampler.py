"""The only sampling loop, and the two contracts that it rests on.

A denoiser is any callable (x_t, t, condition) -> prediction:

    x_t         (b, ...) float
    t           (b,) float32, timesteps from 0 to T - 1, fractions allowed. It lies on the CPU, so that nothing waits
                for a device: the network moves it, with non_blocking.
    condition   Condition of b rows, or None
    prediction  (b, ...): eps, x0 or v, as agreed

A solver is frozen, has `stochastic`, and a pure step(x, x0, eps, now, nxt, history, noise) -> (x_s, history):

    x, x0, eps  (b, ...): x_t, and what the denoiser makes of it, x = alpha x0 + sigma eps
    now, nxt    Level at t and at s < t
    history     what a step leaves for the next one; () at the start
    noise       (b, ...) normal, or None if not stochastic
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from tinyldm.condition import Condition
from tinyldm.diffusion.dpm_solver import DPMSolver
from tinyldm.diffusion.guidance import Guidance
from tinyldm.diffusion.prediction import check, eps_of, to_x0_eps
from tinyldm.diffusion.schedule import Grid, NoiseSchedule


@torch.no_grad()
def sample(
    denoiser,
    shape: Sequence[int],
    schedule: NoiseSchedule,
    solver=DPMSolver(),
    steps: int = 50,
    *,
    condition: Condition | None = None,
    prediction: str = "v",
    seeds: Sequence[int] | None = None,
    guidance: Guidance | None = None,
    spacing: str | Grid = "trailing",
    clip: float | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    noise: Tensor | None = None,
    callback: Callable[[int, Tensor, Tensor], None] | None = None,
) -> Tensor:
    """Draw x0 (b, ...) of the given shape, with one call of the denoiser for a step.

    condition: b rows
    seeds:     b numbers; sample k depends on seeds[k] alone. None draws them from torch's own generator.
    spacing:   the name of a grid of `steps` levels, or a grid itself, which `steps` then has no part in
    clip:      for pixels: cut every x0 to [-clip, clip] and make eps fit it. Latents have no such bounds.
    dtype:     of x and of the steps, whatever the network computes in
    noise:     (b, ...) the start, instead of normal noise
    callback:  called with (number of the step from 0, x_s, x0) after each step
    """
    check(prediction, schedule)
    for name, rows in (("condition", condition), ("seeds", seeds)):
        if rows is not None and len(rows) != shape[0]:
            raise ValueError(f"{name} of {len(rows)} rows for {shape[0]} samples")
    grid = schedule.grid(steps, spacing) if isinstance(spacing, str) else spacing
    device = torch.device(device or ("cpu" if noise is None else noise.device))
    condition = None if condition is None else condition.to(device)
    draw = _noise_of(shape, seeds, device, dtype)
    x = draw() if noise is None else noise.to(device, dtype)
    if guidance is not None:
        denoiser = guidance(denoiser)
    history = ()
    for index, (now, nxt) in enumerate(pairwise(grid)):
        predicted = denoiser(x, torch.full((shape[0],), now.t, dtype=torch.float32), condition)
        x0, eps = to_x0_eps(predicted.to(dtype), x, now, prediction)
        if clip is not None:
            x0 = x0.clamp(-clip, clip)
            eps = eps_of(x0, x, now)
        x, history = solver.step(
            x, x0, eps, now, nxt, history, draw() if solver.stochastic else None
        )
        if callback is not None:
            callback(index, x, x0)
    return x


def _noise_of(shape, seeds, device, dtype) -> Callable[[], Tensor]:
    """A source of normal noise (b, ...): each sample's from its own generator, on the CPU, so equal on every device."""
    if seeds is None:
        seeds = torch.randint(2**62, (shape[0],)).tolist()
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def draw() -> Tensor:
        noise = torch.stack([torch.randn(tuple(shape[1:]), generator=g) for g in generators])
        if device.type == "cuda":
            noise = noise.pin_memory()  # lets the copy run while the host goes on
        return noise.to(device, dtype, non_blocking=True)

    return draw
