"""The folder of a sampling job: the names in it, and the record that lets an interrupted job go on.

samples/RUN/
    NAME.png ...         one for each prompt, whole or absent; the folder can be handed in as it is
    about/samples.json   what decides the pictures, and the prompt of each
    about/grid.png       the first 64 side by side
    about/strip.png      one picture while it is drawn, with --strip; strip.gif: the same, moving
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinyldm.data.examples import Prompt, Request
from tinyldm.errors import InputError
from tinyldm.files import write_text
from tinyldm.folders import RECORD, is_drawn, owned, recorded, remove_written
from tinyldm.sampling.settings import Drawing
from tinyldm.training.checkpoint import Checkpoint
from tinyldm.training.run import SAMPLES
from tinyldm.typed import as_type, read_json, sealed, unsealed

GRID = "about/grid.png"
STRIP = "about/strip.png"
FILM = "about/strip.gif"
IN_WORDS = {  # keys of a record as messages call them
    "contents": "checkpoint",
    "averages": "set of averages",
    "guide_averages": "set of averages of the guide",
    "guide": "guide",
    "images": "list of prompts",
    "files": "content of maps or references",
    "init": "picture to draw on",
    "mask": "mask",
}


@dataclass(frozen=True)
class Record:
    """The type of what is read of a record, beside comparing it whole: the prompt of each image."""

    images: dict[str, str]


def numbered_names(texts: Sequence[str]) -> list[str]:
    """File names from the number and the words of each prompt: 00-a-green-ghost.png."""
    names = []
    for k, text in enumerate(texts):
        words = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60].strip("-")
        names.append(f"{k:02d}-{words}".strip("-") + ".png")
    return names


def run_name(checkpoint: Path) -> str:
    """NAME of runs/NAME/checkpoints/step-N, or the name of a checkpoint that lies elsewhere."""
    checkpoint = checkpoint.resolve()
    if checkpoint.parent.name == "checkpoints":
        return checkpoint.parent.parent.name
    return checkpoint.name


def make_record(
    checkpoint: Checkpoint,
    requests: Sequence[Request],
    how: Drawing,
    seed: int,
    strip: Prompt | None = None,
    files: str | None = None,
    guide: Checkpoint | None = None,
    editing: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What decides the pictures: if nothing of it differs, those that are there are the right ones.

    files:   a hash of the files that the prompts name, if they do
    guide:   the checkpoint that `how` names as the guide
    editing: what else there is to say, Editing.record()
    """
    record = {
        "checkpoint": str(checkpoint.path),
        "contents": hash_of(checkpoint.path),
        "vae": checkpoint.config["vae"],
        "seed": seed,
        **asdict(how),
        "solver": solver_facts(how.solver),
        "guide": None if guide is None else hash_of(guide.path),
        "strip": None if strip is None else str(strip),
        "images": {request.name: request.text for request in requests},
        **(editing or {}),
    }
    if checkpoint.scale != 1:  # which the records of other pictures do not mention
        record["lora_scale"] = checkpoint.scale
    if files is not None:
        record["files"] = files
    if guide is not None:
        record["guide_checkpoint"] = str(guide.path)
    for name, drawn in {"averages": checkpoint, "guide_averages": guide}.items():
        if drawn is not None and drawn.synthesis is not None:
            made = drawn.synthesis
            record[name] = {"error": round(made.error, 4), "files": made.files}
    return record


def hash_of(checkpoint: Path) -> str:
    """A hash of what a checkpoint folder holds for sampling."""
    digest = hashlib.sha256()
    for name in ("config.json", "latents.safetensors", "model.safetensors"):
        with open(checkpoint / name, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def solver_facts(solver: Any) -> dict[str, Any]:
    """The name and the fields of a solver, a frozen dataclass."""
    return {"name": type(solver).__name__, **asdict(solver)}


def read_record(path: Path) -> dict[str, Any]:
    """The record in a file; empty if there is none that can be read."""
    try:
        return read_record_file(path)
    except InputError:
        return {}


def read_record_file(path: Path) -> dict[str, Any]:
    """The record in a file; InputError if it is damaged."""
    content: dict[str, Any] = read_json(path, dict[str, Any])
    as_type(content, str(path), Record, extra="ignore")
    return unsealed(content, str(path))


def difference(path: Path, record: dict[str, Any]) -> str | None:
    """How the record in a file first differs from this one, in words; None if it does not."""
    before = read_record(path)
    if not before:
        return f"no {path.name} that can be read"
    now = json.loads(json.dumps(record))  # tuples become lists, as in the file
    keys = before.keys() | now.keys()
    keys -= {"checkpoint", "guide_checkpoint"}  # where they lie does not matter, but what they hold
    for key in sorted(keys):
        if before.get(key) == now.get(key):
            continue
        plain = all(isinstance(r.get(key), (int, float, str)) for r in (before, now))
        if plain and key not in IN_WORDS:
            return f"{key} {before[key]}, now {now[key]}"
        return f"another {IN_WORDS.get(key, key)}"
    return None


def default_folder(run: str, record: dict[str, Any], overwrite: bool) -> Path:
    """samples/RUN, or the first of RUN-2, RUN-3, ... that is free or holds this very job."""
    number, folder = 1, Path("samples") / run
    while not overwrite and folder.exists() and difference(folder / RECORD, record):
        number += 1
        folder = Path("samples") / f"{run}-{number}"
    return folder


@contextmanager
def open_folder(out: Path, record: dict[str, Any], overwrite: bool) -> Iterator[None]:
    """Own the output folder of a job during the block, which draws into it.

    A job that fails before its first picture leaves no record that another one would trip over.
    InputError: the folder holds something other than the start of this job, without overwrite, or
    another process draws into it.
    """
    check_folder(out, record, overwrite)  # before anything of ours lies in it
    with owned(out, SAMPLES):
        check_folder(out, record, overwrite)
        if overwrite or not is_started(out, record):
            remove_written(out, SAMPLES)
            write_text(out / RECORD, json.dumps(sealed(record), indent=1, ensure_ascii=False))
        try:
            yield
        except BaseException:
            if not has_pictures(out):
                (out / RECORD).unlink(missing_ok=True)
            raise


def check_folder(out: Path, record: dict[str, Any], overwrite: bool) -> None:
    """InputError: a job may not draw into a folder, because of the pictures that are there."""
    named = recorded(out)
    if has_pictures(out) and not overwrite:
        found = difference(out / RECORD, record)
        if found:
            raise InputError(
                f"{out}: holds images of another job ({found}); give another --out, or --overwrite"
            )
        return
    drawn = set()
    for path in sorted(out.iterdir()) if named else ():
        if path.name not in named or path.is_dir():
            continue
        if not is_drawn(path):
            raise InputError(
                f"{path}: {RECORD} names it, but it does not say that it was drawn by this version "
                "of tinyldm, so --overwrite leaves it alone; give another --out"
            )
        drawn.add(path.name)
    names = [name for name in record["images"] if name not in drawn]
    if not named:
        names += [GRID, STRIP, FILM]
    for name in names:
        if (out / name).exists():
            raise InputError(
                f"{out / name}: is already there, made by something else; give another --out"
            )


def has_pictures(out: Path) -> bool:
    """Whether a folder holds pictures that its record names, or a strip."""
    names = [*recorded(out), STRIP] if (out / RECORD).is_file() else []
    return any((out / name).exists() for name in names)


def is_started(out: Path, record: dict[str, Any]) -> bool:
    """Whether a folder holds the start of this very job."""
    return (out / RECORD).is_file() and difference(out / RECORD, record) is None
