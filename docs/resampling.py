"""Whether resampling helps to fill in a part of a picture: the table of editing.md.

    python docs/resampling.py runs/toy-1

Toy monsters of the test captions, which no run has seen, lose their lower half, and the run draws
it again, given the whole caption. The seam is the mean difference of the two rows of pixels on
either side of the border, 0 to 255; in the true pictures it is what a picture has there anyway.
Attributes are those of the caption that the classifier finds in the whole.
"""

import sys
from random import Random

import torch

from tinyldm.data.images import from_bytes, to_bytes
from tinyldm.device import pick_device
from tinyldm.diffusion.ddpm import DDPM
from tinyldm.diffusion.dpm_solver import DPMSolver
from tinyldm.diffusion.guidance import Guidance
from tinyldm.methods.editing import Inpainting, resample
from tinyldm.sampling.drawing import encode_prompts
from tinyldm.scores import attributes
from tinyldm.toy.monsters import ACTIONS, ATTRIBUTES, describe, draw, monsters
from tinyldm.training.checkpoint import load_checkpoint
from tinyldm.training.frozen_models import load_frozen

PICTURES = 24
WAYS = {  # solver, steps, times: the last two of each solver cost the same
    "DPM-Solver++, 10 steps": (DPMSolver(), 10, 1),
    "DPM-Solver++, 46 steps": (DPMSolver(), 46, 1),
    "DPM-Solver++, 10 steps, each 5 times": (DPMSolver(), 10, 5),
    "DDPM, 46 steps": (DDPM(), 46, 1),
    "DDPM, 10 steps, each 5 times": (DDPM(), 10, 5),
}


def shown() -> tuple[torch.Tensor, list[str], dict[str, list[int]]]:
    """Pictures (n, 3, 64, 64) in [-1, 1], their captions, and the attributes of each."""
    _, unknown = monsters()
    pictures, captions, truth = [], [], {name: [] for name in ATTRIBUTES}
    for k, monster in enumerate(unknown[:PICTURES]):
        action = list(ACTIONS)[k % len(ACTIONS)]
        pictures.append(from_bytes(to_bytes(draw(monster, action, Random(f"unseen {k}")))))
        captions.append(f"{describe(monster, Random(f'unseen {k}'))} {ACTIONS[action]}".strip())
        for name, value in {**vars(monster), "action": action}.items():
            truth[name].append(ATTRIBUTES[name].index(value))
    return torch.stack(pictures), captions, truth


def seam(pictures: torch.Tensor) -> float:
    """The mean difference across the border, in grey levels."""
    row = pictures.shape[2] // 2
    return 127.5 * (pictures[:, :, row] - pictures[:, :, row - 1]).abs().mean().item()


@torch.inference_mode()
def main(run: str) -> None:
    device = pick_device("auto")
    checkpoint = load_checkpoint(run, device)
    models = load_frozen(checkpoint.config, device, run)
    truth, captions, wanted = shown()
    mean, std = checkpoint.mean, checkpoint.std
    x0 = (models.vae.encode(truth).mean - mean) / std
    drawn = torch.zeros(1, 1, *x0.shape[2:], dtype=torch.bool)
    drawn[:, :, x0.shape[2] // 2 :] = True
    condition = encode_prompts(models.encoder, captions)
    judge = attributes.load_classifier()

    def told(name: str, pictures: torch.Tensor, calls: int = 0) -> None:
        shares = attributes.accuracy(judge.read(pictures), wanted)
        found = " | ".join(f"{share:.2f}" for share in shares.values())
        print(f"| {name} | {calls or ''} | {seam(pictures):.1f} | {found} |", flush=True)

    print(f"| way | calls | seam | {' | '.join(ATTRIBUTES)} |")
    print(f"| --- | --- | --- |{' --- |' * len(ATTRIBUTES)}")
    told("the true pictures, through the VAE", models.vae.decode(x0 * std + mean))
    for name, (solver, steps, times) in WAYS.items():
        filled = resample(
            checkpoint.network,
            x0.shape,
            checkpoint.schedule,
            solver,
            spacing=checkpoint.schedule.grid(steps),
            times=times,
            jump=1 if times > 1 else steps,
            condition=condition,
            guidance=Guidance(3.0, checkpoint.null),
            prediction=checkpoint.prediction,
            seeds=range(PICTURES),
            clip=Inpainting(x0, drawn),
        )
        told(name, models.vae.decode(filled * std + mean).clamp(-1, 1), (steps - 1) * times + 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
