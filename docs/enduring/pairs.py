"""Jobs in two processes, one of which is killed, and on two machines."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from enduring.jobs import (
    PAUSE,
    ROOT,
    TRAIN,
    check_runs,
    demand,
    done,
    ended_within,
    finish,
    fork,
    has_checkpoint,
    last_words,
    litter,
    logged,
)


def start_two(line: str) -> list[int]:
    """Start a command line as the two processes of torchrun."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    common |= {"MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "none", "GROUP_RANK": "0"}
    common |= {"TORCHELASTIC_RESTART_COUNT": "0", "TORCHELASTIC_MAX_RESTARTS": "0"}
    common |= {"ROLE_RANK": "0", "ROLE_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    return [fork(line, RANK=str(rank), LOCAL_RANK=str(rank), **common) for rank in (0, 1)]


def part_processes(options: argparse.Namespace) -> list[str]:
    """Two processes, one of which is killed; the job goes on in two and in one."""
    steps = options.pair_steps
    line = f"{TRAIN} --max-steps {steps} --save-every 1"
    pair = start_two(f"{line} --out pair")
    demand([finish(pid) for pid in pair] == [0, 0], f"two processes: {last_words()}")
    pair = start_two(f"{line} --out torn")
    kill_second(pair, lambda: has_checkpoint("torn"))
    shutil.copytree("torn", "torn-one")
    pair = start_two(f"train.py --resume --out torn --max-steps {steps}")
    demand([finish(pid) for pid in pair] == [0, 0], f"resumed on two: {last_words()}")
    compared = check_runs("pair", "torn")
    done(f"train.py --resume --out torn-one --max-steps {steps}")
    numbers = [row[0] for row in logged("torn-one")[1:]]
    demand(numbers == [str(k + 1) for k in range(steps)], "steps are missing or come twice")
    return [
        f"| two processes, one killed | resumed on two | {compared} tensors equal |",
        "| two processes, one killed | resumed on one | each step once |",
        draw_in_two(options.pair_pictures),
        encode_in_two(line),
    ]


def kill_second(pair: list[int], ready: Callable[[], bool]) -> None:
    """Kill the second of two processes once something is ready, and end the first."""
    while not ready():
        time.sleep(PAUSE / 10)
        demand(os.waitpid(pair[0], os.WNOHANG)[0] == 0, f"it ended by itself: {last_words()}")
    os.kill(pair[1], signal.SIGKILL)
    finish(pair[1])
    status = ended_within(pair[0], 60)
    if status is None:  # torchrun would end it
        os.kill(pair[0], signal.SIGTERM)
        status = ended_within(pair[0], 60)
        demand(status is not None, "the other process goes on for ever")
    demand(status != 0, "the other process says that all is well")


def draw_in_two(pictures: int) -> str:
    """Pictures drawn by one process, by two, and by one after one of two was killed."""
    Path("shared.txt").write_text("\n".join(f"picture {k}" for k in range(pictures)))
    line = "sample.py --run pair --prompts shared.txt --steps 20 --device cpu --batch-size 2 "
    line += "--precision float32 --out "
    done(f"{line} by-one")
    before = len(Path("log.txt").read_text(errors="replace"))
    pair = start_two(f"{line} by-two")
    demand([finish(pid) for pid in pair] == [0, 0], f"drawn by two: {last_words()}")
    said = Path("log.txt").read_text(errors="replace")[before:]
    shown = [int(number) for number in re.findall(rf"(\d+)/{pictures} \[", said)]
    demand(shown == sorted(shown) and shown[-1] == pictures, f"not one bar to the end: {shown}")
    pair = start_two(f"{line} by-torn")
    kill_second(pair, lambda: any(Path("by-torn").glob("[0-9]*.png")))
    left = pictures - len(list(Path("by-torn").glob("[0-9]*.png")))
    demand(left > 0, "everything was drawn before one of the processes was killed")
    done(f"{line} by-torn")
    for other in ("by-two", "by-torn"):
        files = {p.relative_to(other) for p in Path(other).rglob("*") if p.is_file()}
        whole = {p.relative_to("by-one") for p in Path("by-one").rglob("*") if p.is_file()}
        demand(files == whole, f"{other} holds other files: {files ^ whole}")
        for name in files:
            same = Path("by-one", name).read_bytes() == Path(other, name).read_bytes()
            demand(same, f"{other}/{name} is not what one process makes")
    demand(not litter("by-torn"), f"left behind: {litter('by-torn')}")
    return f"| drawn by two, one killed | finished by one | {pictures} pictures equal |"


def encode_in_two(line: str) -> str:
    """The latent cache of one process, of two, and of one after one of two was killed."""
    line = line.replace("train.py", "tinyldm encode").split(" --network")[0]
    line += " --size 16 --device cpu --flip"
    found = {}
    for how in ("one", "two", "torn"):
        shutil.rmtree("cache")
        if how == "torn":
            pair = start_two(line)
            kill_second(pair, lambda: any(Path("cache").rglob("latents.f16*")))
            whole = [
                p for p in Path("cache/latents").glob("*/cache.json") if p.parent.name[0] != "."
            ]
            demand(not whole, "the cache was built before one of the processes was killed")
        if how == "two":
            demand([finish(pid) for pid in start_two(line)] == [0, 0], f"encoding: {last_words()}")
        else:
            done(line)
        files = [p for p in Path("cache").rglob("*") if p.is_file() and p.suffix != ".lock"]
        found[how] = {p: p.read_bytes() for p in files}
        demand(found[how] == found["one"], f"the cache of {how} is another")
        demand(not litter("cache"), f"left behind: {litter('cache')}")
    return f"| encoded by two, one killed | encoded by one | {len(found['one'])} files equal |"


# ---- two machines


def part_nodes(options: argparse.Namespace) -> list[str]:
    """Two machines with a torchrun each, which meet on this one; against one with two processes."""
    train = f"{TRAIN} --max-steps {options.pair_steps} --save-every 1 --out nodes"
    draw = "sample.py --run nodes --steps 2 --device cpu --precision float32 --batch-size 2 "
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = "-m torch.distributed.run --nnodes 2 --nproc-per-node 1 --rdzv-backend c10d "
    launcher += f"--rdzv-endpoint localhost:{port} --rdzv-id"
    for number, line in enumerate((train, f"{draw} --out nodes-drawn")):
        command = f"{sys.executable} {launcher} {number} -- {ROOT}/{line}".split()
        places = {**os.environ, "PYTHONPATH": f"{ROOT}:.", "OMP_NUM_THREADS": "1"}
        with open("log.txt", "ab") as log:
            both = [subprocess.Popen(command, env=places, stdout=log, stderr=log) for _ in (0, 1)]
            statuses = [one.wait(timeout=600) for one in both]
        demand(statuses == [0, 0], f"{line}: exit statuses {statuses}: {last_words()}")
    pair = start_two(train.replace("--out nodes", "--out one-node"))
    demand([finish(pid) for pid in pair] == [0, 0], f"one machine: {last_words()}")
    compared = check_runs("one-node", "nodes")
    done(f"{draw} --out nodes-drawn")  # one process finds all of it there
    drawn = len(list(Path("nodes-drawn").glob("*.png")))
    demand(drawn > 1, "too few pictures")
    return [f"| two machines, a process each | against one | {compared} tensors equal |"]
