"""Editing a picture with a denoiser that was never trained for it: sample() begins elsewhere.

Image to image (SDEdit, 2108.01073), inpainting (2201.09865), and the inversion of a solver
(2010.02502, sec. 4.3). None of them needs a loop or a solver of its own:

    grid = schedule.grid(50)
    spacing, init = begin(x0, grid, strength=0.6)            # image to image
    sample(..., spacing=spacing, init=init)
    sample(..., clip=Inpainting(x0, drawn))                  # inpainting
    resample(..., clip=Inpainting(x0, drawn), times=5)       # the same, going back and forth
    sample(..., noise=invert(denoiser, x0, schedule, grid))  # inversion, and back
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tinyldm.condition import Condition
from tinyldm.diffusion.sampler import Denoiser, Solver, noise_source, sample
from tinyldm.diffusion.schedule import Grid, Level, NoiseSchedule

Callback = Callable[[int, Tensor, Tensor], None]  # see sample()


def remaining(grid: Grid, strength: float) -> Grid:
    """The end of a grid that has this share of its steps.

    At least one step, unless strength is 0: then clean data is all that is left.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength lies between 0 and 1, got {strength}")
    steps = len(grid) - 1
    taken = max(round(strength * steps), strength > 0)
    return grid[steps - taken :]


def begin(x0: Tensor, grid: Grid, strength: float) -> tuple[Grid, Tensor | None]:
    """What SDEdit (2108.01073) gives to sample(), as its `spacing` and its `init`.

    The picture is drowned in noise up to the first of the remaining levels, and drawn from there:

        x_t = alpha_t x0 + sigma_t eps

    With strength 0 it comes back as it is. With strength 1 there is no init: the drawing begins at
    the top of the grid with noise alone, as it does without a picture.
    """
    return remaining(grid, strength), None if strength == 1 else x0


@dataclass(frozen=True, eq=False)
class Inpainting:
    """For sample(clip=...): what is known of x0 stays, the rest is drawn (2201.09865).

    Wherever x0 is known, no denoiser has to guess it. With the true x0 and the eps that fits it,
    every solver leads the known region from x_t to x_s as the forward process would:

        x_s = alpha_s x0 + sigma_s eps,  x_s ~ q(x_s | x0)

    which is what 2201.09865 (sec. 4.1) puts there after each step. It is at the level of x_s, to
    which the step goes, so the denoiser never sees two levels in one picture; and at the end, where
    sigma_s = 0, it is x0 itself. With a solver without noise eps is the same in all steps; where
    the paper draws it anew, a solver with noise draws it given x_t.

    known: (b or 1, c, h, w), x0 where it is known; elsewhere it does not matter
    drawn: (b or 1, 1, h, w) bool, True where x0 is drawn
    """

    known: Tensor
    drawn: Tensor

    def __call__(self, x0: Tensor) -> Tensor:
        """x0 (b, c, h, w), with what is known in its place."""
        return torch.where(self.drawn.to(x0.device), x0, self.known.to(x0))


def cells_to_draw(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask (b, 1, h, w) at a smaller size, bool: a cell is drawn if any pixel that it covers is.

    mask: True, or above zero, where pixels are drawn. In no cell that stays is anything drawn.
    """
    return F.adaptive_max_pool2d(mask.float(), size) > 0


def passages(grid: Grid, times: int, jump: int = 1) -> list[Grid]:
    """The parts in which resample() walks a grid: of `jump` steps each, every one `times` times.

    The step to clean data is taken once, at the end of the last part.
    """
    if times < 1 or jump < 1:
        raise ValueError(f"expected at least one time and one step, got {times} and {jump}")
    *noisy, end = grid
    parts = [tuple(noisy[k : k + jump + 1]) for k in range(0, len(noisy) - 1, jump)]
    walked = [part for part in parts for _ in range(times)]
    last = walked.pop() if walked else tuple(noisy)
    return [*walked, (*last, end)]


def noised_up(x: Tensor, now: Level, nxt: Level, noise: Tensor) -> Tensor:
    """From x_s to x_t, of more noise, by the forward process (2006.11239, eq. 2, for any levels).

        x_t = alpha_t / alpha_s x_s + sigma_t sqrt(1 - rho^2) noise

    where rho is the share of x_s's noise in x_t's. now, nxt: the levels at s and at t
    """
    rho = nxt.correlation(now)
    return nxt.alpha / now.alpha * x + nxt.sigma * (1 - rho**2) ** 0.5 * noise


def resample(
    denoiser: Denoiser,
    shape: Sequence[int],
    schedule: NoiseSchedule,
    solver: Solver | None = None,
    *,
    spacing: Grid,
    times: int,
    jump: int = 1,
    seeds: Sequence[int] | None = None,
    callback: Callback | None = None,
    **how: Any,
) -> Tensor:
    """sample(), going back and forth (RePaint, 2201.09865, algorithm 1 and sec. 4.2).

    What was drawn at a level fits what is known as that level shows it, drowned in noise. So every
    part of the grid is walked `times` times: after each but the last, noise leads back up to where
    the part began. Each time the unknown is drawn anew, beside a known part that has met it. It
    costs `times` as many calls, but for those of the step to clean data.

    jump: how many steps a part has; a multistep solver remembers none of the part before
    how:  as for sample(); the callback's steps count on
    """
    if seeds is None:
        seeds = torch.randint(2**62, (shape[0],)).tolist()
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def further() -> list[int]:
        return [int(torch.randint(2**62, (), generator=g)) for g in generators]

    x, level, done = how.pop("noise", None), spacing[0], 0
    for part in passages(spacing, times, jump):
        if level.sigma < part[0].sigma:
            up = noise_source(shape, further(), x.device, x.dtype)()
            x = noised_up(x, level, part[0], up)
        watch = None if callback is None else _counting(callback, done)
        x = sample(
            denoiser,
            shape,
            schedule,
            solver,
            spacing=part,
            seeds=seeds,
            noise=x,
            callback=watch,
            **how,
        )
        level, done, seeds = part[-1], done + len(part) - 1, further()
        how["init"] = None
    return x


def _counting(callback: Callback, before: int) -> Callback:
    """The callback for a part of a drawing, before which so many steps were taken."""
    return lambda step, x, x0: callback(before + step, x, x0)


def invert(
    denoiser: Denoiser,
    x0: Tensor,
    schedule: NoiseSchedule,
    grid: Grid,
    solver: Solver | None = None,
    *,
    condition: Condition | None = None,
    prediction: str = "v",
) -> Tensor:
    """The x_T (b, ...) at the grid's first level from which sample() comes to x0 (b, ...).

    The solver is run up the grid instead of down: no solver without noise minds the direction
    (2010.02502, sec. 4.3). From there, sample(spacing=grid, noise=x_T) with the same condition and
    solver, and without guidance, ends at x0 but for an error of the solver's order.

    No network was shown data without any noise. Where the grid ends with clean data, x0 is taken
    for x_t at t = 0, the least noise of the schedule.
    """
    rising = [level for level in reversed(grid) if level.sigma > 0]
    if grid[-1].sigma == 0 and rising[0].t > 0:
        rising.insert(0, schedule.level(0))
    if solver is not None and solver.stochastic:
        raise ValueError(f"{solver}: a solver that draws noise can't be run upwards")
    return sample(
        denoiser,
        x0.shape,
        schedule,
        solver,
        condition=condition,
        prediction=prediction,
        spacing=tuple(rising),
        dtype=x0.dtype,
        noise=x0,
    )
