"""What a run reports while it trains: a progress bar, log.csv and, if installed, TensorBoard."""

from __future__ import annotations

import csv
import re
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from tinyldm.diffusion.schedule import NoiseSchedule
from tinyldm.files import naming, replacing
from tinyldm.typed import Index, fits

COLUMNS = ("step", "loss", "lr", "grad_norm", "images_per_second")
LogRow = tuple[Index, float, float, float, float]
LOSS_BY_NOISE = "loss_by_noise.csv"
NOISE_COLUMNS = ("t", "sigma_over_alpha", "samples", "loss")
NoiseRow = tuple[float, float, Index, float]


class RunLog:
    """Takes a row for each optimiser step. Resumed at `step`, it takes back the rows after that."""

    def __init__(self, run: Path, step: int, max_steps: int):
        self.file = run / "log.csv"
        kept = [row for row in read_log(self.file) if int(row[0]) <= step]
        with replacing(self.file) as temporary:
            write_rows(temporary, [list(COLUMNS), *kept])
        # __exit__ closes it
        self.stream = open(self.file, "a", newline="", encoding="utf-8", buffering=1)  # noqa: SIM115
        self.bar = tqdm(
            total=max_steps, initial=step, desc="training", unit="step", dynamic_ncols=True
        )
        self.board = tensorboard_writer(run, step)
        self.smooth: float | None = None
        self.then = time.monotonic()

    def row(self, step: int, loss: float, lr: float, grad_norm: float, images: int) -> None:
        """Log step `step`, counted from 1, which had `images` images."""
        now = time.monotonic()
        speed = images / max(1e-9, now - self.then)
        self.then = now
        values = {"loss": loss, "lr": lr, "grad_norm": grad_norm}
        with naming(self.file):
            numbers = [f"{value:.6g}" for value in values.values()]
            csv.writer(self.stream).writerow([step, *numbers, f"{speed:.4g}"])
        if self.board is not None:
            for name, value in {**values, "images_per_second": speed}.items():
                self.board.add_scalar(name, value, step)
        self.smooth = loss if self.smooth is None else 0.98 * self.smooth + 0.02 * loss
        self.bar.set_postfix_str(
            f"loss {self.smooth:.4f}, lr {lr:.2g}, {speed:.0f} images/s", refresh=False
        )
        self.bar.update()

    def pause(self) -> None:
        """Restart the clock of images/s, after a preview or a save."""
        self.then = time.monotonic()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.bar.close()
        with naming(self.file):
            self.stream.close()
        if self.board is not None:
            self.board.close()


class LossByNoise:
    """The mean loss at each level of noise since the last checkpoint, in bins of equal length in t.

    The sums stay on the device until they are written.
    """

    def __init__(self, schedule: NoiseSchedule, device: torch.device, bins: int = 20):
        self.schedule = schedule
        self.sums = torch.zeros(2, bins, device=device)  # of samples, and of their losses

    def add(self, t: Tensor, loss: Tensor) -> None:
        """Count the losses (b,) of samples at timesteps t (b,), which may lie on another device."""
        bins = self.sums.shape[1]
        place = (t * bins // self.schedule.timesteps).to(loss.device, non_blocking=True)
        counted = torch.stack([torch.ones_like(loss), loss.detach()])
        self.sums.index_add_(1, place, counted)

    def write(self, run: Path) -> None:
        """Write loss_by_noise.csv, without the bins that no sample fell into, and start anew."""
        samples, losses = self.sums.tolist()
        self.sums.zero_()
        width = self.schedule.timesteps / len(samples)
        rows = [list(NOISE_COLUMNS)]
        for k, (count, loss) in enumerate(zip(samples, losses, strict=True)):
            if count:
                t = (k + 0.5) * width - 0.5  # the mean of the bin's timesteps
                noise = (-self.schedule.lambda_(t)).exp().item()
                rows.append([f"{t:g}", f"{noise:.6g}", f"{count:.0f}", f"{loss / count:.6g}"])
        with replacing(run / LOSS_BY_NOISE) as temporary:
            write_rows(temporary, rows)


def write_rows(file: Path, rows: list[list[str]]) -> None:
    """Write the rows of a CSV file."""
    with open(file, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)


def read_log(file: Path) -> list[list[str]]:
    """The rows of a log.csv, without its header and what is damaged; none if there is no file.

    They are in the order of their steps, of which each is there once.
    """
    rows: dict[int, list[str]] = {}
    for row in read_rows(file, LogRow):
        if re.fullmatch("[0-9]+", row[0]):  # pydantic takes 1.0 and +1 for whole numbers too
            rows.setdefault(int(row[0]), row)
    return [rows[step] for step in sorted(rows)]


def read_loss_by_noise(file: Path) -> list[tuple[float, float]]:
    """(sigma / alpha, loss) of each row of a loss_by_noise.csv, as read_log reads its own."""
    pairs = [(float(row[1]), float(row[3])) for row in read_rows(file, NoiseRow)]
    return [(noise, loss) for noise, loss in pairs if noise > 0]


def read_rows(file: Path, kind: Any) -> list[list[str]]:
    """The rows of a CSV file of numbers that fit a type; a header does not."""
    if not file.is_file():
        return []
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = [line.split(",") for line in lines]
    return [row for row in rows if fits(row, kind)]


def tensorboard_writer(run: Path, step: int) -> Any:
    """A writer that forgets what was logged after `step`; None if it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)
