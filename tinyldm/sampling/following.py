"""Following a drawing step by step: a function that calls back becomes an iterator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from queue import Queue
from threading import Thread
from typing import Any


class Abandoned(Exception):
    """Whoever followed has stopped looking."""


def followed(job: Callable[[Callable[..., None]], object]) -> Iterator[tuple[Any, ...]]:
    """The arguments of each call that job(callback) makes, as it makes them.

    The job runs in a thread of its own, which waits in its callback until the next ones are asked
    for, so never do both run at once. What it raises is raised here. It is ended by an exception in
    its callback when the iterator is closed before its end.
    """
    asked: Queue[bool] = Queue()  # True: go on to the next call; False: nobody asks any more
    seen: Queue[tuple[Any, ...] | BaseException | None] = Queue()

    def wait() -> None:
        if not asked.get():
            raise Abandoned

    def callback(*arguments: Any) -> None:
        seen.put(arguments)
        wait()

    def work() -> None:
        try:
            wait()
            job(callback)
        except BaseException as error:
            seen.put(error)
        else:
            seen.put(None)

    thread = Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            asked.put(True)
            arguments = seen.get()
            if isinstance(arguments, BaseException):
                raise arguments
            if arguments is None:
                return
            yield arguments
    finally:
        asked.put(False)
        thread.join()
