"""What pictures may be conditioned on: for each task, how its folder is told and read, and what encodes its prompts."""

from __future__ import annotations

from pathlib import Path

from tinyldm.data import examples as formats
from tinyldm.data.examples import Examples, Format, Prompt
from tinyldm.errors import InputError
from tinyldm.files import read_json
from tinyldm.frozen.style import StyleEncoder
from tinyldm.scores.evaluator import split as held_out
from tinyldm.tasks import labels, landscape
from tinyldm.tasks.landscape import CLASSES

TASKS = ("text", "labels", "landscape")
OWNERS = {
    "text_encoder": "text",
    "label_form": "labels",
    "image_encoder": "landscape",
    "style_drop": "landscape",
}
FORMATS: dict[str, Format] = {
    **formats.FORMATS,
    "labels": labels.FORMAT,
    "landscape": landscape.FORMAT,
}


def read_examples(
    folder: str | Path,
    split="train",
    skip_bad: bool = False,
    task: str | None = None,
    hold_out: float = 0.0,
) -> Examples:
    """As formats.read_examples, for the layouts of all tasks; the examples say which task theirs is, and its names.

    hold_out: the share of them that lies in .held instead, evenly spread; a monster's, or a scene's, stay together.
    InputError too if that is another task than the one asked for.
    """
    examples = formats.read_examples(folder, split, skip_bad, FORMATS)
    examples.task = examples.format if examples.format in TASKS else "text"
    if task not in (None, examples.task):
        raise InputError(
            f"--task {task}: {folder} is for --task {examples.task} ({FORMATS[examples.format].layout})"
        )
    examples.names = CLASSES if examples.task == "landscape" else ()
    if examples.task == "labels":
        examples.names = labels.read_names(Path(folder).expanduser())
    if not 0 <= hold_out <= 0.5:
        raise InputError(f"--hold-out {hold_out:g}: expected a share from 0 to 0.5")
    if hold_out:
        out = held_out([example.name for example in examples], examples.format, hold_out)
        examples.held, examples[:] = (
            [e for e, left in zip(examples, out.tolist()) if left == side] for side in (True, False)
        )
        if not examples:
            raise InputError(
                f"--hold-out {hold_out:g}: {folder} has {len(out)} images, too few to leave some out"
            )
    return examples


def read_prompts(file: str | Path) -> list[Prompt]:
    """As formats.read_prompts, for the files of all tasks: a JSON list holds lists of labels, a map names of files."""
    return formats.read_prompts(file, {**formats.PROMPT_FILES, ".json": _prompts_json})


def _prompts_json(file: Path) -> list[Prompt]:
    content = read_json(file, (dict, list))
    if isinstance(content, list):
        return labels.read_prompts(file)
    pairs = any(isinstance(value, str) for value in content.values())
    return landscape.read_prompts(file) if pairs else formats.PROMPT_FILES[".json"](file)


SMALL = {
    "text": {},
    "labels": dict(max_steps=7800, batch_size=64, lr=1.5e-3),
    "landscape": dict(vae="tiny", image_encoder="tiny", max_steps=2000),
}
"""How pictures of up to 128 pixels are trained: the hour of docs/iclevr.md, the half hour of docs/landscapes.md."""


def task_defaults(task: str, given: dict, native: tuple[int, int]) -> dict:
    """Settings that a task decides for data of one's own; InputError: an option given that belongs to another task."""
    for name, owner in OWNERS.items():
        if name in given and owner != task:
            raise InputError(
                f"--{name.replace('_', '-')} {given[name]}: belongs to --task {owner}, this is {task}"
            )
    if task == "labels":
        return dict(size=(64, 64), vae="tiny", flip=False, centre=True)
    if task == "landscape":
        return dict(size=native if max(native) <= 512 else (384, 512))
    return {}


def condition_facts(settings, examples: Examples) -> dict:
    """What load_encoder needs, from the settings of a training: for the run and for whoever samples from it."""
    if settings.task == "labels":
        return {"task": "labels", "names": list(examples.names), "form": settings.label_form}
    if settings.task == "landscape":
        return {
            "task": "landscape",
            "name": settings.image_encoder,
            "style_drop": settings.style_drop,
        }
    return {"task": "text", "name": settings.text_encoder}


def load_encoder(how: dict, area: tuple[int, int], device="cpu"):
    """What makes conditions of prompts for latents of an area (h, w); how, a part of a checkpoint's config, says of what.

    It has encode(texts) -> Condition, a fingerprint and, for the latent cache, width and maybe stored and finish; where
    texts can be wrong, check(texts) raises InputError, and returns a hash of the files that they name, if any.
    """
    how = dict(how)
    task = how.pop("task")
    if task == "labels":
        return labels.LabelEncoder(area=area, **how)
    if task == "landscape":
        return landscape.LandscapeEncoder(StyleEncoder.load(how.pop("name"), device), area, **how)
    from tinyldm.frozen.text import TextEncoder

    return TextEncoder.load(how["name"], device)
