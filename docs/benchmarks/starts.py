"""How long it takes to begin: imports, --help, and from a warm cache to the first batch.

    python docs/benchmarks/starts.py [--quick]

Each command runs in a process of its own, in turns with the others. "processor" is the time that
the process itself has computed, which other work on the machine disturbs less.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from rounds import arguments, keep, machine, table

ROOT = Path(__file__).resolve().parents[2]
BATCH = """
import sys, time
import torch
from tinyldm.data.latents import LatentCache
start = time.perf_counter(), time.process_time()
sys.argv = ["train.py"]
import train
from tinyldm.device import pick_device
from tinyldm.processes import ALONE
from tinyldm.toy.folder import data_folder
from tinyldm.training.data import open_cache, read_data
from tinyldm.training.frozen_models import load_frozen
data = read_data(data_folder(None), {})
settings = data.settings({})
models = load_frozen(data.facts(settings, []), pick_device("cpu"))
cache = open_cache(settings, data.examples, models)
cache.batch(torch.arange(settings.batch_size), torch.Generator().manual_seed(0))
print(time.perf_counter() - start[0], time.process_time() - start[1])
"""
TRAINING = """
import sys, tempfile, time
import torch
start = time.perf_counter(), time.process_time()
import train
from tinyldm.training.trainer import Trainer
def stop(*batch):
    print()
    print(time.perf_counter() - start[0], time.process_time() - start[1])
    sys.exit()
Trainer.loss = stop
with tempfile.TemporaryDirectory() as folder:
    train.train({"device": "cpu", "out": folder + "/run"})
"""
COMMANDS = {
    "python": "pass",
    "import torch": "import torch",
    "import tinyldm": "import tinyldm; tinyldm.UNet",
    "train.py --help": "import sys; sys.argv = ['train.py', '--help']; import train; train.main()",
    "warm cache to first batch": BATCH,
    "train.py to its first loss": TRAINING,
}
TRAINS = (BATCH, TRAINING)


def run(code, folder):
    """(seconds on the wall, seconds of the processor) of a process; and what it prints."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(done.stderr)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, done.stdout


def main(argv=None):
    parser = arguments(__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT, help="where data/toy is, or is drawn")
    given = parser.parse_args(argv)
    commands = dict(COMMANDS)
    if given.quick:
        given.rounds = 1
        commands = {name: code for name, code in commands.items() if code not in TRAINS}
    else:
        run(BATCH, given.folder)  # so that the cache is warm
    taken = {name: [] for name in commands}
    for _ in range(given.rounds):
        for name, code in commands.items():
            wall, cpu, said = run(code, given.folder)
            if code in TRAINS:  # from when torch is there, as the goal is
                wall, cpu = map(float, said.split()[-2:])
            taken[name].append((wall, cpu))
    rows = {}
    for name, pairs in taken.items():
        rows[name] = {
            "seconds": median(wall for wall, _ in pairs),
            "processor": median(cpu for _, cpu in pairs),
        }
    result = {"machine": machine(), "rounds": given.rounds, "rows": rows}
    keep("starts", result, given, write(result))


def write(result):
    """The table of a result."""
    rows = result["rows"]
    torch = rows["import torch"]
    lines = []
    for name, row in rows.items():
        shares = [f"{row[kind] / torch[kind]:.2f}" for kind in ("seconds", "processor")]
        lines.append([name, f"{row['seconds']:.2f}", f"{row['processor']:.2f}", *shares])
    head = ["", "seconds", "of the processor", "by import torch", "of its processor time"]
    return table(head, lines)


if __name__ == "__main__":
    sys.exit(main())
