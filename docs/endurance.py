"""What a run survives: kills, interruptions, the loss of a process, and thousands of steps.

    python docs/endurance.py                 all parts, in several minutes
    python docs/endurance.py kills --count 60
    python docs/endurance.py long --steps 2000 --pictures 2000
    python docs/endurance.py processes nodes
    python docs/endurance.py --write docs/training.md    the table goes into that page

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
import os
import shlex
import sys
import tempfile
from pathlib import Path

from enduring.jobs import ROOT, Broken, workplace
from enduring.kills import part_kills
from enduring.long import part_long
from enduring.pairs import part_nodes, part_processes
from written import measured, put

PARTS = {"kills": part_kills, "long": part_long, "processes": part_processes, "nodes": part_nodes}


def main() -> None:
    options = parse()
    sys.path.insert(0, str(ROOT))
    page = options.write and options.write.resolve()
    table = ["| what | how | result |", "| --- | --- | --- |"]
    with tempfile.TemporaryDirectory() as folder:
        workplace(Path(folder).resolve() / "work")
        print("\n".join(table), flush=True)
        try:
            for name in options.parts or PARTS:
                for row in PARTS[name](options):
                    table.append(row)
                    print(row, flush=True)
        except Broken as error:
            print(f"broken: {error}", flush=True)
            sys.exit(1)
        finally:
            os.chdir(ROOT)
    if page:
        command = shlex.join(["python", "docs/endurance.py", *sys.argv[1:]])
        put(page, "endurance", "\n".join([*table, "", measured(command)]))


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which (default: all)")
    parser.add_argument("--count", type=int, default=60, help="kills")
    parser.add_argument("--kill-steps", type=int, default=30, help="steps of a run that is killed")
    parser.add_argument("--steps", type=int, default=2000, help="of the long training")
    parser.add_argument("--pictures", type=int, default=2000, help="of the long drawing")
    parser.add_argument("--pair-steps", type=int, default=12, help="steps of the two processes")
    parser.add_argument("--pair-pictures", type=int, default=16, help="that two processes draw")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of kills")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table into this page")
    return parser.parse_args()


if __name__ == "__main__":
    main()
