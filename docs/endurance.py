"""What a run survives: kills, interruptions, the loss of a process, and thousands of steps.

    python docs/endurance.py                 all parts, in several minutes
    python docs/endurance.py kills --count 60
    python docs/endurance.py long --steps 2000 --pictures 2000
    python docs/endurance.py processes nodes

kills      trains, draws and trains an autoencoder under kill -9 at random moments, the building of
           the latent cache and the writing of checkpoints among them, always going on from what is
           left; the end must be that of an uninterrupted run, bit for bit.
long       trains and draws for long, interrupted now and then, and watches memory and open files;
           no step and no picture may be missing or come twice.
processes  trains in two processes, kills one, and goes on in two, bit for bit, and in one; draws in
           two, kills one, and goes on in one, with the same pictures; and builds the latent cache
           in two, kills one, and builds it in one, with the same bytes.
nodes      trains and draws on two machines, each of which is a torchrun of its own on this one.

The network is tiny, and the commands are the real ones: each runs in a process that is forked from
this one, so that nothing has to be imported again. Figures are printed as a table. A broken promise
ends the script with status 1.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
NETWORK = """
from dataclasses import replace

from tinyldm.nn.unet import UNet, UNetConfig

def build(channels, size, token_dim, vector_dim, map_channels):
    shape = UNetConfig(channels, channels, (8, 16), ("none", "cross"), 1, 2, groups=4)
    return UNet(replace(shape, token_dim=token_dim))
"""
TRAIN = (
    "train.py --data data --vae tiny --text-encoder tiny --network tiny_network:build --size 16 "
    "--batch-size 4 --warmup 1 --device cpu --precision float32 --sample-every 1000000"
)
HEAVY = (
    "sample",
    "train",
    "tinyldm.commands.vae",
    "tinyldm.pages.report",
    "tinyldm.sampling.job",
    "tinyldm.stage_one.training",
    "tinyldm.training.trainer",
)
PAUSE = (
    0.02  # seconds between two looks at a job; a short one would be over before its interruption
)
SETTLED = 0.3  # of a job, after which its memory should not grow any more
ENOUGH = 500  # steps or pictures that show whether it does
GROWTH = 0.03  # that counts as flat


class Broken(Exception):
    """A promise that did not hold."""


def demand(true: bool, what: str) -> None:
    """Raise Broken unless something is true."""
    if not true:
        raise Broken(what)


def workplace(folder: Path) -> None:
    """Enter an empty folder with twelve small images and a network; import what commands need."""
    import numpy as np
    from PIL import Image

    from tinyldm.data import encode

    encode.PIXELS_AT_ONCE = {"cpu": 2 * 16 * 16}  # so that twelve images are several batches
    folder.mkdir(parents=True)
    os.chdir(folder)
    os.environ.update(TINYLDM_CACHE=str(folder / "cache"), HF_HUB_OFFLINE="1")
    os.environ.update(TOKENIZERS_PARALLELISM="false")
    Path("tiny_network.py").write_text(NETWORK)
    Path("data").mkdir()
    lines = []
    for k in range(12):
        pixels = np.random.default_rng(k).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"data/{k}.png")
        lines.append(f'{{"file_name": "{k}.png", "text": "number {k}"}}')
    Path("data/metadata.jsonl").write_text("\n".join(lines))
    for name in HEAVY:  # so that the forked processes find them imported
        import_module(name)
    from tinyldm.frozen.text import TextEncoder

    TextEncoder.load("tiny")  # imports most of transformers


# ---- commands as processes


def call(line: str) -> int:
    """Run a command line in this process; its exit status."""
    import sample
    import train
    from tinyldm.__main__ import COMMANDS
    from tinyldm.cli import dispatch, guarded

    sys.argv = line.split()
    if sys.argv[0] == "train.py":
        return guarded(train.main)
    if sys.argv[0] == "sample.py":
        return guarded(sample.main)
    return dispatch(COMMANDS, sys.argv[1:])


def fork(line: str, **environment: str) -> int:
    """Start a command line in a process of its own, which says what it says into log.txt."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.environ.update(environment)
        log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        status = call(line)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def finish(pid: int) -> int:
    """Wait for a process; its exit status, or the negative number of the signal it died of."""
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def ended_within(pid: int, seconds: float) -> int | None:
    """The exit status of a process that ends so soon; None if it does not."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def done(line: str) -> float:
    """Run a command line to its end; the seconds it took."""
    start = time.monotonic()
    status = finish(fork(line))
    demand(status == 0, f"{line}: exit status {status}: {last_words()}")
    return time.monotonic() - start


def last_words() -> str:
    """The last line that a process said."""
    lines = Path("log.txt").read_text(errors="replace").splitlines()
    return lines[-1] if lines else ""


# ---- what must be equal


def newest(run: str) -> Path:
    """The newest checkpoint of a run."""
    from tinyldm.training.checkpoint import find_checkpoint

    return find_checkpoint(run)


def has_checkpoint(run: str) -> bool:
    """Whether there is one to go on from."""
    return any(Path(run).glob("checkpoints/step-*/config.json"))


def check_equal(a: Path, b: Path) -> int:
    """Demand that two files of weights are equal bit for bit; how many tensors they hold."""
    from safetensors.torch import load_file

    one, other = load_file(a), load_file(b)
    demand(one.keys() == other.keys(), f"{b}: other tensors than {a}")
    for name in one:
        same = one[name].numpy().tobytes() == other[name].numpy().tobytes()
        demand(same, f"{b}: {name} is not what it is in {a}")
    return len(one)


def check_runs(a: str, b: str) -> int:
    """Demand that two runs ended in the same place; how many tensors were compared."""
    demand(newest(a).name == newest(b).name, f"{b} ended at {newest(b).name}")
    compared = 0
    for name in ("model", "training", "latents"):
        file = f"{name}.safetensors"
        compared += check_equal(newest(a) / file, newest(b) / file)
    demand(logged(a) == logged(b), f"{b}/log.csv differs from {a}/log.csv")
    return compared


def logged(run: str) -> list[list[str]]:
    """The rows of a log without the speed."""
    with open(Path(run) / "log.csv", newline="") as stream:
        return [row[:-1] for row in csv.reader(stream)]


def litter(*folders: str) -> list[str]:
    """Temporary files and folders that are still there; locks and markers are to stay."""
    from tinyldm.folders import MARKER

    found = []
    for folder in folders:
        for path in Path(folder).rglob("*"):
            ours = path.name.endswith(".lock") or path.name == MARKER
            hidden = path.name.startswith(".") and not ours
            if hidden or ".tmp-" in path.name:
                found.append(str(path))
    return found


# ---- kills


def killed_until_done(
    next_line: Callable[[], str], longest: float, count: int, chance: random.Random
) -> int:
    """Run a job to its end, killing it at random moments; how often it was killed.

    next_line: the command line that goes on from what is there
    longest:   seconds after which a kill comes at the latest
    count:     kills, after which the job is left alone
    """
    kills = 0
    while True:
        pid = fork(next_line())
        status = ended_within(pid, chance.uniform(0, longest)) if kills < count else finish(pid)
        if status is None:
            os.kill(pid, signal.SIGKILL)
            finish(pid)
            kills += 1
            continue
        demand(status == 0, f"exit status {status} after {kills} kills: {last_words()}")
        return kills


def times(kills: int, jobs: int, noun: str) -> str:
    """How many kills there were in how many jobs, in words."""
    return f"{kills} in {jobs} {noun}" + ("" if jobs == 1 else "s")


def kill_trainings(count: int, steps: int, chance: random.Random) -> str:
    """Kill trainings of train.py, from the building of the cache on."""
    line = f"{TRAIN} --max-steps {steps} --save-every 1"
    took = done(f"{line} --out whole")
    shutil.rmtree("cache")

    def next_line() -> str:
        if has_checkpoint("killed"):
            return f"train.py --resume --out killed --max-steps {steps}"
        return f"{line} --out killed" + (" --overwrite" if Path("killed/log.csv").exists() else "")

    kills, runs, compared = 0, 0, 0
    while kills < count:
        shutil.rmtree("killed", ignore_errors=True)
        if runs % 2 == 0:
            shutil.rmtree("cache", ignore_errors=True)
        kills += killed_until_done(next_line, took / 2, min(8, count - kills), chance)
        compared = check_runs("whole", "killed")
        demand(not litter("killed", "cache"), f"left behind: {litter('killed', 'cache')}")
        runs += 1
    return f"| kill -9 of train.py | {times(kills, runs, 'run')} | {compared} tensors equal |"


def kill_drawings(count: int, pictures: int, chance: random.Random) -> str:
    """Kill drawings of sample.py."""
    Path("prompts.txt").write_text("\n".join(f"picture {k}" for k in range(pictures)))
    line = "sample.py --run whole --prompts prompts.txt --steps 2 --device cpu --batch-size 1 "
    line += "--precision float32 --out "
    took = done(f"{line} whole-pictures")
    kills, runs = 0, 0
    while kills < count:
        shutil.rmtree("pictures", ignore_errors=True)
        kills += killed_until_done(
            lambda: f"{line} pictures", took / 2, min(5, count - kills), chance
        )
        for file in sorted(Path("whole-pictures").rglob("*.png")):
            other = Path("pictures") / file.relative_to("whole-pictures")
            demand(file.read_bytes() == other.read_bytes(), f"{other} is another picture")
        demand(not litter("pictures"), f"left behind: {litter('pictures')}")
        runs += 1
    return f"| kill -9 of sample.py | {times(kills, runs, 'job')} | {pictures} pictures equal |"


def kill_autoencoders(count: int, steps: int, chance: random.Random) -> str:
    """Kill trainings of python -m tinyldm vae."""
    line = f"tinyldm vae train --data data --size 16 --steps {steps} --batch-size 2 --save-every 2 "
    line += "--widths 4 4 --latent-channels 4 --device cpu --out "
    took = done(f"{line} whole-vae")

    def next_line() -> str:
        ready = Path("vae/recipe.json").exists() and Path("vae/training.safetensors").exists()
        way = " --resume" if ready else " --overwrite" if Path("vae").exists() else ""
        return f"{line} vae{way}"

    kills, runs, compared = 0, 0, 0
    while kills < count:
        shutil.rmtree("vae", ignore_errors=True)
        kills += killed_until_done(next_line, took / 2, min(5, count - kills), chance)
        compared = 0
        for name in ("training", "model"):
            file = f"{name}.safetensors"
            compared += check_equal(Path("whole-vae", file), Path("vae", file))
        runs += 1
    return f"| kill -9 of vae train | {times(kills, runs, 'run')} | {compared} tensors equal |"


def part_kills(options: argparse.Namespace) -> list[str]:
    """Kills of three commands."""
    chance = random.Random(options.seed)
    most = max(1, options.count // 5)
    steps = options.kill_steps
    rows = [kill_trainings(options.count - 2 * most, steps, chance)]
    rows.append(kill_drawings(most, steps, chance))
    rows.append(kill_autoencoders(most, steps, chance))
    return rows


# ---- long jobs


def measure(pid: int) -> tuple[int, int]:
    """(bytes of memory of its own, open files) of a process; zeros where it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0, 0


def watched(line: str, stop_at: Callable[[], bool]) -> tuple[int, list[tuple[int, int]]]:
    """Run a command line, interrupt it as by Ctrl-C once stop_at() says so; status and measures."""
    pid = fork(line)
    found = []
    asked = False
    while True:
        status = ended_within(pid, PAUSE)
        if status is not None:
            return status, found
        found.append(measure(pid))
        if not asked and stop_at():
            os.kill(pid, signal.SIGINT)
            asked = True


def flat(measures: Sequence[tuple[int, int]], what: str, count: int) -> str:
    """Demand that memory and open files do not grow once a job is under way; both in words.

    count: of steps or pictures; few say nothing
    """
    settled = [m for m in measures if m[0]][int(SETTLED * len(measures)) : -1]
    if len(settled) < 30 or count < ENOUGH:
        return "too short to tell"
    third = len(settled) // 3
    early, late = settled[:third], settled[-third:]
    before, after = (median(m[0] for m in part) for part in (early, late))
    files_before, files_after = (median(m[1] for m in part) for part in (early, late))
    words = f"{before / 1e6:.0f} to {after / 1e6:.0f} MB, "
    words += f"{files_before:.0f} to {files_after:.0f} open files"
    demand(after < before * (1 + GROWTH), f"{what}: memory grows: {words}")
    demand(files_after <= files_before, f"{what}: open files grow: {words}")
    return words


def long_training(steps: int) -> str:
    """A long training, interrupted after a third and after two thirds."""
    line = f"{TRAIN} --max-steps {steps} --save-every {max(1, steps // 20)} --out long"
    measures: list[tuple[int, int]] = []
    for part in (1, 2, 3):

        def far_enough(part: int = part) -> bool:
            return part < 3 and rows_in("long") >= part * steps // 3

        status, found = watched(line, far_enough)
        demand(status == (0 if part == 3 else 130), f"status {status}: {last_words()}")
        line = f"train.py --resume --out long --max-steps {steps}"
        measures = max(measures, found, key=len)
    numbers = [row[0] for row in logged("long")[1:]]
    demand(numbers == [str(k + 1) for k in range(steps)], "steps are missing or come twice")
    how = flat(measures, "training", steps)
    return f"| {steps} steps, 2 times interrupted | {how} | each step once |"


def rows_in(run: str) -> int:
    """How many rows a log has by now."""
    file = Path(run, "log.csv")
    return len(file.read_bytes().splitlines()) - 1 if file.exists() else 0


def long_drawing(pictures: int) -> str:
    """Thousands of pictures, interrupted after a third and killed after two thirds."""
    Path("many.txt").write_text("\n".join(f"picture {k}" for k in range(pictures)))
    line = "sample.py --run long --prompts many.txt --steps 1 --device cpu --precision float32 "
    line += f"--batch-size {8 if pictures >= ENOUGH else 1} --out many"
    out = Path("many")
    made: dict[str, tuple[int, int]] = {}
    measures: list[tuple[int, int]] = []
    for part in (1, 2, 3):

        def far_enough(part: int = part) -> bool:
            names = os.listdir(out) if out.exists() else []
            there = sum(name[0].isdigit() for name in names)  # not those half-written
            return part < 3 and there >= part * pictures // 3

        status, found = watched(line, far_enough)
        demand(status == (0 if part == 3 else 130), f"status {status}: {last_words()}")
        measures = max(measures, found, key=len)
        now = {f.name: (f.stat().st_ino, f.stat().st_mtime_ns) for f in out.glob("*.png")}
        demand(all(now.get(name) == made[name] for name in made), "a picture was drawn twice")
        made = now
    names = {f"{k:04d}.png" for k in range(pictures)}
    demand(made.keys() == names, f"{len(names ^ made.keys())} pictures missing or too many")
    how = flat(measures, "drawing", pictures)
    return f"| {pictures} pictures, 2 times interrupted | {how} | each once |"


def part_long(options: argparse.Namespace) -> list[str]:
    """A long training and a long drawing."""
    return [long_training(options.steps), long_drawing(options.pictures)]


# ---- two processes


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


PARTS = {"kills": part_kills, "long": part_long, "processes": part_processes, "nodes": part_nodes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which (default: all)")
    parser.add_argument("--count", type=int, default=60, help="kills")
    parser.add_argument("--kill-steps", type=int, default=30, help="steps of a run that is killed")
    parser.add_argument("--steps", type=int, default=2000, help="of the long training")
    parser.add_argument("--pictures", type=int, default=2000, help="of the long drawing")
    parser.add_argument("--pair-steps", type=int, default=12, help="steps of the two processes")
    parser.add_argument("--pair-pictures", type=int, default=16, help="that two processes draw")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of kills")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as folder:
        workplace(Path(folder).resolve() / "work")
        print("| what | how | result |\n| --- | --- | --- |", flush=True)
        try:
            for name in options.parts or PARTS:
                for row in PARTS[name](options):
                    print(row, flush=True)
        except Broken as error:
            print(f"broken: {error}", flush=True)
            sys.exit(1)
        finally:
            os.chdir(ROOT)


if __name__ == "__main__":
    main()
