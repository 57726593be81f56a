"""Random streams: functions of (seed, purpose, rank, position) and of nothing else."""

from itertools import product

import numpy as np
import pytest
import torch

from tinyldm.randomness import PURPOSES, numpy_stream, torch_stream
from tinyldm.sampling.drawing import picture_seed

ALL = list(product((0, 1, 2**62), PURPOSES, (0, 1, 7), (0, 1, 7, 10**9)))


def from_torch(seed, purpose, rank, position) -> tuple[float, ...]:
    stream = torch_stream(seed, purpose, rank=rank, position=position)
    return tuple(torch.rand(4, generator=stream).tolist())


def from_numpy(seed, purpose, rank, position) -> tuple[float, ...]:
    return tuple(numpy_stream(seed, purpose, rank=rank, position=position).random(4))


@pytest.mark.parametrize("draw", [from_torch, from_numpy])
def test_streams_of_any_two_arguments_differ(draw):
    """Also where two arguments change places: rank 1 at position 0, rank 0 at position 1."""
    drawn = [draw(*arguments) for arguments in ALL]
    assert len(set(drawn)) == len(ALL)
    every_number = [number for numbers in drawn for number in numbers]
    assert len(set(every_number)) > 0.99 * len(every_number)  # nor is one a shift of another


@pytest.mark.parametrize("draw", [from_torch, from_numpy])
def test_equal_arguments_give_equal_streams_whatever_was_drawn_before(draw):
    first = [draw(*arguments) for arguments in ALL]
    torch.rand(3)
    np.random.default_rng().random(3)
    assert [draw(*arguments) for arguments in reversed(ALL)] == first[::-1]


def test_the_global_generators_are_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    torch_stream(0, "noise", position=3)
    numpy_stream(0, "order")
    assert torch.equal(torch.rand(2), expected)


def test_a_stream_is_numpys_own_derivation():
    """SeedSequence with the purpose as its spawn key."""
    for seed, purpose, rank, position in ALL:
        sequence = np.random.SeedSequence([seed, rank, position], spawn_key=(PURPOSES[purpose],))
        expected = np.random.default_rng(sequence).integers(2**40, size=3)
        found = numpy_stream(seed, purpose, rank=rank, position=position).integers(2**40, size=3)
        assert np.array_equal(found, expected)
        stream = torch_stream(seed, purpose, rank=rank, position=position)
        assert stream.initial_seed() == sequence.generate_state(1, np.uint32)[0]
        assert stream.device.type == "cpu"


def test_a_purpose_that_nobody_declared_is_an_error():
    with pytest.raises(KeyError, match="coffee"):
        torch_stream(0, "coffee")


def test_seeds_of_pictures_follow_the_formula_that_users_rely_on():
    assert picture_seed(0, 0) == 0
    assert picture_seed(0, 5) == 5
    assert picture_seed(1, 0) == 1_000_003
    assert picture_seed(7, 12) == 7_000_033
    assert picture_seed(2**32, 9) == 9  # 32 bits
    assert picture_seed(5000, 3) == 705_047_707
    assert len({picture_seed(seed, k) for seed in range(20) for k in range(500)}) == 10_000
