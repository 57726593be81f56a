"""Commands as processes of their own, without the seconds that each would import torch for.

One process has imported what the library needs from elsewhere, and nothing of the library. It forks
for each command, and the fork becomes what `python SCRIPT`, `python -m MODULE` or `python -c CODE`
is: its folder, environment, arguments, streams and exit status are those of a process of its own.
"""

import atexit
import functools
import importlib
import json
import os
import resource
import runpy
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

SLOW = (
    "numpy",
    "torch",
    "torch._dynamo",  # which an optimiser imports
    "PIL.Image",
    "einops",
    "jinja2",
    "pydantic",
    "safetensors.torch",
    "matplotlib.pyplot",
    "transformers.models.clip.modeling_clip",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.clip.tokenization_clip",
)


def run(words, cwd, env=None, *, strict=False, largest_file=None):
    """What subprocess.run([sys.executable, *words]) returns, with its output as text.

    strict: with -W error; largest_file: bytes, above which a write fails as on a full disk
    """
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        asked = {"words": list(map(str, words)), "cwd": str(cwd), "out": str(out), "err": str(err)}
        asked |= {"env": dict(os.environ if env is None else env)}
        asked |= {"strict": strict, "largest_file": largest_file}
        process = server()
        process.stdin.write(json.dumps(asked) + "\n")
        process.stdin.flush()
        status = int(process.stdout.readline())
        return subprocess.CompletedProcess(
            [sys.executable, *asked["words"]],
            status,
            out.read_text(encoding="utf-8"),
            err.read_text(encoding="utf-8"),
        )


@functools.cache
def server():
    """The process that forks."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    process = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**kept, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg"},
        text=True,
    )

    def end():
        process.stdin.close()
        process.wait()
        process.stdout.close()

    atexit.register(end)
    return process


# ---- in that process


def next_command():
    """Fork for each command that is asked for; returns it in the fork, and None at the end."""
    for line in iter(sys.stdin.readline, ""):
        pid = os.fork()
        if pid == 0:
            return json.loads(line)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    return None


def become(asked):
    """Do what Python does when it is started with these words."""
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    for number, name in ((0, os.devnull), (1, asked["out"]), (2, asked["err"])):
        file = os.open(name, os.O_RDWR | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    if asked["largest_file"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (asked["largest_file"],) * 2)
    if asked["strict"]:  # what modules have added since the start comes first, as with -W error
        warnings.filters[:] = [kind for kind in warnings.filters if kind not in FILTERS]
        warnings.simplefilter("error", append=True)
    first, *rest = asked["words"]
    places = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    here = os.getcwd() if first in ("-m", "-c") else str(Path(first).resolve().parent)
    sys.path[:1] = [here, *places]
    if first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [first, *rest]
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    FILTERS = list(warnings.filters)
    for name in SLOW:
        importlib.import_module(name)
    command = next_command()
    if command is not None:
        become(command)
