"""A trained model in one call: load() and train() return a Model, which draws pictures of prompts.

    model = tinyldm.load("runs/toy-1")
    pictures = model("a green ghost with horns", steps=20, guidance=3, seed=1)

It draws the pictures of sample.py, to the bit: picture k of a list depends on the model, the
prompt, the seed and k.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from tqdm.auto import tqdm

from tinyldm.autoencoder.kl import AutoencoderKL
from tinyldm.autoencoder.pixels import Pixels
from tinyldm.autoencoder.published import HUB_NAME
from tinyldm.cli import Parser, add_options, real
from tinyldm.compat.trained import OWN, Elsewhere, of_pipeline, read_trained, unet_folder
from tinyldm.condition import Condition
from tinyldm.data.examples import Prompt
from tinyldm.data.images import as_rgb, from_bytes, grid, load_image, readable, resize, to_bytes
from tinyldm.device import pick_device
from tinyldm.diffusion.schedule import NoiseSchedule
from tinyldm.errors import InputError
from tinyldm.frozen.hub import Role, local_or_hub
from tinyldm.installation import called, story
from tinyldm.keywords import parse_keywords
from tinyldm.sampling.drawing import Painter, encode_prompts, picture_seed, progress
from tinyldm.sampling.edit_options import DEFAULT_STRENGTH, EditOptions
from tinyldm.sampling.editing import Editing, mask_at
from tinyldm.sampling.following import followed
from tinyldm.sampling.guide import load_guide
from tinyldm.sampling.job import with_grid
from tinyldm.sampling.settings import SampleOptions
from tinyldm.tasks.base import Encoder, Task
from tinyldm.training.averages import load_averaged
from tinyldm.training.checkpoint import (
    Checkpoint,
    Config,
    checkpoints,
    find_checkpoint,
    load_checkpoint,
    read_config,
    task_of,
)
from tinyldm.training.frozen_models import load_frozen
from tinyldm.training.options import train_parser

ROLE = Role("model", "tinyldm.load", ships=False)
FILES = ("*.json", "*.txt", "*.model", "*.safetensors")  # what is fetched of a model on the hub
STRENGTH = real(0, 1)
NOT_OF_A_CALL = {"run", "prompt", "prompts", "strip", "data", "out", "overwrite", "device"}
"""Options of sample.py that a call has no use for: it is given prompts, and writes nothing."""
OF_A_CALL = {f.name for f in fields(SampleOptions)} - NOT_OF_A_CALL
OF_A_CALL -= {f.name for f in fields(EditOptions)}  # a call takes pictures, not their files


class Pictures(list[Image.Image]):
    """A list of PIL images, which a notebook shows on one sheet."""

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows, by IPython's protocol; nothing of an empty list."""
        if not self:
            return None
        file = io.BytesIO()
        grid(list(self), columns=8 if len(self) > 16 else None).save(file, "PNG")
        return file.getvalue()


@dataclass(frozen=True, eq=False)
class Step:
    """Where a drawing is after a step of the solver.

    index: of the step, from 0; the last is count - 1
    x:     x_s (b, c, h, w), which the next step begins with; after the last one, the latents
    x0:    the estimate of x0 (b, c, h, w) that the step went towards
    """

    index: int
    count: int
    x: Tensor
    x0: Tensor
    painter: Painter

    def __repr__(self) -> str:
        return f"Step(index={self.index}, count={self.count}, x and x0: {tuple(self.x.shape)})"

    @property
    def pictures(self) -> Pictures:
        """The estimate of x0, decoded."""
        return Pictures(self.painter.decode(self.x0))

    @property
    def noisy(self) -> Pictures:
        """x_s, decoded."""
        return Pictures(self.painter.decode(self.x))

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows: x_s above, the estimate of x0 below."""
        sheet = io.BytesIO()
        both = [*self.noisy, *self.pictures]
        grid(both, columns=len(both) // 2).save(sheet, "PNG")
        return sheet.getvalue()


@dataclass(frozen=True, eq=False)
class Model:
    """A trained model: call it with prompts to get pictures.

    checkpoint:   the network and what belongs to it: its schedule, the statistics of its latents
    vae:          the autoencoder, images (b, 3, h, w) in [-1, 1] <-> latents; or Pixels
    text_encoder: prompts -> Condition: text_encoder.encode(["a green ghost"])
    task:         what its prompts are: captions, sets of labels, maps with a style
    """

    checkpoint: Checkpoint
    vae: AutoencoderKL | Pixels
    text_encoder: Encoder
    task: Task
    device: torch.device

    def __repr__(self) -> str:
        return f"Model({self.facts})"

    @property
    def facts(self) -> str:
        """One line on it: where it lies, its size, its schedule, what it predicts."""
        (height, width), step = self.size, self.checkpoint.config.get("step")
        after = f" after {step:,} steps" if step else ""
        return (
            f"{self.checkpoint.path}{after}: {width}x{height} pixels, "
            f"{self.schedule.kind} schedule, predicts {self.checkpoint.prediction}"
        )

    @property
    def network(self) -> nn.Module:
        """(x_t, t, condition) -> prediction, with averaged weights, in eval mode."""
        return self.checkpoint.network

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise schedule that the network was trained with."""
        return self.checkpoint.schedule

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of its pictures."""
        height, width = self.checkpoint.config["size"]
        return height, width

    def __call__(
        self,
        prompts: Prompt | Sequence[Prompt] = "",
        *,
        steps: int | None = None,
        guidance: float | None = None,
        seed: int = 0,
        solver: str | None = None,
        init: Any = None,
        strength: float | None = None,
        mask: Any = None,
        **more: Any,
    ) -> Pictures:
        """Draw a picture for each prompt; the same as sample.py draws of the same list.

        prompts:  one or several, as text: a caption; "red cube, blue sphere"; a map's file
        steps:    of the solver, 25 if not given; each calls the network once
        guidance: the scale of guidance, 1 for none; 3 if not given, 1 for a model without guidance
        seed:     picture k depends on it and on k
        solver:   dpm++, the default, sde-dpm++, dpm, unipc, heun, ddim or ddpm
        init:     a picture to draw on, a PIL image or the path of one; it is squashed to `size`
        strength: 0 to 1, how far init is drawn anew; 0.75 if not given, with a mask 1
        mask:     an image as large as init: white is drawn anew, the rest of init stays
        more:     the other options of sample.py by their names: order, eta, spacing, batch_size,
                  precision, guidance_interval, guidance_rescale, guide, ema_length, ...
        InputError: a prompt or an option that does not do; TypeError: there is no such option.
        """
        options = call_options(steps=steps, guidance=guidance, seed=seed, solver=solver, **more)
        painter = self._painter(options, init, strength, mask)
        condition, seeds = self._asked(prompts, options.seed)
        count, drawn = painter.steps, Pictures()
        with tqdm(desc="sampling", unit="image", total=len(seeds)) as bar:
            for start in range(0, len(seeds), options.batch_size):
                batch = seeds[start : start + options.batch_size]
                rows = condition[start : start + options.batch_size]
                drawn += painter.draw(rows, batch, progress(bar, start, len(batch), count))
        return drawn

    def stream(
        self,
        prompts: Prompt | Sequence[Prompt] = "",
        *,
        steps: int | None = None,
        guidance: float | None = None,
        seed: int = 0,
        solver: str | None = None,
        init: Any = None,
        strength: float | None = None,
        mask: Any = None,
        **more: Any,
    ) -> Iterator[Step]:
        """The steps of the drawing that a call with the same arguments makes, one by one.

        All prompts are drawn as one batch. Each step is computed when it is asked for.
        """
        options = call_options(steps=steps, guidance=guidance, seed=seed, solver=solver, **more)
        painter = self._painter(options, init, strength, mask)
        condition, seeds = self._asked(prompts, options.seed)
        count = painter.steps
        calls = followed(lambda callback: painter.draw(condition, seeds, callback))
        return (Step(index, count, x=x, x0=x0, painter=painter) for index, x, x0 in calls)

    def encode(self, pictures: Any) -> Tensor:
        """The latents of pictures, as the network sees them: x0, of about unit size.

        pictures: a PIL image, the path of an image file, or a tensor (3, h, w) in [-1, 1]: x0 is
                  (c, h, w); or a list of these, or a tensor (b, 3, h, w): x0 is (b, c, h, w).
                  Images are squashed to the size of the model; tensors have it already.
        Of the autoencoder's posterior, x0 is the mean, so equal pictures have equal latents.
        """
        single = isinstance(pictures, (Image.Image, str, Path))
        single = single or (isinstance(pictures, Tensor) and pictures.ndim == 3)
        images = torch.stack([self._pixels(each) for each in ([pictures] if single else pictures)])
        with torch.no_grad():
            latents = self.vae.encode(images.to(self.device)).mean
        x0 = (latents - self.checkpoint.mean.to(latents)) / self.checkpoint.std.to(latents)
        return x0[0] if single else x0

    def decode(self, latents: Tensor) -> Any:
        """The inverse of encode: a PIL image of x0 (c, h, w), a list of them of (b, c, h, w)."""
        painter = self._painter(SampleOptions(guidance=1.0))
        x0 = latents.reshape(-1, *latents.shape[-3:]).to(self.device)
        pictures = Pictures(painter.decode(x0))
        return pictures[0] if latents.ndim == 3 else pictures

    def _pixels(self, picture: Any) -> Tensor:
        """One picture as a tensor (3, h, w) in [-1, 1]."""
        if isinstance(picture, Tensor):
            return picture.float()
        return from_bytes(to_bytes(resize(as_image(picture), self.size)))

    def _painter(
        self, options: SampleOptions, init: Any = None, strength: Any = None, mask: Any = None
    ) -> Painter:
        """What draws in the way that the options ask for, from noise or on a picture."""
        how = options.drawing(self.task, self.checkpoint.config["settings"])
        checkpoint = self.checkpoint
        if how.ema_length is not None:
            checkpoint = load_averaged(checkpoint.path, self.device, how.ema_length)
        how = with_grid(checkpoint, how)
        guide = load_guide(checkpoint, how, self.device)
        painter = Painter.of(checkpoint, self.vae, self.task, how, device=self.device, guide=guide)
        editing = self._editing(init, strength, mask)
        return replace(painter, canvas=editing.canvas(painter, self.vae))

    def _editing(self, init: Any, strength: float | None, mask: Any) -> Editing:
        """What is drawn on, and how far."""
        if init is None:
            if strength is not None or mask is not None:
                raise InputError("strength, mask: need init, the picture to draw on")
            return Editing()
        if strength is None:
            strength = DEFAULT_STRENGTH if mask is None else 1.0
        if strength not in STRENGTH:
            raise InputError(f"strength {strength}: expected {STRENGTH}")
        picture = as_image(init)
        if mask is not None:
            mask = mask_at(as_image(mask), picture, self.size)
        return Editing(resize(picture, self.size), mask, float(strength))

    def _asked(self, prompts: Prompt | Sequence[Prompt], seed: int) -> tuple[Condition, list[int]]:
        """The condition and the seed of each picture."""
        several: Sequence[Prompt]
        several = prompts if isinstance(prompts, (list, tuple)) else [prompts]
        typed = [self.task.prompt(each) if isinstance(each, str) else each for each in several]
        if not typed:
            raise InputError("no prompts: expected one at least")
        self.text_encoder.check(typed)
        condition = encode_prompts(self.text_encoder, typed)
        return condition, [picture_seed(seed, k) for k in range(len(typed))]


def call_options(**given: Any) -> SampleOptions:
    """Options of a call, checked as sample.py checks them on a command line."""
    parser = Parser(prog=called("sample.py"))
    parser.keep_only_given()
    add_options(parser, SampleOptions, OF_A_CALL)
    return SampleOptions(**vars(parse_keywords(parser, given)))


def as_image(picture: Any) -> Image.Image:
    """A PIL image, or that of an image file, as RGB; what is transparent is white."""
    if not isinstance(picture, Image.Image):
        return load_image(picture)
    with readable("picture"):
        return as_rgb(picture)


def load(source: str | Path, device: str = "auto") -> Model:
    """A trained model: a run, a checkpoint, a folder of diffusers', or either under a hub name.

    source: runs/toy-1, runs/toy-1/checkpoints/step-0000520, user/model, ... A folder of diffusers'
            is one that `convert` has written, or a pipeline with unet/, scheduler/, vae/,
            text_encoder/ and tokenizer/.
    device: auto, cpu, cuda, cuda:1 or mps
    InputError, in one line: there is no such model, or something of it is missing or damaged.
    """
    chosen = pick_device(device)
    folder = Path(source)
    if not folder.exists() and is_hub_name(str(source)):
        folder = local_or_hub(fetched, str(source), ROLE)
    checkpoint = load_any(folder, chosen)
    models = load_frozen(checkpoint.config, chosen, checkpoint.path).all_loaded()
    return Model(
        checkpoint,
        vae=models.vae,
        text_encoder=models.encoder,
        task=task_of(checkpoint.config),
        device=chosen,
    )


def check_source(source: str | Path) -> None:
    """InputError for what cannot be a model, without loading or fetching anything."""
    folder = Path(source)
    on_hub = not folder.exists() and is_hub_name(str(source))
    if not on_hub and unet_folder(folder) is None:
        read_config(find_checkpoint(folder))


def is_hub_name(source: str) -> bool:
    """Whether a name that is no folder may be one of the hub: user/model, with no folder user/."""
    return HUB_NAME.fullmatch(source) is not None and not Path(source).parent.exists()


def fetched(source: str, local_files_only: bool) -> Path:
    """The folder, in the cache of the hub, of a model: a run or a folder of diffusers'."""
    from huggingface_hub import snapshot_download

    folder = Path(
        snapshot_download(source, allow_patterns=list(FILES), local_files_only=local_files_only)
    )
    whole = checkpoints(folder) or (folder / "model.safetensors").is_file() or unet_folder(folder)
    if local_files_only and not whole:  # the cache may hold another part of it, such as its VAE
        raise FileNotFoundError(f"{source}: no network in it")
    return folder


def load_any(folder: Path, device: torch.device) -> Checkpoint:
    """The checkpoint of a run, or what would be the checkpoint of a network of diffusers'."""
    if unet_folder(folder) is None:
        return load_checkpoint(folder, device)
    elsewhere = Elsewhere() if (folder / OWN).is_dir() else of_pipeline(folder)
    trained = read_trained(folder, elsewhere)
    null = {}
    for name, tensor in trained.latents.items():
        if name.startswith("null."):
            null[name.removeprefix("null.")] = tensor
    return Checkpoint(
        network=trained.network.to(device).eval().requires_grad_(False),
        schedule=trained.schedule,
        prediction=trained.config["prediction"],
        mean=trained.latents["mean"],
        std=trained.latents["std"],
        null=Condition(**null),
        config=Config(trained.config, folder / "config.json"),
        path=folder,
    )


def train(**options: Any) -> Model:
    """Train a model, as train.py does, and load it.

    The options are those of train.py, with underscores: train(data="photos", vae="tiny",
    max_steps=500), train(resume=True). `train.py --help` explains each. The run is written to
    runs/, or to `out`. They are checked as on the command line; flags are True or False, and a size
    is 64 or "512x384". TypeError, with the nearest name: there is no such option.
    """
    given = vars(parse_keywords(train_parser(), options))
    return load(story("train").train(given), options.get("device") or "auto")
