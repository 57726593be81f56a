"""One self-contained page: its style, tables, pictures as base64; no script, and nothing is fetched from anywhere."""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path

from PIL import Image

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882 }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem }
h1 { font-size: 1.5rem; margin: .5rem 0 } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem } h3 { font-size: 1rem }
img { max-width: 100% } svg { width: 100%; max-width: 44rem } img, svg { height: auto; display: block }
svg { overflow: visible } svg text { font: 15px system-ui, sans-serif; fill: currentColor }
@media (max-width: 34rem) { svg text { font-size: 21px } }
.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
td + td, pre { overflow-wrap: anywhere } .columns th, .columns td { white-space: nowrap }
pre { background: var(--soft); padding: .7rem; white-space: pre-wrap }
pre code { display: block; padding-left: 1.5rem; text-indent: -1.5rem }
.row { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: .8rem }
figure { margin: 0 } figcaption, .legend { font-size: .85rem; opacity: .8 } ol { padding-left: 1.6rem }
.big img { width: 36rem } .legend span { margin-right: 1rem } .best { font-weight: 700 }
.legend i { display: inline-block; width: .8rem; height: .8rem; border-radius: 50%; margin-right: .3rem }
"""


def page(title: str, body: list[str]) -> str:
    """A whole HTML document; title is text, the parts of body are HTML."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n'
        f"<body><h1>{escape(title)}</h1>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def table(rows, head: tuple[str, ...] = (), best: int | None = None) -> str:
    """Rows of values as a table that scrolls within itself; best: the row that stands out."""
    top = "".join(f"<th>{escape(str(cell))}</th>" for cell in head)
    lines = [f"<tr>{top}</tr>"] if head else []
    for k, row in enumerate(rows):
        cells = "".join(f"<td>{escape(str(cell))}</td>" for cell in row)
        lines.append(f"<tr{' class=best' if k == best else ''}>{cells}</tr>")
    return (
        f'<div class="wide"><table{" class=columns" if head else ""}>{"".join(lines)}</table></div>'
    )


def commands(lines: list[str]) -> str:
    """Command lines to copy."""
    return "<pre>" + "".join(f"<code>{escape(line)}\n</code>" for line in lines) + "</pre>"


def folded(summary: str, *parts: str) -> str:
    """What is shown when its summary is tapped."""
    return f"<details><summary>{escape(summary)}</summary>{''.join(parts)}</details>"


def picture(file: Path, caption: str, widest: int) -> str:
    """An image file inside the page, no wider than so many pixels."""
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    if image.width > widest:
        image = image.resize(
            (widest, round(image.height * widest / image.width)), Image.Resampling.LANCZOS
        )
    data = io.BytesIO()
    image.save(data, "WEBP", quality=85)
    source = base64.b64encode(data.getvalue()).decode()
    return (
        f'<figure><img src="data:image/webp;base64,{source}" alt="{escape(caption)}" width="{image.width}" '
        f'height="{image.height}"><figcaption>{escape(caption)}</figcaption></figure>'
    )
