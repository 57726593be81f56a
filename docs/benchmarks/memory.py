"""Whether the memory of a training depends on the number of images.

    python docs/benchmarks/memory.py [--quick] [--counts 2000 20000]

For each number, train.py builds the latent cache of so many small images and trains on it, and then
trains once more with the cache there. Watched is the memory that is the process's own (RssAnon of
/proc): files that are mapped, as the cache is, belong to the system, which takes them back at will.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from rounds import arguments, keep, machine, table

ROOT = Path(__file__).resolve().parents[2]
TRAIN = (
    "--data data --vae tiny --text-encoder tiny --size 32 --batch-size 16 --device cpu "
    "--precision float32 --preset toy --sample-every 1000000 --save-every 1000000 --warmup 1"
)


def write_images(folder, count):
    """So many captioned images of 32x32, ten thousand different ones at most in their pixels."""
    folder.mkdir()
    chance = np.random.default_rng(0)
    lines = []
    for k in range(count):
        pixels = chance.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((32, 32)).save(folder / f"{k}.png", compress_level=1)
        lines.append(f'{{"file_name": "{k}.png", "text": "number {k % 1000}"}}')
    (folder / "metadata.jsonl").write_text("\n".join(lines))


def own_memory(pid):
    """Bytes of memory that are a process's own; 0 where it is gone."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def watched(arguments_of_train, folder):
    """The most memory of its own that a training has while it builds the cache, and afterwards."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TINYLDM_CACHE": str(folder / "cache")}
    log = open(folder / "log.txt", "ab")  # noqa: SIM115
    job = subprocess.Popen(
        [sys.executable, ROOT / "train.py", *arguments_of_train.split()],
        cwd=folder,
        env=environment,
        stdout=log,
        stderr=log,
    )
    before, training = 0, 0
    while job.poll() is None:
        now = own_memory(job.pid)
        rows = list(folder.glob("*/log.csv"))
        if any(len(file.read_bytes().splitlines()) > 2 for file in rows):
            training = max(training, now)
        else:
            before = max(before, now)
        time.sleep(0.02)
    log.close()
    if job.returncode:
        raise RuntimeError((folder / "log.txt").read_text()[-2000:])
    return before, training


def main(argv=None):
    parser = arguments(__doc__)
    parser.add_argument("--counts", type=int, nargs=2, default=[2000, 20000])
    parser.add_argument("--steps", type=int, default=30)
    given = parser.parse_args(argv)
    if given.quick:
        given.counts, given.steps = [4, 8], 3
    rows = []
    for count in given.counts:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_images(folder / "data", count)
            line = f"{TRAIN} --max-steps {given.steps} --out"
            building, _ = watched(f"{line} first", folder)
            (folder / "first").rename(folder / "data" / "first")  # its log has been looked at
            starting, training = watched(f"{line} second", folder)
            size = sum(p.stat().st_size for p in folder.rglob("latents.f16"))
        rows.append(
            {
                "images": count,
                "building the cache": building,
                "opening it": starting,
                "training": training,
                "cache": size,
            }
        )
        print(rows[-1], flush=True)
    result = {"machine": machine(), "rows": rows}
    keep("memory", result, given, write(result))


def write(result):
    """The table of a result."""
    kinds = ("building the cache", "opening it", "training", "cache")
    lines = []
    for row in result["rows"]:
        lines.append([f"{row['images']:,}", *(f"{row[kind] / 1e6:.0f} MB" for kind in kinds)])
    few, many = result["rows"]
    lines.append(["ratio", *(f"{many[kind] / few[kind]:.3f}" for kind in kinds)])
    return table(["images", *kinds], lines)


if __name__ == "__main__":
    sys.exit(main())
