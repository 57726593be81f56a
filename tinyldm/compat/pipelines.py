"""Short pipelines: DDPMPipeline and DDIMPipeline, and what a script's own pipeline is made of."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from tinyldm import compat
from tinyldm.compat.config import HUB, NamedOutput, find
from tinyldm.compat.pictures import numpy_to_pil
from tinyldm.compat.schedulers.base import noise_like
from tinyldm.compat.schedulers.scheduling_ddim import DDIMScheduler
from tinyldm.errors import InputError
from tinyldm.typed import read_json

INDEX = "model_index.json"


@dataclass(frozen=True, eq=False)
class ImagePipelineOutput(NamedOutput):
    """What a pipeline returns: a list of pictures, an array or a tensor."""

    images: Any


class DiffusionPipeline:
    """Modules by name, in a folder with a folder for each of them and an index.

    A script's own pipeline is a subclass that calls register_modules in its constructor, whose
    arguments are the names of these modules.
    """

    config_name = INDEX
    _names: tuple[str, ...] = ()  # of the registered modules
    _bar: Mapping[str, Any] = MappingProxyType({})  # options of progress bars

    def register_modules(self, **modules: Any) -> None:
        """Make modules attributes, and parts of what is saved and moved."""
        self._names = (*self._names, *modules)
        vars(self).update(modules)

    @property
    def components(self) -> dict[str, Any]:
        """The registered modules by name."""
        return {name: getattr(self, name) for name in self._names}

    @property
    def device(self) -> torch.device:
        """Where the first module with weights is."""
        for module in self.components.values():
            if isinstance(module, nn.Module):
                return next(module.parameters()).device
        return torch.device("cpu")

    def to(self, *args: Any, **options: Any):
        """Move or cast every module that has weights, as torch's own to; returns the pipeline."""
        for module in self.components.values():
            if isinstance(module, nn.Module):
                module.to(*args, **options)
        return self

    def set_progress_bar_config(self, **options: Any) -> None:
        """Options of tqdm, such as disable=True."""
        self._bar = options

    def progress_bar(self, iterable: Iterable | None = None, total: int | None = None) -> tqdm:
        """A progress bar over an iterable, or one to update by hand."""
        return tqdm(iterable, total=total, **self._bar)

    @staticmethod
    def numpy_to_pil(images) -> list:
        """Arrays (b, h, w, c) in [0, 1] as pictures."""
        return numpy_to_pil(images)

    def save_pretrained(
        self,
        save_directory: str | Path,
        safe_serialization: bool = True,
        variant: str | None = None,
        push_to_hub: bool = False,
    ) -> None:
        """Write each module into a folder of its name, and the index."""
        if push_to_hub:
            raise ValueError(f"{type(self).__name__}: not supported: push_to_hub=True")
        index: dict[str, Any] = {"_class_name": type(self).__name__}
        for name, module in self.components.items():
            options: dict[str, Any] = {}
            if isinstance(module, nn.Module):
                options = {"safe_serialization": safe_serialization, "variant": variant}
            module.save_pretrained(Path(save_directory, name), **options)
            index[name] = ["diffusers", type(module).__name__]
        text = json.dumps(index, indent=2, sort_keys=True)
        Path(save_directory, INDEX).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any):
        """The pipeline in a folder or under a name of the hub.

        options are the hub's, torch_dtype, variant, or modules to take instead of those there.
        """
        hub = {name: options.pop(name) for name in HUB if name in options}
        of_models = {k: options.pop(k) for k in ("torch_dtype", "variant") if k in options}
        file = find(pretrained_model_name_or_path, None, INDEX, hub)
        index = read_json(file, dict[str, Any])
        modules = {}
        for name, entry in index.items():
            if name.startswith("_"):
                continue
            if name in options:
                modules[name] = options.pop(name)
                continue
            kind = _class_of(file, name, entry[-1] if isinstance(entry, list) and entry else entry)
            more = of_models if issubclass(kind, nn.Module) else {}
            modules[name] = kind.from_pretrained(
                pretrained_model_name_or_path, subfolder=name, **hub, **more
            )
        if options:
            raise TypeError(f"{cls.__name__}: argument {min(options)!r} is not supported")
        made_by = cls
        if cls is DiffusionPipeline:
            made_by = _class_of(file, "_class_name", index.get("_class_name"))
        return made_by(**modules)


def _class_of(file: Path, name: str, kind: Any) -> Any:
    """The class of compat that an entry of an index names."""
    if kind not in compat.__all__:
        raise InputError(f"{file}: {name} is {kind!r}, expected a class of tinyldm.compat")
    return getattr(compat, kind)


class ImagePipeline(DiffusionPipeline):
    """What the two pipelines below share: a loop over timesteps, and pictures of its end."""

    unet: Any
    scheduler: Any

    def _run(self, batch_size: int, generator: Any, n: int, **how: Any) -> Tensor:
        """The images in [-1, 1] that n steps make of noise; how: options of the steps."""
        config = self.unet.config
        size = config.sample_size
        sides = (size, size) if isinstance(size, int) else tuple(size)
        empty = torch.empty(
            (batch_size, config.in_channels, *sides), device=self.device, dtype=self.unet.dtype
        )
        image = noise_like(empty, generator)
        self.scheduler.set_timesteps(n)
        for t in self.progress_bar(self.scheduler.timesteps):
            prediction = self.unet(image, t).sample
            image = self.scheduler.step(
                prediction, t, image, generator=generator, **how
            ).prev_sample
        return image

    def _output(self, image: Tensor, output_type: str | None, return_dict: bool):
        images: Any = (image / 2 + 0.5).clamp(0, 1)
        if output_type != "pt":
            images = images.cpu().permute(0, 2, 3, 1).numpy()
        if output_type == "pil":
            images = numpy_to_pil(images)
        return ImagePipelineOutput(images) if return_dict else (images,)


class DDPMPipeline(ImagePipeline):
    """Pictures from noise, by a network without conditions and a scheduler."""

    def __init__(self, unet: Any, scheduler: Any):
        self.register_modules(unet=unet, scheduler=scheduler)

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        num_inference_steps: int = 1000,
        output_type: str | None = "pil",
        return_dict: bool = True,
    ):
        """.images: pictures ("pil"), an array (b, h, w, c) ("np") or a tensor (b, c, h, w) ("pt").

        Arrays and tensors are in [0, 1].
        """
        image = self._run(batch_size, generator, num_inference_steps)
        return self._output(image, output_type, return_dict)


class DDIMPipeline(ImagePipeline):
    """The same by DDIM, whatever the scheduler was."""

    def __init__(self, unet: Any, scheduler: Any):
        scheduler = DDIMScheduler.from_config(scheduler.config)
        self.register_modules(unet=unet, scheduler=scheduler)

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        eta: float = 0.0,
        num_inference_steps: int = 50,
        use_clipped_model_output: bool | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
    ):
        """.images, as of DDPMPipeline; eta and use_clipped_model_output are DDIMScheduler's."""
        how = {"eta": eta, "use_clipped_model_output": bool(use_clipped_model_output)}
        image = self._run(batch_size, generator, num_inference_steps, **how)
        return self._output(image, output_type, return_dict)
