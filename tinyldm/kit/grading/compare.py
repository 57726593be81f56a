"""What a check compares, and how it says what it sees."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

MANY = 100_000  # numbers in a tensor whose variance is looked at


class WrongError(Exception):
    """What a check sees is not as it should be; the message is for the student."""


def compare(
    what: str, got: object, expected: Tensor, mistakes: Mapping[str, Tensor] | None = None
) -> None:
    """WrongError unless a tensor is as expected; it says how it differs, and why if that is known.

    what:     the student's name of it, "x_s"
    mistakes: what is usually done wrong -> what comes out of it
    """
    if not isinstance(got, Tensor):
        raise WrongError(f"your {what} is a {type(got).__name__}, expected a tensor")
    if got.shape != expected.shape:
        raise WrongError(
            f"your {what} has shape {tuple(got.shape)}, expected {tuple(expected.shape)}"
        )
    if not got.isfinite().all():
        raise WrongError(f"your {what} holds numbers that are not finite")
    if close(got, expected):
        return
    because = ""
    for why, wrong in (mistakes or {}).items():
        if wrong.shape == got.shape and close(got, wrong):
            because = f"; it looks as if {why}"
    raise WrongError(symptom(what, got.double(), expected.double()) + because)


def close(got: Tensor, expected: Tensor) -> bool:
    """Whether all numbers agree, to float32's accuracy."""
    return torch.allclose(got.double(), expected.double(), rtol=1e-4, atol=1e-5)


def symptom(what: str, got: Tensor, expected: Tensor) -> str:
    """In what a tensor differs most plainly: its variance, its mean, or a number in it."""
    if got.numel() > 1000:
        variance, wanted = got.var().item(), expected.var().item()
        if abs(variance / max(wanted, 1e-9) - 1) > 0.02:
            much = "much" if variance > wanted else "little"
            return f"your {what} has too {much} variance: {variance:.2f}, expected {wanted:.2f}"
        mean, middle = got.mean().item(), expected.mean().item()
        if abs(mean - middle) > 0.02:
            return f"your {what} has the mean {mean:.2f}, expected {middle:.2f}"
    place = int((got - expected).abs().flatten().argmax())
    index = tuple(int(k) for k in torch.unravel_index(torch.tensor(place), got.shape))
    where = "".join(f"[{k}]" for k in index)
    a, b = got.flatten()[place].item(), expected.flatten()[place].item()
    return f"your {what} is {a:.4g} at {where}, expected {b:.4g}"


def stepped(solver: Any, *tensors: Tensor, **how: Any) -> tuple[Any, Any]:
    """(x_s, history) of a solver's step from x, x0 and eps.

    WrongError for anything else that it returns, where it changes what it was given, and where it
    draws noise of its own.
    """
    given = [tensor.clone() for tensor in tensors]
    returned = solver.step(*given, **how)
    for name, tensor, before in zip(("x", "x0", "eps"), given, tensors, strict=True):
        demand(
            torch.equal(tensor, before),
            f"your step changes {name}, which it was given: x += y writes into x, x = x + y not",
        )
    pair = isinstance(returned, tuple) and len(returned) == 2
    kind = "nothing" if returned is None else f"a {type(returned).__name__}"
    demand(pair, f"your step returns {kind}, expected the pair (x_s, history)")
    x_s, history = returned
    if isinstance(x_s, Tensor):
        again = solver.step(*(tensor.clone() for tensor in tensors), **how)[0]
        demand(
            torch.equal(again, x_s),
            "your x_s is another one at each call: it needs the noise that step is given, and no "
            "other",
        )
    return x_s, history


def demand(right: bool, told: str) -> None:
    """WrongError with this message unless it is right."""
    if not right:
        raise WrongError(told)


def refused(call: Callable[[], object], when: str) -> None:
    """WrongError unless a call raises ValueError, as the docstrings ask."""
    try:
        call()
    except ValueError:
        return
    raise WrongError(f"no ValueError {when}")


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Normal noise, the same at every call."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def level(lambda_: float) -> Any:
    """The variance-preserving level whose log(alpha / sigma) is lambda."""
    from tinyldm.diffusion.schedule import Level

    alpha = 1 / math.sqrt(1 + math.exp(-2 * lambda_))
    return Level(10 - lambda_, alpha, 1 / math.sqrt(1 + math.exp(2 * lambda_)))
