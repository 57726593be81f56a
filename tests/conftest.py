"""For all tests: one thread for each of several workers, and the same examples in every run."""

import os

import pytest

from tinyldm import installation

if "PYTEST_XDIST_WORKER" in os.environ:  # set before torch is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings

settings.register_profile("tinyldm", derandomize=True, deadline=None, database=None)
settings.load_profile("tinyldm")


@pytest.fixture(scope="session", autouse=True)
def as_in_a_clone():
    """Messages of this process name commands as in the folder of a clone, wherever a test is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(installation, "at_clone", lambda: True)
        yield


@pytest.fixture(scope="session", autouse=True)
def a_cache_of_their_own(tmp_path_factory):
    """What earlier runs have noted in the user's cache folder must not matter to a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYLDM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
