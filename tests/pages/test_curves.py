"""Curves: what matplotlib drew for a chart, and smoothing that keeps what is flat."""

import math
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyldm.errors import InputError
from tinyldm.pages.curves import (
    COLOURS,
    FEW,
    WIDTH,
    Chart,
    Line,
    available,
    figure,
    loss_lines,
    smoothed,
    svg,
    thinned,
)


def chart(*lines, log=False, x="x", y="y"):
    return Chart("title", lines, x, y, log)


def axes_of(drawn):
    """The only axes of a figure, laid out."""
    drawn.draw_without_rendering()
    (axes,) = drawn.axes
    return axes


def ticks(axis):
    """The ticks of an axis that are seen."""
    low, high = sorted(axis.get_view_interval())
    return [t for t in axis.get_majorticklocs() if low * (1 - 1e-9) <= t <= high * (1 + 1e-9)]


@given(st.floats(-1e6, 1e6), st.floats(1e-2, 1e6))
def test_ticks_are_round_and_inside(low, width):
    axes = axes_of(figure(chart(Line("", ((low, 1.0), (low + width, 2.0))))))
    left, right = axes.get_xlim()
    assert left <= low < low + width <= right
    found = [t for t in axes.get_xticks() if left <= t <= right]
    step = found[1] - found[0]
    assert 2 <= len(found) <= 7
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
    """The lines reach from low to high with the margin that is left around them."""
    room = (high / low) ** (0.04 / 1.08)
    points = ((0, low * room), (1, high / room))
    axes = axes_of(figure(chart(Line("", points), log=True)))
    assert axes.get_yscale() == "log"
    assert axes.get_ylim() == pytest.approx((low, high))
    assert ticks(axes.yaxis) == pytest.approx(expected)
    words = [label.get_text() for label in axes.get_yticklabels()]
    assert {f"{value:g}" for value in expected} <= set(words)


@pytest.mark.parametrize("log", [False, True])
def test_points_lie_where_their_values_say(log):
    """A middle point lies half way: on a log scale between 1 and 100 that is 10."""
    points = ((0, 1), (1, 10 if log else 50.5), (2, 100))
    axes = axes_of(figure(chart(Line("", points), log=log)))
    (line,) = axes.lines
    places = axes.transData.transform(line.get_xydata())
    (u0, v0), (u1, v1), (u2, v2) = places
    assert u1 - u0 == pytest.approx(u2 - u1, abs=0.11)
    assert v1 - v0 == pytest.approx(v2 - v1, abs=0.11)
    inside = axes.bbox
    assert inside.x0 < u0 < u2 < inside.x1
    assert inside.y0 < v0 < v2 < inside.y1
    assert 0 < inside.x0 < inside.x1 < WIDTH * 100 / 72  # 100 dots to an inch, which has 72 pixels


def test_what_cannot_be_drawn_is_left_out():
    holes = Line("", ((0, 1.0), (1, math.nan), (2, 0.0), (3, math.inf), (4, 2.0)))
    (line,) = figure(chart(holes, log=True)).axes[0].lines
    assert line.get_xydata().tolist() == [[0, 1], [4, 2]]
    assert chart(Line("", ((0, math.nan),))).empty
    assert chart(Line("", ((0, 0.0),)), log=True).empty
    assert not chart(Line("", ((0, 0.0),))).empty
    low, high = figure(chart(Line("", ((3, 5.0),)))).axes[0].get_ylim()
    assert low < 5 < high  # one point has a range too


def test_the_axes_say_what_they_show():
    axes = figure(chart(Line("", ((0, 1), (1, 2))), x="step", y="loss", log=True)).axes[0]
    assert axes.get_xlabel() == "step"
    assert axes.get_ylabel() == "loss (log scale)"
    assert figure(chart(Line("", ((0, 1), (1, 2))), y="loss")).axes[0].get_ylabel() == "loss"


def test_the_legend_names_lines_that_can_be_told_apart():
    points = ((0, 1), (1, 2))
    drawn = figure(chart(Line("a", points), Line("_b", points), Line("raw", points, faint=True)))
    (legend,) = drawn.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "_b"]
    assert [line.get_color() for line in legend.get_lines()] == list(COLOURS[:2])
    assert [line.get_color() for line in drawn.axes[0].lines] == list(COLOURS[:3])
    assert figure(chart(Line("alone", points))).legends == []


def test_few_points_are_shown_with_their_words():
    few = Line("", tuple((k, float(k)) for k in range(3)), labels=("1", "2", "5"))
    axes = figure(chart(few)).axes[0]
    assert axes.lines[0].get_marker() == "o"
    assert [text.get_text() for text in axes.texts] == ["1", "2", "5"]
    assert [text.xy for text in axes.texts] == [(0, 0), (1, 1), (2, 2)]
    many = Line("", tuple((k, float(k)) for k in range(FEW + 1)))
    faint = Line("", ((0, 1.0), (1, 2.0)), faint=True)
    for line in (many, faint):
        assert figure(chart(line)).axes[0].lines[0].get_marker() == ""


def test_words_belong_to_their_points_where_some_are_left_out():
    line = Line("", ((0, math.nan), (1, 2.0)), labels=("lost", "kept"))
    assert [text.get_text() for text in figure(chart(line)).axes[0].texts] == ["kept"]


def test_names_are_text():
    lines = (
        Line("<b>", ((0, 1), (1, 2)), labels=("<i>", "&")),
        Line("$other$", ((0, 1), (1, 3))),
        Line("a\x07\n\ud7ff漢", ((0, 1), (1, 4))),
    )
    drawn = svg(chart(*lines, x='<x a="', y="'\x1b<script>"))
    root = ElementTree.fromstring(drawn)
    tags = {part.tag.rpartition("}")[2] for part in root.iter()}
    assert tags <= {"svg", "defs", "style", "g", "path", "use", "text", "clipPath", "rect"}
    words = [part.text for part in root.iter() if part.tag.endswith("}text")]
    assert {"<b>", "<i>", "&", "$other$", '<x a="', "'\\x1b<script>"} <= set(words)
    assert root.get("aria-label") == "'\\x1b<script> over <x a=\""


def test_equal_charts_are_equal_files_and_others_share_no_names():
    first = chart(Line("", ((0, 1), (1, 2))))
    assert svg(first) == svg(first)
    other = chart(Line("", ((0, 1), (1, 3))))

    def names(drawn):
        return {part.get("id") for part in ElementTree.fromstring(drawn).iter()} - {None}

    assert names(svg(first))
    assert not names(svg(first)) & names(svg(other))


def test_every_reference_leads_to_a_part_of_the_same_chart():
    drawn = svg(chart(Line("a", ((0, 1), (1, 2))), Line("b", ((0, 2), (1, 1)))))
    root = ElementTree.fromstring(drawn)
    names = {f"#{part.get('id')}" for part in root.iter() if part.get("id")}
    used = {value for part in root.iter() for key, value in part.items() if key.endswith("href")}
    clipped = {part.get("clip-path")[4:-1] for part in root.iter() if part.get("clip-path")}
    assert used | clipped == names
    assert root.get("width") is None  # as wide as the page lets it be


def test_the_settings_of_the_user_do_not_matter():
    import matplotlib

    plain = svg(chart(Line("", ((0, 1), (1, 2)))))
    with matplotlib.rc_context({"font.size": 30, "axes.grid": False, "svg.fonttype": "path"}):
        assert svg(chart(Line("", ((0, 1), (1, 2))))) == plain
        assert matplotlib.rcParams["font.size"] == 30


def test_no_display_is_needed_and_nothing_is_imported_before_a_chart_is_drawn():
    check = (
        "import sys\n"
        "from tinyldm.pages.curves import Chart, Line, svg\n"
        "assert 'matplotlib' not in sys.modules\n"
        "svg(Chart('', (Line('', ((0, 1), (1, 2))),), 'x', 'y'))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


def test_matplotlib_is_asked_for_by_name(monkeypatch):
    assert available()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert not available()
    with pytest.raises(InputError, match=r"pip install 'tinyldm\[plots\]'"):
        svg(chart(Line("", ((0, 1), (1, 2)))))


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
