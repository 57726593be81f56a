"""Power-function averages against sums, numerical integrals and averages that were tracked."""

import itertools
import math

import numpy as np
import pytest

from tinyldm.methods.power_ema import (
    LENGTHS,
    LONGEST,
    Profile,
    decay,
    gamma_of,
    inner_product,
    sigma_rel_of,
    synthesis,
)


def integral(f, n=200_000):
    """Of f from 0 to 1, by the midpoint rule."""
    return f((np.arange(n) + 0.5) / n).mean()


def values(profile, tau):
    """The profile p(tau), as its definition says."""
    p = (profile.gamma + 1) / profile.t ** (profile.gamma + 1) * tau**profile.gamma
    return np.where(tau <= profile.t, p, 0.0)


def shares(sigma_rel, t):
    """The share of each of the weights of steps 1 to t: the integral of p from k - 1 to k."""
    k = np.arange(t + 1) / t
    return np.diff(k ** (gamma_of(sigma_rel) + 1))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 6.94, 16.97, 300.0])
def test_the_length_is_the_standard_deviation_of_the_profile(gamma):
    def expected(f):
        return integral(lambda tau: (gamma + 1) * tau**gamma * f(tau))

    mean = expected(lambda tau: tau)
    assert expected(np.ones_like) == pytest.approx(1, rel=1e-4)
    deviation = math.sqrt(expected(lambda tau: (tau - mean) ** 2))
    assert sigma_rel_of(gamma) == pytest.approx(deviation, rel=1e-3)


def test_exponent_and_length_are_inverse_of_each_other():
    for sigma_rel in (0.001, 0.01, 0.05, 0.1, 0.15, 0.25, 0.2886, LONGEST):
        assert sigma_rel_of(gamma_of(sigma_rel)) == pytest.approx(sigma_rel, rel=1e-9)
    for gamma in (0.0, 0.01, 1.0, 6.94, 16.97, 300.0):
        assert gamma_of(sigma_rel_of(gamma)) == pytest.approx(gamma, rel=1e-6, abs=1e-6)
    # what 2312.02696 says of its two lengths, sec. 3.2
    assert gamma_of(0.05) == pytest.approx(16.97, abs=0.005)
    assert gamma_of(0.10) == pytest.approx(6.94, abs=0.005)


@pytest.mark.parametrize("sigma_rel", [0.0, -0.1, 0.29, math.nan])
def test_a_length_that_no_profile_has_is_refused(sigma_rel):
    with pytest.raises(ValueError, match=r"between 0 and 0\.2887"):
        gamma_of(sigma_rel)


@pytest.mark.parametrize("sigma_rel", [0.02, 0.05, 0.1, 0.25, LONGEST])
def test_the_updates_add_up_to_the_weighted_sum(sigma_rel):
    """And to the plain mean for the longest of all."""
    theta = np.random.default_rng(0).standard_normal(500).cumsum()
    average = 1e9  # the random start, of which nothing may be left
    for t, weights in enumerate(theta, 1):
        beta = decay(sigma_rel, t)
        average = beta * average + (1 - beta) * weights
        if t in (1, 2, 37, 500):
            expected = shares(sigma_rel, t) @ theta[:t]
            assert average == pytest.approx(expected, rel=1e-9, abs=1e-9)
    if sigma_rel == LONGEST:
        assert average == pytest.approx(theta.mean(), rel=1e-6)


def test_inner_products_against_numerical_integration():
    profiles = [Profile(s, t) for s in (0.03, 0.1, 0.25) for t in (0.2, 0.7, 1.0)]
    for a, b in itertools.product(profiles, profiles):
        expected = integral(lambda tau, a=a, b=b: values(a, tau) * values(b, tau))
        assert inner_product(a, b) == pytest.approx(expected, rel=2e-3, abs=1e-12)
        assert inner_product(a, b) == inner_product(b, a)


def kept_at(snapshots, t):
    return [Profile(s, t * (k + 1) / snapshots) for k in range(snapshots) for s in LENGTHS]


def test_a_length_that_was_kept_is_found_again():
    """Exactly where it is among them, and as their sum by the equations where it nearly is."""
    kept = kept_at(4, 2000)
    for place, wanted in enumerate(kept):
        x, error = synthesis(kept, wanted)
        assert x == [float(k == place) for k in range(len(kept))]
        assert error == 0
    x, error = synthesis(kept, Profile(0.1 + 1e-7, 2000))
    assert np.allclose(x, [0] * 7 + [1], atol=1e-3)
    assert error < 1e-6


def test_the_combination_is_the_best_that_adds_up_to_one():
    """Against least squares on a fine grid, where the last coefficient is 1 minus the others."""
    kept, wanted = kept_at(3, 1.0), Profile(0.15, 1.0)
    tau = (np.arange(100_000) + 0.5) / 100_000
    p = np.stack([values(profile, tau) for profile in kept], axis=1)
    goal = values(wanted, tau)
    free = np.linalg.lstsq(p[:, :-1] - p[:, -1:], goal - p[:, -1], rcond=None)[0]
    expected = np.append(free, 1 - free.sum())
    x, error = synthesis(kept, wanted)
    assert np.allclose(x, expected, atol=2e-3)
    assert sum(x) == pytest.approx(1, abs=1e-9)
    missed = math.sqrt(((p @ expected - goal) ** 2).mean() / (goal**2).mean())
    assert error == pytest.approx(missed, rel=1e-2)


@pytest.mark.parametrize("sigma_rel", [0.07, 0.15, 0.2])
def test_a_random_walk_is_averaged_the_better_the_more_snapshots_there_are(sigma_rel):
    """Against the average that was tracked directly, as a share of what the two kept ones differ
    by."""
    t = 3200
    theta = np.random.default_rng(1).standard_normal((t, 200)).cumsum(0) + 100  # far from 0
    tracked = shares(sigma_rel, t) @ theta
    scale = np.linalg.norm(shares(0.05, t) @ theta - shares(0.1, t) @ theta)
    missed, told = [], []
    for snapshots in (2, 4, 8, 16):
        kept = kept_at(snapshots, t)
        x, error = synthesis(kept, Profile(sigma_rel, t))
        averages = [shares(p.sigma_rel, int(p.t)) @ theta[: int(p.t)] for p in kept]
        missed.append(np.linalg.norm(x @ np.stack(averages) - tracked) / scale)
        told.append(error)
    for falling in (missed, told):
        assert all(b < a for a, b in itertools.pairwise(falling)), falling
        assert falling[-1] < falling[0] / 10
    assert missed[2] < 0.1
    assert missed[3] < 0.02


def test_coefficients_that_add_up_to_one_come_nearer_than_those_divided_by_their_sum():
    """The second is what the published code of 2312.02696 does."""
    t = 3200
    theta = np.random.default_rng(2).standard_normal((t, 200)).cumsum(0) + 100
    for snapshots, sigma_rel in ((2, 0.07), (4, 0.15), (8, 0.2)):
        kept, wanted = kept_at(snapshots, t), Profile(sigma_rel, t)
        averages = np.stack([shares(p.sigma_rel, int(p.t)) @ theta[: int(p.t)] for p in kept])
        tracked = shares(sigma_rel, t) @ theta
        products = [[inner_product(a, b) for b in kept] for a in kept]
        free = np.linalg.solve(products, [inner_product(a, wanted) for a in kept])
        ours, _ = synthesis(kept, wanted)
        missed = np.linalg.norm(ours @ averages - tracked)
        assert missed < 0.9 * np.linalg.norm(free / free.sum() @ averages - tracked)
