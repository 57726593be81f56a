"""What a model is judged by before the test: prompts, and the real images of those that its training left out."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from tinyldm.data.examples import Examples, Prompt
from tinyldm.data.images import load_image
from tinyldm.files import read_json
from tinyldm.tasks.table import read_prompts

PROMPTS, IMAGES, TOYS = "prompts.json", "held_out", "attributes.json"


@dataclass(frozen=True)
class Split:
    """Prompts; the image of each, or none at all; and, of toy monsters, the content of their attributes.json."""

    prompts: list[Prompt]
    images: list[Path]
    toys: dict

    @classmethod
    def of_file(cls, file: Path, count: int | None) -> Split:
        """So many prompts of a file, spread over it."""
        toys = read_json(file.with_name(TOYS), dict) if file.with_name(TOYS).is_file() else {}
        prompts = read_prompts(file)
        return cls(prompts[:: max(1, len(prompts) // (count or len(prompts)))][:count], [], toys)

    @classmethod
    def of_held(cls, examples: Examples, folder: Path, count: int | None) -> Split:
        """So many of the examples of a data folder that were held out, each by its first caption."""
        held, toys = (
            examples.held[:: max(1, len(examples.held) // (count or len(examples.held)))][:count],
            {},
        )
        info = read_json(folder / "train_info.json", dict) if (folder / TOYS).is_file() else {}
        for k, (key, *_) in enumerate(e.image.stem.rpartition("_") for e in held if info):
            *words, eyes = info[key]["original_name"].split()  # red round horns 2
            values = (*words, int(eyes), key.partition("_")[2])
            toys[f"{k:05d}"] = dict(zip(("colour", "shape", "feature", "eyes", "action"), values))
        return cls(
            [Prompt(f"{k:05d}.png", e.captions[0]) for k, e in enumerate(held)],
            [e.image for e in held],
            toys,
        )

    def write(self, folder: Path) -> None:
        """All of it as files: prompts.json, attributes.json, held_out/NAME of each prompt."""
        shutil.rmtree(folder / IMAGES, ignore_errors=True)
        (folder / (IMAGES if self.images else ".")).mkdir(parents=True, exist_ok=True)
        for prompt, image in zip(
            tqdm(self.prompts, "images held out", disable=not self.images, delay=2), self.images
        ):
            load_image(image).save(folder / IMAGES / prompt.name)
        entries = {
            prompt.name: {"image_name": prompt.name, "text_prompt": prompt.text}
            for prompt in self.prompts
        }
        (folder / TOYS).unlink(missing_ok=True)
        for name, content in {PROMPTS: entries, **({TOYS: self.toys} if self.toys else {})}.items():
            (folder / name).write_text(
                json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8"
            )
