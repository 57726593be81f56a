"""The only sampling loop, and the two contracts it rests on: Denoiser and Solver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from tinyldm.condition import Condition
from tinyldm.diffusion.dpm_solver import DPMSolver
from tinyldm.diffusion.prediction import check_prediction, eps_of, to_x0_eps
from tinyldm.diffusion.schedule import Grid, Level, NoiseSchedule

Clip = float | Callable[[Tensor], Tensor]


class Denoiser(Protocol):
    """Any callable (x_t, t, condition) -> prediction: a network, a guided one, a formula.

    x_t:        (b, ...) float
    t:          (b,) float32, timesteps from 0 to T - 1, fractions allowed. It lies on the CPU, so
                that reading it never waits for a device; a network moves it, with non_blocking.
    condition:  Condition of b rows, or None
    prediction: (b, ...): eps, x0, v or flow, as agreed with whoever calls
    """

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition | None, /) -> Tensor: ...


class Again(NamedTuple):
    """What a step returns in place of a history, if it has to see its own end to be done well.

    step: (x0, eps), as they are seen in x_s, -> (x_s, history), as from any step
    """

    step: Callable[[Tensor, Tensor], tuple[Tensor, tuple[Any, ...]]]


class Solver(Protocol):
    """A frozen value with a pure step from t to s < t; what a multistep method remembers is handed
    from one step to the next.

    stochastic: whether a step uses noise
    """

    @property
    def stochastic(self) -> bool: ...

    def step(
        self,
        x: Tensor,
        x0: Tensor,
        eps: Tensor,
        now: Level,
        nxt: Level,
        history: tuple[Any, ...] = (),
        noise: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """From x_t to (x_s, history for the next step), or to (x_s, Again) and from there again.

        x, x0, eps: (b, ...): x_t and what the denoiser makes of it, x = alpha x0 + sigma eps
        now, nxt:   the levels at t and at s
        history:    what the step before returned; () at the start
        noise:      (b, ...) normal, or None if not stochastic
        """
        ...


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    shape: Sequence[int],
    schedule: NoiseSchedule,
    solver: Solver | None = None,
    steps: int = 50,
    *,
    condition: Condition | None = None,
    prediction: str = "v",
    seeds: Sequence[int] | None = None,
    guidance: Callable[[Denoiser], Denoiser] | None = None,
    spacing: str | Grid = "trailing",
    clip: Clip | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    noise: Tensor | None = None,
    init: Tensor | None = None,
    callback: Callable[[int, Tensor, Tensor], None] | None = None,
) -> Tensor:
    """Draw x0 (b, ...) of the given shape, with one call of the denoiser for each step.

    solver:    None is DPMSolver(), DPM-Solver++ of second order; Again costs one call more
    condition: b rows
    seeds:     b numbers; sample k depends on seeds[k] alone. None is torch's own generator.
    guidance:  a value such as Guidance, which makes a guided denoiser of the denoiser
    spacing:   the name of a grid of `steps` levels, or a grid itself, which ignores `steps`
    clip:      what to do with every x0, which eps is then made to fit: a function, or for pixels a
               number, to cut it to [-clip, clip]. Latents have no such bounds.
    dtype:     of x and of the steps, whatever the network computes in
    noise:     (b, ...) to start from, instead of normal noise
    init:      (b, ...) an x0 that the noise is added to, for a grid that begins below its top
    callback:  called with (number of the step from 0, x_s, x0) after each step
    """
    check_prediction(prediction, schedule)
    for name, rows in (("condition", condition), ("seeds", seeds)):
        if rows is not None and len(rows) != shape[0]:
            raise ValueError(f"{name} of {len(rows)} rows for {shape[0]} samples")
    solver = DPMSolver() if solver is None else solver
    denoiser = denoiser if guidance is None else guidance(denoiser)
    grid = schedule.grid(steps, spacing) if isinstance(spacing, str) else spacing
    default = "cpu" if noise is None else noise.device
    device = torch.device(default if device is None else device)
    condition = None if condition is None else condition.to(device)
    draw = noise_source(shape, seeds, device, dtype)
    x = draw() if noise is None else noise.to(device, dtype)
    if init is not None:
        x = grid[0].alpha * init.to(x) + grid[0].sigma * x
    history: tuple[Any, ...] = ()
    look = observer(denoiser, condition, prediction, clip=clip)
    for index, (now, nxt) in enumerate(pairwise(grid)):
        x0, eps = look(x, now)
        fresh = draw() if solver.stochastic else None
        x, history = solver.step(x, x0, eps, now=now, nxt=nxt, history=history, noise=fresh)
        while isinstance(history, Again):
            x, history = history.step(*look(x, nxt))
        if callback is not None:
            callback(index, x, x0)
    return x


def observer(
    denoiser: Denoiser, condition: Condition | None, prediction: str, clip: Clip | None = None
) -> Callable[[Tensor, Level], tuple[Tensor, Tensor]]:
    """(x_t, level) -> what the denoiser sees in it, x0 and eps, in x_t's dtype."""

    def look(x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        t = torch.full((len(x),), level.t, dtype=torch.float32)
        predicted = denoiser(x, t, condition)
        x0, eps = to_x0_eps(predicted.to(x.dtype), x, level, prediction)
        if clip is not None:
            x0 = clip(x0) if callable(clip) else x0.clamp(-clip, clip)
            eps = eps_of(x0, x, level)
        return x0, eps

    return look


def noise_source(
    shape: Sequence[int], seeds: Sequence[int] | None, device: torch.device, dtype: torch.dtype
) -> Callable[[], Tensor]:
    """A function that draws normal noise (b, ...), each sample's from a generator of its own.

    The generators are on the CPU, so that every device gets the same numbers.
    """
    if seeds is None:
        seeds = torch.randint(2**62, (shape[0],)).tolist()
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def draw() -> Tensor:
        noise = torch.stack([torch.randn(tuple(shape[1:]), generator=g) for g in generators])
        if device.type == "cuda":
            noise = noise.pin_memory()  # lets the copy run while the host goes on
        return noise.to(device, dtype, non_blocking=True)

    return draw
