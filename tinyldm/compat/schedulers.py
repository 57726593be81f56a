"""Schedulers: diffusers' arguments on this library's schedule, grids and solvers.

Where diffusers errs, the right thing is done: every step goes to the next timestep of the list (not
T // n below), a run has exactly the n distinct timesteps that were asked for, positions are never
guessed from rounded timesteps, the last step adds no noise, and a scheduler keeps no state that
another run could disturb.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from tinyldm.compat.config import FOREIGN, Configured, StepOutput
from tinyldm.compat.schedule import PREDICTIONS, TableSchedule, schedule_of
from tinyldm.diffusion.ddim import DDIM
from tinyldm.diffusion.ddpm import DDPM
from tinyldm.diffusion.dpm_solver import DPMSolver, History
from tinyldm.diffusion.loss import add_noise
from tinyldm.diffusion.prediction import check_prediction, eps_of, target, to_x0_eps
from tinyldm.diffusion.schedule import CLEAN, Grid, Level


class Scheduler(Configured):
    """A noise schedule, the levels that a run visits, and steps between them.

    extra: how many timesteps more than asked for the linspace and leading grids are laid out for
    """

    FILE = "scheduler_config.json"
    foreign = FOREIGN
    order = 1
    init_noise_sigma = 1.0
    extra = 0

    def __init__(self, *args, **settings):
        self.config = self.settings(args, settings)
        self.schedule = schedule_of(self.config)
        self.prediction = PREDICTIONS[self.config.prediction_type]
        check_prediction(self.prediction, self.schedule)
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
        """Change settings in place; a run that is under way has to begin anew."""
        vars(self).update(vars(self.from_config(self.config, **changes)))

    def scale_model_input(self, sample: Tensor, timestep=None) -> Tensor:
        """The sample as it is: x_t has the same variance at all noise levels here."""
        return sample

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t, computed in float32 and returned in the dtype of the samples."""
        x_t = add_noise(original_samples, noise, timesteps, self.schedule)
        return x_t.to(original_samples.dtype)

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
            grid = self.schedule.levels([int(t) for t in timesteps])
        self._visit(grid, device)
        self.num_inference_steps = len(grid) - 1

    def _visit(self, grid: Grid, device=None) -> None:
        """Set levels, timesteps and positions to those of a grid."""
        times = torch.tensor([level.t for level in grid[:-1]])
        whole = not bool((times % 1).any())
        self.timesteps = (times.long() if whole else times).to(device)
        end = self._end()
        if grid[-2].sigma <= end.sigma * (1 + 1e-9):  # the run is there before its last step
            end = replace(grid[-2], t=-1.0)
        self.levels: Grid = (*grid[:-1], end)
        self._place: dict[float, int] = {}  # of each timestep, the first where it is repeated
        for k, t in enumerate(times.tolist()):
            self._place.setdefault(t, k)

    def _end(self) -> Level:
        """Where a run ends: clean data."""
        return CLEAN

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
            t = np.linspace(0, last - 1, m).round()[::-1][:n]
        else:
            t = np.arange(m)[::-1][:n] * (last // m) + c.steps_offset
        good = len(t) == n and (np.diff(t) < 0).all() and t[-1] >= 0 and t[0] < T
        if c.timestep_spacing == "linspace" and m == 1:
            good = False  # a single step from t = 0, where there is no noise
        if not good:
            return self.schedule.grid(n, c.timestep_spacing)
        return self.schedule.levels(t.tolist())

    def _last_timestep(self) -> int:
        """The end of the range of timesteps that a run may visit."""
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

        fit_eps: where x0 is clipped, make eps fit it
        """
        k = self._index(timestep)
        now, nxt = self.levels[k : k + 2]
        x, x0, eps = self._read(model_output, sample, now)
        if self.config.clip_sample:
            x0 = x0.clamp(-self.config.clip_sample_range, self.config.clip_sample_range)
            if fit_eps:
                eps = eps_of(x0, x, now)
        if noise is not None:
            noise = noise.to(x)
        x_s, _ = solver.step(x, x0, eps, now=now, nxt=nxt, noise=noise)
        out = StepOutput(x_s.to(sample.dtype), x0.to(sample.dtype))
        return out if return_dict else out.to_tuple()


class DDPMScheduler(Scheduler):
    """Ancestral sampling, and the noise of training."""

    def step(self, model_output, timestep, sample, generator=None, return_dict=True):
        """From x_t to x_s, s the next timestep of the list.

        The last step adds no noise, wherever it starts.
        """
        # drawn even where it is not used, as scripts count on the numbers that follow
        noise = _noise(model_output, generator) if timestep > 0 else None
        solver = DDPM("large" if self.config.variance_type == "fixed_large" else "small")
        return self._step(
            solver, model_output, timestep, sample, noise=noise, return_dict=return_dict
        )


class DDIMScheduler(Scheduler):
    """DDIM; each step goes to the next timestep of the list.

    diffusers goes to timestep - T // n.
    """

    def _end(self) -> Level:
        """Clean data, or the first level of training (set_alpha_to_one=False)."""
        return CLEAN if self.config.set_alpha_to_one else replace(self.schedule.level(0), t=-1.0)

    @property
    def final_alpha_cumprod(self) -> Tensor:
        """alpha_bar where a run ends."""
        return torch.tensor(self._end().alpha ** 2)

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
            noise=variance_noise,
            return_dict=return_dict,
            fit_eps=use_clipped_model_output,
        )


class Left(NamedTuple):
    """What a step of DPMSolverMultistepScheduler leaves for the next one.

    levels: those of the run it belongs to; place: of the next step; history: the last predictions
    """

    levels: Grid | None
    place: int
    history: History


class DPMSolverMultistepScheduler(Scheduler):
    """DPM-Solver and DPM-Solver++; what a step leaves for the next one travels with prev_sample.

    So runs may take turns, and a script that changes prev_sample in between goes on with what the
    last step left. Third order is that of the published code, which counts the second difference by
    half; DPMSolver(order=3) counts all of it, and so does the stochastic one here, for which
    diffusers has a wrong sign.
    """

    extra = 1

    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        c = self.config
        if c.lambda_min_clipped > -math.inf and c.timestep_spacing == "trailing":
            raise ValueError(
                "DPMSolverMultistepScheduler: not supported: lambda_min_clipped with trailing "
                "timesteps"
            )
        self.solver = DPMSolver(
            c.solver_order,
            sde=c.algorithm_type.startswith("sde"),
            form="x0" if "++" in c.algorithm_type else "eps",
            midpoint=c.solver_type == "midpoint",
            reach=math.inf,
        )
        self._last = Left(None, 0, ())  # what the last step of any run left
        self._left = WeakTensorKeyDictionary()  # prev_sample -> what its step left

    def __getstate__(self) -> dict:
        """A copy has other tensors, so only what the last step left goes with it."""
        state = dict(vars(self))
        del state["_left"]
        return state

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._left = WeakTensorKeyDictionary()

    def _set_tables(self) -> None:
        if self.schedule.zero_snr:
            # as published: all but pure noise, so that the second step has a difference
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
        if self.config.final_sigmas_type == "zero":
            return CLEAN
        return replace(self.schedule.level(0), t=-1.0)

    def _last_timestep(self) -> int:
        lambdas = self.schedule.lambda_(torch.arange(self.schedule.timesteps))
        return int((lambdas >= self.config.lambda_min_clipped).sum())

    def _grid(self, n: int) -> Grid:
        if not self.config.use_karras_sigmas:
            return super()._grid(n)
        grid = self.schedule.grid(n, "karras")
        # networks are told whole timesteps, except for the cosine schedule: most of its noise is
        # within the last one
        if self.config.beta_schedule == "squaredcos_cap_v2":
            return grid
        return (*(replace(level, t=float(round(level.t))) for level in grid[:-1]), CLEAN)

    def _resume(self, timestep, sample: Tensor) -> tuple[int, History]:
        """The position of a step and what the one before left for it."""
        t = torch.as_tensor(timestep, dtype=torch.float32).item()
        for left in (self._left.get(sample, self._last), self._last):
            if left.levels is not self.levels or left.place == len(self.levels) - 1:
                continue  # of another run, or of one that has ended
            same_step = t == float(np.float32(self.levels[left.place].t))
            if same_step and all(m.shape == sample.shape for _, m in left.history):
                return left.place, left.history
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
                "variance_noise: not supported where algorithm_type is "
                f"{self.config.algorithm_type}"
            )
        solver = replace(self.solver, order=self._order(k, now, nxt))
        x_s, left = solver.step(x, x0, eps, now=now, nxt=nxt, history=history, noise=variance_noise)
        if solver.order == 3 and len(history) == 2 and not solver.sde:
            tangent = _tangent(now.lambda_, left[0][1], history)
            straight = replace(solver, order=2, midpoint=False)
            without_curvature, _ = straight.step(x, x0, eps, now=now, nxt=nxt, history=tangent)
            x_s = (x_s + without_curvature) / 2
        x_s = x_s.to(sample.dtype)
        self._last = self._left[x_s] = Left(self.levels, k + 1, left)
        out = StepOutput(x_s)
        return out if return_dict else out.to_tuple()

    def _order(self, k: int, now: Level, nxt: Level) -> int:
        """The order of step k: it falls at the end of runs of fewer than 15 steps.

        lower_order_final asks for that, and euler_at_final for a last step of first order.
        """
        c, n = self.config, len(self.levels) - 1
        short = c.lower_order_final and n < 15
        if nxt.lambda_ == now.lambda_:
            return 1
        if k == n - 1 and (short or c.euler_at_final):
            return 1
        if k == n - 2 and short:
            return min(c.solver_order, 2)
        return c.solver_order


def _tangent(lambda_t: float, m: Tensor, history: History) -> History:
    """A history of one, with which second order follows the parabola's tangent at t.

    So the step is the one of third order without its curvature.
    """
    (lambda_1, m_1), (lambda_2, m_2) = history
    d1 = (m - m_1) / (lambda_t - lambda_1)
    d2 = (m_1 - m_2) / (lambda_1 - lambda_2)
    slope = d1 + (lambda_t - lambda_1) / (lambda_t - lambda_2) * (d1 - d2)
    return ((lambda_1, m - (lambda_t - lambda_1) * slope),)


def _noise(like: Tensor, generator=None) -> Tensor:
    """Normal noise like a tensor, drawn where the generator is.

    A list of generators has one for each sample.
    """
    if isinstance(generator, (list, tuple)):
        return torch.cat([_noise(row, g) for row, g in zip(like.split(1), generator, strict=True)])
    device = like.device if generator is None else generator.device
    return torch.randn(like.shape, generator=generator, device=device, dtype=like.dtype).to(
        like.device
    )
