"""The site builds without a warning, shows formulas as MathML, and fetches nothing elsewhere."""

import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, built strictly."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def hook():
    spec = importlib.util.spec_from_file_location("site_hook", DOCS / "site.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pages(site):
    found = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    return {path: text for path, text in found.items() if path.name != "404.html"}


class Fetched(HTMLParser):
    """What a browser loads to show a page."""

    def __init__(self):
        super().__init__()
        self.addresses = []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag in ("script", "img", "iframe", "source") and attrs.get("src"):
            self.addresses.append(attrs["src"])
        if tag == "link" and attrs.get("rel") not in ("canonical", "next", "prev"):
            self.addresses.append(attrs["href"])


@pytest.mark.slow
def test_every_page_is_on_the_site_and_fetches_nothing_elsewhere(site):
    built = pages(site)
    written = [path for path in DOCS.glob("*.md")] + list((DOCS / "course").glob("*.md"))
    names = {path.relative_to(DOCS).with_suffix(".html") for path in written}
    assert {path.relative_to(site) for path in built} == names | {Path("index.html")}
    for path, text in built.items():
        parser = Fetched()
        parser.feed(text)
        assert parser.addresses
        for address in parser.addresses:
            assert "://" not in address, f"{path}: {address}"
            assert not address.startswith("//"), f"{path}: {address}"
            assert (path.parent / address).exists(), f"{path}: {address}"
        assert 'data-md-component="source"' not in text  # it would ask GitHub for stars


@pytest.mark.slow
def test_formulas_are_mathml_and_no_latex_is_left(site):
    shown = 0
    for path, text in pages(site).items():
        shown += text.count("<math")
        prose = re.sub(r"<(code|pre)\b.*?</\1>", "", text, flags=re.DOTALL)
        prose = re.sub(r"<script\b.*?</script>", "", prose, flags=re.DOTALL)
        left = re.findall(r".{0,30}(?:\$|\\[(\[]|\\[a-z]+\{).{0,30}", prose)
        assert left == [], f"{path}: {left}"
    assert shown > 100


@pytest.mark.slow
def test_links_to_files_that_are_no_pages_lead_to_the_repository(site):
    address = "https://github.com/tinyldm/tinyldm/blob/main/"
    seen = set()
    for path, text in pages(site).items():
        assert not re.search(r'href="[^":]*\.(py|md|ipynb|json)["#]', text), path
        seen |= set(re.findall(rf'href="{address}([^"#]+)', text))
    assert {"train.py", "tinyldm/methods/lora.py", "CONTRIBUTING.md"} <= seen
    assert [name for name in seen if not (ROOT / name).exists()] == []


def test_a_link_is_taken_from_where_its_page_lies(hook, caplog):
    repository = "https://github.com/tinyldm/tinyldm/blob/main/"
    link = hook.shown_at
    assert link("../train.py", "docs/training.md", "training.md") == f"{repository}train.py"
    assert link("../notation.md#x", "docs/course/index.md", "course/index.md") == "../notation.md#x"
    assert link("docs/toy.md", "README.md", "index.md") == "toy.md"
    assert link("assets/README.md", "docs/toy.md", "toy.md") == f"{repository}docs/assets/README.md"
    assert not caplog.records
    link("../nowhere.py", "docs/toy.md", "toy.md")
    assert "no file at ../nowhere.py" in caplog.text


def test_a_formula_that_the_converter_does_not_know_is_refused(hook):
    assert "<mtd" in hook.mathml(r"\begin{aligned} a &= b \\ c &= d \end{aligned}", block=True)
    for latex in (r"\nosuchthing x", r"a & b", r"\operatorname*{arg\,min} x", r"\frac{a"):
        with pytest.raises(ValueError, match="nosuch|a & b|operatorname|frac"):
            hook.mathml(latex)
