"""Draws the pictures of runs with two versions of the library and shows how far they differ.

    git worktree add ../before SOME_COMMIT
    python docs/compare_versions.py ../before . runs/toy-1 runs/iclevr-1 runs/landscapes-1

Both versions draw a run's own preview prompts with the same seed, in float32. Where a layer is
computed in another order, a value may be rounded the other way, which is one grey level.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image


def draw(version: Path, run: Path, out: Path, steps: int) -> dict[str, np.ndarray]:
    """The pictures of a run by a version of the library, by name."""
    command = [sys.executable, str(version / "sample.py"), "--run", str(run), "--out", str(out)]
    command += ["--steps", str(steps), "--precision", "float32"]
    environment = {**os.environ, "PYTHONPATH": str(version.resolve())}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return {file.name: np.asarray(Image.open(file), int) for file in sorted(out.glob("*.png"))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path, help="a checkout")
    parser.add_argument("new", type=Path, help="another one")
    parser.add_argument("runs", type=Path, nargs="+", help="runs that both can read")
    parser.add_argument("--steps", type=int, default=6, help="solver steps (default: 6)")
    options = parser.parse_args()
    print("| run | pictures | values that differ | largest difference, grey levels |")
    print("| --- | --- | --- | --- |")
    worst = 0
    for run in options.runs:
        with tempfile.TemporaryDirectory() as folder:
            before = draw(options.old, run, Path(folder, "old"), options.steps)
            after = draw(options.new, run, Path(folder, "new"), options.steps)
        if before.keys() != after.keys():
            sys.exit(f"{run}: the two versions draw pictures of different names")
        gaps = np.stack([abs(before[name] - after[name]) for name in before])
        worst = max(worst, int(gaps.max()))
        print(f"| {run} | {len(before)} | {(gaps > 0).mean():.2e} | {gaps.max()} |", flush=True)
    sys.exit(0 if worst <= 1 else 1)


if __name__ == "__main__":
    main()
