"""The tables of the pages are what the scripts have measured, and nothing is copied by hand."""

import importlib
import json
import re
import shutil
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def script(monkeypatch):
    """A script of docs/, by its name."""
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module


@pytest.mark.parametrize("page", ["editing.md", "adapting.md", "methods.md"])
def test_a_page_shows_what_was_measured(script, tmp_path, page, monkeypatch):
    """Written anew into a copy from which a figure was lost, the page is the committed one."""
    for name in ("editing.md", "adapting.md", "methods.md"):
        shutil.copy(DOCS / name, tmp_path)
    text = (DOCS / page).read_text("utf-8")
    (tmp_path / page).write_text(text.replace("± .0", "± .9").replace("± 0.0", "± 0.9"), "utf-8")
    script("tables").write(tmp_path)
    script("in_brief").write(tmp_path)
    methods = script("methods")
    monkeypatch.setattr(methods, "PAGE", tmp_path / "methods.md")
    methods.write()
    assert (tmp_path / page).read_text("utf-8") == text


def test_every_method_was_measured_on_both_sets(script):
    """Each row of the table of methods has a figure of the toy set and one of i-CLEVR."""
    brief = script("in_brief")
    editing, learned = (
        brief.Measured.of(DOCS / f"{name}.json") for name in ("editing", "adapting")
    )
    drawn = brief.drawn(json.loads((DOCS / "methods.json").read_text("utf-8")))
    rows = [*drawn, *brief.edited(editing), *brief.adapted(learned)]
    assert len({row[0] for row in rows}) == len(rows) > 25
    for method, cost, toy, scenes, command in rows:
        assert cost
        assert command
        for cell in (toy, scenes):
            assert re.search(r"\d*\.\d+", cell), method


def test_a_row_that_is_measured_again_takes_the_place_of_the_old_one(script, tmp_path):
    written = script("written")
    file = tmp_path / "found.json"
    assert written.kept(file) == []
    written.keep(file, {"eyes": "0.5"}, on="toy set", row="a")
    written.keep(file, {"eyes": "0.6"}, on="i-CLEVR", row="a")
    written.keep(file, {"eyes": "0.7 ± 0.1"}, on="toy set", row="a")
    assert json.loads(file.read_text("utf-8")) == [
        {"on": "i-CLEVR", "row": "a", "cells": {"eyes": "0.6"}},
        {"on": "toy set", "row": "a", "cells": {"eyes": "0.7 ± 0.1"}},
    ]


@pytest.mark.parametrize(
    ("measured", "shown"),
    [
        ("0.958 ± 0.036", ".96 ± .04"),
        ("1.000 ± 0.000", "1.00 ± .00"),
        ("0.250", ".25"),
        ("0.125", ".13"),
    ],
)
def test_shares_have_two_digits(script, measured, shown):
    assert script("written").share(measured) == shown


@pytest.mark.parametrize(
    ("cell", "key", "shown"),
    [
        ("35.812 ± 0.178", "channels", "35.8 ± 0.2"),
        ("0.920 ± 0.005", "F1", ".920 ± .005"),
        ("18.627", "PSNR", "18.63 dB"),
        ("21.165 ± 0.053", "PSNR", "21.17 ± 0.05 dB"),
        ("0.880 ± 0.050", "eyes", ".880 ± .050"),
    ],
)
def test_a_column_has_its_digits_and_its_unit(script, cell, key, shown):
    assert script("tables").shown(cell, key) == shown
