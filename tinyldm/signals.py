"""Signals: a command ends as asked, with the exit status that shells expect, and saves first.

Ctrl-C (SIGINT), SIGTERM and SIGHUP ask a command to end: guarded() in cli.py turns the first into
a Stopped, a training finishes its step and saves. A second one ends the process at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from tinyldm.errors import say

HANGUP = getattr(signal, "SIGHUP", None)  # Windows has neither this one nor the next
ALARM = getattr(signal, "SIGALRM", None)
INSISTENCE = 5
"""Seconds after which an interruption that was not heeded is repeated."""
PATIENCE = 30.0
"""Seconds that a process has to save and end after the one that started it is gone."""


def tell(line: str) -> None:
    """Print a line on stderr; of several processes that torchrun has started, the first alone."""
    torchrun_shows_it = "TORCHELASTIC_ERROR_FILE" in os.environ and os.environ.get("RANK") != "0"
    if not torchrun_shows_it:
        say(line, sys.stderr)


class Stopped(KeyboardInterrupt):
    """A signal has asked the command to end; number: which."""

    def __init__(self, number: int = signal.SIGINT):
        super().__init__()
        self.number = number

    @property
    def status(self) -> int:
        """The exit status: 130 after SIGINT, 143 after SIGTERM, 129 after SIGHUP."""
        return 128 + self.number


class StopRequest:
    """Whether a signal, or other code, has asked to stop.

    number: of the signal
    """

    def __init__(self) -> None:
        self.requested = False
        self.number: int = signal.SIGINT

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The handler of a signal: take note of it. A second one ends the process at once."""
        if self.requested:
            os._exit(128 + number)
        self.requested = True
        self.number = number
        self.answer()

    def answer(self) -> None:
        """Say that the request is heeded."""
        tell("")  # below the progress bar
        tell("stopping: the checkpoint is saved first (interrupt again to stop at once)")


class Interruption(StopRequest):
    """A request that is heeded at once: Stopped is raised wherever the program is.

    And again every few seconds, for some libraries catch whatever is raised while they are
    imported, and go on.
    """

    def answer(self) -> None:
        if ALARM is not None:
            signal.signal(ALARM, self.repeat)
            signal.alarm(INSISTENCE)
        raise Stopped(self.number)

    def repeat(self, number: int, frame: FrameType | None) -> None:
        """The handler of the alarm."""
        signal.alarm(INSISTENCE)
        raise Stopped(self.number)


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """A StopRequest that signals make during the block, which looks at it between its steps."""
    with handling(StopRequest()) as request:
        yield request


@contextmanager
def interrupted_by_signal() -> Iterator[StopRequest]:
    """Signals raise Stopped during the block; what is yielded says whether one came."""
    with handling(Interruption()) as request:
        try:
            yield request
        finally:
            if ALARM is not None and request.requested:
                signal.alarm(0)


@contextmanager
def handling(request: StopRequest) -> Iterator[StopRequest]:
    """Let signals make a request during the block.

    Once it is made, the handler stays: a second signal ends the process however far it has got.
    Hangups that are ignored, as nohup asks, stay ignored. Other threads than the main one cannot
    take signals.
    """
    before = {number: signal.signal(number, request.handle) for number in heeded()}
    try:
        yield request
    finally:
        for number, handler in before.items():
            if not request.requested and signal.getsignal(number) == request.handle:
                signal.signal(number, handler)


def heeded() -> list[int]:
    """The signals that this thread takes."""
    if threading.current_thread() is not threading.main_thread():
        return []
    numbers: list[int] = [signal.SIGINT, signal.SIGTERM]
    if HANGUP is not None and signal.getsignal(HANGUP) is not signal.SIG_IGN:
        numbers.append(HANGUP)
    return numbers


def leave(status: int) -> NoReturn:
    """End the process, which may take a while; a signal now ends it at once, with this status."""
    for number in heeded():
        signal.signal(number, lambda *_: os._exit(status))
    with suppress(OSError):  # whoever reads it may be gone
        sys.stdout.flush()
    sys.exit(status)


def end_with_parent() -> None:
    """From now on, end as if by SIGTERM once the process that started this one is gone.

    A thread watches it. Where the training does not end by itself within PATIENCE, because it waits
    for processes that are gone, the thread ends it.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PATIENCE)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
