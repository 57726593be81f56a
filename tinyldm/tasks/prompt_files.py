"""Files of prompts that any task can read: .txt, test.json and generate.csv."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tinyldm.data.examples import Prompt, Request, check_names
from tinyldm.errors import InputError
from tinyldm.files import read_csv, read_text
from tinyldm.typed import read_json

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


@dataclass(frozen=True)
class PromptEntry:
    """What is read of an entry of test.json."""

    image_name: str
    text_prompt: str


def read_test_json(file: Path) -> list[tuple[str, str]]:
    """The monsters' test.json: key -> {"image_name": ..., "text_prompt": ..., ...}."""
    entries = read_json(file, dict[str, PromptEntry], extra="ignore")
    return [(entry.image_name, entry.text_prompt) for entry in entries.values()]
