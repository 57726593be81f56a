"""How far apart two sets of features are: the Fréchet distance and CMMD, in float64."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tinyldm.errors import InputError, reason

# the assignment's files of the reference's mean and covariance
MOMENTS = ("test_mu.npy", "test_sigma.npy")
MOST = 1e100  # of a moment; the squares of larger ones overflow


@dataclass(frozen=True)
class Statistics:
    """The mean (d,) of n samples, and a factor (k, d) of their covariance, factor^T factor.

    n is 0 where it is not known.
    """

    mean: Tensor
    factor: Tensor
    n: int


def statistics(features: Tensor) -> Statistics:
    """The statistics of features (n, d); the covariance divides by n - 1, as np.cov does.

    ValueError: fewer than two samples, which have no covariance.
    """
    n, d = features.shape
    if n < 2:
        raise ValueError(f"{n} samples have no covariance, expected at least 2")
    features = features.double()
    mean = features.mean(0)
    factor = (features - mean) / (n - 1) ** 0.5  # (n, d)
    if n > d:
        factor = torch.linalg.qr(factor, mode="r").R  # (d, d), with the same factor^T factor
    return Statistics(mean, factor, n)


def frechet(a: Statistics, b: Statistics) -> float:
    """The Fréchet distance of two Gaussians (1706.08500).

        |mean_a - mean_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))

    With S_a = A^T A and S_b = B^T B the eigenvalues of S_a S_b are the squared singular values of
    A B^T. So no root of a matrix is taken, and a covariance of less than full rank, from fewer
    samples than features, does no harm.
    """
    root = torch.linalg.svdvals(a.factor @ b.factor.T).sum()
    distance = (
        (a.mean - b.mean).square().sum()
        + a.factor.square().sum()
        + b.factor.square().sum()
        - 2 * root
    )
    return max(0.0, distance.item())


def read_moments(folder: Path) -> Statistics:
    """The statistics in test_mu.npy (d,) and test_sigma.npy (d, d) of a folder.

    InputError: a file that is missing, is no plain array of numbers, or is no covariance.
    """
    mean, covariance = (_read_array(folder / name) for name in MOMENTS)
    if mean.ndim != 1 or covariance.shape != 2 * mean.shape:
        shapes = f"{tuple(mean.shape)} and {tuple(covariance.shape)}"
        raise InputError(
            f"{folder}: {' and '.join(MOMENTS)} hold {shapes}, expected (d,) and (d, d)"
        )
    values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
    asymmetry = (covariance - covariance.T).abs().max()
    if max(asymmetry, -values[0]) > 1e-6 * values[-1].abs():
        raise InputError(
            f"{folder / MOMENTS[1]}: not a covariance, expected a symmetric matrix, "
            "no eigenvalue below 0"
        )
    factor = values.clamp(min=0).sqrt()[:, None] * vectors.T
    return Statistics(mean, factor, 0)


def _read_array(file: Path) -> Tensor:
    """A .npy array of numbers, as float64; pickled objects are refused."""
    if not file.is_file():
        raise InputError(f"{file}: no such file; expected a folder with {' and '.join(MOMENTS)}")
    try:
        # np.load would also open archives and, asked to, pickles; mapped, a size that the header
        # claims takes no memory
        with warnings.catch_warnings(action="ignore"):  # of headers that Python 2 wrote
            array = np.lib.format.open_memmap(file, mode="r")
        if array.dtype.kind not in "fiu":
            raise ValueError(f"it holds {array.dtype}")
    except Exception as error:  # numpy raises almost anything on broken bytes
        raise InputError(f"{file}: not a plain .npy array of numbers ({reason(error)})") from None
    values = torch.from_numpy(array.astype(np.float64))
    if not bool((values.abs() <= MOST).all()):
        raise InputError(f"{file}: some of its numbers are not finite, or beyond {MOST:g}")
    return values


def cmmd(
    x: Tensor, y: Tensor, sigma: float = 10.0, scale: float = 1000.0, chunk: int = 2048
) -> float:
    """Squared maximum mean discrepancy of CLIP features, times 1000 (CMMD, 2401.09603).

    x: (n, d); y: (m, d). The kernel is exp(-|x - y|^2 / (2 sigma^2)) of unit vectors. A sample is
    also compared with itself, as in the authors' code, so that a set has no distance from itself.
    """
    x = F.normalize(x.double(), dim=-1)
    y = F.normalize(y.double(), dim=-1)

    def mean_kernel(a: Tensor, b: Tensor) -> float:
        total = 0.0
        for part in a.split(chunk):
            kernel = torch.exp((part @ b.T - 1) / sigma**2)  # |a - b|^2 = 2 - 2 a.b
            total += kernel.sum().item()
        return total / (len(a) * len(b))

    return scale * (mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y))
