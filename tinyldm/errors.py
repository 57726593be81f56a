"""The exception that a command turns into a line and exit status 2, and how lines are printed."""

from __future__ import annotations

import sys
import unicodedata
from typing import TextIO


class InputError(Exception):
    """The user gave something wrong. The message is one line: what, and what was expected."""


def printable(text: object) -> str:
    """The text on one line that a terminal shows as it is.

    Line breaks, escape codes, signs that turn the direction of writing and bytes that are no text,
    all of which a file's name may hold, are written as Python writes them in a string.
    """
    signs = []
    for sign in str(text):
        plain = sign.isprintable() or unicodedata.category(sign) == "Zs"  # any kind of space
        signs.append(sign if plain else sign.encode("unicode_escape").decode())
    return "".join(signs)


def shortened(text: str) -> str:
    """The text, or the beginning of a very long one."""
    return text if len(text) <= 60 else f"{text[:50]}... ({len(text)} characters)"


def say(text: object, stream: TextIO | None = None) -> None:
    """Print one line, printable and in whatever encoding the stream has; by default to stdout."""
    stream = sys.stdout if stream is None else stream
    encoding = stream.encoding or "utf-8"
    line = printable(text).encode(encoding, "backslashreplace").decode(encoding)
    print(line, file=stream, flush=True)


def reason(error: BaseException) -> str:
    """What an exception of another library says, on one line and not endlessly.

    Not repeated is torch's advice to unpickle a file with `weights_only=False`: that runs whatever
    code the file holds.
    """
    text = " ".join(str(error).split())
    if "weights_only" in text:
        return "it holds more than tensors, which might run code and is never read"
    return text[:240] or type(error).__name__
