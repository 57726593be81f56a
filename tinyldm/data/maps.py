"""Maps kept beside the latents: for each view of an image the same view of its map."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from tinyldm.data.cache import Header, build_once, key_of, problem_of
from tinyldm.data.encode import Building, ChangedError, file_hash, file_hashes
from tinyldm.data.examples import Example
from tinyldm.data.images import Augmentation
from tinyldm.errors import InputError
from tinyldm.files import writing
from tinyldm.typed import Index

if TYPE_CHECKING:
    from tinyldm.tasks.base import Encoder


@dataclass(frozen=True, kw_only=True)
class MapsHeader(Header):
    """The type of the header of maps; see write_maps."""

    left_out: dict[Index, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MapCache:
    """The maps of all examples and views, uint8 (rows, h, w) or (rows, h, w, 3), on disk.

    key:      a hash of all that they depend on
    left_out: index of an example -> why its map is not there
    """

    content: np.ndarray[Any, np.dtype[np.uint8]]
    key: str
    left_out: dict[int, str]

    def rows(self, numbers: np.ndarray[Any, Any]) -> Tensor:
        """The maps of these rows, (b, h, w) or (b, h, w, 3)."""
        return torch.from_numpy(self.content[numbers])


def open_maps(
    examples: Sequence[Example],
    encoder: Encoder,
    hashes: Sequence[str | None],
    augmentation: Augmentation,
    building: Building,
) -> MapCache:
    """The maps of the examples; they are read unless they are cached already.

    hashes: of the examples' images; with a map's own bytes they decide how its views are cut
    InputError: a map that is wrong, unless skip_bad.
    """
    files = [encoder.map_file(example.prompts[0]) for example in examples]
    map_hashes = file_hashes(files, building.workers, progress=False)
    views = augmentation.to_dict()
    kind = () if encoder.map_mode == "P" else (encoder.fingerprint,)  # how a picture becomes a map
    key = key_of(("maps", hashes, map_hashes, encoder.map_size, views, *kind))

    def build(folder: Path) -> dict[str, Any]:
        bar = tqdm(examples, "reading maps", unit="map", delay=2, disable=not building.progress)
        return write_maps(
            folder,
            bar,
            encoder,
            hashes=hashes,
            map_hashes=map_hashes,
            augmentation=augmentation,
            skip_bad=building.skip_bad,
        )

    place = building.root / "maps" / key
    header = build_once(place, build, MapsHeader, building.verification)
    wrong = {}
    for index in map(int, header.get("left_out", {})):
        example = examples[index]
        read = partial(encoder.read_map, example.prompts[0], example.image)
        wrong[index] = problem_of(files[index], read)
        if not building.skip_bad:
            raise InputError(wrong[index])
    assert encoder.map_size is not None
    if not (place / "maps.u8").stat().st_size:  # every map is wrong
        raise InputError(f"no map that can be read: {next(iter(wrong.values()))}")
    content = np.memmap(place / "maps.u8", np.uint8, "r")
    shape = (*encoder.map_size, 3) if encoder.map_mode == "RGB" else encoder.map_size
    return MapCache(np.asarray(content).reshape(-1, *shape), key, wrong)


def write_maps(
    folder: Path,
    examples: Iterable[Example],
    encoder: Encoder,
    *,
    hashes: Sequence[str | None],
    map_hashes: Sequence[str | None],
    augmentation: Augmentation,
    skip_bad: bool,
) -> dict[str, Any]:
    """Write maps.u8, every view of every map. The header lists the wrong ones, {index: why}.

    ChangedError: a map no longer has its hash when it has been read.
    """
    assert encoder.map_size is not None
    wrong = {}
    with writing(folder / "maps.u8") as file:
        for k, example in enumerate(examples):
            map_file = encoder.map_file(example.prompts[0])
            try:
                whole = encoder.read_map(example.prompts[0], example.image)
            except InputError as error:
                wrong[str(k)] = str(error)
                if not skip_bad:
                    raise
            if file_hash(map_file) != map_hashes[k]:  # a wrong one may be whole by now
                raise ChangedError(map_file)
            if str(k) in wrong:
                continue
            key = int(hashes[k] or "0", 16)  # as for the image, so that both are cut alike
            classes = encoder.map_mode == "P"
            for view in augmentation.apply(whole, encoder.map_size, key, nearest=classes):
                file.write(np.ascontiguousarray(view, np.uint8).data)
    return {"left_out": wrong}
