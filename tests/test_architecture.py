"""The three rules of docs/design.md: downward imports, one formatter, one way to do one thing."""

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "tinyldm"
MODULES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = [ROOT / "train.py", ROOT / "sample.py"]

GROUND = {
    "errors",
    "files",
    "typed",
    "folders",
    "signals",
    "device",
    "processes",
    "weights",
    "randomness",
    "installation",
    "cli",
    "spelling",
    "keywords",
}
HEART = {"condition", "diffusion", "nn"}
CORE = (
    GROUND
    | HEART
    | {*("autoencoder", "methods", "frozen", "data", "tasks", "training", "sampling")}
)
LEAVES = {"scores", "stage_one", "toy", "compat", "pages", "kit", "playground", "commands"}
ALLOWED = {  # room -> the rooms that it may import, besides itself
    "errors": set(),
    "files": {"errors"},
    "typed": {"errors", "files"},
    "folders": {"errors", "files", "typed"},
    "signals": {"errors"},
    "device": {"errors"},
    "processes": {"cli", "errors"},
    "weights": {"errors", "files"},
    "randomness": set(),
    "installation": set(),
    "spelling": set(),
    "cli": {"errors", "installation", "signals", "spelling"},
    "keywords": {"cli", "errors"},
    "condition": set(),
    "diffusion": {"condition"},
    "nn": {"condition"},
    "autoencoder": {"nn", "diffusion", "frozen"}
    | {*("errors", "files", "typed", "weights", "spelling")},
    "methods": GROUND | HEART,
    "frozen": GROUND | {"condition", "data"},
    "data": GROUND | {"condition"},
    "tasks": GROUND | HEART | {"methods", "data", "frozen"},
    "training": CORE - {"sampling"},
    "sampling": CORE,
    "stage_one": CORE | {"scores"},
    "scores": CORE | {"toy"},
    "toy": CORE,
    "compat": CORE,
    "pages": CORE | {"scores", "toy"},
    "kit": CORE,
    "playground": CORE | {"model"},
    "commands": CORE | LEAVES | {"model"},
    "model": CORE | {"compat"},
    "__main__": {"cli", "signals"},
    "__init__": set(),  # lazy
}
FOR_TYPES_ALONE = {  # under TYPE_CHECKING a room may name what it is handed
    "__init__": CORE | {"model"},  # all that the package exports
    "data": {"tasks"},
    "tasks": {"training", "sampling"},
}
NEEDED = {
    "torch",
    "transformers",
    "einops",
    "PIL",
    "numpy",
    "safetensors",
    "tokenizers",
    "huggingface_hub",
    "tqdm",
    "filelock",
    "jinja2",
    "markupsafe",
    "pydantic",
}
OPTIONAL = {"torchvision", "matplotlib", "gradio", "fastapi", "uvicorn"}


def of_package(module, node, home):
    """The rooms that an import statement names."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    else:
        base = ".".join(home[: -node.level]) if node.level else ""
        module = ".".join(part for part in (base, node.module) if part)
        names = [f"{module}.{a.name}" if module == "tinyldm" else module for a in node.names]
    return names


@functools.cache
def parsed(path):
    """The tree of a module, which many tests look at and none changes."""
    return ast.parse(path.read_text())


@functools.cache
def imports(path, types=None):
    """Dotted names that a module imports; types: those under TYPE_CHECKING, or the others."""
    home = path.relative_to(ROOT).with_suffix("").parts
    tree = parsed(path)
    guarded = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            guarded |= {id(inner) for inner in ast.walk(node)}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and types in (None, id(node) in guarded):
            found |= set(of_package(path, node, home))
    return found


def rooms(path, types):
    return {name.split(".")[1] for name in imports(path, types) if name.startswith("tinyldm.")}


def room_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def lines(paths):
    return sum(len(p.read_text().splitlines()) for p in paths)


# ---- 1. imports point downwards


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    room = room_of(path)
    allowed = ALLOWED[room] | {room}
    assert rooms(path, types=False) <= allowed
    assert rooms(path, types=True) <= allowed | FOR_TYPES_ALONE.get(room, set())


def test_the_table_says_what_the_rules_say():
    assert not ALLOWED["diffusion"] & {"nn"}
    assert not ALLOWED["nn"] & {"diffusion"}
    for room in CORE:
        assert not ALLOWED[room] & LEAVES, f"{room} is core and may not need a leaf"
    assert {room_of(path) for path in MODULES} == ALLOWED.keys()


@pytest.mark.parametrize("path", MODULES + SCRIPTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_declared_packages(path):
    outside = {name.split(".")[0] for name in imports(path)}
    outside -= {"tinyldm"} | set(sys.stdlib_module_names)
    assert outside <= NEEDED | OPTIONAL
    assert "diffusers" not in outside


def test_needed_packages_are_declared():
    config = (ROOT / "setup.cfg").read_text().lower()
    declared = config.split("install_requires =")[1].split("[options")[0]
    for name in NEEDED:
        assert {"PIL": "pillow"}.get(name, name.lower()) in declared


def test_import_is_light_and_complete():
    """import tinyldm brings nothing slow; each name that it promises is there."""
    check = (
        "import sys, tinyldm; "
        "heavy = {'transformers', 'PIL', 'torch', 'pydantic'} & set(sys.modules); "
        "assert not heavy, heavy; "
        "from tinyldm import UNet, UNetConfig, NoiseSchedule, DDPM, DDIM, DPMSolver, Guidance, "
        "Condition, sample, training_loss, EMA; "
        "heavy = {'transformers', 'PIL', 'diffusers'} & set(sys.modules); "
        "assert not heavy, heavy; "
        "from tinyldm import AutoencoderKL, load, train, Model"
    )
    subprocess.run([sys.executable, "-c", check], check=True, cwd=ROOT)
    import tinyldm

    with pytest.raises(AttributeError, match="no attribute 'Unet'"):
        _ = tinyldm.Unet


# ---- 2. one formatter, and sizes that a reader can take in


def test_the_formatter_is_never_kept_out():
    for path in MODULES:
        text = path.read_text()
        assert "fmt: off" not in text, path
        for line in text.splitlines():
            if "noqa" in line:
                assert re.search(r"noqa: [A-Z]+\d+", line), f"{path}: {line}"
    tables = [p for p in MODULES if "fmt: skip" in p.read_text()]
    assert [str(p.relative_to(PACKAGE)) for p in tables] == TABLES_OF_NUMBERS


TABLES_OF_NUMBERS: list[str] = []


@pytest.mark.parametrize("path", MODULES + SCRIPTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_and_functions_can_be_taken_in(path):
    assert lines([path]) <= 400
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno + 1 <= 60, node.name


@pytest.mark.parametrize(
    "path", sorted((ROOT / "docs").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT))
)
def test_the_scripts_of_the_docs_can_be_taken_in_too(path):
    assert lines([path]) <= 400


def test_the_heart_is_read_in_an_afternoon():
    assert lines(p for p in MODULES if room_of(p) in HEART) <= 2000


def test_the_two_stories_are_about_a_hundred_lines():
    for script in SCRIPTS:
        assert lines([script]) <= 140


def test_every_public_function_says_what_it_does():
    for path in MODULES:
        for node in parsed(path).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name}"


# ---- 3. one way to do one thing


@functools.cache
def called():
    """name -> the modules that call a function or a method of this name."""
    found = {}
    for path in MODULES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", None))
                found.setdefault(name, set()).add(str(path.relative_to(PACKAGE)))
    return found


def calls(name):
    """The modules that call a function or a method of this name."""
    return called().get(name, set())


def test_one_way_to_do_one_thing():
    assert calls("save_file") == {"weights.py"}  # one writer of weights, one strict reader
    assert calls("load_file") <= {"weights.py"}
    assert calls("safe_open") <= {"weights.py"}
    assert calls("FileLock") == {"folders.py"}
    assert calls("SeedSequence") == calls("default_rng") == {"randomness.py"}
    assert not calls("hash")  # no stream of random numbers follows from hash(tuple)


def test_nothing_is_probed_faked_or_patched_from_outside():
    """Tasks and encoders declare their protocol; objects change their own attributes alone."""
    for path in MODULES:
        text = path.read_text()
        assert "SimpleNamespace" not in text, path
        assert not re.search(r"\b(has|get|set)attr\((self\.)?\w*(encoder|task)\b", text), path
        assert not re.search(r"\bhasattr\(", text) or path.name in PROBES, path


def set_from_outside(tree):
    """The attributes that a module assigns to of anything but self and cls."""
    for node in ast.walk(tree):
        is_set = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del)
        if is_set and ast.unparse(node.value) not in ("self", "cls"):
            yield ast.unparse(node)


SET_FROM_OUTSIDE = {
    "compat/config.py": {"made.config", "__init__.__signature__"},  # in the class, of the class
    "kit/grading/network.py": {"blocks._attend"},  # a grader tries another attention in its place
    "playground/serving.py": {"server.should_exit"},  # as uvicorn is told to stop
    "pages/curves.py": {"part.tag", "root.attrib"},  # of XML
}


@pytest.mark.parametrize("path", MODULES + SCRIPTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_attribute_is_set_from_outside_of_its_class(path):
    name = str(path.relative_to(PACKAGE)) if path in MODULES else path.name
    found = set(set_from_outside(parsed(path)))
    assert found == SET_FROM_OUTSIDE.get(name, set())


PROBES: set[str] = set()
OF_SHAPES = {"rand", "randn", "reshape"}  # calls whose arguments are the sides of a shape


def test_calls_pass_few_arguments_by_position():
    """At most four. Only a row of like things may be longer: the sides of a shape."""
    for path in [*MODULES, *SCRIPTS, *(ROOT / "docs").rglob("*.py")]:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call) and len(node.args) > 4:
                called = node.func
                name = getattr(called, "attr", getattr(called, "id", None))
                assert name in OF_SHAPES, f"{path}, line {node.lineno}: {name}"


def test_no_task_is_known_by_name_outside_of_tasks():
    names = r"[\"'](text|labels|landscape|classes|unconditional)[\"']"
    for path in MODULES:
        if room_of(path) != "tasks":
            compared = re.search(rf"(==|!=|\bin)\s*\(?{names}|{names}\s*(==|!=)", path.read_text())
            assert not compared, f"{path}: {compared}"


def test_nothing_is_called_utils():
    assert not [p for p in MODULES if "util" in p.stem]


def test_every_command_is_a_file_of_its_name():
    from tinyldm.__main__ import COMMANDS, STORIES

    files = {path.stem for path in (PACKAGE / "commands").glob("*.py")}
    assert files - {"__init__", "checks"} == COMMANDS.keys() | STORIES.keys()


def test_shipped_models_are_small():
    sizes = [p.stat().st_size for p in (PACKAGE / "assets").rglob("*") if p.is_file()]
    assert sum(sizes) <= 10 * 2**20


def test_the_top_level_holds_what_it_should():
    kept = subprocess.run(
        ["git", "ls-files"], capture_output=True, text=True, cwd=ROOT, check=False
    ).stdout.split()
    if kept:  # a clone, not an unpacked archive
        assert {Path(name).parts[0] for name in kept} <= TOP_LEVEL


TOP_LEVEL = {
    ".ci",
    ".gitignore",
    "setup.py",
    ".pre-commit-config.yaml",
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "LICENSE",
    "MANIFEST.in",
    "README.md",
    "constraints.txt",
    "docs",
    "mkdocs.yml",
    "pyproject.toml",
    "sample.py",
    "setup.cfg",
    "tests",
    "tinyldm",
    "train.py",
}
