"""Distances of features against closed forms, scipy's matrix root and another kernel sum."""

import pickle
import warnings

import numpy as np
import pytest
import scipy.linalg
import torch
from scipy.spatial.distance import cdist

from tinyldm.errors import InputError
from tinyldm.scores.distances import MOMENTS, Statistics, cmmd, frechet, read_moments, statistics


def normal(n, d, seed, scale=1.0, shift=0.0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(
        rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) * scale / d**0.5 + shift
    )


def by_scipy(x, y):
    """The distance as the assignment's script computes it, from np.cov and a matrix square root."""
    x, y = x.double().numpy(), y.double().numpy()
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(a @ b).real
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * root)


@pytest.mark.parametrize(("n", "m"), [(200, 300), (200, 40), (13, 300)])
def test_frechet_is_scipys(n, m):
    x, y = normal(n, 12, 0), normal(m, 12, 1, scale=1.5, shift=0.3)
    assert frechet(statistics(x), statistics(y)) == pytest.approx(by_scipy(x, y), rel=1e-9)


def test_fewer_samples_than_features():
    """scipy's root of a singular product is off by 1e-7 of its size; zeros change nothing."""
    x, y = normal(20, 64, 0), normal(30, 64, 1, shift=0.5)
    distance = frechet(statistics(x), statistics(y))
    assert distance == pytest.approx(by_scipy(x, y), rel=1e-5)
    wide = [torch.cat([z, torch.zeros(len(z), 500, dtype=z.dtype)], 1) for z in (x, y)]
    assert frechet(*map(statistics, wide)) == pytest.approx(distance, rel=1e-12)


def test_frechet_of_diagonal_covariances():
    """Commuting covariances: |m_a - m_b|^2 + sum (s_a - s_b)^2, s the standard deviations."""
    a, b = torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([4.0, 0.0, 1.0]).double()
    one = Statistics(torch.zeros(3).double(), a.diag(), 0)
    two = Statistics(torch.tensor([1.0, -2.0, 0.5]).double(), b.diag(), 0)
    assert frechet(one, two) == pytest.approx(1 + 4 + 0.25 + 9 + 4 + 4)


def test_frechet_does_not_turn_with_the_axes():
    x, y = normal(50, 9, 0), normal(60, 9, 1, shift=1.0)
    turn = torch.linalg.qr(normal(9, 9, 2)).Q
    turned = frechet(statistics(x @ turn), statistics(y @ turn))
    assert turned == pytest.approx(frechet(statistics(x), statistics(y)), rel=1e-10)


@pytest.mark.parametrize(("n", "d"), [(300, 16), (16, 300)])
def test_pitfall_22_a_set_has_no_distance_from_itself(n, d):
    x = normal(n, d, 0, scale=5.0, shift=100.0).float()
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    assert frechet(statistics(x), statistics(x[order])) < 1e-8
    assert cmmd(x, x[order]) == pytest.approx(0, abs=1e-9)


def test_statistics_are_numpys():
    for n in (5, 50):
        x = normal(n, 8, 3)
        found = statistics(x)
        np.testing.assert_allclose(
            found.factor.T @ found.factor, np.cov(x.numpy(), rowvar=False), atol=1e-12
        )
        np.testing.assert_allclose(found.mean, x.numpy().mean(0), atol=1e-12)
        assert found.n == n
    with pytest.raises(ValueError, match="1 samples"):
        statistics(x[:1])


def save_moments(folder, mean, covariance):
    for name, array in zip(MOMENTS, (mean, covariance), strict=True):
        np.save(folder / name, array)


@pytest.mark.parametrize("kind", ["float64", "float32"])
def test_moments_on_disk_give_the_same_distance(tmp_path, kind):
    x, y = normal(40, 30, 0), normal(20, 30, 1, shift=1.0)  # of 20 samples: a covariance of rank 19
    save_moments(
        tmp_path, y.numpy().mean(0).astype(kind), np.cov(y.numpy(), rowvar=False).astype(kind)
    )
    expected = frechet(statistics(x), statistics(y))
    error = 1e-6 if kind == "float64" else 1e-3
    assert frechet(statistics(x), read_moments(tmp_path)) == pytest.approx(expected, rel=error)


@pytest.mark.parametrize(
    ("mean", "covariance", "said"),
    [
        (np.zeros(3), np.eye(4), "test_mu.npy and test_sigma.npy hold .3,. and .4, 4."),
        (np.zeros(3), np.diag([1.0, 1.0, -1.0]), "test_sigma.npy: not a covariance"),
        (np.zeros(2), np.array([[1.0, 0.5], [0.0, 1.0]]), "test_sigma.npy: not a covariance"),
        (
            np.array([{"a": 1}]),
            np.eye(1),
            "test_mu.npy: not a plain .npy array of numbers",
        ),  # a pickle
        (np.array(["a"]), np.eye(1), "test_mu.npy: not a plain .npy array of numbers"),
        (
            np.array([1j]),
            np.eye(1),
            "test_mu.npy: not a plain .npy array of numbers .it holds complex128",
        ),
        (np.array([np.nan]), np.eye(1), "test_mu.npy: some of its numbers are not finite"),
        (np.zeros(1), np.array([[np.inf]]), "test_sigma.npy: some of its numbers are not finite"),
    ],
)
def test_bad_moments_are_named(tmp_path, mean, covariance, said):
    save_moments(tmp_path, mean, covariance)
    with pytest.raises(InputError, match=said):
        read_moments(tmp_path)


def pickled(file):
    file.write_bytes(pickle.dumps({"mu": [0.0]}))


def archive(file):
    np.savez(file.with_suffix(".npz"), mu=np.zeros(2), sigma=np.eye(2))
    file.with_suffix(".npz").rename(file)


def cut_archive(file):
    archive(file)
    file.write_bytes(file.read_bytes()[:30])


@pytest.mark.parametrize(
    "spoil",
    [pickled, archive, cut_archive, lambda f: f.write_bytes(b""), lambda f: f.write_text("0")],
)
def test_other_files_than_arrays_are_refused(tmp_path, spoil):
    save_moments(tmp_path, np.zeros(2), np.eye(2))
    spoil(tmp_path / MOMENTS[0])
    with pytest.raises(InputError, match=r"test_mu.npy: not a plain .npy array of numbers"):
        read_moments(tmp_path)
    with pytest.raises(InputError, match=r"test_mu.npy: no such file; expected a folder"):
        read_moments(tmp_path / MOMENTS[1])  # a file, as pytorch-fid's own .npz would be


def test_a_header_of_python_2_is_read_without_a_word(tmp_path):
    save_moments(tmp_path, np.array([1.0, 2.0]), np.eye(2))
    file = tmp_path / MOMENTS[0]
    content = file.read_bytes()
    file.write_bytes(content.replace(b"(2,), } ", b"(2L,), }"))
    assert file.read_bytes() != content
    with warnings.catch_warnings(action="error"):
        assert read_moments(tmp_path).mean.tolist() == [1, 2]


def test_missing_moments_are_named(tmp_path):
    np.save(tmp_path / MOMENTS[0], np.zeros(2))
    with pytest.raises(
        InputError,
        match=r"test_sigma.npy: no such file; "
        r"expected a folder with test_mu.npy and test_sigma.npy",
    ):
        read_moments(tmp_path)


def test_cmmd_is_the_mean_of_kernels():
    x, y = normal(30, 8, 0), normal(41, 8, 1, shift=0.5)

    def unit(z):
        return (z / z.norm(dim=1, keepdim=True)).numpy()

    def kernels(a, b):
        return np.exp(-cdist(unit(a), unit(b), "sqeuclidean") / (2 * 10**2)).mean()

    expected = 1000 * (kernels(x, x) + kernels(y, y) - 2 * kernels(x, y))
    assert cmmd(x, y) == pytest.approx(expected, rel=1e-9)
    assert cmmd(x, y, chunk=7) == pytest.approx(cmmd(3 * x, y), rel=1e-9)


def test_cmmd_of_two_points():
    """Opposite points are 2 apart: 2 - 2 exp(-4 / 200)."""
    x = torch.tensor([[0.0, 2.0]])
    assert cmmd(x, -x) == pytest.approx(2000 * (1 - np.exp(-0.02)))
