"""Pages: a jinja2 template and plain values in, one self-contained HTML document out.

The templates lie in templates/. Every value is escaped where it is put in; the only markup that
comes from Python is the SVG of the curves. Names may come from anywhere: no element, attribute or
address is made of one. A page has no scripts and fetches nothing.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup
from PIL import Image

from tinyldm.data.images import load_image
from tinyldm.errors import printable
from tinyldm.files import write_text
from tinyldm.pages import curves

if TYPE_CHECKING:
    from jinja2 import Environment


@dataclass(frozen=True)
class Table:
    """Rows of cells under the names of their columns."""

    head: tuple[str, ...]
    rows: list[tuple]


@dataclass(frozen=True)
class Picture:
    """An image inside a page: a data URL, its size in pixels, and the words below it."""

    source: str
    width: int
    height: int
    caption: str


def embedded(file: Path, caption: str, widest: int) -> Picture:
    """An image file as a Picture at most so many pixels wide."""
    image = load_image(file)
    if image.width > widest:
        height = round(image.height * widest / image.width)
        image = image.resize((widest, height), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, "WEBP", quality=85)
    source = "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode()
    return Picture(source, image.width, image.height, caption)


def render(template: str, **values) -> str:
    """The HTML document that a template makes of the values; a value that it lacks is an error."""
    return _environment().get_template(template).render(**values, curves_drawn=curves.available())


def write_page(file: Path, template: str, **values) -> None:
    """Write render() to a file, all of it or nothing."""
    write_text(file, render(template, **values))


@cache
def _environment() -> Environment:
    # here, since a training imports this module long before its first page
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("tinyldm.pages"),
        autoescape=True,
        finalize=_visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = _inline_svg
    environment.globals["curves_missing"] = curves.MISSING
    return environment


def _visible(value: object) -> object:
    """What a template puts in: words with no sign that is invisible or turns those beside it."""
    return value if isinstance(value, Markup) else printable(value)


def _inline_svg(chart: curves.Chart) -> Markup:
    return Markup(curves.svg(chart))  # escaped already: see curves.svg
