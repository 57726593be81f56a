"""For all tests: one thread for each of several workers, and the same examples in every run."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # set before torch is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings

settings.register_profile("tinyldm", derandomize=True, deadline=None, database=None)
settings.load_profile("tinyldm")
