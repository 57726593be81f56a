"""Curves are drawn here, which elsewhere no test of a training looks at (tests/conftest.py)."""

import pytest

from tinyldm.pages import curves

SVG = curves.svg  # before the tests' own stands in for it


@pytest.fixture(scope="module", autouse=True)
def real_curves():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "svg", SVG)
        yield
