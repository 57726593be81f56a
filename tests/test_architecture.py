"""The rules of docs/design.md that a reader relies on: which way imports go, and how much there is to read."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "tinyldm"
MODULES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = [ROOT / "train.py", ROOT / "sample.py"]

BASE = {"condition", "errors", "device"}
ALLOWED = {
    "condition": set(),
    "errors": set(),
    "device": {"errors"},
    "ema": set(),
    "signals": set(),
    "diffusion": BASE | {"diffusion"},
    "nn": BASE | {"nn"},
    "frozen": BASE | {"frozen"},
    "data": BASE | {"frozen", "data"},
    "toy": BASE | {"frozen", "data", "toy"},
    "scores": BASE | {"frozen", "data", "scores"},
    "stage_one": BASE | {"frozen", "data", "scores", "tasks", "ema", "signals", "stage_one"},
    "tasks": BASE | {"frozen", "data", "nn", "tasks"},
    "jobs": BASE
    | {"diffusion", "nn", "frozen", "data", "toy", "scores", "tasks", "stage_one", "jobs", "compat"}
    | {"ema", "signals"},
    "pages": BASE | {"frozen", "data", "scores", "tasks", "jobs", "pages"},
    "compat": BASE | {"diffusion", "nn", "frozen", "compat"},
    "__main__": {"jobs"},  # and by name, in a table, pages
    "__init__": set(),  # lazy
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
}
OPTIONAL = {"scipy", "torchvision", "lpips", "matplotlib"}


def imports(path: Path) -> set[str]:
    """Dotted names that a module imports, anywhere in it; its own package's as tinyldm.*"""
    home = path.relative_to(ROOT).with_suffix("").parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(home[: -node.level]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            # "from package import module" names a module
            found |= {
                f"{module}.{a.name}" if module in ("tinyldm", base) else module for a in node.names
            }
    return found


def lines(paths) -> int:
    return sum(len(p.read_text().splitlines()) for p in paths)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    room = path.relative_to(PACKAGE).with_suffix("").parts[0]
    used = {name.split(".")[1] for name in imports(path) if name.startswith("tinyldm.")}
    assert used <= ALLOWED[room], f"{room} may not import {used - ALLOWED[room]}"


@pytest.mark.parametrize("path", MODULES + SCRIPTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_declared_packages(path):
    outside = (
        {name.split(".")[0] for name in imports(path)} - {"tinyldm"} - set(sys.stdlib_module_names)
    )
    assert outside <= NEEDED | OPTIONAL
    assert "diffusers" not in outside


def test_needed_packages_are_declared():
    declared = (
        (ROOT / "setup.cfg").read_text().split("install_requires =")[1].split("[options")[0].lower()
    )
    for name in NEEDED:
        assert {"PIL": "pillow"}.get(name, name.lower()) in declared


@pytest.mark.parametrize("path", MODULES + SCRIPTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_and_functions_fit_on_a_screen(path):
    assert lines([path]) <= 350
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno - node.lineno + 1 <= 60, node.name


def test_the_heart_is_read_in_an_afternoon():
    heart = [
        p for p in MODULES if p.relative_to(PACKAGE).parts[0] in ("condition.py", "diffusion", "nn")
    ]
    assert lines(heart) <= 1200
    pictures = [
        p for p in MODULES if p.relative_to(PACKAGE).parts[0] == "toy"
    ]  # what the default draws, not machinery
    faces = [
        p for p in MODULES if p.relative_to(PACKAGE).parts[0] == "compat"
    ]  # other names, nothing to learn from
    judges = [
        p for p in MODULES if p.relative_to(PACKAGE).parts[0] == "scores"
    ]  # rules of others, kept to the letter
    tasks = [
        p for p in MODULES if p.relative_to(PACKAGE).parts[0] == "tasks"
    ]  # what single assignments need
    first = [
        p for p in MODULES if p.relative_to(PACKAGE).parts[0] == "stage_one"
    ]  # one's own autoencoder
    sheets = [
        p for p in MODULES if p.relative_to(PACKAGE).parts[0] == "pages"
    ]  # what a person looks at afterwards
    apart = {*pictures, *faces, *judges, *tasks, *first, *sheets}
    assert lines(set(MODULES) - apart) + lines(SCRIPTS) < 5000
    assert lines(pictures) <= 1300
    assert lines(faces) <= 750
    assert lines(judges) <= 650
    assert lines(tasks) <= 1170
    assert lines(first) <= 450
    assert lines(sheets) <= 800


def test_nothing_is_called_utils():
    assert not [p for p in MODULES if "util" in p.stem]


def test_every_public_function_says_what_it_does():
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name}"


def test_import_is_light_and_complete():
    """import tinyldm brings neither torch's companions nor anything slow; each name that it promises is there."""
    check = (
        "import sys, tinyldm; heavy = {'transformers', 'PIL', 'torch', 'diffusers'} & set(sys.modules); "
        "assert not heavy, heavy; "
        "from tinyldm import UNet, UNetConfig, NoiseSchedule, DDPM, DDIM, DPMSolver, Guidance, Condition, sample, "
        "training_loss, EMA; heavy = {'transformers', 'PIL', 'diffusers'} & set(sys.modules); "
        "assert not heavy, heavy; from tinyldm import AutoencoderKL"
    )
    subprocess.run([sys.executable, "-c", check], check=True, cwd=ROOT)
    import tinyldm

    with pytest.raises(AttributeError, match="no attribute 'Unet'"):
        tinyldm.Unet


def test_shipped_models_are_small():
    assert (
        sum(p.stat().st_size for p in (PACKAGE / "assets").rglob("*") if p.is_file()) <= 10 * 2**20
    )
