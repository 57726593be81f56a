"""The two walks of docs/design.md are the ones that a tracer sees: every module, and the order."""

import importlib.util
import json
import os
import re
from pathlib import Path

import fresh
import pytest

ROOT = Path(__file__).parent.parent
MOST_MODULES = 15


def load_walk():
    """docs/walk.py as a module."""
    spec = importlib.util.spec_from_file_location("walk", ROOT / "docs" / "walk.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WALK = load_walk()
TITLES = (WALK.BATCH, WALK.PROMPT)


@pytest.fixture(scope="module")
def seen():
    """What the tracer sees on each walk, in a process of its own: title -> names."""
    script = "import json, walk; print(json.dumps(walk.walks()))"
    environment = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = fresh.run(["-c", script], ROOT / "docs", {**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def listed(title):
    """The numbers and the names of the list under a title of docs/design.md."""
    text = (ROOT / "docs" / "design.md").read_text()
    section = text.split(f"### {title}\n")[1].split("\n##")[0]
    items = re.findall(r"^(\d+)\. `([\w.]+)`: \S+", section, re.MULTILINE)
    assert len(items) == len(re.findall(r"^\d+\.", section, re.MULTILINE))  # all are of this form
    return [int(number) for number, _ in items], [name for _, name in items]


@pytest.mark.slow
@pytest.mark.parametrize("title", TITLES)
def test_a_walk_names_functions_in_the_order_of_their_calls(seen, title):
    numbers, names = listed(title)
    assert numbers == list(range(1, len(names) + 1))
    assert not set(names) - set(seen[title])
    assert names == [name for name in seen[title] if name in names]


@pytest.mark.slow
@pytest.mark.parametrize("title", TITLES)
def test_a_walk_leaves_no_module_out_and_needs_few(seen, title):
    modules = {WALK.module_of(name) for name in seen[title]}
    assert {WALK.module_of(name) for name in listed(title)[1]} == modules
    assert len(modules) <= MOST_MODULES


def test_names_tell_their_modules():
    assert WALK.module_of("training.trainer.Trainer.fit") == "training.trainer"
    assert WALK.module_of("condition.Condition.to.moved") == "condition"
    assert WALK.module_of("sample.draw") == "sample"
    with pytest.raises(ValueError, match=r"nowhere\.at_all"):
        WALK.module_of("nowhere.at_all")


def test_the_tracer_starts_and_ends_where_it_is_told(monkeypatch):
    """It sees what runs inside of `inner`, and who called that, up to the call of `last`."""

    def leaf():
        pass

    def last():
        leaf()

    def inner(end):
        leaf()
        if end:
            last()

    def before():
        leaf()
        inner(False)
        inner(True)
        leaf()

    monkeypatch.setattr(WALK, "name_of", lambda code: code.co_name if code in codes else None)
    codes = {f.__code__ for f in (leaf, last, inner, before)}
    with WALK.Walk("inner", end="last") as walk:
        before()
    assert walk.seen == ["before", "inner", "leaf", "last"]
