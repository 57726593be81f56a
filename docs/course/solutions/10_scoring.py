"""Solutions of chapter 10, "Scoring without fooling yourself"."""

import math

import torch
from torch import Tensor


def frechet_distance(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """The Fréchet distance of two Gaussians, from means (d,) and covariances (d, d).

    S_a S_b is not symmetric, but R S_b R with R the root of S_a is, and has the same eigenvalues.
    """
    values, vectors = torch.linalg.eigh(cov_a)
    root_a = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    both = torch.linalg.eigvalsh(root_a @ cov_b @ root_a).clamp(min=0)
    spread = cov_a.trace() + cov_b.trace() - 2 * both.sqrt().sum()
    return ((mean_a - mean_b).square().sum() + spread).item()


def frechet_bias(d: int, n: int) -> float:
    """The distance to expect of two sets of n draws from the same N(0, I) of d features.

    The first term is of the means, the second of the covariances. It holds where the errors of the
    covariance are small against 1: their eigenvalues are about 2 sqrt(d / n), so for n >> 4 d.
    """
    return 2 * d / n + d * (d + 1) / (2 * (n - 1))


def wilson(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The shares p that lie no more than z of their own deviations from right / n.

    (seen - p)^2 = z^2 p (1 - p) / n, sorted by powers of p:
    (1 + z^2 / n) p^2 - (2 seen + z^2 / n) p + seen^2 = 0

    Where all are right, it goes from n / (n + z^2) to 1. The usual formula says that p is 1, with
    an error of 0.
    """
    seen, extra = right / n, z**2 / n
    middle = (seen + extra / 2) / (1 + extra)
    half = math.sqrt(extra * (seen * (1 - seen) + extra / 4)) / (1 + extra)
    return max(0.0, middle - half), min(1.0, middle + half)
