"""Prompts to PNG files, against the usual loop.

    python docs/benchmarks/drawing.py runs/toy-1 --prompts data/toy/test.json [--quick]

The usual loop takes one picture at a time and calls diffusers' UNet twice a step, once for the
prompt and once for the empty one; DDIM with 50 steps. Ours draws the same pictures, from the same
noise in the same 50 steps, in batches; and then in fewer steps. Both write PNG files.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import diffusers
import numpy as np
import torch
from PIL import Image
from rounds import arguments, flops, in_turns, keep, machine, published_prediction, table

from tinyldm.commands.convert import betas_of
from tinyldm.compat.native import from_native
from tinyldm.data.images import to_pil
from tinyldm.device import pick_device
from tinyldm.diffusion.ddim import DDIM
from tinyldm.diffusion.dpm_solver import DPMSolver
from tinyldm.diffusion.unipc import UniPC
from tinyldm.sampling.drawing import Painter, draw_requests, encode_prompts, picture_seed
from tinyldm.sampling.settings import Drawing
from tinyldm.training.checkpoint import load_checkpoint, task_of
from tinyldm.training.frozen_models import load_frozen

GUIDANCE = 3.0
INTERVAL = (0.3, 5.0)


class Usual:
    """The usual loop, with the weights of a run."""

    def __init__(self, checkpoint, models, device, steps):
        self.checkpoint, self.models, self.device, self.steps = checkpoint, models, device, steps
        known = dict(from_native(checkpoint.network.config).config)
        self.network = diffusers.UNet2DConditionModel.from_config(known)
        self.network.load_state_dict(checkpoint.network.state_dict())
        self.network.eval().to(device)
        settings = betas_of(checkpoint.schedule)
        self.scheduler = diffusers.DDIMScheduler(
            **settings,
            prediction_type=published_prediction(checkpoint.schedule, checkpoint.prediction),
            timestep_spacing="trailing",
            clip_sample=False,
            set_alpha_to_one=True,
        )

    @torch.no_grad()
    def draw(self, requests, folder):
        """A picture for each request."""
        null = self.checkpoint.null.tokens.to(self.device)
        for k, request in enumerate(requests):
            tokens = encode_prompts(self.models.encoder, [request.prompt]).tokens.to(self.device)
            generator = torch.Generator().manual_seed(picture_seed(0, k))
            shape = self.checkpoint.config["latent_shape"]
            x = torch.randn(1, *shape, generator=generator).to(self.device)
            self.scheduler.set_timesteps(self.steps)
            for t in self.scheduler.timesteps:
                asked = self.network(x, t, encoder_hidden_states=tokens).sample
                empty = self.network(x, t, encoder_hidden_states=null).sample
                x = self.scheduler.step(empty + GUIDANCE * (asked - empty), t, x).prev_sample
            latents = x * self.checkpoint.std.to(x) + self.checkpoint.mean.to(x)
            to_pil(self.models.vae.decode(latents)[0]).save(folder / request.name)


def ways(quick):
    """How ours draws: the same steps as the usual loop, and fewer."""
    steps = 4 if quick else 50
    few = {"guidance": GUIDANCE, "precision": "float32"}
    return {
        f"ours: DDIM, {steps} steps": Drawing(steps, DDIM(), **few),
        "ours: DPM-Solver++, 20 steps": Drawing(20, DPMSolver(2), **few),
        "ours: DPM-Solver++, 20 steps, interval": Drawing(
            20, DPMSolver(2), interval=INTERVAL, **few
        ),
        "ours: UniPC, 8 steps": Drawing(8, UniPC(2), **few),
    }


def differences(requests, one, other):
    """The largest and the mean difference of two folders of pictures, in steps of 255."""
    most, total = 0, []
    for request in requests:
        a, b = (np.asarray(Image.open(folder / request.name), float) for folder in (one, other))
        most = max(most, float(np.abs(a - b).max()))
        total.append(float(np.abs(a - b).mean()))
    return {"largest": most, "mean": sum(total) / len(total)}


def main(argv=None):
    parser = arguments(__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--count", type=int, default=16, help="prompts")
    given = parser.parse_args(argv)
    if given.quick:
        given.count, given.rounds = 2, 1
    device = pick_device()
    checkpoint = load_checkpoint(given.run, device)
    task = task_of(checkpoint.config)
    models = load_frozen(checkpoint.config, device, checkpoint.path)
    requests = task.requests(given.prompts)[: given.count]
    usual = Usual(checkpoint, models, device, 4 if given.quick else 50)

    def ours(how):
        painter = Painter.of(checkpoint, models.vae, task, how, device=device)

        def job():
            with tempfile.TemporaryDirectory() as folder:
                draw_requests(painter, models.encoder, requests, Path(folder))

        return painter, job

    def usual_job():
        with tempfile.TemporaryDirectory() as folder:
            usual.draw(requests, Path(folder))

    chosen = ways(given.quick)
    sides = {"usual": usual_job}
    with tempfile.TemporaryDirectory() as name:
        folders = Path(name, "usual"), Path(name, "ours")
        for folder in folders:
            folder.mkdir()
        usual.draw(requests, folders[0])
        for number, (way, how) in enumerate(chosen.items()):
            painter, sides[way] = ours(how)
            if number == 0:
                draw_requests(painter, models.encoder, requests, folders[1])
        apart = differences(requests, *folders)
    taken = in_turns(dict(reversed(sides.items())), given.rounds)
    result = {
        "machine": machine(),
        "pictures": len(requests),
        "difference": apart,
        "flop": {side: flops(job) / len(requests) for side, job in sides.items()},
        **taken,
    }
    keep("drawing", result, given, write(result))


def write(result):
    """The table of a result."""
    rows, usual = [], "usual"
    for side, count in result["flop"].items():
        ratios = []
        for kind in ("flop", "seconds", "cpu seconds"):
            ratios.append(f"{result[kind][usual] / result[kind][side]:.2f}")
        seconds = result["seconds"][side] / result["pictures"]
        rows.append([side, f"{count / 1e9:.1f}", f"{seconds:.2f}", *ratios])
    head = ["way", "GFLOP a picture", "seconds a picture", "times fewer FLOPs", "times as fast"]
    return table([*head, "in processor time"], rows)


if __name__ == "__main__":
    sys.exit(main())
