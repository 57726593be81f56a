"""Prompts to pictures: the drawing itself, which training's previews use too, and the job behind sample.py."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from tinyldm.commands.encode import load_frozen
from tinyldm.condition import Condition
from tinyldm.data.examples import Prompt, check_prompts
from tinyldm.data.images import grid, load_image, to_pil
from tinyldm.device import autocast, pick_device
from tinyldm.diffusion.ddim import DDIM
from tinyldm.diffusion.ddpm import DDPM
from tinyldm.diffusion.dpm_solver import DPMSolver
from tinyldm.diffusion.guidance import Guidance
from tinyldm.diffusion.sampler import sample
from tinyldm.errors import InputError
from tinyldm.sampling.folder import (
    FILM,
    GRID,
    STRIP,
    command_line_prompts,
    default_folder,
    make_record,
    open_folder,
    run_name,
    save,
    save_animation,
)
from tinyldm.tasks.landscape import MapStyleGuidance
from tinyldm.tasks.table import read_prompts
from tinyldm.training.checkpoint import (
    Checkpoint,
    find_checkpoint,
    latest_run,
    load_checkpoint,
    read_config,
)

SOLVERS = {  # name -> the solver, from order and eta; each refuses the one that it would ignore
    "dpm++": lambda order, eta: DPMSolver(order),
    "sde-dpm++": lambda order, eta: DPMSolver(order, sde=True),
    "dpm": lambda order, eta: DPMSolver(order, form="eps"),
    "ddim": lambda order, eta: DDIM(eta),
    "ddpm": lambda order, eta: DDPM(),
}


@dataclass(frozen=True)
class Drawing:
    """How pictures are drawn; with the checkpoint, the prompts and the seed it decides them.

    guidance: the scale of classifier-free guidance, 1 for none
    style: for landscapes, the scale of the style where it isn't that of the map, which guidance then is
    interval: (low, high) in units of sigma/alpha, the noise levels at which guidance applies (2404.07724)
    """

    steps: int = 50
    solver: DDPM | DDIM | DPMSolver = field(default_factory=DPMSolver)
    guidance: float = 3.0
    style: float | None = None
    interval: tuple[float, float] | None = None
    rescale: float = 0.0
    spacing: str = "trailing"
    precision: str = "auto"

    def __post_init__(self):
        for name, scale in {"guidance": self.guidance, "guidance-style": self.style or 0.0}.items():
            if not math.isfinite(scale):
                raise ValueError(f"{name} {scale}: expected a finite number")
        if self.guidance == 1 and (self.interval or self.rescale):
            raise ValueError(
                "guidance 1 is no guidance: an interval or a rescale would change nothing"
            )
        if self.style is not None and (self.interval or self.rescale):
            raise ValueError("guidance-style takes neither an interval nor a rescale")
        if self.interval and not 0 <= self.interval[0] < self.interval[1]:
            raise ValueError(
                f"guidance-interval {self.interval}: expected 0 <= low < high, in sigma/alpha"
            )
        if not 0 <= self.rescale <= 1:
            raise ValueError(f"guidance-rescale {self.rescale:g}: expected 0 to 1")


def make_solver(name: str, order: int | None = None, eta: float | None = None):
    """The solver of that name (one of SOLVERS); an option that it would ignore is refused."""
    if order is not None and name in ("ddim", "ddpm"):
        raise InputError(
            f"--order {order}: {name} has no order; it belongs to dpm++, sde-dpm++ and dpm"
        )
    if eta is not None and name != "ddim":
        raise InputError(f"--eta {eta:g}: belongs to ddim, not to {name}")
    try:
        return SOLVERS[name](2 if order is None else order, eta or 0.0)
    except ValueError as error:
        raise InputError(f"--solver {name}: {error}") from None


def noise_seed(seed: int, index: int) -> int:
    """The seed of image `index` of a list; 32 bits, which is all that a CPU generator of torch looks at."""
    return (seed * 1_000_003 + index) % 2**32


@torch.inference_mode()
def draw(
    network,
    condition: Condition | None,
    seeds: list[int],
    *,
    latent_shape,
    schedule,
    prediction: str,
    mean: Tensor,
    std: Tensor,
    null: Condition | None,
    vae,
    how: Drawing = Drawing(),
    callback=None,
) -> list[Image.Image]:
    """Pictures of the b rows of condition; picture k depends on seeds[k] alone.

    network: a denoiser, in eval mode, on the device where everything is computed; latent_shape: (c, h, w)
    mean, std: (c, 1, 1), mean maybe (c, h, w); latents = x0 * std + mean; null: one row, unused where how.guidance is 1
    callback(step, x, x0) after every step, in units of x0
    """
    device = next(network.parameters()).device
    guidance = None
    if how.style is not None:
        guidance = MapStyleGuidance(how.guidance, how.style, null.to(device))
    elif how.guidance != 1:
        levels = schedule if how.interval else None
        guidance = Guidance(how.guidance, null.to(device), how.rescale, how.interval, levels)
    with autocast(device, how.precision):
        x0 = sample(
            network,
            (len(seeds), *latent_shape),
            schedule,
            how.solver,
            how.steps,
            condition=None if condition is None else condition.to(device),
            prediction=prediction,
            seeds=seeds,
            guidance=guidance,
            spacing=how.spacing,
            device=device,
            callback=callback,
        )
    return decode(x0, mean, std, vae, how.precision)


@torch.inference_mode()
def decode(
    x0: Tensor, mean: Tensor, std: Tensor, vae, precision: str = "float32", chunk: int = 8
) -> list[Image.Image]:
    """Pictures of normalised latents x0 (b, c, h, w), a chunk at a time; the VAE runs in float32 unless told bfloat16."""
    latents = x0.float() * std.to(x0.device) + mean.to(x0.device)
    with autocast(x0.device, "float32" if precision == "auto" else precision):
        return [to_pil(image) for part in latents.split(chunk) for image in vae.decode(part)]


def encode_prompts(text_encoder, texts: list[str], chunk: int = 64) -> Condition:
    """The texts as rows of one condition on the CPU; each distinct text is encoded once."""
    distinct = list(dict.fromkeys(texts))
    starts = tqdm(
        range(0, len(distinct), chunk),
        "encoding prompts",
        unit="batch",
        disable=len(distinct) <= chunk,
    )
    rows = Condition.cat(
        [text_encoder.encode(distinct[start : start + chunk]).to("cpu") for start in starts]
    )
    place = {text: row for row, text in enumerate(distinct)}
    return rows[torch.tensor([place[text] for text in texts])]


def painter(checkpoint: Checkpoint, vae, how: Drawing):
    """draw() for a checkpoint: takes (condition, seeds, callback=None)."""
    return partial(
        draw,
        checkpoint.network,
        latent_shape=checkpoint.config["latent_shape"],
        vae=vae,
        how=how,
        schedule=checkpoint.schedule,
        prediction=checkpoint.prediction,
        mean=checkpoint.mean,
        std=checkpoint.std,
        null=checkpoint.null,
    )


def draw_strip(
    checkpoint: Checkpoint,
    vae,
    condition: Condition,
    seed: int,
    how: Drawing,
    frames: int = 10,
) -> tuple[Image.Image, list[Image.Image]]:
    """One picture while it is drawn, from noise to the end, as strip and frames: x_t above, estimates of x0 below."""
    frames = min(frames, how.steps)
    shown = {round(k * (how.steps - 1) / max(frames - 1, 1)) for k in range(frames)}
    kept = []
    with tqdm(desc="drawing the strip", unit="step", total=how.steps) as bar:

        def keep(step: int, x: Tensor, x0: Tensor):
            bar.update()
            if step in shown:
                kept.append((x, x0))

        painter(checkpoint, vae, how)(condition, [seed], callback=keep)
    x_t, x0 = (
        decode(torch.cat(row), checkpoint.mean, checkpoint.std, vae, how.precision)
        for row in zip(*kept)
    )
    return grid(x_t + x0, columns=frames), [grid(list(both), columns=1) for both in zip(x_t, x0)]


def sample_images(
    checkpoint_folder: str | Path,
    prompts: list[Prompt],
    out: str | Path | None = None,
    *,
    how: Drawing = Drawing(),
    seed: int = 0,
    batch_size: int = 32,
    strip: str | None = None,
    overwrite: bool = False,
    device: str = "auto",
) -> Path:
    """Draw an image for each prompt, a grid of the first 64, and a strip of one text; returns their folder.

    Images that an earlier call with the same arguments has finished are kept: an interrupted job goes on.
    """
    check_prompts(prompts, "prompts")
    check_prompts([Prompt("strip.png", strip or "")], "--strip")
    device = pick_device(device)
    checkpoint = load_checkpoint(checkpoint_folder, device)
    try:
        checkpoint.schedule.grid(how.steps, how.spacing)
    except ValueError as error:
        raise InputError(f"--steps {how.steps} --spacing {how.spacing}: {error}") from None
    vae, text_encoder = load_frozen(checkpoint.config, device, checkpoint.path)
    if strip is not None and not strip.strip(" ,"):
        raise InputError(f"--strip {strip!r}: names nothing to draw")
    record = make_record(checkpoint, prompts, how, seed, strip)
    if hasattr(text_encoder, "check"):
        record["files"] = text_encoder.check(
            [prompt.text for prompt in prompts] + ([strip] if strip else [])
        )
    out = default_folder(run_name(checkpoint.path), record, overwrite) if out is None else Path(out)
    open_folder(out, record, overwrite)

    paint = painter(checkpoint, vae, how)
    todo = [k for k, prompt in enumerate(prompts) if not (out / prompt.name).exists()]
    condition = encode_prompts(text_encoder, [prompts[k].text for k in todo]) if todo else None
    done = len(prompts) - len(todo)
    with tqdm(
        desc="sampling", unit="image", total=len(prompts), initial=done, disable=not todo
    ) as bar:
        for start in range(0, len(todo), batch_size):
            batch = todo[start : start + batch_size]

            def advance(step: int, x: Tensor, x0: Tensor, before=done + start, b=len(batch)):
                bar.n = round(
                    before + b * (step + 1) / how.steps, 1
                )  # parts of images, so that it moves every step
                bar.refresh()

            seeds = [noise_seed(seed, k) for k in batch]
            for k, image in zip(
                batch, paint(condition[start : start + batch_size], seeds, callback=advance)
            ):
                save(image, out / prompts[k].name)
    if prompts and not (out / GRID).exists():
        shown = [load_image(out / prompt.name) for prompt in prompts[:64]]
        save(grid(shown, columns=8 if len(shown) > 16 else None), out / GRID)
    if strip is not None and not (out / STRIP).exists():
        still, frames = draw_strip(
            checkpoint, vae, encode_prompts(text_encoder, [strip]), noise_seed(seed, 0), how
        )
        save_animation(frames, out / FILM)
        save(still, out / STRIP)
    return out


def drawing_of(options, settings: dict) -> Drawing:
    """How to draw, from the options of sample.py, with a network that was trained with these settings."""
    cfg_drop, style = settings["cfg_drop"], None
    scale = (
        options.guidance
        if options.guidance is not None
        else Drawing().guidance
        if cfg_drop
        else 1.0
    )
    if (options.guidance_map, options.guidance_style) != (None, None):
        if (
            settings.get("task") != "landscape"
            or options.guidance is not None
            or not settings["style_drop"]
        ):
            raise InputError(
                "--guidance-map, --guidance-style: for landscapes trained with --style-drop above 0, and "
                "without --guidance, which is both"
            )
        scale, style = (
            scale if given is None else given
            for given in (options.guidance_map, options.guidance_style)
        )
    if (scale != 1 or style is not None) and not cfg_drop:
        raise InputError(
            f"--guidance {scale:g}: the run was trained with --cfg-drop 0 and knows no null condition"
        )
    solver = make_solver(options.solver, options.order, options.eta)
    interval = tuple(options.guidance_interval) if options.guidance_interval else None
    try:
        return Drawing(
            options.steps,
            solver,
            scale,
            style,
            interval,
            options.guidance_rescale,
            options.spacing,
            options.precision,
        )
    except ValueError as error:
        raise InputError(f"--{error}") from None


def run(options):
    """The job of sample.py; where no prompts are asked for, and no strip, it draws those of the run's previews."""
    for name, least in {"batch_size": 1, "seed": 0}.items():
        if getattr(options, name) < least:
            raise InputError(
                f"--{name.replace('_', '-')} {getattr(options, name)}: expected {least} or more"
            )
    folder = find_checkpoint(options.run or latest_run())
    config = read_config(folder)
    if options.prompts:
        prompts = read_prompts(options.prompts)
    else:
        previews = [] if options.strip is not None else config["preview_prompts"]
        prompts = command_line_prompts(options.prompt or previews)
    out = sample_images(
        folder,
        prompts,
        options.out,
        how=drawing_of(options, config["settings"]),
        seed=options.seed,
        batch_size=options.batch_size,
        strip=options.strip,
        overwrite=options.overwrite,
        device=options.device,
    )
    made = (
        [f"{len(prompts)} image{'s' * (len(prompts) != 1)} of {run_name(folder)} in {out}"]
        if prompts
        else []
    )
    print("; ".join(made + [str(out / name) for name in (GRID, STRIP) if (out / name).exists()]))
