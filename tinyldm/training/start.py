"""Which start a run has, and the start from a run on top of which an adapter is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from tinyldm.cli import as_typed, flag_of
from tinyldm.condition import Condition
from tinyldm.data.latents import LatentCache
from tinyldm.errors import InputError
from tinyldm.methods.adapter import Adapter
from tinyldm.methods.controlnet import ControlNet
from tinyldm.methods.lora import LoRA, find_layers
from tinyldm.training.adapters import BaseOf, build_adapter, controllable
from tinyldm.training.checkpoint import (
    Checkpoint,
    Config,
    load_base,
    ordinary,
    settings_of,
)
from tinyldm.training.chosen import ignored
from tinyldm.training.fresh import OF_THE_NETWORK, Start
from tinyldm.training.run import RunFolder
from tinyldm.training.settings import TrainSettings
from tinyldm.training.teacher import Tuning

SHORT: dict[str, Any] = {
    "max_steps": 500,
    "batch_size": 32,
    "optimizer": "adamw",
    "t_sampling": "uniform",
    "loss_weights": "plain",
    "lr": 1e-3,
    "lr_schedule": "cosine",
    "warmup": 20,
    "sample_every": 100,
    "save_every": 500,
}
"""What an adapted run has where no option says otherwise. There is little to learn: it is short."""

ENCODER = "text_encoder_fingerprint"


@dataclass(frozen=True)
class FromRun(Start):
    """A start from a trained run, which stays as it is: an adapter on top of it is trained.

    base:     its checkpoint, with averaged weights
    trained:  its settings
    controls: whether what is trained is a ControlNet
    """

    base: Checkpoint
    trained: TrainSettings
    controls: bool = False

    def given(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The options, with the data and the task of the base where they name none.

        InputError: they do not say what to train, or describe another network than the base's.
        """
        if bool(given.get("lora")) == given.get("controlnet", False):
            raise InputError(
                f"--from {self.base.path}: expected --lora RANK with it, or --controlnet"
            )
        if given.get("lora"):  # before the data is read, which may take long
            asked = given.get("lora_layers", TrainSettings.lora_layers)
            find_layers(self.base.network, asked)
        if given.get("post_hoc_ema"):
            raise InputError(f"--post-hoc-ema: expected no --from {self.base.path} with it")
        for name in OF_THE_NETWORK:
            known = getattr(self.trained, name)
            if given.get(name, known) != known:
                raise InputError(
                    f"{flag_of(name)} {as_typed(given[name])}: "
                    f"{self.base.path}, which is adapted, has {as_typed(known)}"
                )
        own = {} if self.trained.data is None else {"data": self.trained.data}
        if not given.get("controlnet"):
            own["task"] = self.trained.task
        return {**own, **given}

    def settings(self, settings: TrainSettings, given: Mapping[str, Any]) -> TrainSettings:
        """The settings of a short training on top of the base, whose network they describe."""
        trained = self.trained
        values = {**SHORT, "cfg_drop": trained.cfg_drop, "style_drop": trained.style_drop}
        values = {name: value for name, value in values.items() if name not in given}
        for name in OF_THE_NETWORK:
            values[name] = getattr(trained, name)
        return replace(settings, **values)

    @property
    def fingerprints(self) -> dict[str, str]:
        """Those of the base; only the encoder of a ControlNet's task is another."""
        names = ["vae_fingerprint"] if self.controls else ["vae_fingerprint", ENCODER]
        config = self.base.config
        return {name: config[name] for name in names if config.get(name) is not None}

    def prepared(self, cache: LatentCache) -> LatentCache:
        """The cache, normalised as that of the base was; InputError where conditions differ."""
        cache.normalise_by(self.base.mean, self.base.std)
        ours, known = shapes_of(cache.null), shapes_of(self.base.null)
        if self.controls:
            more = ours.pop("maps", (1, 0))[1] - known.pop("maps", (1, 0))[1]
            if more < 1:
                raise InputError(
                    f"--controlnet: the data has no maps that {self.base.path} has not been "
                    "trained on; expected another --task"
                )
        if ours != known:
            raise InputError(
                f"{self.base.path}: was trained on conditions of {known}, the data has {ours}"
            )
        return cache

    def network(
        self, settings: TrainSettings, cache: LatentCache, saved: Config | None
    ) -> tuple[nn.Module, dict[str, Any]]:
        s, below = settings, self.base.network
        torch.manual_seed(s.seed)
        adapter: Adapter
        if saved is not None:
            adapter = build_adapter(below, saved["network"], saved.file)
        elif s.controlnet:
            unet, maps = controllable(below, self.base.path), cache.null.maps
            assert maps is not None  # prepared() has made sure
            adapter = ControlNet.new(unet, maps.shape[1] - unet.config.map_channels)
        else:
            adapter = LoRA(below, s.lora, s.lora_alpha, find_layers(below, s.lora_layers))
        recipe = {"base": self.base.config["network"], **adapter.spec()}
        return adapter, {"network": recipe, "base": vars(BaseOf.of(self.base.path))}


def start_of(run: RunFolder, given: Mapping[str, Any]) -> Start:
    """What a run starts from, as the options or the checkpoint of the run to resume say.

    InputError: options that do not go together, or that would be ignored.
    """
    if given.get("consistency") is not None:
        if run.start is not None:
            raise InputError(f"--from {run.start}: expected no --consistency with it")
        for name in ("lora", "lora_alpha", "lora_layers", "controlnet"):
            if name in given and run.saved is None:
                raise InputError(f"{flag_of(name)}: expected no --consistency with it")
        return Tuning(ordinary(given["consistency"]))
    if run.saved is not None:
        if run.start is not None:
            raise InputError(f"--from {run.start}: expected no --resume with it")
        if "base" not in run.saved:
            return Start()
        base = load_base(run.saved.file.parent, run.saved)
        return FromRun(base, settings_of(base.config), bool(given["controlnet"]))
    lora, controls = given.get("lora", 0), given.get("controlnet", False)
    for name in ("lora_alpha", "lora_layers"):
        if name in given and not lora:
            ignored(given, name, "--lora RANK with it")
    if run.start is None:
        if lora or controls:
            raise InputError(
                f"{f'--lora {lora}' if lora else '--controlnet'}: expected --from RUN with it"
            )
        return Start()
    base = ordinary(run.start)
    return FromRun(base, settings_of(base.config), controls)


def shapes_of(null: Condition) -> dict[str, tuple[int, ...]]:
    """The shapes of the parts of a condition, but for the number of tokens, which may vary."""
    shapes = {name: tuple(part.shape) for name, part in null.parts().items()}
    if null.tokens is not None:
        shapes["tokens"] = (1, null.tokens.shape[2])
    shapes.pop("mask", None)
    return shapes
