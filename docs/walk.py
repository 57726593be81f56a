"""Print the functions that a reader meets on two walks through the package, in the order of their
first call: python docs/walk.py

The walks are those of docs/design.md, on a tiny toy set in a temporary folder; tests/test_design.py
compares them.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BATCH = "A batch, from train.py to the optimiser step"
PROMPT = "A prompt, from sample.py to its PNG"


class Walk:
    """While it is entered, notes each function of the package that runs inside of one of `begin`.

    begin: functions, as name_of() spells them; their callers are noted as well
    end:   the function whose call is the last that is noted
    seen:  the names noted, in the order of their first call
    """

    def __init__(self, *begin: str, end: str | None = None):
        self.begin, self.end = begin, end
        self.seen: list[str] = []
        self.inside: FrameType | None = None  # the call of one of `begin` that is under way
        self.ended = False

    def __enter__(self) -> Walk:
        sys.setprofile(self.observe)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(None)

    def observe(self, frame: FrameType, event: str, _: Any) -> None:
        """Python calls this at every call and return of a function."""
        if self.ended:
            return
        if event == "return" and frame is self.inside:
            self.inside = None
        if event != "call":
            return
        name = name_of(frame.f_code)
        if self.inside is None and name in self.begin:
            self.inside = frame
            self.note(caller_of(frame))
        if self.inside is not None and name is not None:
            self.note(name)
            self.ended = name == self.end

    def note(self, name: str | None) -> None:
        """Take a name down, unless it has been seen before."""
        if name is not None and name not in self.seen:
            self.seen.append(name)

    def stop(self, *ignored: object) -> None:
        """End the walk here."""
        self.ended = True


@cache
def name_of(code: CodeType) -> str | None:
    """module.function of a function of the package or the two scripts; None for all other code.

    Trainer.fit in tinyldm/training/trainer.py is training.trainer.Trainer.fit. Comprehensions and
    lambdas have no name: they belong to the function around them.
    """
    file = Path(code.co_filename)
    if file in (ROOT / "train.py", ROOT / "sample.py"):
        module = file.stem
    elif file.is_relative_to(ROOT / "tinyldm"):
        module = ".".join(file.relative_to(ROOT / "tinyldm").with_suffix("").parts)
    else:
        return None
    function = code.co_qualname.replace("<locals>.", "")
    return None if "<" in function else f"{module}.{function}"


def caller_of(frame: FrameType) -> str | None:
    """The name of the function of the package or the scripts that has called."""
    caller = frame.f_back
    while caller is not None and name_of(caller.f_code) is None:
        caller = caller.f_back
    return None if caller is None else name_of(caller.f_code)


def module_of(name: str) -> str:
    """The module of a name: training.trainer, of training.trainer.Trainer.fit."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        file = Path(*parts[:length]).with_suffix(".py")
        if (ROOT / "tinyldm" / file).is_file() or (length == 1 and (ROOT / file).is_file()):
            return ".".join(parts[:length])
    raise ValueError(f"{name}: in no module of the package, and in no script")


def walk_batch() -> Walk:
    """Train one step on the toy set in the current folder."""
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    import train

    options = {
        "data": "toy",
        "vae": "tiny",
        "text_encoder": "tiny",
        "size": (32, 32),
        "batch_size": 2,
        "max_steps": 1,
        "warmup": 1,
        "precision": "float32",
        "device": "cpu",
        "out": "run",
    }
    walk = Walk("training.trainer.Trainer.fit")
    hook = register_optimizer_step_pre_hook(walk.stop)
    with walk:
        train.train(options)
    hook.remove()
    return walk


def walk_prompt() -> Walk:
    """Draw one picture with the run in the current folder."""
    import sample
    from tinyldm.sampling.settings import SampleOptions

    options = SampleOptions(
        run="run", prompt=["a green ghost"], steps=3, out="drawn", precision="float32", device="cpu"
    )
    begin = ("tasks.base.Task.prompt", "sampling.drawing.draw_requests")
    with Walk(*begin, end="data.images.save_image") as walk:
        sample.draw(options)
    return walk


def walks() -> dict[str, list[str]]:
    """The names met on each walk. Works in a temporary folder, which it leaves."""
    sys.path.insert(0, str(ROOT))
    from tinyldm.toy.monsters import write_toy

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        os.environ["TINYLDM_CACHE"] = str(Path(folder) / "cache")
        write_toy("toy", train_monsters=1)
        with contextlib.redirect_stdout(io.StringIO()):
            return {BATCH: walk_batch().seen, PROMPT: walk_prompt().seen}


if __name__ == "__main__":
    for title, names in walks().items():
        modules = {module_of(name) for name in names}
        print(f"## {title} ({len(modules)} modules)\n")
        for number, name in enumerate(names, 1):
            print(f"{number}. `{name}`")
        print()
