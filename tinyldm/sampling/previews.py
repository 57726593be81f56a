"""Previews: what a network in training draws for the same prompts from the same noise."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from torch import nn

from tinyldm.condition import Condition
from tinyldm.data.examples import Prompt
from tinyldm.data.images import grid, save_image
from tinyldm.data.latents import LatentCache
from tinyldm.diffusion.schedule import NoiseSchedule
from tinyldm.errors import InputError, say
from tinyldm.processes import Processes
from tinyldm.sampling.drawing import Painter, encode_prompts, picture_seed
from tinyldm.sampling.settings import CONSISTENCY_STEPS, Drawing, make_solver
from tinyldm.tasks.base import Task
from tinyldm.training.frozen_models import FrozenModels
from tinyldm.training.settings import TrainSettings

STEPS = 20


class Previews:
    """Draws the preview prompts of a run with a network, as a grid in a file.

    InputError for a prompt that cannot be encoded. They are encoded for the first preview, which
    with a warm cache is when the encoder is loaded.
    """

    def __init__(
        self,
        settings: TrainSettings,
        task: Task,
        cache: LatentCache,
        models: FrozenModels,
        *,
        prompts: Sequence[Prompt],
        processes: Processes,
    ):
        s = settings
        how = Drawing(
            steps=STEPS if s.consistency is None else CONSISTENCY_STEPS,
            solver=make_solver("dpm++" if s.consistency is None else "consistency"),
            guidance=s.preview_guidance if s.cfg_drop else 1.0,
            precision=s.precision,
        )
        schedule = NoiseSchedule(s.schedule, zero_snr=s.zero_snr, shift=s.shift)
        self.painter = Painter(
            network=nn.Identity(),  # draw() puts the network in its place
            schedule=schedule,
            prediction=s.prediction,
            latent_shape=cache.shape,
            mean=cache.mean,
            std=cache.std,
            vae=models.vae,
            how=how,
            guidance=task.guidance(how, cache.null, schedule),
            device=processes.device,
        )
        self.encoder = models.encoder
        self.prompts = prompts
        self.encoder.check(prompts)
        self.seeds = [picture_seed(s.seed, k) for k in range(len(prompts))]

    @cached_property
    def condition(self) -> Condition:
        """That of the prompts, a row of each."""
        return encode_prompts(self.encoder, self.prompts)

    def draw(self, network: nn.Module, file: Path) -> None:
        """Draw the prompts with a network, as a grid in a file.

        Pictures that are not finite are a line on stderr and no file: the training goes on.
        """
        painter = replace(self.painter, network=network)
        try:
            images = painter.draw(self.condition, self.seeds)
        except InputError as error:
            say(f"{file}: not drawn: {error}", sys.stderr)
            return
        file.parent.mkdir(exist_ok=True)
        save_image(grid(images), file)
