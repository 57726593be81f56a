"""Schedulers: diffusers' arguments on this library's schedule, grids and solvers.

Where diffusers errs, the right thing is done: every step goes to the next timestep of the list (not
T // n below), a run has exactly the n distinct timesteps that were asked for, positions are never
guessed from rounded timesteps, the last step adds no noise, and a scheduler keeps no state that
another run could disturb.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tinyldm.compat.config import Config, Configured, StepOutput
from tinyldm.compat.schedule import PREDICTIONS, schedule_of
from tinyldm.compat.settings import FOREIGN
from tinyldm.diffusion.ddim import DDIM
from tinyldm.diffusion.ddpm import DDPM
from tinyldm.diffusion.loss import draw_noise
from tinyldm.diffusion.prediction import check_prediction, eps_of, target, to_x0_eps
from tinyldm.diffusion.schedule import CLEAN, Grid, Level


class Scheduler(Configured):
    """A noise schedule, the levels that a run visits, and steps between them.

    extra: how many timesteps more than asked for the linspace and leading grids are laid out for
    fractional: whether timesteps of the linspace grid are left as they fall, and are floats
    """

    FILE = "scheduler_config.json"
    foreign = FOREIGN
    order = 1
    extra = 0
    fractional = False
    _begin_index: int | None = None

    def set_up(self, given: Config) -> None:
        """The schedule of these settings, and a run that visits all of its levels."""
        self.config = given
        self.schedule = schedule_of(self.config)
        self.prediction = PREDICTIONS[self.config.prediction_type]
        check_prediction(self.prediction, self.schedule)
        self._set_tables()
        self.num_inference_steps: int | None = None
        self._visit(self._levels(range(len(self) - 1, -1, -1)))

    def _set_tables(self) -> None:
        alpha_bar = self.schedule.alpha_bar
        self.alphas_cumprod = alpha_bar.float()
        self.alphas = torch.cat([alpha_bar[:1], alpha_bar[1:] / alpha_bar[:-1]]).float()
        self.betas = 1 - self.alphas

    def __len__(self) -> int:
        return self.schedule.timesteps

    @property
    def init_noise_sigma(self) -> Any:
        """The standard deviation of the noise that a run starts from."""
        return 1.0

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False) -> None:
        """Write what from_pretrained reads."""
        self.save_config(save_directory, push_to_hub)

    def register_to_config(self, **changes) -> None:
        """Change settings in place; a run that is under way has to begin anew."""
        vars(self).update(vars(self.from_config(self.config, **changes)))

    @property
    def begin_index(self) -> int | None:
        """What set_begin_index was told for this run."""
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Start a run within its list; this matters where a timestep is on it more than once."""
        if not 0 <= begin_index < len(self.timesteps):
            raise ValueError(
                f"begin_index is {begin_index}, expected 0 to {len(self.timesteps) - 1}"
            )
        self._begin_index = begin_index

    def previous_timestep(self, timestep) -> Tensor:
        """The timestep to which a step from this one goes; -1 at the end of the list."""
        following = [*self.timesteps.tolist(), -1][self._index(timestep) + 1]
        return torch.tensor(following)

    def scale_model_input(self, sample: Tensor, timestep=None) -> Tensor:
        """The sample as it is: x_t has the same variance at all noise levels here."""
        return sample

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t, computed in float32 and returned in the dtype of the samples."""
        noised = draw_noise(original_samples, self.schedule, t=timesteps, eps=noise)
        return noised.x_t.to(original_samples.dtype)

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """v = alpha noise - sigma sample, the target of v prediction."""
        level = self.schedule.level(timesteps).like(sample)
        return target(sample.float(), noise.float(), level, "v").to(sample.dtype)

    def set_timesteps(self, num_inference_steps=None, device=None, timesteps=None) -> None:
        """Decide which levels a run visits: a number of them, or a falling list of timesteps."""
        if (num_inference_steps is None) == (timesteps is None):
            raise ValueError("set_timesteps takes either num_inference_steps or timesteps")
        if timesteps is None:
            grid = self._grid(num_inference_steps)
        else:
            grid = self._levels([float(t) for t in timesteps])
        self._visit(grid, device)
        self.num_inference_steps = len(grid) - 1

    def _visit(self, grid: Grid, device=None) -> None:
        """Set levels, timesteps and positions to those of a grid."""
        times = torch.tensor([level.t for level in grid[:-1]], dtype=torch.float32)
        whole = not self.fractional and not bool((times % 1).any())
        self.timesteps = (times.long() if whole else times).to(device)
        end = self._end()
        if grid[-2].sigma <= end.sigma * (1 + 1e-9):  # the run is there before its last step
            end = replace(grid[-2], t=-1.0)
        self.levels: Grid = (*grid[:-1], end)
        self._begin_index = None
        self._places: dict[float, list[int]] = {}  # of each timestep, which may be repeated
        for k, t in enumerate(times.tolist()):
            self._places.setdefault(t, []).append(k)

    def _end(self) -> Level:
        """Where a run ends: clean data."""
        return CLEAN

    def _first_level(self) -> Level:
        """The first level of training, in which a run may end instead."""
        return replace(self.schedule.level(0), t=-1.0)

    def _grid(self, n: int) -> Grid:
        """diffusers' own timesteps where those are n distinct ones in [0, T).

        Elsewhere it is this library's grid of that spacing.
        """
        c, T, m = self.config, self.schedule.timesteps, n + self.extra
        if not 1 <= n <= T:
            raise ValueError(f"num_inference_steps is {n}, expected 1 to num_train_timesteps, {T}")
        last = self._last_timestep()
        if c.timestep_spacing == "trailing":
            t = np.arange(last, 0, -T / n).round() - 1
        elif c.timestep_spacing == "linspace":
            t = np.linspace(0, last - 1, m)[::-1][:n]
            t = t if self.fractional else t.round()
        else:
            t = np.arange(m)[::-1][:n] * (last // m) + c.steps_offset
        good = len(t) == n and (np.diff(t) < 0).all() and t[-1] >= 0 and t[0] < T
        if c.timestep_spacing == "linspace" and m == 1:
            good = False  # a single step from t = 0, where there is no noise
        if not good:
            return self._levels(
                [level.t for level in self.schedule.grid(n, c.timestep_spacing)[:-1]]
            )
        return self._levels(t.tolist())

    def _levels(self, timesteps: Sequence[float]) -> Grid:
        """The levels of these timesteps, which fall, and clean data."""
        return self.schedule.levels(timesteps)

    def _last_timestep(self) -> int:
        """The end of the range of timesteps that a run may visit."""
        return self.schedule.timesteps

    def _index(self, timestep) -> int:
        """The position of a timestep in the list."""
        t = torch.as_tensor(math.nan if timestep is None else timestep, dtype=torch.float32)
        if t.numel() != 1 or t.item() not in self._places:
            raise ValueError(f"timestep {timestep} is not one of scheduler.timesteps")
        places = self._places[t.item()]
        return next((k for k in places if k >= (self._begin_index or 0)), places[0])

    def _read(
        self, model_output: Tensor, sample: Tensor, now: Level
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x, x0 and eps, in float32 at least."""
        dtype = torch.promote_types(sample.dtype, torch.float32)
        x = sample.to(dtype)
        x0, eps = to_x0_eps(model_output.to(dtype), x, now, self.prediction)
        return x, x0, eps

    def _step(
        self,
        solver: DDPM | DDIM,
        model_output: Tensor,
        timestep,
        sample: Tensor,
        *,
        noise: Tensor | None,
        return_dict: bool,
        fit_eps: bool = False,
    ):
        """A step of a solver that remembers nothing.

        fit_eps: where x0 is clipped or thresholded, make eps fit it
        """
        k = self._index(timestep)
        now, nxt = self.levels[k : k + 2]
        x, x0, eps = self._read(model_output, sample, now)
        c = self.config
        if c.thresholding:
            x0 = thresholded(x0, c.dynamic_thresholding_ratio, c.sample_max_value)
        elif c.clip_sample:
            x0 = x0.clamp(-c.clip_sample_range, c.clip_sample_range)
        if fit_eps and (c.thresholding or c.clip_sample):
            eps = eps_of(x0, x, now)
        if noise is not None:
            noise = noise.to(x)
        x_s, _ = solver.step(x, x0, eps, now=now, nxt=nxt, noise=noise)
        out = StepOutput(x_s.to(sample.dtype), x0.to(sample.dtype))
        return out if return_dict else out.to_tuple()


def thresholded(x0: Tensor, ratio: float, most: float) -> Tensor:
    """x0 (b, ...) clipped to a quantile of its own sizes, if that is above 1, and divided by it.

    Dynamic thresholding, 2205.11487, section 2.3.

    ratio: which quantile of |x0| of each sample
    most:  the quantile counts as no more than this
    """
    bound = x0.flatten(1).abs().quantile(ratio, dim=1).clamp(1, most)
    bound = bound.view(-1, *(1,) * (x0.ndim - 1))  # (b, 1, ..., 1)
    return x0.clamp(-bound, bound) / bound


def noise_like(like: Tensor, generator=None) -> Tensor:
    """Normal noise like a tensor, drawn where the generator is.

    A list of generators has one for each sample.
    """
    if isinstance(generator, (list, tuple)):
        return torch.cat(
            [noise_like(row, g) for row, g in zip(like.split(1), generator, strict=True)]
        )
    device = like.device if generator is None else generator.device
    return torch.randn(like.shape, generator=generator, device=device, dtype=like.dtype).to(
        like.device
    )


def randn_tensor(shape, generator=None, device=None, dtype=None) -> Tensor:
    """Normal noise of a shape, drawn where the generator is and moved to the device."""
    return noise_like(torch.empty(tuple(shape), device=device, dtype=dtype), generator)
