"""Ctrl-C and SIGTERM during a training: finish the step, save, stop."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether a signal, or other code, has asked to stop."""

    def __init__(self) -> None:
        self.requested = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The handler of a signal. A second signal stops the program at once."""
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        print(
            "\nstopping: the checkpoint is saved first (interrupt again to stop at once)",
            file=sys.stderr,
        )


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """A StopRequest that SIGINT and SIGTERM make during the block."""
    request = StopRequest()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, request.handle) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
