"""The steps of a sampling job; and all of them as one call, for sweeps, notebooks and tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tinyldm.data.examples import Prompt, Request, check_names
from tinyldm.data.images import grid, load_image, save_animation, save_image
from tinyldm.device import pick_device
from tinyldm.errors import InputError
from tinyldm.sampling.drawing import (
    Painter,
    draw_requests,
    draw_strip,
    encode_prompts,
    picture_seed,
)
from tinyldm.sampling.folder import (
    FILM,
    GRID,
    STRIP,
    default_folder,
    make_record,
    open_folder,
    run_name,
)
from tinyldm.sampling.settings import Drawing
from tinyldm.tasks.base import Encoder
from tinyldm.training.checkpoint import Checkpoint, load_checkpoint, task_of
from tinyldm.training.frozen_models import load_frozen


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
) -> Path:
    """Draw an image for each request, a grid of the first 64, and a strip of one prompt.

    out: the folder; None is samples/RUN. Returns it. Images that an earlier call with the same
    arguments has finished are kept, so an interrupted job is continued.
    """
    how = how or Drawing()
    check_requests(requests, strip)
    chosen = pick_device(device)
    checkpoint = load_checkpoint(run, chosen)
    check_grid(checkpoint, how)
    models = load_frozen(checkpoint.config, chosen, checkpoint.path)
    painter = Painter.of(checkpoint, models.vae, task_of(checkpoint.config), how, device=chosen)
    with open_samples(
        checkpoint,
        models.encoder,
        requests,
        out,
        how=how,
        seed=seed,
        strip=strip,
        overwrite=overwrite,
    ) as folder:
        draw_requests(painter, models.encoder, requests, folder, seed=seed, batch_size=batch_size)
        save_grid(requests, folder)
        save_strip(painter, models.encoder, strip, folder, seed=seed)
    return folder


def check_requests(requests: Sequence[Request], strip: Prompt | None) -> None:
    """InputError for names or prompts that cannot be drawn."""
    check_names(requests, "prompts")
    if strip is not None:
        check_names([Request("strip.png", strip)], "--strip")
        if not str(strip).strip(" ,"):
            raise InputError(f"--strip {str(strip)!r}: names nothing to draw")


def told(requests: Sequence[Request], run: str, out: Path) -> str:
    """What was drawn and where it lies, in one line."""
    made = []
    if requests:
        images = "image" if len(requests) == 1 else "images"
        made.append(f"{len(requests)} {images} of {run} in {out}")
    made += [str(out / name) for name in (GRID, STRIP) if (out / name).exists()]
    return "; ".join(made)


def check_grid(checkpoint: Checkpoint, how: Drawing) -> None:
    """InputError for a number of steps that the schedule does not have."""
    try:
        checkpoint.schedule.grid(how.steps, how.spacing)
    except ValueError as error:
        raise InputError(f"--steps {how.steps} --spacing {how.spacing}: {error}") from None


@contextmanager
def open_samples(
    checkpoint: Checkpoint,
    encoder: Encoder,
    requests: Sequence[Request],
    out: str | Path | None,
    *,
    how: Drawing,
    seed: int,
    strip: Prompt | None,
    overwrite: bool,
) -> Iterator[Path]:
    """The folder to draw into, owned and ready (sampling/folder.py). Prompts are checked first."""
    prompts = [request.prompt for request in requests] + ([] if strip is None else [strip])
    files = encoder.check(prompts)
    record = make_record(checkpoint, requests, how, seed, strip=strip, files=files)
    if out is None:
        folder = default_folder(run_name(checkpoint.path), record, overwrite)
    else:
        folder = Path(out)
    with open_folder(folder, record, overwrite):
        yield folder


def save_grid(requests: Sequence[Request], folder: Path) -> None:
    """Save the first 64 pictures on one sheet, unless it is there already."""
    if not requests or (folder / GRID).exists():
        return
    shown = [load_image(folder / request.name) for request in requests[:64]]
    save_image(grid(shown, columns=8 if len(shown) > 16 else None), folder / GRID)


def save_strip(
    painter: Painter, encoder: Encoder, strip: Prompt | None, folder: Path, seed: int
) -> None:
    """Save how one prompt is drawn, if asked for, unless it is there already."""
    if strip is None or (folder / STRIP).exists():
        return
    condition = encode_prompts(encoder, [strip])
    still, frames = draw_strip(painter, condition, picture_seed(seed, 0))
    save_animation(frames, folder / FILM)
    save_image(still, folder / STRIP)
