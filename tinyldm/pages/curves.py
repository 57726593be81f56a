"""Curves: what a chart shows, as plain values, and its drawing as SVG by matplotlib.

matplotlib is the extra `plots`. It is imported when the first chart is drawn, without pyplot, so
that nothing here depends on a display or on the state of a notebook.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from tinyldm.errors import InputError, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MISSING = "Curves need matplotlib: pip install 'tinyldm[plots]'"
WIDTH, HEIGHT = 440, 300  # of a chart, in pixels of a page: a phone hardly has to shrink it
LEGEND_ROW = 21  # pixels that a row of the legend adds to the height
COLOURS = ("#3b82f6", "#ef4444", "#16a34a", "#d97706", "#a855f7", "#0891b2", "#db2777", "#65a30d")
GREY = "#767676"  # of words and axes: as far from white as from black
ROUND = (1, 2, 5, 10)  # the steps between two ticks, times a power of ten
FEW = 24  # a line of at most so many points shows each of them

UNITS = 72  # in an inch of matplotlib's SVG; one is a pixel of a page

STYLE: dict[Any, Any] = {
    "font.size": 14,
    "text.color": GREY,
    "axes.labelcolor": GREY,
    "xtick.labelcolor": GREY,
    "ytick.labelcolor": GREY,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "svg.fonttype": "none",  # words stay words, in the fonts of the page
}
SVG_NAMESPACE = "http://www.w3.org/2000/svg"
LINK_NAMESPACE = "http://www.w3.org/1999/xlink"


@dataclass(frozen=True)
class Line:
    """Points (x, y) joined in their order.

    labels: a word for each point, written beside it
    faint:  drawn thin and pale, and left out of the legend
    """

    name: str
    points: tuple[tuple[float, float], ...]
    labels: tuple[str, ...] = ()
    faint: bool = False


@dataclass(frozen=True)
class Chart:
    """Lines over common axes, under a title. log: the vertical axis is logarithmic."""

    title: str
    lines: tuple[Line, ...]
    x_label: str
    y_label: str
    log: bool = False

    @property
    def empty(self) -> bool:
        """Whether no line has a point that can be drawn."""
        return not any(self.drawable(line) for line in self.lines)

    def drawable(self, line: Line) -> list[int]:
        """The places of a line's points that are finite and, on a logarithmic axis, above 0."""
        places = []
        for place, (x, y) in enumerate(line.points):
            if math.isfinite(x) and math.isfinite(y) and (y > 0 or not self.log):
                places.append(place)
        return places


def available() -> bool:
    """Whether matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401 - only its presence is asked for
    except ImportError:
        return False
    return True


def svg(chart: Chart) -> str:
    """The chart as one <svg> element, which can stand in a page or be a file of its own.

    Equal charts give equal text. Its colours suit light and dark surroundings. All that it says is
    escaped. Raises InputError where matplotlib is not installed.
    """
    stream = io.StringIO()
    with _matplotlib(salt=repr(chart)):
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure(chart).savefig(stream, format="svg", transparent=True, metadata=nothing)
    return _element(stream.getvalue(), f"{chart.y_label} over {chart.x_label}")


def figure(chart: Chart) -> Figure:
    """The chart as a figure of matplotlib."""
    with _matplotlib():
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        drawn = Figure(layout="constrained")
        FigureCanvasSVG(drawn)
        axes = drawn.add_subplot()
        handles, names = [], []
        for line, colour in zip(chart.lines, _colours(len(chart.lines)), strict=True):
            handle = _draw(axes, line, chart.drawable(line), colour)
            if line.name and not line.faint:
                handles.append(handle)
                names.append(printable(line.name))
        _dress(axes, chart)
        height = HEIGHT
        if len(names) > 1:
            columns = 2 if max(len(name) for name in names) <= 18 else 1
            height += LEGEND_ROW * math.ceil(len(names) / columns)
            drawn.legend(handles, names, loc="outside lower left", ncols=columns, frameon=False)
        drawn.set_size_inches(WIDTH / UNITS, height / UNITS)
    return drawn


@contextmanager
def _matplotlib(salt: str = "") -> Iterator[None]:
    """Import matplotlib and work in STYLE, whatever the user's own settings are.

    salt: what the names of parts inside an SVG are made from; those of two charts on one page must
    differ
    """
    try:
        import matplotlib
    except ImportError:
        raise InputError(MISSING) from None
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**STYLE, "svg.hashsalt": salt})
        # The page has its own fonts; that matplotlib's lacks a sign does not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _colours(count: int) -> list[str]:
    return [COLOURS[k % len(COLOURS)] for k in range(count)]


def _draw(axes: Axes, line: Line, places: list[int], colour: str) -> Any:
    """Draw the points of a line that stand at these places; returns matplotlib's line."""
    points = [line.points[place] for place in places]
    dotted = len(points) <= FEW and not line.faint
    (drawn,) = axes.plot(
        [x for x, _ in points],
        [y for _, y in points],
        color=colour,
        linewidth=1 if line.faint else 2,
        alpha=0.4 if line.faint else 1,
        zorder=1.5 if line.faint else 2,  # a faint line lies behind the others
        marker="o" if dotted else "",
        markersize=7,
    )
    if dotted and line.labels:
        for place, point in zip(places, points, strict=True):
            label = printable(line.labels[place])
            axes.annotate(label, point, xytext=(5, 5), textcoords="offset points")
    return drawn


def _dress(axes: Axes, chart: Chart) -> None:
    """Words, round ticks and a grid; no frame."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    axes.set_xlabel(printable(chart.x_label))
    axes.set_ylabel(printable(chart.y_label) + (" (log scale)" if chart.log else ""))
    axes.margins(0.04)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=ROUND))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=ROUND))
    if chart.log:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        # Over two decades the powers of ten suffice; below a factor of 4 there may be too few even
        # of 1, 2, 3 and 5 times them, and the ticks are those of a linear axis.
        ticks = LogLocator(subs=(1,) if high / low >= 100 else (1, 2, 3, 5))
        axes.yaxis.set_major_locator(ticks if high / low >= 4 else MaxNLocator(6, steps=ROUND))
        axes.yaxis.set_minor_locator(NullLocator())
    plain = FuncFormatter(lambda value, position: f"{value:g}")
    axes.xaxis.set_major_formatter(plain)
    axes.yaxis.set_major_formatter(plain)
    axes.tick_params(which="both", length=0)
    axes.grid(color=GREY, alpha=0.35, linewidth=1)
    axes.spines[:].set_visible(False)


def _element(document: str, description: str) -> str:
    """An SVG document of matplotlib as one element that is as wide as its surroundings.

    Ids of groups are dropped, for they are the same in every chart. Those that other parts refer to
    are kept.
    """
    root = ElementTree.fromstring(document)
    for part in root.iter():
        part.tag = part.tag.removeprefix(f"{{{SVG_NAMESPACE}}}")
        if part.tag == "g":
            part.attrib.pop("id", None)
        if f"{{{LINK_NAMESPACE}}}href" in part.attrib:
            part.set("xlink:href", part.attrib.pop(f"{{{LINK_NAMESPACE}}}href"))
    root.attrib = {
        "xmlns": SVG_NAMESPACE,
        "xmlns:xlink": LINK_NAMESPACE,
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-label": printable(description),
    }
    return ElementTree.tostring(root, encoding="unicode")


def thinned(
    values: Sequence[tuple[float, float]], most: int = 400
) -> tuple[tuple[float, float], ...]:
    """At most so many points (x, y), each the mean y of a run of neighbours, at its last x."""
    size = math.ceil(len(values) / most) or 1
    points = []
    for start in range(0, len(values), size):
        run = values[start : start + size]
        mean = sum(y for _, y in run) / len(run)
        points.append((run[-1][0], mean))
    return tuple(points)


def smoothed(values: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The exponential moving average of y over about a hundredth of the points (x, y).

    It is unbiased from the first point on. Points whose y is not finite are left out.
    """
    keep = 1 - 1 / max(5.0, len(values) / 100)
    total, weight = 0.0, 0.0
    points = []
    for x, y in values:
        if math.isfinite(y):
            total = keep * total + y
            weight = keep * weight + 1
            points.append((x, total / weight))
    return points


def loss_lines(values: Sequence[tuple[float, float]]) -> tuple[Line, Line]:
    """The loss (step, loss) of a run: smoothed, and behind it as it was."""
    smooth = Line("", thinned(smoothed(values)))
    raw = Line("each step", thinned(values), faint=True)
    return smooth, raw
