"""Files of prompts that any task can read: .txt, test.json and generate.csv."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinyldm.data.examples import Prompt, Request, check_names
from tinyldm.errors import InputError
from tinyldm.files import read_csv, read_json, read_text

SUFFIXES = (".txt", ".json", ".csv")


def read_request_file(file: Path, prompt: Callable[[str], Prompt]) -> list[Request]:
    """The requests in a file, in its order; prompt() turns a text into a prompt.

    InputError: no such file, another kind of file, missing keys, no prompts, refused names.
    """
    if file.suffix not in SUFFIXES:
        raise InputError(f"{file}: expected a file of prompts that ends in {', '.join(SUFFIXES)}")
    if file.suffix == ".txt":
        named = read_lines(file)
    elif file.suffix == ".csv":
        named = [(row["id"], row["prompt"]) for row in read_csv(file, "id", "prompt")]
    else:
        named = read_test_json(file)
    return checked([Request(name, prompt(text)) for name, text in named], file)


def checked(requests: list[Request], file: Path) -> list[Request]:
    """The requests of a file; InputError where there are none, or where names are refused."""
    if not requests:
        raise InputError(f"{file}: no prompts")
    check_names(requests, file)
    return requests


def read_lines(file: Path) -> list[tuple[str, str]]:
    """One prompt per line, drawn as 0000.png, 0001.png, ...; empty lines are skipped."""
    lines = [line.strip() for line in read_text(file).split("\n")]
    texts = [line for line in lines if line]
    return [(f"{k:04d}.png", text) for k, text in enumerate(texts)]


def read_test_json(file: Path) -> list[tuple[str, str]]:
    """The monsters' test.json: key -> {"image_name": ..., "text_prompt": ..., ...}."""
    named = []
    for key, entry in read_json(file, dict).items():
        name, text = entry_values(file, key, entry, ("image_name", "text_prompt"))
        name = as_text(file, key, "image_name", name)
        text = as_text(file, key, "text_prompt", text)
        named.append((name, text))
    return named


def entry_values(file: Path, key: str, entry: Any, names: tuple[str, ...]) -> list[Any]:
    """The values that one entry of a JSON file has under these names; InputError without one."""
    if not isinstance(entry, dict):
        got = type(entry).__name__
        raise InputError(f"{file}: {key}: expected an object with {', '.join(names)}, got {got}")
    for name in names:
        if name not in entry:
            raise InputError(f"{file}: {key}: no {name!r}, expected {', '.join(names)}")
    return [entry[name] for name in names]


def as_text(file: Path, key: str, name: str, value: Any) -> str:
    """A value of a JSON file that has to be a string."""
    if not isinstance(value, str):
        raise InputError(f"{file}: {key}: {name!r} is {type(value).__name__}, expected a string")
    return value
