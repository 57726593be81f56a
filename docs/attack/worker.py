"""One case: a reading in a process of its own, and what became of it.

The process is forked from this one, in which everything is imported already, and takes one case
after another, until one ends badly. It may neither write outside the folder nor start a program nor
reach a network: what it tries is noted, and refused. Memory and time are bounded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
import resource
import select
import signal
import stat
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tinyldm.cli import guarded

MEMORY = 3 * 2**30  # bytes that a case may take beyond what it starts with
SECONDS = 20  # of the processor
PATIENCE = 90  # seconds of waiting for something else than the processor
LOOK = 0.5  # seconds between two looks at a process
BAR = re.compile(r"\d%\||\d+\w* \[\d+:\d+.*/s\]|\d+\w* \[\d+:\d+, \?\w*/s\]")  # progress bars
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {  # events of sys.addaudithook -> which of their arguments are paths
    "os.mkdir": (0,),
    "os.remove": (0,),
    "os.rename": (0, 1),
    "os.rmdir": (0,),
    "os.symlink": (1,),
    "os.link": (1,),
    "os.truncate": (0,),
    "os.chmod": (0,),
    "os.chown": (0,),
    "os.utime": (0,),
    "shutil.rmtree": (0,),
}
PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect")


@dataclass(frozen=True)
class Ending:
    """How a case ended.

    status: of the command; None where it was killed
    errors: what it printed to stderr, without progress bars
    digest: of what it returned, and whether all numbers in that are finite
    broken: a traceback, in one line; tried: what it was kept from doing
    seconds: of the processor that it took
    """

    status: int | None
    errors: tuple[str, ...] = ()
    digest: str = ""
    finite: bool = True
    broken: str = ""
    tried: tuple[str, ...] = ()
    killed: str = ""
    seconds: float = 0.0


# ---- what is returned, as a hash


def digest(value: Any) -> tuple[str, bool]:
    """A hash of a value, and whether all numbers in it are finite."""
    state = hashlib.blake2b(digest_size=12)
    finite = add(state, value)
    return state.hexdigest(), finite


def add(state: Any, value: Any) -> bool:
    """Add a value to a hash; returns whether all numbers in it are finite."""
    state.update(type(value).__name__.encode())
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().contiguous().numpy()
    if isinstance(value, np.ndarray):
        state.update(repr((value.shape, value.dtype.str)).encode())
        state.update(np.ascontiguousarray(value).tobytes())
        return value.dtype.kind not in "fc" or bool(np.isfinite(value).all())
    if isinstance(value, Image.Image):
        return add(state, np.asarray(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        entries = sorted(value.items(), key=lambda entry: str(entry[0]))
        return all([add(state, part) for entry in entries for part in entry])
    if isinstance(value, (list, tuple, set, frozenset)):
        return all([add(state, part) for part in value])
    state.update(repr(value).encode("utf-8", "backslashreplace"))
    return not isinstance(value, float) or math.isfinite(value)


# ---- the process


def watch(root: Path, tried: list[str]) -> None:
    """Refuse, and note, whatever this process does outside a folder from now on."""
    inside = os.path.realpath(root) + os.sep

    def outside(path: Any) -> bool:
        if isinstance(path, int) or path is None:
            return False
        name = os.path.abspath(os.fsdecode(path))
        real = os.path.join(os.path.realpath(os.path.dirname(name)), os.path.basename(name))
        return not (real + os.sep).startswith(inside) and real not in (os.devnull, "/dev/tty")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            paths = [path] if isinstance(flags, int) and flags & WRITING else []
        elif event in CHANGES:
            paths = [arguments[k] for k in CHANGES[event]]
        elif event in PROGRAMS:
            tried.append(f"{event} {arguments[0]!r}"[:200])
            raise PermissionError(f"{event} is not allowed here")
        else:
            return
        for path in paths:
            if outside(path):
                tried.append(f"{event} {os.fsdecode(path)!r}"[:200])
                raise PermissionError(1, "outside of the folder", os.fsdecode(path))

    sys.addaudithook(hook)


def limit() -> None:
    """Bound the memory of this process."""
    with open("/proc/self/status") as status:
        now = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (now + MEMORY, now + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def attempt(job: Callable[[], Any], quiet: bool) -> dict[str, Any]:
    """Run a job as a command would; how it ended, as Ending has it."""
    found: dict[str, Any] = {"status": None}

    def judged() -> None:
        found["digest"], found["finite"] = digest(job())

    try:
        found["status"] = guarded(judged)
    except SystemExit as leaving:  # argparse ends commands so
        found["status"] = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        words = " ".join(str(error).split())[:160]
        found["broken"] = f"{type(error).__name__} at {where}: {words}"
        if not quiet:
            traceback.print_exc()
    return found


class Reader:
    """Runs a job again and again, in a process of its own that lasts until a job ends badly.

    root: the folder that the process may write to
    """

    def __init__(self, job: Callable[[], Any], root: Path, quiet: bool = True):
        self.job = job
        self.root = root
        self.quiet = quiet
        self.pid = 0

    def run(self) -> Ending:
        """Run the job once and say how it ended."""
        if not self.pid:
            self.start()
        began, _ = self.looked_at()
        os.write(self.asking, b"?")
        stuck = self.wait(began)
        took = self.looked_at()[0] - began
        ending = Ending(None, killed=stuck) if stuck else self.told()
        if stuck or ending.broken or ending.tried:
            self.stop()
        return dataclasses.replace(ending, seconds=took)

    def wait(self, began: float) -> str:
        """Wait for the answer; how the process hangs where none comes, otherwise nothing.

        A process that waits for the processor does not hang, however busy the machine is.
        """
        asleep = 0.0
        while not select.select([self.answer], [], [], LOOK)[0]:
            computed, state = self.looked_at()
            asleep += 0 if state == "R" else LOOK
            if computed - began > SECONDS:
                return f"hangs: killed after {SECONDS} s of the processor"
            if asleep > PATIENCE:
                return f"hangs: killed after {PATIENCE} s of sleep"
        return ""

    def told(self) -> Ending:
        """The answer, or what the process died of."""
        length = os.read(self.answer, 4)
        if not length:  # it is gone
            _, status = os.waitpid(self.pid, 0)
            self.pid = 0
            self.close()
            return Ending(None, killed=f"died, of {signal.Signals(status & 127).name}")
        text = b""
        while len(text) < int.from_bytes(length, "little"):
            text += os.read(self.answer, 2**16)
        return ending_of(json.loads(text))

    def looked_at(self) -> tuple[float, str]:
        """How many seconds the process has computed, and its state: R runs, or would like to."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), fields[0]

    def start(self) -> None:
        """Fork the process."""
        sys.stdout.flush()
        sys.stderr.flush()
        asked, self.asking = os.pipe()
        self.answer, told = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.asking)
            os.close(self.answer)
            try:
                self.serve(asked, told)
            finally:
                os._exit(1)
        os.close(asked)
        os.close(told)

    def serve(self, asked: int, told: int) -> None:
        """Run the job whenever asked to: what the process does."""
        tried: list[str] = []
        errors = os.memfd_create("errors")
        if self.quiet:
            os.dup2(errors, 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        watch(self.root, tried)
        limit()
        while os.read(asked, 1):
            os.ftruncate(errors, 0)
            os.lseek(errors, 0, os.SEEK_SET)
            found = attempt(self.job, self.quiet)
            sys.stderr.flush()
            found["errors"] = os.pread(errors, 100_000, 0).decode("utf-8", "replace")
            found["tried"] = tried
            text = json.dumps(found).encode()
            os.write(told, len(text).to_bytes(4, "little") + text)
            tried.clear()

    def stop(self) -> None:
        """End the process."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0
            self.close()

    def close(self) -> None:
        """Close the pipes."""
        os.close(self.asking)
        os.close(self.answer)


def ending_of(found: dict[str, Any]) -> Ending:
    """An Ending as it came through the pipe."""
    lines = re.split(r"[\n\r]", found.pop("errors"))
    errors = tuple(line for line in lines if line.strip() and not BAR.search(line))
    return Ending(**{**found, "errors": errors, "tried": tuple(found["tried"])})


def run(job: Callable[[], Any], root: Path, quiet: bool = True) -> Ending:
    """Run a job in a process of its own and say how it ended."""
    reader = Reader(job, root, quiet)
    ending = reader.run()
    reader.stop()
    return ending


# ---- the folder


def about(path: str) -> tuple[int, int, int, int]:
    """What changes when a file does; of a folder only its mode."""
    found = os.lstat(path)
    if stat.S_ISDIR(found.st_mode):
        return found.st_mode, 0, 0, 0
    return found.st_mode, found.st_size, found.st_mtime_ns, found.st_ino


def snapshot(root: Path) -> dict[str, tuple[int, int, int, int]]:
    """What lies below a folder: path -> what changes when it does."""
    found = {}
    waiting = [str(root)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                found[entry.path] = about(entry.path)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
    return found


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The paths that are new, gone or different."""
    return sorted(p for p in before.keys() | after.keys() if before.get(p) != after.get(p))


def restore(paths: Iterable[str], root: Path, pristine: Path) -> None:
    """Make these paths what they are in a copy of the folder."""
    import shutil

    for path in sorted(paths):
        original = pristine / Path(path).relative_to(root)
        if os.path.isdir(path) and not os.path.islink(path):
            if not original.is_dir():
                shutil.rmtree(path)
            continue
        if os.path.lexists(path):
            os.unlink(path)
        if original.is_dir():
            os.makedirs(path, exist_ok=True)
        elif original.exists():
            os.makedirs(os.path.dirname(path), exist_ok=True)
            shutil.copy2(original, path)
