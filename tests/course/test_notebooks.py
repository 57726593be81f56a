"""The notebooks are what their chapters make of them, and run from top to bottom."""

import importlib.util
import os
import re
from pathlib import Path

import fresh
import nbformat
import pytest

ROOT = Path(__file__).parents[2]
COURSE = ROOT / "docs" / "course"


def load_script():
    """docs/course/notebooks.py as a module."""
    spec = importlib.util.spec_from_file_location("notebooks", COURSE / "notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT = load_script()
each_chapter = pytest.mark.parametrize("chapter", SCRIPT.chapters(), ids=lambda path: path.stem)


def written(chapter):
    return (COURSE / "notebooks" / f"{chapter.stem}.ipynb").read_text(encoding="utf-8")


@each_chapter
def test_a_notebook_is_up_to_date(chapter):
    """If not: python docs/course/notebooks.py."""
    assert written(chapter) == SCRIPT.notebook(chapter)


def test_there_is_no_notebook_without_its_chapter():
    stems = {path.stem for path in (COURSE / "notebooks").glob("*.ipynb")}
    assert stems == {path.stem for path in SCRIPT.chapters()}


@each_chapter
def test_a_notebook_is_valid_has_all_code_and_no_outputs(chapter):
    notebook = nbformat.reads(written(chapter), as_version=4)
    nbformat.validate(notebook)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    text = chapter.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    to_run = [b.strip("\n") for b in blocks if not re.match(r"# \S+\.py\n", b)]
    assert [source for source in code if source in to_run] == to_run
    assert all(not cell.outputs for cell in notebook.cells if cell.cell_type == "code")


@each_chapter
def test_the_links_of_a_notebook_lead_somewhere(chapter):
    notebook = nbformat.reads(written(chapter), as_version=4)
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)\s#]+)[^)]*\)", re.sub(r"```.*?```", "", prose, flags=re.DOTALL))
    near = [link for link in links if "://" not in link]
    assert any(link.endswith(".png") for link in near)
    assert [link for link in near if not (COURSE / "notebooks" / link).exists()] == []


@pytest.mark.slow
@each_chapter
def test_a_notebook_runs(chapter, place, tmp_path):
    """By the Python of the tests, without a look at the settings of whoever runs them."""
    folders = ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR")
    source = COURSE / "notebooks" / f"{chapter.stem}.ipynb"
    result = tmp_path / "executed.ipynb"
    environment = {
        **os.environ,
        **{name: str(tmp_path / name) for name in folders},
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    script = Path(__file__).with_name("execute.py")
    done = fresh.run([script, source, place, result], place, environment)
    assert done.returncode == 0, done.stderr[-4000:]
    ran = nbformat.read(result, as_version=4)
    code = [cell for cell in ran.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    shown = [o for cell in code for o in cell.outputs if o.output_type == "display_data"]
    assert len(shown) == sum(cell.source.count("display(") for cell in code)
