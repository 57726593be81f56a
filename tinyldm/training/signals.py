"""Ctrl-C and SIGTERM during training: finish the step, save, stop."""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager


class StopRequest:
    """Whether a signal has asked to stop."""

    def __init__(self):
        self.requested = False

    def handle(self, number, frame):
        if self.requested:  # asked twice: now
            raise KeyboardInterrupt
        self.requested = True
        print(
            "\nstopping: the checkpoint is saved first (once more to stop at once)", file=sys.stderr
        )


@contextmanager
def stop_on_signal():
    """A StopRequest that SIGINT and SIGTERM raise inside the block."""
    request = StopRequest()
    before = {
        number: signal.signal(number, request.handle) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
