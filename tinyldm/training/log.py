"""What a run reports while it trains: a progress bar, log.csv and, if installed, TensorBoard."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

from tinyldm.files import naming, replacing
from tinyldm.typed import Index, fits

COLUMNS = ("step", "loss", "lr", "grad_norm", "images_per_second")
LogRow = tuple[Index, float, float, float, float]


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


def write_rows(file: Path, rows: list[list[str]]) -> None:
    """Write the rows of a CSV file."""
    with open(file, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)


def read_log(file: Path) -> list[list[str]]:
    """The rows of a log.csv, without its header and what is damaged; none if there is no file."""
    if not file.is_file():
        return []
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = [line.split(",") for line in lines[1:]]
    return [row for row in rows if fits(row, LogRow)]


def tensorboard_writer(run: Path, step: int) -> Any:
    """A writer that forgets what was logged after `step`; None if it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)
