"""The options of sample.py beyond drawing a prompt from noise, and what they come to.

Importing this module imports no torch.
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyldm.cli import SEED, any_text, flag_of, option, real, whole
from tinyldm.errors import InputError, shortened
from tinyldm.training.settings import TrainSettings

if TYPE_CHECKING:
    from tinyldm.data.examples import Prompt
    from tinyldm.sampling.editing import Editing
    from tinyldm.sampling.settings import Drawing, SampleOptions
    from tinyldm.tasks.base import Task

DEFAULT_STRENGTH = 0.75
WEIGHT = real(-1000, 1000)
EDIT, MIX = "editing a picture", "several prompts at once"  # headings of the help


@dataclass(frozen=True)
class EditOptions:
    """Options that SampleOptions inherits."""

    init: str | None = option(
        None,
        "draw on this picture; it is resized to the size of the run, as its data was",
        EDIT,
        metavar="IMAGE",
    )
    strength: float | None = option(
        None,
        "0 to 1, the share of the steps that is drawn: 0 keeps --init, 1 forgets it "
        f"(default: {DEFAULT_STRENGTH}; 1 with --mask or --invert)",
        EDIT,
        bounds=real(0, 1),
    )
    mask: str | None = option(
        None,
        "white is drawn anew, the rest of --init stays; an image as large as --init",
        EDIT,
        metavar="IMAGE",
    )
    resample: int | None = option(
        None,
        "with --mask: take every step so many times, going back up in between, so that what is "
        "drawn fits the rest better (2201.09865); it costs as many times the calls (default: 1)",
        EDIT,
        bounds=whole(1, 1000),
    )
    invert: str | None = option(
        None,
        "what --init shows, or empty: find the noise that it is drawn from, and draw that with the "
        "prompt",
        EDIT,
        parse=any_text,
        metavar="TEXT",
    )
    and_: list[list[str]] | None = option(
        None,
        "what every picture is to show as well, and how much (default: 1); a negative weight leads "
        "away from it; may be given several times",
        MIX,
        metavar=("TEXT", "WEIGHT"),
        more={"action": "append", "nargs": "+"},
    )
    interpolate: int | None = option(
        None,
        "so many pictures on the way from one --prompt to a second, or to the noise of --to-seed",
        MIX,
        bounds=whole(2, 1000),
    )
    to_seed: int | None = option(None, "the seed at the end of --interpolate", MIX, bounds=SEED)


def check_editing(options: SampleOptions) -> None:
    """InputError for options that do not go together."""
    o = options
    for name in ("strength", "mask", "invert"):
        if getattr(o, name) is not None and o.init is None:
            raise InputError(f"{flag_of(name)}: needs --init IMAGE, the picture to draw on")
    if o.resample is not None and o.mask is None:
        raise InputError("--resample: needs --mask IMAGE, white where to draw anew")
    if o.strip is not None and o.strength == 0:
        raise InputError("--strip: not allowed with --strength 0, which takes no step")
    if o.to_seed is not None and o.interpolate is None:
        raise InputError("--to-seed: needs --interpolate N, the number of pictures that lead to it")
    if o.to_seed is not None and o.invert is not None:
        raise InputError(
            "--to-seed: not allowed with --invert, which finds the noise to begin with"
        )
    prompts = len(o.prompt or ())
    if o.interpolate is not None and prompts != 2 and (prompts != 1 or o.to_seed is None):
        raise InputError("--interpolate: expected two --prompt, or one and --to-seed")
    if o.interpolate is not None and o.count is not None:
        raise InputError("--count: not allowed with --interpolate, which counts the pictures")


def parse_parts(texts: list[list[str]] | None, task: Task) -> tuple[tuple[Prompt, float], ...]:
    """What --and asks for: prompts and their weights."""
    parts = []
    for text, *weights in texts or ():
        try:
            (weight,) = weights or ["1"]
            parts.append((task.prompt(text), float(WEIGHT(weight))))
        except (ValueError, ArgumentTypeError):
            raise InputError(
                f"--and {shortened(' '.join([text, *weights]))}: "
                f"expected one text, and perhaps its weight, {WEIGHT}"
            ) from None
    return tuple(parts)


def editing_of(
    options: SampleOptions, task: Task, config: Mapping[str, Any], how: Drawing
) -> Editing:
    """What the options come to, for drawing with a run of this config. Pictures are read.

    InputError: a picture is broken or of another size, or `how` does not allow it.
    """
    from tinyldm.sampling.editing import Editing, read_mask, read_picture

    o = options
    for name in ("invert", "interpolate"):
        if getattr(o, name) is not None and how.solver.stochastic:
            raise InputError(
                f"{flag_of(name)}: expected a solver without noise, such as dpm++ or ddim; "
                f"{o.solver or 'that of a consistency run'} draws some in every step"
            )
    also = parse_parts(o.and_, task)
    if also and not config["settings"].get("cfg_drop", TrainSettings.cfg_drop):
        raise InputError(
            "--and: the run was trained with --cfg-drop 0 and has learned no null condition"
        )
    several = bool(also) or (len(o.prompt or ()) == 2 and o.interpolate is not None)
    if several and how.style is not None:
        raise InputError(
            "--and, --interpolate between prompts: not allowed with --guidance-map or "
            "--guidance-style"
        )
    height, width = config["size"]
    init, mask = None, None
    if o.init is not None:
        init = read_picture(Path(o.init), (height, width))
        if o.mask is not None:
            mask = read_mask(Path(o.mask), Path(o.init), (height, width))
    strength = o.strength
    if strength is None:
        in_part = init is not None and mask is None and o.invert is None
        strength = DEFAULT_STRENGTH if in_part else 1.0
    return Editing(
        init=init,
        mask=mask,
        strength=strength,
        resample=o.resample or 1,
        invert=None if o.invert is None else task.prompt(o.invert),
        also=also,
        interpolate=o.interpolate or 0,
        to_seed=o.to_seed,
    )
