"""Curves: round ticks, points where they belong, smoothing that keeps what is flat."""

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyldm.pages import curves
from tinyldm.pages.curves import HEIGHT, WIDTH, Line, chart, loss_lines, smoothed, thinned, ticks


@given(st.floats(-1e6, 1e6), st.floats(1e-2, 1e6))
def test_ticks_are_round_and_inside(low, width):
    found = ticks(low, low + width)
    step = found[1] - found[0]
    assert 2 <= len(found) <= 7
    assert all(low - 1e-6 * step <= t <= low + width + 1e-6 * step for t in found)
    digits = step / 10 ** math.floor(math.log10(step * 1.001))
    assert min(abs(digits - k) for k in (1, 2, 5, 10)) < 1e-3


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.9, 2000, [1, 10, 100, 1000]),
        (0.21, 1.1, [0.3, 0.5, 1]),
        (1, 100, [1, 10, 100]),
        (1, 60, [1, 2, 3, 5, 10, 20, 30, 50]),
        (0.22, 0.24, [0.22, 0.225, 0.23, 0.235, 0.24]),
    ],
)
def test_ticks_of_a_log_axis(low, high, expected):
    assert ticks(low, high, log=True) == pytest.approx(expected)


def drawn(svg):
    """The points of every line of a chart, in pixels."""
    root = ElementTree.fromstring(svg.split("</svg>")[0] + "</svg>")
    paths = [p.get("d") for p in root.iter("path") if p.get("fill") == "none"]
    return [
        [tuple(map(float, point.split())) for point in re.split("[ML]", path)[1:]] for path in paths
    ]


@pytest.mark.parametrize("log", [False, True])
def test_points_lie_where_their_values_say(log):
    """The lowest point is lowest, a middle one half way: on a log scale between 1 and 100 that is 10."""
    (points,) = drawn(
        chart([Line("", ((0, 1), (1, 10 if log else 50.5), (2, 100)))], "x", "y", log=log)
    )
    (u0, v0), (u1, v1), (u2, v2) = points
    assert u1 - u0 == pytest.approx(u2 - u1, abs=0.11)
    assert v1 - v0 == pytest.approx(v2 - v1, abs=0.11)
    assert curves.LEFT < u0 < u2 < WIDTH - curves.RIGHT
    assert curves.TOP < v2 < v0 < HEIGHT - curves.BOTTOM


def test_what_cannot_be_drawn_is_left_out():
    holes = Line("", ((0, 1.0), (1, math.nan), (2, 0.0), (3, math.inf), (4, 2.0)))
    (points,) = drawn(chart([holes], "x", "y", log=True))
    assert len(points) == 2
    assert "Nothing to draw" in chart([Line("", ((0, math.nan),))], "x", "y")
    assert len(drawn(chart([Line("", ((3, 5.0),))], "x", "y"))) == 1  # one point has a range too


def test_names_are_text():
    svg = chart(
        [Line("<b>", ((0, 1), (1, 2)), labels=("<i>", "&")), Line("other", ((0, 1), (1, 3)))],
        "<x>",
        "y",
    )
    assert "&lt;b&gt;" in svg
    assert "<b>" not in svg
    assert "<i>" not in svg
    assert "other" in svg


def test_smoothing_keeps_what_is_flat_and_skips_what_is_not_finite():
    flat = [(k, 3.0) for k in range(1000)]
    assert all(y == pytest.approx(3) for _, y in smoothed(flat))
    holes = [(k, math.inf if k % 3 == 0 else 3.0) for k in range(100)]
    assert len(smoothed(holes)) == 66
    assert all(y == pytest.approx(3) for _, y in smoothed(holes))


def test_thinning_keeps_the_mean():
    points = [(k, float(k % 7)) for k in range(1000)]
    thin = thinned(points, 100)
    assert len(thin) == 100
    assert thin[-1][0] == 999
    assert sum(y for _, y in thin) / 100 == pytest.approx(sum(y for _, y in points) / 1000)
    assert thinned(points[:5]) == tuple(points[:5])
    assert thinned([]) == ()
    assert [line.faint for line in loss_lines(points)] == [False, True]
