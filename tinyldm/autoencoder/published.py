"""The files of an autoencoder: where they are, and whether they say what they should."""

from __future__ import annotations

import json
import re
from itertools import product
from pathlib import Path

from huggingface_hub import hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tinyldm.errors import InputError
from tinyldm.frozen.loading import load_pretrained

TINY = Path(__file__).parent.parent / "assets" / "vae"
WEIGHTS = ("diffusion_pytorch_model.safetensors", "model.safetensors")
# notes that other libraries leave in a config.json and that change nothing here
NOTES = {
    "_class_name",
    "_diffusers_version",
    "_name_or_path",
    "sample_size",
    "force_upcast",
    "architectures",
    "model_type",
    "dtype",
    "torch_dtype",
    "transformers_version",
}
OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def find(name: str, subfolder: str | None) -> tuple[Path, Path]:
    """config.json and the weights of an autoencoder: shipped, on disk or from the hub's cache or the hub."""
    places = [subfolder] if subfolder else [None, "vae"]
    folder = TINY if name == "tiny" else Path(name)
    if folder.is_dir():
        for place in places:
            found = folder / (place or "")
            if (found / "config.json").is_file():
                for weights in WEIGHTS:
                    if (found / weights).is_file():
                        return found / "config.json", found / weights
                raise InputError(
                    f"autoencoder {found}: has config.json but neither {WEIGHTS[0]} nor {WEIGHTS[1]}"
                )
        where = f"its folder {subfolder}" if subfolder else "it or in its folder vae"
        raise InputError(f"autoencoder {folder}: no config.json in {where}")
    if name == "tiny" or not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith("."):
        raise InputError(
            f"autoencoder {name}: expected tiny, a folder that exists or a hub name such as user/model"
        )

    def fetch(source: str, local_files_only: bool) -> tuple[Path, Path]:
        for place, weights in product(places, WEIGHTS):
            try:
                files = [
                    hf_hub_download(
                        source, file, subfolder=place, local_files_only=local_files_only
                    )
                    for file in ("config.json", weights)
                ]
                return Path(files[0]), Path(files[1])
            except OSError as error:
                problem = error
        raise problem

    wanted = f" {places[-1]}/config.json {places[-1]}/{WEIGHTS[0]}"
    return load_pretrained(fetch, name, "autoencoder", "--vae", wanted)


def read_config(file: Path, known: set[str], model_type: str) -> dict:
    """The entries of config.json that are known, null ones and notes left out; any other raises InputError."""
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file}: not JSON ({error})") from None
    if not isinstance(entries, dict):
        raise InputError(f"{file}: expected a JSON object, got {type(entries).__name__}")
    kind = entries.get("_class_name", "AutoencoderKL"), entries.get("model_type", model_type)
    if kind != ("AutoencoderKL", model_type):
        raise InputError(f"{file}: expected an AutoencoderKL, got {' / '.join(kind)}")
    entries = {
        key: value for key, value in entries.items() if key not in NOTES and value is not None
    }
    unknown = sorted(set(entries) - known)
    if unknown:
        raise InputError(f"{file}: unknown keys {', '.join(unknown)}")
    return entries


def read_weights(file: Path, expected: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The weights in file under today's names, float32; they must have exactly the names and shapes of expected."""
    try:
        found = load_file(file)
    except SafetensorError as error:
        raise InputError(f"{file}: not a safetensors file ({error})") from None
    weights = {}
    for name, weight in found.items():
        for old, new in OLD_NAMES.items():
            name = re.sub(rf"(attentions\.\d+)\.{old}\.", rf"\1.{new}.", name)
        if (
            weight.ndim == 4
            and expected.get(name) == tuple(weight.shape[:2])
            and weight.shape[2:] == (1, 1)
        ):
            weight = weight[:, :, 0, 0]  # the oldest files hold attention as 1x1 convolutions
        weights[name] = weight.float()
    wrong = [f"missing {name}" for name in expected if name not in weights]
    wrong += [f"unexpected {name}" for name in weights if name not in expected]
    wrong += [
        f"{name} has shape {tuple(weights[name].shape)}, expected {shape}"
        for name, shape in expected.items()
        if name in weights and tuple(weights[name].shape) != shape
    ]
    if wrong:
        more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise InputError(f"{file}: does not fit its config: {'; '.join(wrong[:4])}{more}")
    return weights
