"""Finding frozen models: in a folder, in the local cache of the Hugging Face hub, or on the hub."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tinyldm.errors import InputError, reason

Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class Role:
    """What a frozen model is for: its name in messages, and the option that chooses it.

    ships: whether a tiny one comes with the package
    """

    name: str
    option: str
    ships: bool = True


def local_or_hub(
    load: Callable[..., Loaded], source: str, role: Role, files: tuple[str, ...] = ()
) -> Loaded:
    """load(source, local_files_only=True), or where that fails, with local_files_only=False.

    source: a folder, from which a failure is final, or a name on the hub
    files:  what the message advises to download of the hub's folder; (): all of it
    InputError, in one line: the folder's files are broken, or the model cannot be fetched.
    """
    from huggingface_hub import HfApi

    try:
        return load(source, local_files_only=True)
    except Exception as error:  # broken files make the libraries behind load raise almost anything
        if Path(source).exists() or isinstance(error, InputError):
            raise InputError(f"{role.name} {source}: {reason(error)}") from error
    try:
        # Without a network, a download tries again for minutes; this question fails at once.
        HfApi().model_info(source, timeout=10)
        return load(source, local_files_only=False)
    except InputError as error:
        raise InputError(f"{role.name} {source}: {error}") from error
    except Exception as error:
        download = " ".join(["hf download", source, *files, "--local-dir FOLDER"])
        raise InputError(
            f"{role.name} {source} is not a folder and can't be fetched ({type(error).__name__}): "
            f"where there is a network, `{download}`, then give {role.option} FOLDER"
            + (f"; or use {role.option} tiny" if role.ships else "")
        ) from error


def find_file(source: str, name: str, local_files_only: bool) -> Path | None:
    """A file of a model: in its folder, or in the cache of the hub, where it is fetched if need be.

    None: the model has no file of this name, or with local_files_only, none that was fetched.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    if Path(source).exists():
        file = Path(source) / name
        return file if file.is_file() else None
    try:
        return Path(hf_hub_download(source, name, local_files_only=local_files_only))
    except (EntryNotFoundError, LocalEntryNotFoundError):
        return None
