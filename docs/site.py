"""What mkdocs does beyond its settings in mkdocs.yml, which names this file as its hook.

README.md becomes the first page, the chapters of the course are listed in their order, links to
files that are no pages lead to the repository, and formulas become MathML when the site is built,
so that a browser needs no script for them.
"""

import html
import logging
import os
import re
from configparser import ConfigParser
from pathlib import Path, PurePosixPath

from latex2mathml.converter import convert
from mkdocs.structure.files import File

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
ON_THE_SITE = {".md", ".png"}
LEFT_OUT = ("docs/assets/", "docs/attack/", "docs/examples/")  # as in mkdocs.yml
LOG = logging.getLogger("mkdocs.plugins.tinyldm")  # a warning here fails a strict build

LINK = re.compile(r"```.*?```|`[^`\n]*`|\]\(([^)\s]+)\)", re.DOTALL)  # code is left as it is
FORMULA = re.compile(r'(<(?:span|div) class="arithmatex">)\\([(\[])(.*?)\\[)\]](?=</)', re.DOTALL)


def address() -> str:
    """Where the repository's files are shown, by setup.cfg."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config["metadata"]["url"] + "/blob/main/"


def on_config(config):
    """List the chapters that there are."""
    chapters = sorted(path.name for path in (DOCS / "course").glob("[0-9][0-9]_*.md"))
    (course,) = (entry["The course"] for entry in config["nav"] if "The course" in entry)
    course[1:] = [f"course/{name}" for name in chapters]
    return config


def on_files(files, config):
    """Add the first page."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "index.md", content=text))
    return files


def on_page_markdown(markdown, page, **_):
    """Links as they have to be on the site."""
    first = page.file.src_uri == "index.md"
    source = "README.md" if first else f"docs/{page.file.src_uri}"

    def linked(found):
        target = found[1]
        if target is None or "://" in target or target.startswith("#"):
            return found[0]
        return f"]({shown_at(target, source, page.file.src_uri)})"

    return LINK.sub(linked, markdown)


def shown_at(target: str, source: str, page: str) -> str:
    """A relative link of a file of the repository, as the page that is made of it has it."""
    path, mark, anchor = target.partition("#")
    here = os.path.normpath(PurePosixPath(source).parent / path)
    if not (ROOT / here).exists():
        LOG.warning("%s: no file at %s", source, target)
    inside = here.startswith("docs/") and not here.startswith(LEFT_OUT)
    if not inside or PurePosixPath(here).suffix not in ON_THE_SITE:
        return address() + here + mark + anchor
    shown = os.path.relpath(here.removeprefix("docs/"), PurePosixPath(page).parent)
    return shown + mark + anchor


def on_page_content(html_text, page, **_):
    """Formulas as MathML."""

    def shown(found):
        try:
            formula = mathml(html.unescape(found[3]), block=found[2] == "[")
        except ValueError as error:
            LOG.warning("%s: %s", page.file.src_uri, error)
            return found[0]
        return found[1] + formula

    return FORMULA.sub(shown, html_text)


def mathml(latex: str, block: bool = False) -> str:
    """A formula as MathML. ValueError where latex2mathml does not know a part of it."""
    known = latex.replace("{aligned}", "{align*}")
    try:
        made = convert(known, display="block" if block else "inline")
    except Exception as error:
        raise ValueError(f"{latex}: {error!r}") from error
    open_braces = len(re.findall(r"(?<!\\){", latex)) - len(re.findall(r"(?<!\\)}", latex))
    if open_braces or "\\" in made or "<mo />" in made or re.search(r">&(amp;)?<", made):
        raise ValueError(f"{latex}: not all of it is known to latex2mathml")
    return made
