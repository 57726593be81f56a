"""Learning-rate schedules: a factor of the optimiser's learning rate for each step."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def get_constant_schedule(optimizer: Optimizer, last_epoch: int = -1) -> LambdaLR:
    """The optimiser's learning rate at all steps."""
    return LambdaLR(optimizer, lambda step: 1.0, last_epoch)


def get_constant_schedule_with_warmup(
    optimizer: Optimizer, num_warmup_steps: int, last_epoch: int = -1
) -> LambdaLR:
    """A straight line from 0, then the optimiser's learning rate."""
    return _warmed_up(optimizer, num_warmup_steps, after=lambda step: 1.0, last_epoch=last_epoch)


def get_piecewise_constant_schedule(
    optimizer: Optimizer, step_rules: str, last_epoch: int = -1
) -> LambdaLR:
    """Factors for ranges of steps: "1:10,0.1:20,0.01" is 1 before step 10, 0.1 before 20, 0.01."""
    *rules, rest = step_rules.split(",")
    bounds = []
    for rule in rules:
        factor, step = rule.split(":")
        bounds.append((int(step), float(factor)))
    bounds.sort()

    def factor_at(step: int) -> float:
        for bound, factor in bounds:
            if step < bound:
                return factor
        return float(rest)

    return LambdaLR(optimizer, factor_at, last_epoch)


def get_linear_schedule_with_warmup(
    optimizer: Optimizer,
    num_warmup_steps: int,
    num_training_steps: int,
    last_epoch: int = -1,
    f_min: float = 0.0,
    f_max: float = 1.0,
) -> LambdaLR:
    """A straight line from 0 to f_max, and one from there to f_min at the end."""
    progress = _progress(num_warmup_steps, num_training_steps)

    def after(step: int) -> float:
        return f_min + (f_max - f_min) * max(0.0, 1 - progress(step))

    return _warmed_up(optimizer, num_warmup_steps, after, last_epoch=last_epoch, peak=f_max)


def get_cosine_schedule_with_warmup(
    optimizer: Optimizer,
    num_warmup_steps: int,
    num_training_steps: int,
    num_cycles: float = 0.5,
    last_epoch: int = -1,
) -> LambdaLR:
    """A straight line from 0, then num_cycles periods of a cosine between 1 and 0."""
    progress = _progress(num_warmup_steps, num_training_steps)

    def after(step: int) -> float:
        return max(0.0, 0.5 + 0.5 * math.cos(2 * math.pi * num_cycles * progress(step)))

    return _warmed_up(optimizer, num_warmup_steps, after, last_epoch=last_epoch)


def get_cosine_with_hard_restarts_schedule_with_warmup(
    optimizer: Optimizer,
    num_warmup_steps: int,
    num_training_steps: int,
    num_cycles: int = 1,
    last_epoch: int = -1,
) -> LambdaLR:
    """A straight line from 0, then num_cycles falling halves of a cosine, each from 1 to 0."""
    progress = _progress(num_warmup_steps, num_training_steps)

    def after(step: int) -> float:
        if progress(step) >= 1:
            return 0.0
        within = num_cycles * progress(step) % 1.0
        return max(0.0, 0.5 + 0.5 * math.cos(math.pi * within))

    return _warmed_up(optimizer, num_warmup_steps, after, last_epoch=last_epoch)


def get_polynomial_decay_schedule_with_warmup(
    optimizer: Optimizer,
    num_warmup_steps: int,
    num_training_steps: int,
    lr_end: float = 1e-7,
    power: float = 1.0,
    last_epoch: int = -1,
) -> LambdaLR:
    """A straight line from 0, then a power of what remains, down to the learning rate lr_end."""
    least = lr_end / optimizer.defaults["lr"]
    if least >= 1:
        raise ValueError(
            f"lr_end is {lr_end}, expected less than the optimizer's {optimizer.defaults['lr']}"
        )
    progress = _progress(num_warmup_steps, num_training_steps)

    def after(step: int) -> float:
        return least + (1 - least) * max(0.0, 1 - progress(step)) ** power

    return _warmed_up(optimizer, num_warmup_steps, after, last_epoch=last_epoch)


def get_scheduler(
    name: str,
    optimizer: Optimizer,
    step_rules: str | None = None,
    num_warmup_steps: int | None = None,
    num_training_steps: int | None = None,
    num_cycles: int = 1,
    power: float = 1.0,
    last_epoch: int = -1,
) -> LambdaLR:
    """The schedule of a name; num_cycles is for cosine_with_restarts, power for polynomial."""
    given = {
        "optimizer": optimizer,
        "step_rules": step_rules,
        "num_warmup_steps": num_warmup_steps,
        "num_training_steps": num_training_steps,
        "num_cycles": num_cycles,
        "power": power,
        "last_epoch": last_epoch,
    }
    if name not in SCHEDULES:
        raise ValueError(f"name is {name!r}, expected one of {', '.join(SCHEDULES)}")
    function, needed = SCHEDULES[name]
    for argument in needed:
        if given[argument] is None:
            raise ValueError(f"the schedule {name} needs {argument}")
    return function(**{key: given[key] for key in ("optimizer", "last_epoch", *needed)})


WARMUP = ("num_warmup_steps", "num_training_steps")
SCHEDULES: dict[str, tuple[Callable[..., LambdaLR], tuple[str, ...]]] = {
    "linear": (get_linear_schedule_with_warmup, WARMUP),
    "cosine": (get_cosine_schedule_with_warmup, WARMUP),
    "cosine_with_restarts": (
        get_cosine_with_hard_restarts_schedule_with_warmup,
        (*WARMUP, "num_cycles"),
    ),
    "polynomial": (get_polynomial_decay_schedule_with_warmup, (*WARMUP, "power")),
    "constant": (get_constant_schedule, ()),
    "constant_with_warmup": (get_constant_schedule_with_warmup, ("num_warmup_steps",)),
    "piecewise_constant": (get_piecewise_constant_schedule, ("step_rules",)),
}
"""For each name its function, and the arguments that get_scheduler hands to it."""


def _progress(num_warmup_steps: int, num_training_steps: int) -> Callable[[int], float]:
    """How far a step is on the way from the end of the warm-up, 0, to that of training, 1."""
    length = max(1, num_training_steps - num_warmup_steps)
    return lambda step: (step - num_warmup_steps) / length


def _warmed_up(
    optimizer: Optimizer,
    num_warmup_steps: int,
    after: Callable[[int], float],
    *,
    last_epoch: int,
    peak: float = 1.0,
) -> LambdaLR:
    """A straight line from 0 to peak, and then what `after` says of each step."""

    def factor_at(step: int) -> float:
        if step < num_warmup_steps:
            return peak * step / max(1, num_warmup_steps)
        return after(step)

    return LambdaLR(optimizer, factor_at, last_epoch)
