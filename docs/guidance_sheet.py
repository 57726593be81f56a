"""One prompt from one noise at several scales of guidance, of autoguidance, and of both.

python docs/guidance_sheet.py RUN GUIDE OUT.png
"""

import argparse
from pathlib import Path

import torch

from tinyldm.data.images import grid
from tinyldm.sampling.drawing import Painter, encode_prompts, picture_seed
from tinyldm.sampling.guide import load_guide
from tinyldm.sampling.settings import Drawing
from tinyldm.training.checkpoint import load_checkpoint, task_of
from tinyldm.training.frozen_models import load_frozen

PROMPT = "Pixel art of a red star-shaped monster with ivory horns and one eye."
CPU = torch.device("cpu")
GUIDANCE = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
AUTOGUIDANCE = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0)


def drawings(guide: Path, steps: int) -> list[tuple[str, Drawing]]:
    """How each picture is drawn, with the words above it: three rows of six."""
    found = []
    for scale in GUIDANCE:
        found.append((f"guidance {scale:g}", Drawing(steps=steps, guidance=scale)))
    for guidance in (1.0, 3.0):
        for scale in AUTOGUIDANCE:
            how = Drawing(steps=steps, guidance=guidance, guide=guide, guide_scale=scale)
            found.append((f"g {guidance:g}, guide {scale:g}", how))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="a run or a checkpoint")
    parser.add_argument("guide", type=Path, help="a weaker one")
    parser.add_argument("out", type=Path, help="the picture to write")
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    checkpoint = load_checkpoint(options.run)
    task = task_of(checkpoint.config)
    models = load_frozen(checkpoint.config, CPU, checkpoint.path)
    condition = encode_prompts(models.encoder, [task.prompt(options.prompt)])
    pictures, words = [], []
    for told, how in drawings(options.guide, options.steps):
        guide = load_guide(checkpoint, how, CPU)
        painter = Painter.of(checkpoint, models.vae, task, how, device=CPU, guide=guide)
        (picture,) = painter.draw(condition, [picture_seed(options.seed, 0)])
        pictures.append(picture.resize((128, 128), 0))
        words.append(told)
    grid(pictures, columns=len(GUIDANCE), words=words).save(options.out)


if __name__ == "__main__":
    main()
