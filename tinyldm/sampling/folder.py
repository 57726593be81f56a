"""The folder of a sampling job: the names in it, and the record that lets an interrupted job go on.

samples/RUN/
    NAME.png ...         one for each prompt, written whole or not at all; nothing else, so that it can be handed in
    about/samples.json   what decides the pictures, and the prompt of each
    about/grid.png       the first 64 side by side
    about/strip.png      one picture while it is drawn, with --strip; strip.gif: the same, moving
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path

from PIL import Image

from tinyldm.data.examples import Prompt
from tinyldm.errors import InputError
from tinyldm.files import read_json, replacing

RECORD, GRID, STRIP, FILM = (
    "about/samples.json",
    "about/grid.png",
    "about/strip.png",
    "about/strip.gif",
)
NAMES = {
    "contents": "checkpoint",
    "images": "list of prompts",
    "files": "content of maps or references",
}  # in messages


def save(image: Image.Image, path: Path):
    """Write an image, all of it or nothing; the suffix gives the format."""
    with replacing(path) as temporary:
        image.save(temporary, quality=95)


def save_animation(frames: list[Image.Image], path: Path, seconds: float = 0.25):
    """Write an animated GIF that rests on its last frame and starts again."""
    pause = [round(1000 * seconds)] * (len(frames) - 1) + [2000]
    with replacing(path) as temporary:
        frames[0].save(temporary, save_all=True, append_images=frames[1:], duration=pause, loop=0)


def command_line_prompts(texts: list[str]) -> list[Prompt]:
    """Prompts named after their number and their words: 00-a-green-ghost.png."""
    slugs = (re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60].strip("-") for text in texts)
    return [
        Prompt(f"{k:02d}-{slug}".strip("-") + ".png", text)
        for k, (slug, text) in enumerate(zip(slugs, texts))
    ]


def open_folder(out: Path, record: dict, overwrite: bool):
    """Make the output folder ready: what lies there must be the start of this very job, or overwrite be True."""
    there = [out / name for name in (*record["images"], GRID, STRIP, FILM) if (out / name).exists()]
    if overwrite:  # the pictures of the job before go too
        before = {out / name for name in _read(out / RECORD).get("images", ())}.difference(there)
        there += [path for path in before if path.parent == out and path.is_file()]
        for path in there:
            path.unlink()
    elif (out / RECORD).exists():
        difference = _difference(out / RECORD, record)
        if difference:
            raise InputError(
                f"{out}: holds images of another job ({difference}); give another --out, or --overwrite"
            )
        return
    elif there:
        raise InputError(
            f"{there[0]}: is already there, made by something else; give another --out, or --overwrite"
        )
    (out / RECORD).parent.mkdir(parents=True, exist_ok=True)
    with replacing(out / RECORD) as temporary:
        temporary.write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")


def _read(path: Path) -> dict:
    """The record in a file; empty where there is none."""
    try:
        return read_json(path, dict)
    except InputError:
        return {}


def _difference(path: Path, record: dict) -> str | None:
    """Where the record in a file first differs from this one, in words."""
    there, record = (
        _read(path),
        json.loads(json.dumps(record)),
    )  # tuples become lists, as in the file
    if not there:
        return f"no {path.name} that can be read"
    for key in sorted(
        {**record, **there}.keys() - {"checkpoint"}
    ):  # where it lies; what it holds is in "contents"
        if there.get(key) != record.get(key):
            short = key not in NAMES and all(
                isinstance(r.get(key), (int, float, str)) for r in (there, record)
            )
            return (
                f"{key} {there[key]}, now {record[key]}"
                if short
                else f"another {NAMES.get(key, key)}"
            )
    return None


def default_folder(run: str, record: dict, overwrite: bool) -> Path:
    """samples/RUN; unless overwriting, the first of RUN, RUN-2, ... that is free or holds the start of this job."""
    k, folder = 1, Path("samples") / run
    while not overwrite and folder.exists() and _difference(folder / RECORD, record):
        k += 1
        folder = Path("samples") / f"{run}-{k}"
    return folder


def run_name(checkpoint: Path) -> str:
    """NAME of runs/NAME/checkpoints/step-N, or the name of a checkpoint that lies elsewhere."""
    checkpoint = checkpoint.resolve()
    return (
        checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint
    ).name


def make_record(checkpoint, prompts: list[Prompt], how, seed: int, strip: str | None) -> dict:
    """What decides the pictures: where nothing of it differs, those that are there are those asked for."""
    digest = hashlib.sha256()
    for name in ("config.json", "latents.safetensors", "model.safetensors"):
        with open(checkpoint.path / name, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    solver = {"name": type(how.solver).__name__, **asdict(how.solver)}
    return {
        "checkpoint": str(checkpoint.path),
        "contents": digest.hexdigest(),
        "vae": checkpoint.config["vae"],
        "seed": seed,
        **asdict(how),
        "solver": solver,
        "strip": strip,
        "images": {prompt.name: prompt.text for prompt in prompts},
    }
