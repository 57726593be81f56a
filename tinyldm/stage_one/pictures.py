"""The pictures of stage one: read from a folder, a part of them held out, and augmented."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tinyldm.data.examples import Example, Examples, Layout, held_out_subjects
from tinyldm.errors import InputError
from tinyldm.scores.files import read_pixels, samples_below
from tinyldm.tasks.base import read_examples, tasks

MOST_HELD_OUT = 256  # more would make each measurement slow and hardly more exact


def read_pictures(folder: Path, size: tuple[int, int], skip_bad: bool) -> tuple[Tensor, Tensor]:
    """The pictures to train on and those to measure by, uint8 (n, h, w, 3) each, squashed to size.

    One image in ten is held out; those of one scene or of one monster stay together.
    skip_bad: leave out images that are missing or broken, and print how many; else InputError.
    """
    examples = find_examples(folder, skip_bad)
    names = [example.name for example in examples]
    held = torch.tensor(held_out_subjects(names, examples.layout.subject), dtype=torch.bool)  # (n,)
    if not held.any() or held.all():
        raise InputError(f"--data {folder}: {len(examples)} images, too few to hold some out")
    pixels = read_pixels([example.image for example in examples], size)  # (n, 3, h, w)
    pixels = pixels.permute(0, 2, 3, 1)
    every = max(1, int(held.sum()) // MOST_HELD_OUT)
    return pixels[~held], pixels[held][::every][:MOST_HELD_OUT]


def find_examples(folder: Path, skip_bad: bool) -> Examples:
    """The training images of an assignment's folder, or all images in any other folder."""
    layouts = [layout for task in tasks() for layout in task.layouts]
    known = any(not layout.asked and layout.detect(folder) for layout in layouts)
    if known or not folder.is_dir():
        _, examples = read_examples(folder, skip_bad=skip_bad)  # which says what is wrong
    else:
        examples = Examples(tuple(_read_all(folder, "", [])), ANY_IMAGES, folder)
    if skip_bad:
        examples = examples.checked()
    if not examples:
        raise InputError(f"--data {folder}: no images in it")
    return examples


def _read_all(folder: Path, split: str, problems: list[str]) -> list[Example]:
    """Every image in a folder and in its subfolders, without prompts: the read of a Layout."""
    return [Example(file, ()) for file in samples_below(folder)]


ANY_IMAGES = Layout("images", "any images", detect=Path.is_dir, read=_read_all)


def augmented(batch: Tensor, generator: torch.Generator) -> Tensor:
    """A batch (b, 3, h, w) in [-1, 1], changed at random.

    The whole batch may be mirrored and, if square, turned; of half of its images the colour
    channels are permuted, and half are dimmed and relit.
    """
    b = len(batch)
    mirror, turn = torch.rand(2, generator=generator).tolist()
    if mirror < 0.5:
        batch = batch.flip(3)
    if batch.shape[2] == batch.shape[3]:
        batch = batch.rot90(int(turn * 4), (2, 3))

    shuffled = torch.rand(b, 3, generator=generator).argsort(dim=1)
    as_it_is = torch.arange(3).expand(b, 3)
    chosen = torch.rand(b, 1, generator=generator) < 0.5
    channels = torch.where(chosen, shuffled, as_it_is)  # (b, 3)
    batch = batch.gather(1, channels[:, :, None, None].expand_as(batch))

    contrast, light, chance = torch.rand(3, b, 1, 1, 1, generator=generator)
    relit = batch * (0.7 + 0.4 * contrast) + 0.5 * (light - 0.5)
    return torch.where(chance < 0.5, relit, batch).clamp(-1, 1)
