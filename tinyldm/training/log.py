"""What a run tells while it trains: a progress bar, log.csv and, if installed, TensorBoard."""

from __future__ import annotations

import csv
import time
from pathlib import Path

from tqdm import tqdm

from tinyldm.files import naming, replacing

COLUMNS = ("step", "loss", "lr", "grad_norm", "images_per_second")


class RunLog:
    """Takes one row for each optimiser step. Resumed at `step`, the rows behind it are taken back."""

    def __init__(self, run: Path, step: int, max_steps: int):
        self.file = run / "log.csv"
        rows = [COLUMNS, *(row for row in read_log(self.file) if int(row[0]) <= step)]
        with (
            replacing(self.file) as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as stream,
        ):
            csv.writer(stream).writerows(rows)
        self.stream = open(self.file, "a", newline="", encoding="utf-8", buffering=1)
        self.bar = tqdm(
            total=max_steps, initial=step, desc="training", unit="step", dynamic_ncols=True
        )
        self.board = _tensorboard(run, step)
        self.smooth, self.then = None, time.monotonic()

    def row(self, step: int, loss: float, lr: float, grad_norm: float, images: int):
        """Log step (counted from 1) of so many images."""
        now = time.monotonic()
        speed, self.then = images / max(1e-9, now - self.then), now
        with naming(self.file):
            csv.writer(self.stream).writerow(
                (step, f"{loss:.6g}", f"{lr:.6g}", f"{grad_norm:.6g}", f"{speed:.4g}")
            )
        if self.board is not None:
            for name, value in zip(COLUMNS[1:], (loss, lr, grad_norm, speed), strict=True):
                self.board.add_scalar(name, value, step)
        self.smooth = loss if self.smooth is None else 0.98 * self.smooth + 0.02 * loss
        self.bar.set_postfix_str(
            f"loss {self.smooth:.4f}, lr {lr:.2g}, {speed:.0f} images/s", refresh=False
        )
        self.bar.update()

    def say(self, text: str):
        """A line above the bar."""
        self.bar.write(text)

    def pause(self):
        """Restart the clock of images/s, after a preview or a save."""
        self.then = time.monotonic()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *error):
        self.bar.close()
        with naming(self.file):
            self.stream.close()
        if self.board is not None:
            self.board.close()


def read_log(file: Path) -> list[list[str]]:
    """The whole rows of a log.csv without its header; none if there is no such file."""
    if not file.is_file():
        return []
    with open(file, newline="", encoding="utf-8") as stream:
        return [row for row in csv.reader(stream) if len(row) == len(COLUMNS) and row[0].isdigit()]


def _tensorboard(run: Path, step: int):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)
