"""Schedulers: diffusers' arguments on this library's schedule, grids and solvers.

Where diffusers errs, the right thing is done: every step goes to the next timestep of the list (not T // n below), a
run has exactly the n distinct timesteps that were asked for, positions are never guessed from rounded timesteps, the
last step adds no noise, a scheduler keeps no state that another run could disturb.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tinyldm.compat.config import FOREIGN, Config, Configured, by_name
from tinyldm.diffusion.ddim import DDIM
from tinyldm.diffusion.ddpm import DDPM
from tinyldm.diffusion.dpm_solver import DPMSolver
from tinyldm.diffusion.loss import add_noise
from tinyldm.diffusion.prediction import check, eps_of, target, to_x0_eps
from tinyldm.diffusion.schedule import CLEAN, Grid, Level, NoiseSchedule

PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
KINDS = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}


@by_name
class StepOutput(NamedTuple):
    """What a step returns: x_s, and of DDPM and DDIM the x0 (clipped, if asked for) that it went towards."""

    prev_sample: Tensor
    pred_original_sample: Tensor | None = None


@dataclass(frozen=True)
class TableSchedule(NoiseSchedule):
    """A noise schedule from a table of betas."""

    table: tuple[float, ...] = ()

    @cached_property
    def _betas(self) -> Tensor:
        return torch.tensor(self.table, dtype=torch.float64)


def schedule_of(config: Config) -> NoiseSchedule:
    """The noise schedule that a scheduler's settings describe."""
    zero_snr = config.rescale_betas_zero_snr
    if config.trained_betas is not None:
        table = tuple(np.asarray(config.trained_betas, dtype=np.float64).tolist())
        return TableSchedule(timesteps=len(table), zero_snr=zero_snr, table=table)
    kind = KINDS[config.beta_schedule]
    ends = (
        {} if kind == "cosine" else {"beta_start": config.beta_start, "beta_end": config.beta_end}
    )
    return NoiseSchedule(kind, config.num_train_timesteps, **ends, zero_snr=zero_snr)


class Scheduler(Configured):
    """A noise schedule, the levels that a run visits, and steps between them."""

    FILE = "scheduler_config.json"
    foreign = FOREIGN
    order = 1
    init_noise_sigma = 1.0
    extra = 0  # how many timesteps more the grid is laid out for

    def __init__(self, *args, **settings):
        self.config = c = self.settings(args, settings)
        self.schedule, self.prediction = schedule_of(c), PREDICTIONS[c.prediction_type]
        check(self.prediction, self.schedule)
        self._set_tables()
        self.num_inference_steps = None
        self._visit(self.schedule.grid(self.schedule.timesteps))

    def _set_tables(self) -> None:
        alpha_bar = self.schedule.alpha_bar
        self.alphas_cumprod = alpha_bar.float()
        self.alphas = torch.cat([alpha_bar[:1], alpha_bar[1:] / alpha_bar[:-1]]).float()
        self.betas = 1 - self.alphas

    def __len__(self) -> int:
        return self.schedule.timesteps

    def register_to_config(self, **changes) -> None:
        """Change settings in place; a run begins anew."""
        vars(self).update(vars(self.from_config(self.config, **changes)))

    def scale_model_input(self, sample: Tensor, timestep=None) -> Tensor:
        """The sample: all noise levels here keep the variance."""
        return sample

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t, computed in float32 and returned in the dtype of the samples."""
        return add_noise(original_samples, noise, timesteps, self.schedule).to(
            original_samples.dtype
        )

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """v = alpha noise - sigma sample, the target of v prediction."""
        level = self.schedule.level(timesteps).like(sample)
        return target(sample.float(), noise.float(), level, "v").to(sample.dtype)

    def set_timesteps(self, num_inference_steps=None, device=None, timesteps=None) -> None:
        """Decide which levels a run visits: a number of them, or a falling list of timesteps."""
        if (num_inference_steps is None) == (timesteps is None):
            raise ValueError("set_timesteps takes either num_inference_steps or timesteps")
        given = None if timesteps is None else self.schedule.levels([int(t) for t in timesteps])
        grid = given or self._grid(num_inference_steps)
        self._visit(grid, device)
        self.num_inference_steps = len(grid) - 1

    def _visit(self, grid: Grid, device=None) -> None:
        times = torch.tensor([level.t for level in grid[:-1]])
        self.timesteps = (times if bool((times % 1).any()) else times.long()).to(device)
        end = self._end()
        if grid[-2].sigma <= end.sigma * (1 + 1e-9):  # it is there already
            end = replace(grid[-2], t=-1.0)
        self.levels: Grid = (*grid[:-1], end)
        self._place = {t: k for k, t in reversed(list(enumerate(times.tolist())))}

    def _end(self) -> Level:
        """Where a run ends: clean data."""
        return CLEAN

    def _grid(self, n: int) -> Grid:
        """The very timesteps of diffusers where those are n distinct ones, else this library's grid of that spacing."""
        c, T, m = self.config, self.schedule.timesteps, n + self.extra
        if not 1 <= n <= T:
            raise ValueError(f"num_inference_steps is {n}, expected 1 to num_train_timesteps, {T}")
        last = self._last_timestep()
        if c.timestep_spacing == "trailing":
            t = np.arange(last, 0, -T / n).round() - 1
        elif c.timestep_spacing == "linspace":
            t = np.linspace(0, last - 1, m).round()[::-1][:n]
        else:
            t = np.arange(m)[::-1][:n] * (last // m) + c.steps_offset
        good = len(t) == n and (np.diff(t) < 0).all() and t[-1] >= 0 and t[0] < T
        if not good or (
            c.timestep_spacing == "linspace" and m == 1
        ):  # one step from t = 0 starts without noise
            return self.schedule.grid(n, c.timestep_spacing)
        return self.schedule.levels(t.tolist())

    def _last_timestep(self) -> int:
        return self.schedule.timesteps

    def _index(self, timestep) -> int:
        """The position of a timestep in the list."""
        t = torch.as_tensor(timestep, dtype=torch.float32)
        if t.numel() != 1 or t.item() not in self._place:
            raise ValueError(f"timestep {timestep} is not one of scheduler.timesteps")
        return self._place[t.item()]

    def _read(
        self, model_output: Tensor, sample: Tensor, now: Level
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x, x0 and eps, in float32 at least."""
        dtype = torch.promote_types(sample.dtype, torch.float32)
        x = sample.to(dtype)
        return x, *to_x0_eps(model_output.to(dtype), x, now, self.prediction)

    def _step(self, solver, model_output, timestep, sample, noise, return_dict, fit_eps=False):
        """A step of a solver that remembers nothing."""
        k = self._index(timestep)
        now, nxt = self.levels[k : k + 2]
        x, x0, eps = self._read(model_output, sample, now)
        if self.config.clip_sample:
            x0 = x0.clamp(-self.config.clip_sample_range, self.config.clip_sample_range)
            eps = eps_of(x0, x, now) if fit_eps else eps
        x_s, _ = solver.step(x, x0, eps, now, nxt, (), None if noise is None else noise.to(x))
        out = StepOutput(x_s.to(sample.dtype), x0.to(sample.dtype))
        return out if return_dict else tuple(out)


class DDPMScheduler(Scheduler):
    """Ancestral sampling, and the noise of training."""

    def step(self, model_output, timestep, sample, generator=None, return_dict=True):
        """From x_t to x_s, s the next timestep of the list; no noise on the last step, wherever it starts."""
        # drawn even where it is not used, as scripts count on the numbers that follow
        noise = _noise(model_output, generator) if timestep > 0 else None
        solver = DDPM("large" if self.config.variance_type == "fixed_large" else "small")
        return self._step(solver, model_output, timestep, sample, noise, return_dict)


class DDIMScheduler(Scheduler):
    """DDIM; each step goes to the next timestep of the list, where diffusers goes to timestep - T // n."""

    def _end(self) -> Level:
        """Clean data, or the first level of training (set_alpha_to_one=False)."""
        return CLEAN if self.config.set_alpha_to_one else replace(self.schedule.level(0), t=-1.0)

    final_alpha_cumprod = property(
        lambda self: torch.tensor(self._end().alpha_bar), doc="alpha_bar where a run ends."
    )

    def step(
        self,
        model_output,
        timestep,
        sample,
        eta=0.0,
        use_clipped_model_output=False,
        generator=None,
        variance_noise=None,
        return_dict=True,
    ):
        """From x_t to x_s; use_clipped_model_output makes eps fit the clipped x0."""
        if self.num_inference_steps is None:
            raise ValueError("call set_timesteps before step")
        if generator is not None and variance_noise is not None:
            raise ValueError("step takes either generator or variance_noise")
        if eta > 0 and variance_noise is None:
            variance_noise = _noise(model_output, generator)
        return self._step(
            DDIM(float(eta)),
            model_output,
            timestep,
            sample,
            variance_noise,
            return_dict,
            use_clipped_model_output,
        )


class DPMSolverMultistepScheduler(Scheduler):
    """DPM-Solver and DPM-Solver++; what a step leaves for the next one travels with prev_sample.

    So runs may take turns, and a script that changes prev_sample in between goes on with the last step's. Third order
    is that of the published code, which counts the second difference by half; DPMSolver(order=3) has all of it, and so
    has the stochastic one here, where diffusers has a wrong sign.
    """

    extra = 1

    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        c = self.config
        if c.lambda_min_clipped > -math.inf and c.timestep_spacing == "trailing":
            raise ValueError(
                "DPMSolverMultistepScheduler: not supported: lambda_min_clipped with trailing timesteps"
            )
        sde, form = c.algorithm_type.startswith("sde"), "x0" if "++" in c.algorithm_type else "eps"
        self.solver = DPMSolver(
            c.solver_order, sde, form, midpoint=c.solver_type == "midpoint", reach=math.inf
        )
        self._last = (None, 0, ())

    def _set_tables(self) -> None:
        if (
            self.schedule.zero_snr
        ):  # as published: all but pure noise, so that the second step has a difference
            least = 1 + 1e-3 * torch.arange(len(self) - 1, -1, -1)  # the last of them is the least
            alpha_bar = self.schedule.alpha_bar.maximum(2**-24 * least)
            betas = 1 - torch.cat([alpha_bar[:1], alpha_bar[1:] / alpha_bar[:-1]])
            self.schedule = TableSchedule(timesteps=len(betas), table=tuple(betas.tolist()))
        super()._set_tables()

    @property
    def sigmas(self) -> Tensor:
        """sigma / alpha of each level of a run, its end included."""
        return torch.tensor([level.sigma / level.alpha for level in self.levels])

    def _end(self) -> Level:
        """Clean data, or the first level of training (final_sigmas_type="sigma_min")."""
        return (
            CLEAN
            if self.config.final_sigmas_type == "zero"
            else replace(self.schedule.level(0), t=-1.0)
        )

    def _last_timestep(self) -> int:
        lambdas = self.schedule.lambda_(torch.arange(self.schedule.timesteps))
        return int((lambdas >= self.config.lambda_min_clipped).sum())

    def _grid(self, n: int) -> Grid:
        if not self.config.use_karras_sigmas:
            return super()._grid(n)
        grid = self.schedule.grid(n, "karras")
        # networks are told whole timesteps, except for the cosine schedule: most of its noise is within the last one
        whole = self.config.beta_schedule != "squaredcos_cap_v2"
        return (
            *(replace(level, t=float(round(level.t))) if whole else level for level in grid[:-1]),
            CLEAN,
        )

    def _resume(self, timestep, sample: Tensor) -> tuple[int, tuple]:
        """The position of a step and what the one before left for it."""
        t = torch.as_tensor(timestep, dtype=torch.float32).item()
        for levels, k, history in (getattr(sample, "_run", self._last), self._last):
            fits = (
                levels is self.levels
                and k < len(levels) - 1
                and t == float(np.float32(levels[k].t))
            )
            if fits and all(m.shape == sample.shape for _, m in history):
                return k, history
        return self._index(timestep), ()

    def step(
        self, model_output, timestep, sample, generator=None, variance_noise=None, return_dict=True
    ):
        """From x_t to x_s by the last predictions of this run."""
        if self.num_inference_steps is None:
            raise ValueError("call set_timesteps before step")
        k, history = self._resume(timestep, sample)
        now, nxt = self.levels[k : k + 2]
        x, x0, eps = self._read(model_output, sample, now)
        if self.solver.sde:
            variance_noise = (
                _noise(x, generator) if variance_noise is None else variance_noise.to(x)
            )
        elif variance_noise is not None:
            raise ValueError(
                f"variance_noise: not supported where algorithm_type is {self.config.algorithm_type}"
            )
        solver = replace(self.solver, order=self._order(k, now, nxt))
        x_s, left = solver.step(x, x0, eps, now, nxt, history, variance_noise)
        if solver.order == 3 and len(history) == 2 and not solver.sde:
            (l1, p1), (l2, p2), m = *history, left[0][1]
            d1, d2 = (m - p1) / (now.lambda_ - l1), (p1 - p2) / (l1 - l2)
            slope = d1 + (now.lambda_ - l1) / (now.lambda_ - l2) * (d1 - d2)
            line = (
                (l1, m - (now.lambda_ - l1) * slope),
            )  # the parabola's tangent: the step without its curvature
            straight = replace(solver, order=2, midpoint=False)
            x_s = (x_s + straight.step(x, x0, eps, now, nxt, line, variance_noise)[0]) / 2
        x_s = x_s.to(sample.dtype)
        x_s._run = self._last = (self.levels, k + 1, left)
        return StepOutput(x_s) if return_dict else (x_s,)

    def _order(self, k: int, now: Level, nxt: Level) -> int:
        """The order of step k: at the end of runs of less than 15 steps it falls (lower_order_final)."""
        c, n = self.config, len(self.levels) - 1
        short = c.lower_order_final and n < 15
        if nxt.lambda_ == now.lambda_ or (k == n - 1 and (short or c.euler_at_final)):
            return 1
        return min(c.solver_order, 2) if k == n - 2 and short else c.solver_order


def _noise(like: Tensor, generator=None) -> Tensor:
    """Normal noise like a tensor, drawn where the generator is; a list has one generator for each sample."""
    if isinstance(generator, (list, tuple)):
        return torch.cat([_noise(row, g) for row, g in zip(like.split(1), generator, strict=True)])
    device = like.device if generator is None else generator.device
    return torch.randn(like.shape, generator=generator, device=device, dtype=like.dtype).to(
        like.device
    )
