"""What is published: the wheel and the sdist, installed outside of the repository and tried."""

import ast
import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from configparser import ConfigParser
from email.parser import Parser
from pathlib import Path

import pytest

import tinyldm
from tinyldm import compat, installation
from tinyldm.__main__ import COMMANDS, STORIES
from tinyldm.errors import InputError

ROOT = Path(__file__).parent.parent
CONFIG = ConfigParser()
CONFIG.read(ROOT / "setup.cfg", encoding="utf-8")
LEFT = {"__pycache__", "build", "dist", "runs", "data", "samples", "site"}  # by .gitignore
NEEDS_SETUPTOOLS = "import setuptools.build_meta as b, sys; print(getattr(b, sys.argv[1])('dist'))"
TINY = "--data toy --vae tiny --text-encoder tiny --size 32 --batch-size 4 --warmup 1 --device cpu"
SMALL = f"{TINY} --max-steps 3"


def run(command, cwd, **environment):
    """A command's output; the test fails with its errors."""
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    clean |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PIP_NO_INDEX": "1", **environment}
    done = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def source_files():
    """What belongs to the repository: what git knows or, without git, what is not left over."""
    if (ROOT / ".git").exists():
        listed = run(["git", "ls-files", "-co", "--exclude-standard"], ROOT).splitlines()
        return [name for name in listed if (ROOT / name).is_file()]
    files = [file.relative_to(ROOT) for file in ROOT.rglob("*") if file.is_file()]
    kept = [f for f in files if f.parts[0] not in LEFT and "__pycache__" not in f.parts]
    return [str(f) for f in kept if ".egg-info" not in f.parts[0] and f.name != "PKG-INFO"]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(sdist, the folder it unpacks to, wheel): the wheel is built from the unpacked sdist."""
    place = tmp_path_factory.mktemp("built")
    for name in source_files():
        copy = place / "source" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
    run([sys.executable, "-c", NEEDS_SETUPTOOLS, "build_sdist"], place / "source")
    (sdist,) = (place / "source" / "dist").iterdir()
    with tarfile.open(sdist) as archive:
        archive.extractall(place / "unpacked", filter="data")
    (unpacked,) = (place / "unpacked").iterdir()
    run([sys.executable, "-c", NEEDS_SETUPTOOLS, "build_wheel"], unpacked)
    (wheel,) = (unpacked / "dist").iterdir()
    return sdist, unpacked, wheel


@pytest.fixture(scope="module")
def fresh(built, tmp_path_factory):
    """A folder of an environment that holds the wheel, and sees what the tests' one has besides."""
    folder = tmp_path_factory.mktemp("fresh") / "environment"
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    (site,) = (folder / "lib").glob("python*/site-packages")
    # a path alone: whatever is installed there in editable form, such as a clone, stays unseen
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "packages_of_the_tests.pth").write_text("\n".join(sorted(paths)) + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    run([*pip, "install", "--no-deps", str(built[2])], folder)
    return folder


@pytest.mark.slow
def test_the_sdist_holds_all_that_its_tests_need(built):
    sdist, unpacked, _ = built
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert set(source_files()) - names == set()
    assert (unpacked / "PKG-INFO").is_file()
    chosen = ["tests/test_condition.py", "tests/nn/test_embedding.py"]
    done = run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *chosen],
        unpacked,
        PYTHONPATH=str(unpacked),
    )
    assert "passed" in done


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_the_stories_and_nothing_else(built):
    with zipfile.ZipFile(built[2]) as archive:
        names = set(archive.namelist())
        stories = {n: archive.read(f"tinyldm/stories/{n}.py").decode() for n in STORIES}
    for name, text in stories.items():
        assert text == (ROOT / f"{name}.py").read_text(encoding="utf-8")
    assert {name.split("/")[0].split("-")[0] for name in names} == {"tinyldm"}
    package = {name for name in source_files() if name.startswith("tinyldm/")}
    assert package - names == set()
    assert "tinyldm/py.typed" in names


@pytest.mark.slow
def test_what_the_wheel_says_of_itself(built):
    with zipfile.ZipFile(built[2]) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("/METADATA"))
        about = Parser().parsestr(archive.read(name).decode())
    assert about["Name"] == "tinyldm"
    assert about["Version"] == tinyldm.__version__
    assert about["License-Expression"] == "MIT"
    assert about["License-File"] == "LICENSE"
    assert about["Requires-Python"] == ">=3.11"
    links = {line.split(", ")[0] for line in about.get_all("Project-URL")}
    assert links >= {"Documentation", "Changelog", "Issues"}
    assert "Programming Language :: Python :: 3.11" in about.get_all("Classifier")
    assert len(about["Keywords"].split(",")) > 5
    assert about["Description-Content-Type"] == "text/markdown"
    links = re.findall(r"\]\(([^)]+)\)", about.get_payload())
    assert links
    assert [link for link in links if not link.startswith(("https://", "#"))] == []


@pytest.mark.slow
def test_the_installed_commands_train_sample_and_report(fresh, tmp_path):
    """Outside of the repository; whatever is printed or written names commands that are there."""
    python = fresh / "bin" / "python"
    there = {
        "PATH": f"{fresh / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "TINYLDM_CACHE": str(tmp_path / "cache"),
    }
    place = run([python, "-c", "import tinyldm; print(tinyldm.__file__)"], tmp_path).strip()
    assert Path(place).is_relative_to(fresh)
    script = "from tinyldm.toy.monsters import write_toy; write_toy('toy', train_monsters=2)"
    run([python, "-c", script], tmp_path)
    told = run(["tinyldm", "train", *SMALL.split()], tmp_path, **there)
    assert "draw with: tinyldm sample --run runs/toy-1" in told
    told += run(["tinyldm", "sample", "--prompt", "a red ghost", "--steps", "2"], tmp_path, **there)
    told += run(["tinyldm", "report", "runs/toy-1"], tmp_path, **there)
    assert (tmp_path / "samples" / "toy-1" / "00-a-red-ghost.png").is_file()
    told += (tmp_path / "runs" / "toy-1" / "report.html").read_text(encoding="utf-8")
    for name in [None, *STORIES, *COMMANDS]:
        told += run(["tinyldm", *([name] if name else []), "--help"], tmp_path, **there)
    assert "tinyldm evaluate samples/toy-1" in told
    assert "/blob/main/docs/data.md" in told
    assert re.findall(r"(?<!/blob/main/)docs/\S+", told) == []
    told += run(["tinyldm", "exercise", "homework"], tmp_path, **there)
    for name in STORIES:  # a kit written by an installed library is that of a clone
        copied = (tmp_path / "homework" / f"{name}.py").read_text(encoding="utf-8")
        assert copied == (ROOT / f"{name}.py").read_text(encoding="utf-8")
    assert not (tmp_path / "homework" / "tinyldm" / "stories").exists()
    wrong = re.findall(r".*(?:\.py\b|python -m tinyldm).*", told)
    # grade.py is what an exercise is graded with, in its own folder
    assert [line for line in wrong if "grade.py" not in line] == []
    script = "import tinyldm; print(tinyldm.load('runs/toy-1')('a red ghost', steps=2)[0].size)"
    assert "(32, 32)" in run([python, "-c", script], tmp_path, **there)


# ---- which command a hint names


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(installation, "at_clone", AT_CLONE)
    return monkeypatch


AT_CLONE = installation.at_clone  # before the tests' own stands in for it
TEXT = "python train.py --a; python -m tinyldm sweep; as train.py; torchrun -n 2 train.py --b"


def test_in_a_clone_commands_stay_as_they_are(nowhere):
    nowhere.chdir(ROOT)
    assert installation.called(TEXT) == TEXT


def test_outside_of_a_clone_its_files_are_named_by_their_paths(nowhere):
    assert installation.called(TEXT) == (
        f"python {ROOT}/train.py --a; python -m tinyldm sweep; as python {ROOT}/train.py; "
        f"torchrun -n 2 {ROOT}/train.py --b"
    )


@pytest.mark.parametrize("cloned", [True, False])
def test_an_installed_command_is_named(nowhere, tmp_path, cloned):
    (tmp_path / "tinyldm").write_text("")
    (tmp_path / "tinyldm").chmod(0o755)
    nowhere.setattr(installation, "in_clone", lambda: cloned)
    assert installation.called(TEXT) == (
        "tinyldm train --a; tinyldm sweep; as tinyldm train; torchrun -n 2 -m tinyldm train --b"
    )


def test_without_the_command_the_module_is_named(nowhere):
    nowhere.setattr(installation, "in_clone", lambda: False)
    assert installation.called(TEXT) == (
        "python -m tinyldm train --a; python -m tinyldm sweep; as python -m tinyldm train; "
        "torchrun -n 2 -m tinyldm train --b"
    )
    assert installation.called("my-train.python") == "my-train.python"


def test_a_page_that_is_not_there_is_named_by_its_address(nowhere, tmp_path):
    assert installation.called("(docs/data.md says)") == "(docs/data.md says)"
    nowhere.setattr(installation, "ABOVE", tmp_path)  # as a wheel, or a kit, without docs/
    address = CONFIG["metadata"]["url"]
    assert installation.called("(docs/data.md says)") == f"({address}/blob/main/docs/data.md says)"


def test_a_function_that_takes_the_options_of_train_names_its_help(nowhere):
    nowhere.setattr(installation, "in_clone", lambda: False)
    with pytest.raises(
        InputError, match=r"did you mean cosine\? \(see python -m tinyldm train --help"
    ):
        tinyldm.train(lr_schedule="cosin")


NAMES = re.compile(r"\b(train|sample)\.py\b|python -m tinyldm")
SHOWN = ("EXAMPLES", "PARTS", "BAD_PICTURES", "STORIES")  # help as well, or names of files
HELP = ("help", "description", "epilog")  # keywords whose texts the formatter of helps passes on


def hints(path):
    """The texts of a module that name a command, but for docstrings, helps and called(...)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    passed = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            passed.add(id(node.value))
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            parts = [k.value for k in node.keywords if k.arg in HELP or k.arg == "prog"]
            if name in ("called", "add_argument") or name.endswith("option"):
                parts += node.args
            passed |= {id(inner) for part in parts for inner in ast.walk(part)}
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in SHOWN:
            passed |= {id(inner) for inner in ast.walk(node.value)}
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and NAMES.search(text) and id(node) not in passed:
            yield f"{path.name}, line {node.lineno}: {text[:60]}"


def test_every_hint_asks_how_its_command_is_called_here():
    found = []
    for path in [*(ROOT / "tinyldm").rglob("*.py"), ROOT / "train.py", ROOT / "sample.py"]:
        if path.name not in ("installation.py", "__main__.py"):  # the one function; the name itself
            found += hints(path)
    assert found == []


# ---- names for editors


@pytest.mark.parametrize("package", [tinyldm, compat])
def test_editors_see_every_public_name(package):
    """Under TYPE_CHECKING each is imported from where it is, and __all__ is written out."""
    tree = ast.parse(Path(package.__file__).read_text(encoding="utf-8"))
    (block,) = (n for n in tree.body if ast.unparse(n).startswith("if TYPE_CHECKING"))
    shown = {a.name: node.module for node in block.body for a in node.names}
    (listed,) = (ast.literal_eval(n.value) for n in tree.body if ast.unparse(n).startswith("__all"))
    assert shown.keys() == set(listed) == set(package.__all__) == set(dir(package))
    for name, module in shown.items():
        assert getattr(sys.modules.get(module) or __import__(module, fromlist=[name]), name) is (
            getattr(package, name)
        )


@pytest.mark.slow
def test_a_type_checker_knows_the_public_names(tmp_path):
    """With the settings, and so with the cache, of the whole package's check."""
    script = tmp_path / "script.py"
    script.write_text(
        "import tinyldm\n"
        "reveal_type(tinyldm.UNet)\n"
        "reveal_type(tinyldm.load('run')('a', seed=1))\n"
        "tinyldm.NoiseSchedule(timestep=5)\n"
        "tinyldm.NoiseShedule\n"
        "from tinyldm.compat import DDMPScheduler, get_scheduler\n"
        "from tinyldm.compat.schedulers import PNDMScheduler\n"
        "reveal_type(get_scheduler)\n"
        "reveal_type(PNDMScheduler())\n"
    )
    told = subprocess.run(
        [sys.executable, "-m", "mypy", str(script)], cwd=ROOT, capture_output=True, text=True
    ).stdout
    assert "-> tinyldm.nn.unet.UNet" in told, told
    assert 'Revealed type is "tinyldm.model.Pictures"' in told
    assert 'Unexpected keyword argument "timestep"' in told
    assert 'Module has no attribute "NoiseShedule"' in told
    assert 'Module "tinyldm.compat" has no attribute "DDMPScheduler"' in told
    assert "def (name: str, optimizer: " in told
    assert "scheduling_pndm.PNDMScheduler" in told


# ---- what else is published


def test_one_version_one_address_and_one_licence_everywhere():
    version = CONFIG["metadata"]["version"]
    address = CONFIG["metadata"]["url"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert tinyldm.__version__ == version
    assert f"\nversion: {version}\n" in citation
    assert f"\nrepository-code: {address}\n" in citation
    assert "\nlicense: MIT\n" in citation
    assert CONFIG["metadata"]["license_expression"] == "MIT"
    for link in CONFIG["metadata"]["project_urls"].split():
        assert link.startswith(address) or "://" not in link


def test_the_hooks_run_what_ci_runs():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    for command in ("ruff check", "ruff format", "mypy"):
        assert f"entry: {command}" in hooks
    assert not re.search(r"repo: (?!local)", hooks)  # nothing to fetch
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert json.dumps(tools)  # both read the same settings
