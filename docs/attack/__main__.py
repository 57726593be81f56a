"""Damages every kind of file that a command reads back, and says what the commands make of it.

    python docs/attack                       2,000 mutants of each kind, 500 command lines
    python docs/attack --quick               40 of each, in a minute or two
    python docs/attack --kinds images maps   some of them
    python docs/attack --kinds images --case 17    one of them, with all that it prints
    python docs/attack --write docs/security.md    the table goes into that page

Each mutant is read in a process of its own by what its command reads it with. It must be refused
in one line that names the file, or have the very result of the whole file, or, where its values
are fit for another setting, that one's. Everything else is a fault: a traceback, a hang, more lines
than one, numbers that are not finite, a result that should not be, a file written anywhere but in
the output folder, a program started. Faults are listed with the command that repeats them. What is
done is kept in --out, and the same call goes on where it was stopped, if the code is the same.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
QUICK, ALL = (40, 30), (2000, 500)  # mutants of each kind, command lines


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("attacked"), help="where to work")
    parser.add_argument("--quick", action="store_true", help="few of each")
    parser.add_argument("--count", type=int, help="mutants of each kind (default: 2000)")
    parser.add_argument("--lines", type=int, help="random command lines (default: 500)")
    parser.add_argument("--kinds", nargs="+", metavar="KIND", help="only these; see the table")
    parser.add_argument("--seed", type=int, default=0, help="another seed makes other mutants")
    parser.add_argument("--case", type=int, help="only this one, with all that it prints")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table into this page")
    return parser.parse_args()


def version() -> str:
    """A hash of the code that is attacked and of the code that attacks."""
    found = hashlib.sha256()
    root = HERE.parent.parent
    for file in sorted([*root.glob("*.py"), *root.glob("tinyldm/**/*.py"), *HERE.glob("*.py")]):
        found.update(file.read_bytes())
    return found.hexdigest()[:12]


def prepare(out: Path) -> tuple[Path, Path]:
    """The folder to work in and an untouched copy of it, made once; the first is entered."""
    work, pristine = out / "work", out / "pristine"
    os.environ.update(TINYLDM_CACHE=str(work / "cache"), HF_HUB_OFFLINE="1", TMPDIR=str(out))
    os.environ.update(TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1", HOME=str(out))
    sys.path[:0] = [str(HERE), str(HERE.parent.parent)]
    sys.dont_write_bytecode = True
    if not pristine.exists():
        import material

        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        os.chdir(work)
        material.make(work)
        shutil.copytree(work, pristine)
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(pristine, work)
    os.chdir(work)
    return work, pristine


def main() -> None:
    options = parse()
    page = options.write and options.write.resolve()
    out = options.out.resolve() / version()  # what other code has led to says nothing of this
    work, pristine = prepare(out)
    from verdict import Attack  # what they import takes seconds

    attack = Attack(out, work, pristine, options.seed)
    count, lines = QUICK if options.quick else ALL
    count = count if options.count is None else options.count
    lines = lines if options.lines is None else options.lines
    if options.case is not None:
        attack.replay(options.kinds[0], options.case)
        return
    table, faults = attack.all(count, lines, options.kinds)
    if page:
        sys.path.append(str(HERE.parent))
        import written

        command = shlex.join(["python", "docs/attack", *sys.argv[1:]])
        written.put(page, "attack", f"{table}\n{written.measured(command)}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
