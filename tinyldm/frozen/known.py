"""What is known of a frozen encoder before it is loaded.

It takes seconds to import transformers, and with a large encoder more to read its weights. Of a
warm latent cache, a training needs neither until its first preview: only the encoder's fingerprint
and width. Both follow from the encoder's files. So whoever loads an encoder notes them in the cache
folder, in encoders/KEY.json, where KEY is a hash of what is in these files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic, TypeVar

from tinyldm.data.cache import cache_folder, key_of
from tinyldm.errors import InputError
from tinyldm.files import file_checksum, write_text
from tinyldm.frozen.hub import Role, find_file
from tinyldm.typed import Count, as_type, read_json, sealed, unsealed

VERSION = 1  # of what the fingerprints of encoders are made of
READERS = ("transformers", "tokenizers")  # libraries whose version may change what is read
PARTS = ("text_encoder", "tokenizer")  # folders of a published pipeline
UNREAD = {".md", ".h5", ".msgpack", ".onnx", ".ot"}  # words, and weights for other programs

Loaded = TypeVar("Loaded", bound=Any)


@dataclass(frozen=True)
class Known:
    """What an encoder's note says; see tasks.base.Encoder."""

    width: Count
    fingerprint: str


class OnDemand(Generic[Loaded]):
    """A frozen encoder that is loaded when it is first used; at once, if nothing is known of it.

    load:   loads the encoder, which has a width, a fingerprint and a former_fingerprint
    source: its folder or hub name
    about:  what the fingerprint depends on besides its files, as values that JSON can hold
    """

    def __init__(
        self, load: Callable[[], Loaded], source: str, role: Role, about: tuple[object, ...]
    ):
        self._load = load
        self._name = f"{role.name} {source}"
        self.fingerprint = ""  # not known yet
        key = key_of_files(source, about)
        known = None if key is None else read_note(key)
        if known is None:
            known = Known(self.loaded.width, self.loaded.fingerprint)
            if key is not None and key == key_of_files(source, about):
                write_note(key, known)
        self.width = known.width
        self.fingerprint = known.fingerprint

    @cached_property
    def loaded(self) -> Loaded:
        """The encoder. InputError: it can't be loaded, or its files have changed since it was told
        by its fingerprint.
        """
        encoder = self._load()
        if self.fingerprint not in ("", encoder.fingerprint):
            raise InputError(f"{self._name}: its files have changed meanwhile; start again")
        return encoder

    @property
    def former_fingerprint(self) -> str:
        """What the first versions recorded. It is not noted, so this loads the encoder."""
        former: str = self.loaded.former_fingerprint
        return former


def load_now(encoder: object) -> None:
    """Load an encoder that would otherwise be loaded when it is first used."""
    if isinstance(encoder, OnDemand):
        _ = encoder.loaded


# ---- notes


def note_file(key: str) -> Path:
    """Where the note with a key is."""
    return cache_folder() / "encoders" / f"{key}.json"


def read_note(key: str) -> Known | None:
    """The note with a key, or None: there is none, or it is damaged."""
    file = note_file(key)
    try:
        content = unsealed(read_json(file, dict[str, Any]), str(file))
        known: Known = as_type(content, str(file), Known)
    except (InputError, OSError):
        return None
    return known


def write_note(key: str, known: Known) -> None:
    """Write a note; where the cache folder cannot be written to, nothing is noted."""
    file = note_file(key)
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(sealed(asdict(known))))


def key_of_files(source: str, about: tuple[object, ...]) -> str | None:
    """A hash of all that decides what is loaded from a folder or a hub name.

    None: there are no files, here or in the cache of the hub, or one of them cannot be read.
    """
    try:
        content = {name: file_checksum(file) for name, file in files_of(source)}
    except (OSError, ValueError):  # ValueError: it is no name of a folder, nor one of the hub's
        return None
    if not content:
        return None
    versions = [version(name) for name in READERS]
    return key_of((VERSION, versions, sorted(content.items()), *about))


def files_of(source: str) -> Iterator[tuple[str, Path]]:
    """The files that a model may be read from, with their names in its folder."""
    folder = Path(source)
    if not folder.exists():
        config = find_file(source, "config.json", local_files_only=True)
        if config is None:
            return
        folder = config.parent  # in the cache of the hub
    for place in (folder, *(folder / part for part in PARTS)):
        for file in place.iterdir() if place.is_dir() else ():
            if file.is_file() and file.suffix not in UNREAD:
                yield str(file.relative_to(folder)), file
