"""What a mutant should have led to, whether it did, and the table of all of them."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

from kinds import Kind, frozen_for
from lines import command_line, job
from mutations import mutant
from table import kinds
from worker import Ending, Reader, about, changes, restore, run, snapshot

LINES = "command lines"
ESCAPED = "tinyldm-escaped"  # in the place of a name; whoever is told it finds it in the file
LONGEST = 700  # characters of a line
SEALS = ("checksum", "checksums", "hash")  # the keys of checksums in JSON files
HEAD = (
    "| kind | mutants | refused | the same | another setting | faults | seconds |",
    "| --- | --- | --- | --- | --- | --- | --- |",
)


def compared(before: Any, after: Any) -> set[str]:
    """How the values of one JSON tree differ from those of another, in kinds of change.

    text, number: another value of the same type; sign, huge: a number that is negative now, or a
    thousand times as large; missing, more: a key; shorter, longer: a list; null; kind: another type
    """
    if type(before) is not type(after):
        numbers = all(
            isinstance(v, (int, float)) and not isinstance(v, bool) for v in (before, after)
        )
        if not numbers:
            return {"null"} if after is None else {"kind"}
    if isinstance(before, dict):
        found = set()
        for key in before.keys() | after.keys():
            if key not in after:
                found.add("missing")
            elif key not in before:
                found.add("more")
            else:
                found |= compared(before[key], after[key])
        return found
    if isinstance(before, list):
        found = set()
        if len(before) != len(after):
            found.add("shorter" if len(before) > len(after) else "longer")
        for a, b in zip(before, after, strict=False):
            found |= compared(a, b)
        return found
    if before == after:
        return set()
    if isinstance(before, str):
        return {"text"}
    if isinstance(before, bool) or before is None:
        return {"number"}
    if after != after or abs(after) == float("inf"):
        return {"not finite"}
    if (before >= 0) != (after >= 0):
        return {"sign"}
    return {"huge"} if abs(after) > 1000 * max(1, abs(before)) else {"number"}


def parsed(content: bytes) -> Any:
    """JSON, or a list of the values of the lines; ValueError for anything else."""
    try:
        return json.loads(content)
    except ValueError:
        return [json.loads(line) for line in content.decode().splitlines() if line.strip()]


def without_seals(content: bytes) -> bytes:
    """A JSON file without the checksums of itself and of other files that it holds."""
    tree = {key: value for key, value in json.loads(content).items() if key not in SEALS}
    return json.dumps(tree, indent=1).encode()


def may_differ(kind: Kind, before: bytes, after: bytes) -> str:
    """ "" where a mutant may have a result of its own, otherwise why not."""
    if "anything" in kind.accepts:
        return ""
    try:
        found = compared(parsed(before), parsed(after))
    except (ValueError, RecursionError):
        return "another result, though it is broken"
    wrong = found - set(kind.accepts)
    return f"another result, though it has changed in {', '.join(sorted(wrong))}" if wrong else ""


def unprintable(line: str) -> bool:
    """Whether a line has signs that a terminal would obey."""
    return any(not sign.isprintable() for sign in line)


def fault_of(kind: Kind, file: Path, ending: Ending, whole: Ending) -> tuple[str, str]:
    """(outcome, fault): refused, same or another; the fault is empty unless something is wrong."""
    if ending.killed:
        return "fault", ending.killed
    if ending.broken:
        return "fault", f"traceback: {ending.broken}"
    if ending.tried:
        return "fault", f"tried {ending.tried[0]}"
    if ending.status == 0:
        if not ending.finite and whole.finite:
            return "fault", "not finite"
        return ("same" if ending.digest == whole.digest else "another"), ""
    if ending.status != 2 or len(ending.errors) != 1:
        return "fault", f"status {ending.status}, {len(ending.errors)} lines: {ending.errors[:3]}"
    (line,) = ending.errors
    if not line.startswith("error: ") or unprintable(line) or len(line) > LONGEST:
        return "fault", f"not one plain line: {line[:300]!r}"
    named = kind.named or (file.name, file.parent.name)
    if not any(word in line for word in (*named, ESCAPED)):
        return "fault", f"names no file: {line[:300]}"
    if kind.must:
        return "fault", f"refused, though it never should be: {line[:300]}"
    return "refused", ""


def fault_of_line(words: list[str], ending: Ending, touched: list[str]) -> str:
    """What is wrong with how a command line ended; empty if nothing is."""
    if ending.killed or ending.broken:
        return ending.killed or f"traceback: {ending.broken}"
    if ending.tried:
        return f"tried {ending.tried[0]}"
    if ending.status == 2:
        line = ending.errors[-1] if ending.errors else ""
        if len(ending.errors) != 1 or not line.startswith("error: "):
            return f"{len(ending.errors)} lines: {ending.errors[:3]}"
        if unprintable(line) or len(line) > LONGEST:
            return f"not one plain line: {line[:300]!r}"
        made = [path for path in touched if not path.startswith(("cache", "out/.", "runs/."))]
        if [path for path in made if not path.endswith(".lock") and path != "out"]:
            return f"refused, but changed {made[0]}: {line[:200]}"
        return ""
    if ending.status != 0:
        return f"status {ending.status}: {ending.errors[:3]}"
    outs = [after for word, after in pairwise(words) if word == "--out"]
    outs += [str(folder) for out in outs for folder in Path(out).parents if folder.name]
    allowed = ("cache", *outs, "runs", "samples", *[w for w in words if w.startswith("runs")])
    wrong = [path for path in touched if not path.startswith(allowed) and path != "out"]
    return f"changed {wrong[0]}" if wrong else ""


@dataclass
class Attack:
    """All cases of a seed, in a folder `work`, of which `pristine` is a copy."""

    out: Path
    work: Path
    pristine: Path
    seed: int

    def __post_init__(self) -> None:
        self.kinds = {kind.name: kind for kind in kinds()}
        self.record = self.out / f"results-{self.seed}.jsonl"
        self.before = snapshot(self.work)

    def case(self, kind: Kind, number: int) -> tuple[Path, bytes, dict[Path, bytes], str]:
        """The file of a case, its content before, what is written where, and what was done."""
        chance = Random(f"{self.seed} {kind.name} {number}")
        files = kind.found()
        file = files[number % len(files)]
        planted = {}
        if kind.seal:
            sealing = Path(kind.seal)
            planted[sealing] = without_seals((self.pristine / sealing).read_bytes())
        content = planted.get(file) or (self.pristine / file).read_bytes()
        planted[file], what = mutant(content, file.suffix, chance)
        return file, content, planted, what

    def plant(self, planted: Mapping[Path, bytes]) -> None:
        """Write the files of a case."""
        for path, content in planted.items():
            (self.work / path).write_bytes(content)

    def tidy(self) -> list[str]:
        """Put the folder back as it was; returns what had changed."""
        touched = changes(self.before, snapshot(self.work))
        restore(touched, self.work, self.pristine)
        for path in touched:
            self.before.pop(path, None)
            if os.path.lexists(path):
                self.before[path] = about(path)
        return touched

    def whole(self, kind: Kind) -> Ending:
        """How the reading of the undamaged file ends.

        Models from memory are forgotten: their weights are mapped from files that a kind damages.
        """
        frozen_for.cache_clear()
        ending = run(kind.read, self.work)
        self.tidy()
        if ending.status != 0:
            raise SystemExit(f"{kind.name}: the whole file is not read: {ending}")
        return ending

    def judge(self, kind: Kind, number: int, whole: Ending, reader: Reader) -> dict[str, Any]:
        """Run a case; what became of it, as it is recorded.

        A fault counts if the case has it in a process of its own too.
        """
        found = self.judged(kind, number, whole, reader)
        if not found["fault"]:
            return found
        alone = Reader(kind.read, self.work)
        found = self.judged(kind, number, whole, alone)
        alone.stop()
        return found

    def judged(self, kind: Kind, number: int, whole: Ending, reader: Reader) -> dict[str, Any]:
        """Run a case with a reader, and put the folder back as it was."""
        start = time.process_time()
        file, content, planted, what = self.case(kind, number)
        self.plant(planted)
        ending = reader.run()
        outcome, fault = fault_of(kind, file, ending, whole)
        strange = self.strange(kind, planted)
        if outcome == "another":
            fault = may_differ(kind, content, planted[file])
        if strange and not fault:
            fault = f"changed {strange[0]}"
        if fault:
            outcome = "fault"
        return {
            "kind": kind.name,
            "case": number,
            "file": str(file),
            "what": what,
            "outcome": outcome,
            "fault": fault,
            "line": ending.errors[0][:300] if ending.errors else "",
            "seconds": time.process_time() - start + ending.seconds,
        }

    def strange(self, kind: Kind, planted: Mapping[Path, bytes]) -> list[str]:
        """Put the folder back as it was; the paths that a case has changed and should not have.

        planted: the files of the case, which may be as they were written
        """
        paths = {self.work / path: content for path, content in planted.items()}
        kept = {p for p, content in paths.items() if p.is_file() and p.read_bytes() == content}
        allowed = tuple(str(self.work / path) for path in kind.writes)
        left = []
        for path in self.tidy():
            ours = path.endswith(".lock") or Path(path) in kept
            if not ours and not path.startswith(allowed or ("nothing",)):
                left.append(str(Path(path).relative_to(self.work)))
        return left

    def line(self, number: int) -> dict[str, Any]:
        """Run a command line; what became of it, as it is recorded."""
        start = time.process_time()
        words = command_line(number, self.seed)
        ending = run(job(words), self.work)
        touched = [str(Path(path).relative_to(self.work)) for path in self.tidy()]
        fault = fault_of_line(words, ending, touched)
        return {
            "kind": LINES,
            "case": number,
            "file": "",
            "what": shlex.join(word[:80] for word in words),
            "outcome": "fault" if fault else "refused" if ending.status else "another",
            "fault": fault,
            "line": ending.errors[0][:300] if ending.errors else "",
            "seconds": time.process_time() - start + ending.seconds,
        }

    def all(self, count: int, lines: int, only: list[str] | None) -> tuple[str, int]:
        """Run what is not on record yet and print what came of all; the table, and how many faults.

        count: mutants of each kind; lines: command lines; only: the kinds; None: all
        """
        done = self.read_record()
        table, faults = list(HEAD), []
        print("\n".join(table), flush=True)
        for name in only or [*self.kinds, LINES]:
            results = done.get(name, {})
            wanted = range(lines if name == LINES else count)
            for row in self.rows(name, [number for number in wanted if number not in results]):
                results[row["case"]] = row
                with self.record.open("a") as record:
                    record.write(json.dumps(row) + "\n")
            rows = [results[number] for number in wanted]
            counts = Counter(row["outcome"] for row in rows)
            told = [len(rows), *(counts[key] for key in ("refused", "same", "another", "fault"))]
            told.append(round(sum(row["seconds"] for row in rows)))
            table.append(f"| {name} | {' | '.join(f'{number:,}' for number in told)} |")
            print(table[-1], flush=True)
            faults += [row for row in rows if row["fault"]]
        self.tell(faults)
        return "\n".join(table) + "\n", len(faults)

    def rows(self, name: str, numbers: list[int]) -> Iterator[dict[str, Any]]:
        """What becomes of these cases of a kind, one after another."""
        if name == LINES:
            yield from (self.line(number) for number in numbers)
        elif numbers:
            kind = self.kinds[name]
            whole = self.whole(kind)
            reader = Reader(kind.read, self.work)
            yield from (self.judge(kind, number, whole, reader) for number in numbers)
            reader.stop()

    def tell(self, faults: list[dict[str, Any]]) -> None:
        """Print the faults, those that read alike together."""
        alike: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in faults:
            alike.setdefault((row["kind"], row["fault"][:60]), []).append(row)
        for rows in alike.values():
            first = rows[0]
            print(f"\n{first['kind']}: {first['fault']}")
            print(f"  {first['what']}" + (f"; {len(rows)} such" if len(rows) > 1 else ""))
            print(
                f"  python docs/attack --seed {self.seed} "
                f"--kinds {first['kind']!r} --case {first['case']}"
            )

    def read_record(self) -> dict[str, dict[int, dict[str, Any]]]:
        """What earlier calls have found: kind -> case -> row."""
        found: dict[str, dict[int, dict[str, Any]]] = {}
        if self.record.exists():
            for line in self.record.read_text().splitlines():
                row = json.loads(line)
                found.setdefault(row["kind"], {})[row["case"]] = row
        return found

    def replay(self, name: str, number: int) -> None:
        """Run one case with all that it prints."""
        if name == LINES:
            words = command_line(number, self.seed)
            print(shlex.join(words))
            print(run(job(words), self.work, quiet=False), self.tidy())
            return
        kind = self.kinds[name]
        file, _, planted, what = self.case(kind, number)
        print(f"{file}: {what}")
        self.plant(planted)
        print(run(kind.read, self.work, quiet=False))
