"""Post-hoc EMA: which averages of the weights to keep in training, so that an average of any length
can be put together afterwards (2312.02696, sec. 3 and app. C).

The average of the weights theta(tau) after t optimiser steps has a power function as its profile,

    theta_hat(t) = integral from 0 to t of p(tau) theta(tau) dtau,
    p(tau) = (gamma + 1) / t^(gamma + 1) tau^gamma.

However long a run is, it averages over the same share of it: the standard deviation of p, seen as a
distribution of tau, is sigma_rel t. So sigma_rel is called the length of the average.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LONGEST = 12**-0.5
"""sigma_rel of gamma = 0, the plain mean of all weights since the start; longer is none."""

LENGTHS = (0.05, 0.10)
"""The two sigma_rel that are kept in training, as in sec. 3.2: all others follow from them."""


@dataclass(frozen=True)
class Profile:
    """An average of length sigma_rel after t optimiser steps."""

    sigma_rel: float
    t: float

    @property
    def gamma(self) -> float:
        return gamma_of(self.sigma_rel)


def sigma_rel_of(gamma: float) -> float:
    """The standard deviation of the profile of exponent gamma, as a share of t (eq. 123)."""
    return math.sqrt((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3)))


def gamma_of(sigma_rel: float) -> float:
    """The exponent gamma >= 0 of a length: the inverse of sigma_rel_of (eq. 126).

    With u = gamma + 2 that is the largest root of u^3 + u^2 - u / sigma_rel^2 + 1 / sigma_rel^2.
    ValueError: the length does not lie between 0 and 12^-0.5.
    """
    if not 0 < sigma_rel <= LONGEST:
        raise ValueError(f"sigma_rel lies between 0 and {LONGEST:.4f}, got {sigma_rel}")
    roots = np.roots([1.0, 1.0, -(sigma_rel**-2), sigma_rel**-2])
    return max(0.0, float(roots.real.max()) - 2)


def decay(sigma_rel: float, t: int) -> float:
    """How much of the average stays at optimiser step t = 1, 2, ...

    theta_hat becomes beta theta_hat + (1 - beta) theta with beta = (1 - 1/t)^(gamma + 1) (eq. 127).
    At the first step beta is 0, so that the random start is forgotten. The weights after step k
    then have the share of p from k - 1 to k.
    """
    return (1 - 1 / t) ** (gamma_of(sigma_rel) + 1)


def inner_product(a: Profile, b: Profile) -> float:
    """The integral of p_a p_b over all tau, in closed form (eq. 151).

    Both are powers up to the earlier of the two times, m, and from there on one of them is 0.
    """
    m = min(a.t, b.t)
    exponent = a.gamma + b.gamma + 1
    scale = (m / a.t) ** (a.gamma + 1) * (m / b.t) ** (b.gamma + 1) / m
    return (a.gamma + 1) * (b.gamma + 1) / exponent * scale


def synthesis(kept: Sequence[Profile], wanted: Profile) -> tuple[list[float], float]:
    """The coefficients x of the kept averages whose sum comes closest to the one that is wanted.

    They minimise |sum_i x_i p_i - p|^2 in closed form (algorithm 3), here among those that add up
    to 1, by a Lagrange multiplier: weights do not have the mean zero, and without this the sum
    would shrink them. (The published code divides by the sum afterwards, which is not the least
    error.) Also returns that least error, as a share of |p|; it is 0 for an average that is kept.
    """
    if wanted in kept:
        place = list(kept).index(wanted)
        return [float(k == place) for k in range(len(kept))], 0.0
    n = len(kept)
    products = np.ones((n + 1, n + 1))
    products[n, n] = 0
    products[:n, :n] = [[inner_product(a, b) for b in kept] for a in kept]
    with_wanted = np.array([inner_product(a, wanted) for a in kept])
    x = np.linalg.lstsq(products, np.append(with_wanted, 1), rcond=None)[0][:n]
    square = inner_product(wanted, wanted)
    error = x @ products[:n, :n] @ x - 2 * x @ with_wanted + square
    return x.tolist(), math.sqrt(max(0.0, float(error)) / square)


@dataclass(frozen=True)
class Synthesis:
    """An average that was put together afterwards, for a checkpoint.

    error: how far its profile is from that of the length, as a share
    files: the checkpoints whose averages it is made of, with the checksums of their files
    """

    ema_length: float
    error: float
    files: dict[str, str]
