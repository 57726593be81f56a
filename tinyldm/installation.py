"""Where this copy of the library lies, in a clone or installed, and what follows from that.

In a clone, the two stories, train.py and sample.py, lie beside the package, and commands are run
as `python train.py` and `python -m tinyldm evaluate`. A wheel holds the same two files as modules
of tinyldm.stories (setup.cfg puts them there), and commands are `tinyldm train` and
`tinyldm evaluate`. Messages and help texts name commands as in a clone; called() says how the same
command is called here.
"""

from __future__ import annotations

import re
import shutil
from functools import cache
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from shlex import quote
from types import ModuleType

ABOVE = Path(__file__).resolve().parent.parent
STORIES = ("train", "sample")
STORY = re.compile(r"(?:(torchrun [^\n]*?)|python )?\b(train|sample)\.py\b")
COMMAND = re.compile(r"python -m tinyldm\b")
PAGE = re.compile(r"\bdocs/[\w/]+\.md\b")
ADDRESS = "https://github.com/tinyldm/tinyldm/blob/main"  # of the repository's files


def in_clone() -> bool:
    """Whether the package lies in a clone or in an assignment kit, beside the two stories."""
    beside = all((ABOVE / f"{name}.py").is_file() for name in STORIES)
    return beside and any((ABOVE / name).is_file() for name in ("setup.cfg", "grade.py"))


def at_clone() -> bool:
    """Whether the current folder is that of a clone, where `python train.py` finds its file."""
    return in_clone() and Path.cwd() == ABOVE


def story_file(name: str) -> Path:
    """The file of a story, "train" or "sample": beside the package or, in a wheel, in it."""
    return (ABOVE if in_clone() else ABOVE / "tinyldm" / "stories") / f"{name}.py"


@cache
def story(name: str) -> ModuleType:
    """The module of a story, which is imported like any other where it lies in the package."""
    module = f"tinyldm.stories.{name}"
    if not in_clone():
        return import_module(module)
    spec = spec_from_file_location(module, story_file(name))
    assert spec is not None
    assert spec.loader is not None
    loaded = module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def called(text: str) -> str:
    """A text in which commands and pages, named as in a clone, are named as they are here.

    In the folder of a clone they stay as they are. Elsewhere `tinyldm` stands for them if it is
    installed as a command. If it is not, `python -m tinyldm` does, but for the stories of a clone,
    whose files are named by their paths. Pages of docs/ are named by their address where there is
    no such folder.
    """
    if not (ABOVE / "docs").is_dir():
        text = PAGE.sub(rf"{ADDRESS}/\g<0>", text)
    if at_clone():
        return text
    command = "python -m tinyldm" if shutil.which("tinyldm") is None else "tinyldm"

    def story_here(found: re.Match[str]) -> str:
        launcher, name = found.groups()
        if in_clone() and command != "tinyldm":
            return f"{launcher or 'python '}{quote(str(ABOVE / name))}.py"
        return f"{launcher}-m tinyldm {name}" if launcher else f"{command} {name}"

    return STORY.sub(story_here, COMMAND.sub(command, text))
