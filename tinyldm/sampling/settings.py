"""How pictures are drawn: the options of sample.py, and the part of them that decides the pictures.

Importing this module imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyldm.cli import BATCH_SIZE, SEED, SOLVER_STEPS, any_text, check_options, option, real, whole
from tinyldm.device import PRECISIONS
from tinyldm.errors import InputError
from tinyldm.sampling.edit_options import EditOptions, check_editing
from tinyldm.training.settings import LANDSCAPES, TrainSettings

if TYPE_CHECKING:
    from tinyldm.diffusion.sampler import Solver
    from tinyldm.diffusion.schedule import Grid, NoiseSchedule
    from tinyldm.tasks.base import Task

SOLVERS = ("dpm++", "sde-dpm++", "dpm", "unipc", "heun", "ddim", "ddpm", "consistency")
WITH_ORDER = ("dpm++", "sde-dpm++", "dpm", "unipc")
FITTED = "fitted"
SPACINGS = ("trailing", "leading", "linspace", "karras", "logsnr", FITTED)
DEFAULT_GUIDANCE = 3.0
DEFAULT_GUIDE_SCALE = 2.0
EMA_LENGTH = real(0.001, 0.288)  # sigma_rel, see methods/power_ema.py
CONSISTENCY_STEPS = 2
EITHER_WAY = real(-1000, 1000)  # a negative scale guides away from the prompt


def make_solver(name: str, order: int | None = None, eta: float | None = None) -> Solver:
    """The solver of that name, one of SOLVERS. An option that it would ignore is an InputError."""
    from tinyldm.diffusion.ddim import DDIM
    from tinyldm.diffusion.ddpm import DDPM
    from tinyldm.diffusion.dpm_solver import DPMSolver
    from tinyldm.diffusion.heun import Heun
    from tinyldm.diffusion.unipc import UniPC
    from tinyldm.methods.consistency import ConsistencySolver

    if order is not None and name not in WITH_ORDER:
        raise InputError(
            f"--order {order}: {name} has no order; it belongs to {', '.join(WITH_ORDER)}"
        )
    if eta is not None and name != "ddim":
        raise InputError(f"--eta {eta:g}: belongs to ddim, not to {name}")
    try:
        if name == "ddim":
            return DDIM(eta or 0.0)
        if name == "ddpm":
            return DDPM()
        if name == "heun":
            return Heun()
        if name == "consistency":
            return ConsistencySolver()
        order = 2 if order is None else order
        if name == "unipc":
            return UniPC(order)
        form = "eps" if name == "dpm" else "x0"
        return DPMSolver(order, sde=name == "sde-dpm++", form=form)
    except ValueError as error:
        raise InputError(f"--solver {name}: {error}") from None


def default_solver() -> Solver:
    """DPM-Solver++ of second order."""
    return make_solver("dpm++")


@dataclass(frozen=True)
class Drawing:
    """How pictures are drawn. Together with checkpoint, prompts and seed, it decides the pictures.

    guidance: the scale of classifier-free guidance; 1 means none
    style:    for landscapes, the scale of the style; guidance is then that of the map
    interval: (low, high) in units of sigma / alpha, the levels at which to guide (2404.07724)
    timesteps: of a fitted grid (sampling/fitted.py), where spacing is 'fitted'

    ema_length:  draw with the average of this length, see training/averages.py
    guide:       a checkpoint of a weaker network for autoguidance (2406.02507), of guide_scale;
                 guide_ema_length is for its weights what ema_length is for the network's
    """

    steps: int = 25
    solver: Solver = field(default_factory=default_solver)
    guidance: float = DEFAULT_GUIDANCE
    style: float | None = None
    interval: tuple[float, float] | None = None
    rescale: float = 0.0
    spacing: str = "trailing"
    precision: str = "auto"
    timesteps: tuple[float, ...] | None = None
    ema_length: float | None = None
    guide: Path | None = None
    guide_scale: float | None = None
    guide_ema_length: float | None = None

    def __post_init__(self) -> None:
        scales = {
            "guidance": self.guidance,
            "guidance-style": self.style,
            "guide-scale": self.guide_scale,
        }
        for name, scale in scales.items():
            if scale is not None and not math.isfinite(scale):
                raise ValueError(f"{name} {scale}: expected a finite number")
        for name, value in {
            "guide-scale": self.guide_scale,
            "guide-ema-length": self.guide_ema_length,
        }.items():
            if value is not None and self.guide is None:
                raise ValueError(f"{name} {value:g}: expected --guide with it")
        if self.guide is not None and self.guide_scale is None:
            raise ValueError(f"guide {self.guide}: expected --guide-scale with it")
        if self.guide is not None and self.style is not None:
            raise ValueError("guide: can't be combined with --guidance-map and --guidance-style")
        if self.guidance == 1 and self.guide is None and (self.interval or self.rescale):
            raise ValueError(
                "guidance 1 means no guidance: an interval or a rescale would change nothing"
            )
        if self.style is not None and (self.interval or self.rescale):
            raise ValueError("guidance-style takes neither an interval nor a rescale")
        if self.interval and not 0 <= self.interval[0] < self.interval[1]:
            low, high = self.interval
            raise ValueError(
                f"guidance-interval {low:g} {high:g}: expected 0 <= low < high, in sigma/alpha"
            )
        if not 0 <= self.rescale <= 1:
            raise ValueError(f"guidance-rescale {self.rescale:g}: expected 0 to 1")

    def grid(self, schedule: NoiseSchedule) -> Grid:
        """The noise levels to visit."""
        if self.timesteps is not None:
            return schedule.levels(self.timesteps)
        return schedule.grid(self.steps, self.spacing)


@dataclass(frozen=True)
class SampleOptions(EditOptions):
    """The options of sample.py."""

    run: str | None = option(
        None,
        "a run or a checkpoint (default: the newest run in runs/)",
        "what to draw",
        metavar="FOLDER",
    )
    prompt: list[str] | None = option(
        None,
        "a prompt; give --prompt several times for several pictures",
        "what to draw",
        parse=any_text,
        metavar="TEXT",
        more={"action": "append"},
    )
    prompts: str | None = option(
        None,
        "test.json, generate.csv, label_to_img.json, or a .txt file with one prompt per line; "
        "for super-resolution, a folder of images",
        "what to draw",
        metavar="FILE",
    )
    strip: str | None = option(
        None,
        "also write about/strip.png and .gif: how this prompt is drawn, step by step; without TEXT "
        "for a run that learned images alone",
        "what to draw",
        metavar="TEXT",
        more={"nargs": "?", "const": ""},
    )
    count: int | None = option(
        None,
        "how many pictures to draw; the prompts of --prompt, or else of the run, take turns",
        "what to draw",
        bounds=whole(1, 10**6),
    )
    seed: int = option(
        0,
        "seed; picture k depends only on it and on k, not on the batch size",
        "what to draw",
        bounds=SEED,
    )
    data: str | None = option(
        None,
        "where the data is now, for a run whose preview prompts name files of it "
        "(default: where it was in training)",
        "what to draw",
        metavar="FOLDER",
    )
    base: str | None = option(
        None,
        "for a run that adapts another: where the other is now (default: where it was, or beside "
        "this run)",
        "what to draw",
        metavar="FOLDER",
    )
    out: str | None = option(
        None, "the folder to write (default: samples/RUN)", "where to", metavar="FOLDER"
    )
    overwrite: bool = option(False, "replace the pictures that are already there", "where to")
    steps: int | None = option(
        None,
        "steps of the solver; each calls the network once, with heun nearly all twice "
        "(default: 25; 2 for a consistency run)",
        "how",
        bounds=SOLVER_STEPS,
    )
    solver: str | None = option(
        None,
        "dpm++ needs the fewest steps; consistency belongs to a run of train.py --consistency "
        "(default: the one of the two that fits the run)",
        "how",
        choices=SOLVERS,
    )
    order: int | None = option(
        None, f"order 1, 2 or 3 of {', '.join(WITH_ORDER)} (default: 2)", "how", bounds=whole(1, 3)
    )
    eta: float | None = option(
        None,
        "noise of ddim: 0 is deterministic, 1 is as noisy as ddpm (default: 0)",
        "how",
        bounds=real(0, 1),
    )
    spacing: str = option(
        "trailing",
        "how the timesteps are spaced; logsnr: evenly in the log of the signal-to-noise ratio; "
        "fitted: as python -m tinyldm grid has found out",
        "how",
        choices=SPACINGS,
    )
    guidance: float | None = option(
        None,
        f"guidance scale; 1: none (default: {DEFAULT_GUIDANCE:g}; 1 with --guide, or after "
        "--cfg-drop 0)",
        "how",
        bounds=EITHER_WAY,
    )
    guidance_interval: list[float] | None = option(
        None,
        "guide only where sigma/alpha lies between LO and HI",
        "how",
        metavar=("LO", "HI"),
        more={"nargs": 2},
        bounds=real(0, math.inf),
    )
    guidance_rescale: float = option(
        0.0, "0 to 1: how far to undo the contrast that guidance adds", "how", bounds=real(0, 1)
    )
    guide: str | None = option(
        None,
        "autoguidance: a run or checkpoint of a weaker network to lead away from, such as an "
        "earlier checkpoint of the same run (2406.02507)",
        "how",
        metavar="FOLDER",
    )
    guide_scale: float | None = option(
        None,
        f"scale of --guide; 1: none (default: {DEFAULT_GUIDE_SCALE:g})",
        "how",
        metavar="SCALE",
        bounds=EITHER_WAY,
    )
    ema_length: float | None = option(
        None,
        "draw with an average of the weights over this share of the run, 0.05 to 0.25 for example, "
        "after train.py --post-hoc-ema (default: the average of --ema)",
        "how",
        metavar="S",
        bounds=EMA_LENGTH,
    )
    guide_ema_length: float | None = option(
        None, "the same for --guide", "how", metavar="S", bounds=EMA_LENGTH
    )
    lora_scale: float = option(
        1.0,
        "for a run of train.py --lora: how much of what it learned counts; 0 is its base",
        "how",
        bounds=EITHER_WAY,
    )
    guidance_map: float | None = option(
        None,
        "scale of the map (default: as --guidance)",
        LANDSCAPES,
        metavar="SCALE",
        bounds=EITHER_WAY,
    )
    guidance_style: float | None = option(
        None,
        "scale of the style (default: as --guidance)",
        LANDSCAPES,
        metavar="SCALE",
        bounds=EITHER_WAY,
    )
    batch_size: int = option(32, "pictures at a time", "machine", bounds=BATCH_SIZE)
    device: str = option("auto", "auto, cpu, cuda, cuda:1 or mps", "machine")
    precision: str = option(
        "auto",
        "precision of the network (auto: bfloat16 where that is fast, float32 in the VAE); "
        "bfloat16 also applies to the VAE's decoder",
        "machine",
        choices=PRECISIONS,
    )

    def __post_init__(self) -> None:
        check_options(self)
        if self.prompt and self.prompts:
            raise InputError("--prompts: not allowed with --prompt")
        if self.count is not None and self.prompts:
            raise InputError(f"--count {self.count}: not allowed with --prompts, which lists them")
        check_editing(self)

    def counted(self, texts: Sequence[str], count: int) -> list[str]:
        """As many prompts as --count asks for, in turn: of --prompt, or else the distinct texts."""
        distinct = self.prompt or list(dict.fromkeys(texts))
        return list(islice(cycle(distinct), count))

    @property
    def adapting(self) -> dict[str, Any]:
        """How to read a run that adapts another, for load_checkpoint()."""
        return {"base": self.base, "scale": self.lora_scale}

    def drawing(self, task: Task, settings: Mapping[str, Any]) -> Drawing:
        """How to draw with a network of a task that was trained with these settings.

        InputError: options that do not go together, or do not suit the task or the training.
        """
        cfg_drop = settings.get("cfg_drop", TrainSettings.cfg_drop)
        scale = self.guidance
        if scale is None:
            scale = DEFAULT_GUIDANCE if cfg_drop and self.guide is None else 1.0
        style = None
        if self.guidance_map is not None or self.guidance_style is not None:
            apart = task.guides_style and settings.get("style_drop", 0.0) > 0
            if not apart or self.guidance is not None:
                raise InputError(
                    "--guidance-map, --guidance-style: need a landscape run trained with "
                    "--style-drop above 0, and no --guidance, which sets both"
                )
            style = scale if self.guidance_style is None else self.guidance_style
            scale = scale if self.guidance_map is None else self.guidance_map
        if (scale != 1 or style is not None) and not cfg_drop:
            why = "was trained with --cfg-drop 0 and has learned no null condition"
            if not task.prompted:
                why = "has learned pictures without captions, so there is nothing to guide to"
            raise InputError(f"--guidance {scale:g}: the run {why}")
        interval = self.guidance_interval
        guide_scale = self.guide_scale
        if self.guide is not None and guide_scale is None:
            guide_scale = DEFAULT_GUIDE_SCALE
        tuned = settings.get("consistency") is not None
        solver = self.solver or ("consistency" if tuned else "dpm++")
        try:
            return Drawing(
                steps=self.steps or (CONSISTENCY_STEPS if tuned else Drawing.steps),
                solver=make_solver(solver, self.order, self.eta),
                guidance=scale,
                style=style,
                interval=(interval[0], interval[1]) if interval else None,
                rescale=self.guidance_rescale,
                spacing=self.spacing,
                precision=self.precision,
                ema_length=self.ema_length,
                guide=None if self.guide is None else Path(self.guide),
                guide_scale=guide_scale,
                guide_ema_length=self.guide_ema_length,
            )
        except ValueError as error:
            raise InputError(f"--{error}") from None

    def data_folder(self, config: Mapping[str, Any]) -> Path:
        """Where the files lie that the prompts of a run may name; config: of its checkpoint."""
        if self.data is not None:
            return Path(self.data)
        trained = config.get("data_folder")  # the first checkpoints do not say
        if trained is not None and Path(trained).is_dir():
            return Path(trained)
        return Path(config["settings"].get("data") or ".")
