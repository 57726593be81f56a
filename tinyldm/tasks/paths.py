"""Prompts that name files, as "map.png | reference.jpg" does: their parts and their paths."""

from __future__ import annotations

from pathlib import Path

BETWEEN = "|"


def split_prompt(text: str) -> tuple[str, str]:
    """The two parts of a prompt as one types it; one that is missing is empty."""
    first, _, second = text.partition(BETWEEN)
    return first.strip(), second.strip()


def join_prompt(first: object, second: object) -> str:
    """The inverse: a prompt as one types it. "" and None are parts that are missing."""
    return f"{first or ''} {BETWEEN} {second}" if second else f"{first or ''}"


def path_within(folder: Path, start: Path, path: str) -> str:
    """A path that starts at `start`, as it reads from `folder`; absolute if it leads elsewhere.

    In the folder it stays as it is, though it may be a symbolic link to elsewhere.
    """
    if not path:
        return ""
    inside = not Path(path).is_absolute() and ".." not in Path(path).parts
    if inside and start.resolve() == folder.resolve():
        return path
    file = (start / path).resolve()
    root = folder.resolve()
    return str(file.relative_to(root) if file.is_relative_to(root) else file)
