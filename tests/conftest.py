"""For all tests: one thread for each of several workers, the same examples in every run, and short
work at the end of a training that is not what a test looks at."""

import os

import pytest

from tinyldm import installation
from tinyldm.pages import curves

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
def short_ends():
    """A training in this process leaves a preview of two steps, and a report without its curves.

    Hundreds of tests train for a step or two. tests/pages draws real curves, and trainings that are
    processes of their own do all of it.
    """
    from tinyldm.sampling import previews

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "svg", lambda chart: f"<svg><title>{len(chart.lines)}</title></svg>")
        patch.setattr(previews, "STEPS", 2)
        yield


@pytest.fixture(scope="session", autouse=True)
def a_cache_of_their_own(tmp_path_factory):
    """What earlier runs have noted in the user's cache folder must not matter to a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYLDM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
