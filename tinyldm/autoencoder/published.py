"""The files of published autoencoders: where they are, and how they are read."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import Any

from torch import Tensor

from tinyldm import weights
from tinyldm.autoencoder.config import AutoencoderConfig
from tinyldm.errors import InputError
from tinyldm.frozen.hub import Role, local_or_hub
from tinyldm.spelling import nearest
from tinyldm.typed import read_json

TINY = Path(__file__).parent.parent / "assets" / "vae"
CONFIG = "config.json"
WEIGHTS = ("diffusion_pytorch_model.safetensors", "model.safetensors")
ROLE = Role("autoencoder", "--vae")
# How the layers of attention were called in 2022
OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
OLD_ATTENTION = re.compile(r"(.*attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)")
HUB_NAME = re.compile(r"(?!\.)[\w.-]+/[\w.-]+")


def find(name: str, subfolder: str | None = None) -> tuple[Path, Path]:
    """config.json and the weights of an autoencoder.

    name:      "tiny", a folder, or a hub name such as user/model
    subfolder: where in there; None: in it or in its folder vae
    """
    folder = TINY if name == "tiny" else Path(name)
    if folder.is_dir():
        return _find_in_folder(folder, subfolder)
    if name == "tiny" or not HUB_NAME.fullmatch(name):
        expected = "tiny, a folder that exists or a hub name such as user/model"
        expected += nearest(name, ("tiny", "none"))
        raise InputError(f"autoencoder {name}: expected {expected}")
    return _find_on_hub(name, subfolder)


def _find_in_folder(folder: Path, subfolder: str | None) -> tuple[Path, Path]:
    places = [folder / subfolder] if subfolder else [folder, folder / "vae"]
    for place in places:
        if not (place / CONFIG).is_file():
            continue
        for file in WEIGHTS:
            if (place / file).is_file():
                return place / CONFIG, place / file
        raise InputError(
            f"autoencoder {place}: has {CONFIG} but neither {WEIGHTS[0]} nor {WEIGHTS[1]}"
        )
    where = f"its folder {subfolder}" if subfolder else "it or in its folder vae"
    raise InputError(f"autoencoder {folder}: no {CONFIG} in {where}")


def _find_on_hub(name: str, subfolder: str | None) -> tuple[Path, Path]:
    from huggingface_hub import hf_hub_download

    places = [subfolder] if subfolder else [None, "vae"]

    def fetch(source: str, local_files_only: bool) -> tuple[Path, Path]:
        problem = OSError(f"{source}: no autoencoder in it")
        for place, file in product(places, WEIGHTS):
            try:
                config = hf_hub_download(
                    source, CONFIG, subfolder=place, local_files_only=local_files_only
                )
                found = hf_hub_download(
                    source, file, subfolder=place, local_files_only=local_files_only
                )
                return Path(config), Path(found)
            except OSError as error:
                problem = error
        raise problem

    needed = (f"{places[-1]}/{CONFIG}", f"{places[-1]}/{WEIGHTS[0]}")
    return local_or_hub(fetch, name, ROLE, needed)


def read_config(file: Path) -> AutoencoderConfig:
    """The shape that a config.json describes; InputError names the file and what is wrong."""
    return AutoencoderConfig.from_dict(read_json(file, dict[str, Any]), str(file))


def read_weights(file: Path, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights in a file under today's names, float32; all must have the shapes expected.

    A 1x1 convolution may stand for a linear layer: the oldest files have attention in this form.
    """

    def of_today(name: str, weight: Tensor) -> tuple[str, Tensor]:
        name = name_of_today(name)
        shape = tuple(weight.shape)
        linear = name in expected and expected[name].shape == shape[:2]
        if shape[2:] == (1, 1) and linear:
            weight = weight[:, :, 0, 0]
        return name, weight

    found = weights.read_weights(file, expected, rename=of_today)
    return {name: weight.float() for name, weight in found.items()}


def name_of_today(name: str) -> str:
    """The present name of a weight, which may have one of the names of 2022."""
    found = OLD_ATTENTION.fullmatch(name)
    if found is None:
        return name
    place, layer, kind = found.groups()
    return f"{place}.{OLD_NAMES[layer]}.{kind}"
