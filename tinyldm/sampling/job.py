"""The steps of a sampling job; and all of them as one call, for sweeps, notebooks and tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tinyldm.data.examples import Prompt, Request, check_names
from tinyldm.data.images import grid, load_image, save_animation, save_image
from tinyldm.device import pick_device
from tinyldm.errors import InputError
from tinyldm.installation import called
from tinyldm.methods.consistency import ConsistencySolver
from tinyldm.processes import ALONE, Processes
from tinyldm.sampling.compositions import parts_of
from tinyldm.sampling.drawing import (
    Painter,
    draw_requests,
    draw_strip,
    encode_asked,
    picture_seed,
)
from tinyldm.sampling.editing import Editing
from tinyldm.sampling.fitted import with_fitted_grid
from tinyldm.sampling.folder import (
    FILM,
    GRID,
    STRIP,
    default_folder,
    make_record,
    open_folder,
    run_name,
)
from tinyldm.sampling.guide import load_guide
from tinyldm.sampling.settings import Drawing
from tinyldm.tasks.base import Encoder, Task
from tinyldm.training import frozen_models
from tinyldm.training.averages import load_averaged
from tinyldm.training.checkpoint import Checkpoint, task_of


def sample_images(
    run: str | Path,
    requests: Sequence[Request],
    out: str | Path | None = None,
    *,
    how: Drawing | None = None,
    seed: int = 0,
    batch_size: int = 32,
    strip: Prompt | None = None,
    overwrite: bool = False,
    device: str = "auto",
    editing: Editing | None = None,
) -> Path:
    """Draw an image for each request, a grid of the first 64, and a strip of one prompt.

    out:     the folder; None is samples/RUN. Returns it.
    editing: what else to do than to draw the prompts from noise

    Images that an earlier call with the same arguments has finished are kept, so an interrupted job
    is continued.
    """
    how, editing = how or Drawing(), editing or Editing()
    requests = editing.requests(requests)
    model = LoadedRun.load(run, how, pick_device(device))
    check_requests(requests, strip, model.task.prompted)
    with open_samples(
        model, requests, out, seed=seed, strip=strip, overwrite=overwrite, editing=editing
    ) as folder:
        painter = editing.begin(model.painter, model.models, len(requests), seed)
        encoder = model.models.encoder
        draw_requests(painter, encoder, requests, folder, seed=seed, batch_size=batch_size)
        save_grid(requests, folder, columns=editing.interpolate or None)
        save_strip(painter, encoder, strip, folder, seed=seed)
    return folder


@dataclass(frozen=True, eq=False)
class LoadedRun:
    """All that draws, loaded.

    checkpoint: with averaged weights
    guide:      a weaker one, if the drawing asks for it
    models:     the frozen models of the run
    painter:    draws with all of these
    """

    checkpoint: Checkpoint
    task: Task
    guide: Checkpoint | None
    models: frozen_models.FrozenModels
    painter: Painter

    @classmethod
    def load(
        cls, run: str | Path, how: Drawing, device: torch.device, **adapting: Any
    ) -> LoadedRun:
        """Load what a drawing needs of a run or a checkpoint; adapting: see load_averaged.

        InputError: it does not fit together, or cannot draw so.
        """
        checkpoint = load_averaged(run, device, how.ema_length, **adapting)
        task = task_of(checkpoint.config)
        how = with_grid(checkpoint, how)
        guide = load_guide(checkpoint, how, device)
        models = frozen_models.load_frozen(checkpoint.config, device, checkpoint.path).all_loaded()
        painter = Painter.of(checkpoint, models.vae, task, how, device=device, guide=guide)
        return cls(checkpoint, task, guide, models, painter=painter)


def check_requests(
    requests: Sequence[Request], strip: Prompt | None, prompted: bool = True
) -> None:
    """InputError for names or prompts that cannot be drawn; prompted: see tasks.base.Task."""
    check_names(requests, "prompts")
    if strip is not None:
        check_names([Request("strip.png", strip)], "--strip")
        if prompted and not str(strip).strip(" ,"):
            raise InputError(f"--strip {str(strip)!r}: names nothing to draw")


def summary(requests: Sequence[Request], checkpoint: Path, out: Path) -> str:
    """What was drawn and where it lies, in one line."""
    made = []
    if requests:
        images = "image" if len(requests) == 1 else "images"
        made.append(f"{len(requests)} {images} of {run_name(checkpoint)} in {out}")
    made += [str(out / name) for name in (GRID, STRIP) if (out / name).exists()]
    return "; ".join(made)


def check_solver(checkpoint: Checkpoint, how: Drawing) -> None:
    """InputError: a consistency run with another solver, or another run with that solver."""
    tuned = checkpoint.config["settings"].get("consistency") is not None
    trained = f"{called('train.py')} --consistency"
    if isinstance(how.solver, ConsistencySolver) and not tuned:
        raise InputError(
            f"--solver consistency: {checkpoint.path} is no run of {trained}; "
            "expected another solver"
        )
    if tuned and not isinstance(how.solver, ConsistencySolver):
        raise InputError(
            f"--solver {type(how.solver).__name__}: {checkpoint.path} is a run of {trained}; "
            "expected --solver consistency"
        )


def with_grid(checkpoint: Checkpoint, how: Drawing) -> Drawing:
    """The drawing, with the grid that was fitted to the checkpoint if it asks for that.

    InputError for a solver that is not for the run, for a number of steps that the schedule does
    not have, or that no grid was fitted for.
    """
    check_solver(checkpoint, how)
    how = with_fitted_grid(checkpoint, how)
    try:
        how.grid(checkpoint.schedule)
    except ValueError as error:
        raise InputError(f"--steps {how.steps} --spacing {how.spacing}: {error}") from None
    return how


@contextmanager
def open_samples(
    model: LoadedRun,
    requests: Sequence[Request],
    out: str | Path | None,
    *,
    seed: int,
    strip: Prompt | None,
    overwrite: bool,
    editing: Editing,
    processes: Processes = ALONE,
) -> Iterator[Path]:
    """The folder to draw into, owned and ready (sampling/folder.py). Prompts are checked first.

    The main process owns it, and the others draw into it as well.
    """
    if not processes.is_main:
        yield processes.from_main(Path())
        return
    checkpoint = model.checkpoint
    prompts = [request.prompt for request in requests]
    prompts += [prompt for prompt in (strip, editing.invert) if prompt is not None]
    files = model.models.encoder.check(parts_of(prompts))
    record = make_record(
        checkpoint,
        requests,
        model.painter.how,
        seed,
        strip=strip,
        files=files,
        guide=model.guide,
        editing=editing.record(),
    )
    if out is None:
        folder = default_folder(run_name(checkpoint.path), record, overwrite)
    else:
        folder = Path(out)
    with open_folder(folder, record, overwrite):
        yield processes.from_main(folder)


def save_grid(requests: Sequence[Request], folder: Path, columns: int | None = None) -> None:
    """Save the first 64 pictures on one sheet, unless it is there already.

    columns: how many side by side; None: whatever makes a sheet of a pleasant shape
    """
    if not requests or (folder / GRID).exists():
        return
    shown = [load_image(folder / request.name) for request in requests[:64]]
    columns = columns or (8 if len(shown) > 16 else None)
    save_image(grid(shown, columns=columns), folder / GRID)


def save_strip(
    painter: Painter, encoder: Encoder, strip: Prompt | None, folder: Path, seed: int
) -> None:
    """Save how one prompt is drawn, if asked for, unless it is there already."""
    if strip is None or (folder / STRIP).exists():
        return
    condition = encode_asked(encoder, [strip])
    still, frames = draw_strip(painter, condition, picture_seed(seed, 0))
    save_animation(frames, folder / FILM)
    save_image(still, folder / STRIP)
