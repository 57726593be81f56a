"""PNDMScheduler (2202.09778): DDIM along a mix of predictions, instead of the last one."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor

from tinyldm.compat.config import StepOutput
from tinyldm.compat.schedulers.multistep import MultistepScheduler
from tinyldm.diffusion.ddim import DDIM
from tinyldm.diffusion.schedule import CLEAN, Grid, Level

ADAMS_BASHFORTH = {  # how many predictions -> their weights, the newest first (eq. 12 has four)
    1: (1.0,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}
RUNGE_KUTTA = (1 / 6, 1 / 3, 1 / 3, 1 / 6)  # eq. 13


class Evaluation(NamedTuple):
    """What is done with prediction k of a run.

    at:      the level at which the network is asked
    source, target: of the DDIM step that follows
    weights: of predictions, by number
    """

    at: Level
    source: Level
    target: Level
    weights: Mapping[int, float]


class Memory(NamedTuple):
    """Predictions of the run by number, and the sample at the source of a step of many stages."""

    predictions: dict[int, Tensor]
    start: Tensor


class PNDMScheduler(MultistepScheduler):
    """Three Runge-Kutta steps of four predictions, then Adams-Bashforth on the last four.

    With skip_prk_steps the order rises from the start instead, and the second prediction, at the
    second timestep, is used to do the first step again: so that timestep is listed twice.
    Each step goes to the next timestep of the list, as in DDIMScheduler. A run that starts in the
    middle of the list has no predictions to mix, and begins like one that starts there.
    """

    def set_timesteps(self, num_inference_steps=None, device=None, timesteps=None) -> None:
        """Lay out a run of this many steps; it takes one prediction more, or nine."""
        self.support(timesteps=(timesteps, None))
        least = 1 if self.config.skip_prk_steps else 4
        if num_inference_steps is not None and num_inference_steps < least:
            raise ValueError(
                f"num_inference_steps is {num_inference_steps}, expected {least} or more"
            )
        super().set_timesteps(num_inference_steps, device)
        self.num_inference_steps = num_inference_steps

    def _end(self) -> Level:
        """Clean data, or the first level of training (set_alpha_to_one=False)."""
        if self.config.set_alpha_to_one:
            return CLEAN
        return self._first_level()

    def _visit(self, grid: Grid, device=None) -> None:
        end = self._end()
        self._plan = self._lay_out([*grid[:-1], end])
        super()._visit((*(step.at for step in self._plan), end), device)

    def _lay_out(self, levels: list[Level]) -> list[Evaluation]:
        """The evaluations of a run along these levels, whose last is its end."""
        plan: list[Evaluation] = []
        kept: list[int] = []  # the predictions that Adams-Bashforth goes by, the newest first
        first = 0
        if not self.config.skip_prk_steps and len(levels) > 4:
            first = 3
            for source, target in pairwise(levels[:4]):
                kept.insert(0, len(plan))
                plan += self._runge_kutta(len(plan), source, target)
        for now, nxt in pairwise(levels[first:]):
            k = len(plan)
            kept.insert(0, k)
            weights = ADAMS_BASHFORTH[min(len(kept), 4)]
            plan.append(Evaluation(now, now, nxt, dict(zip(kept, weights, strict=False))))
            if k == 0 and nxt is not levels[-1]:
                plan.append(Evaluation(nxt, now, nxt, {0: 1 / 2, 1: 1 / 2}))
        return plan

    def _runge_kutta(self, k: int, source: Level, target: Level) -> list[Evaluation]:
        """One step of the classical method: at its start, twice in its middle, at its end."""
        middle = self.schedule.level(target.t + (source.t - target.t) // 2)
        return [
            Evaluation(source, source, middle, {k: 1.0}),
            Evaluation(middle, source, middle, {k + 1: 1.0}),
            Evaluation(middle, source, target, {k + 2: 1.0}),
            Evaluation(
                target, source, target, dict(zip(range(k, k + 4), RUNGE_KUTTA, strict=True))
            ),
        ]

    def _index(self, timestep) -> int:
        """The position of a timestep in the list; the last one, where nothing is done again."""
        super()._index(timestep)
        return self._places[float(timestep)][-1]

    def step(self, model_output, timestep, sample, return_dict=True):
        """From x_t to x_s, or to a stage of the way there."""
        if self.num_inference_steps is None:
            raise ValueError("call set_timesteps before step")
        k, memory = self._resume(timestep, sample)
        at, source, target, weights = self._plan[k]
        predictions = {**memory.predictions, k: model_output} if memory else {k: model_output}
        start = memory.start if memory and at is not source else sample
        known = [j for j in weights if j in predictions]
        if len(known) < len(weights):  # the run started in the middle of the list
            weights = dict(zip(known, ADAMS_BASHFORTH[len(known)], strict=True))
        if not memory:
            source = at
        mixed = sum((w * predictions[j] for j, w in weights.items()), 0 * model_output)
        x, x0, eps = self._read(mixed, start, source)
        x_s, _ = DDIM().step(x, x0, eps, now=source, nxt=target)
        x_s = x_s.to(sample.dtype)
        later = {j for evaluation in self._plan[k + 1 :] for j in evaluation.weights}
        kept = {j: prediction for j, prediction in predictions.items() if j in later}
        self._leave(x_s, k + 1, Memory(kept, start))
        out = StepOutput(x_s)
        return out if return_dict else out.to_tuple()
