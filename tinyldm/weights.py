"""Weights on disk: the one strict reader and the one writer of safetensors files, and their hash.

Pickles are never read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tinyldm.errors import InputError
from tinyldm.files import replacing

Shape = tuple[int, ...]
Rename = Callable[[str, Tensor], tuple[str, Tensor]]

MOST_NAMED = 4  # differences that a message lists one by one


def read_weights(
    file: str | Path,
    expected: Mapping[str, Shape] | None = None,
    rename: Rename | None = None,
) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, in the dtype they are stored in, on the CPU.

    expected: every name and its shape; the file must hold exactly these. None: anything goes.
    rename:   (name, weight) as they stand in the file -> as they are called and shaped today; it is
              applied before the comparison with expected.
    InputError names the file and what is wrong with it, or which weights do not fit.
    """
    try:
        weights = load_file(file)
    except FileNotFoundError:
        raise InputError(f"{file}: no such file of weights") from None
    except SafetensorError as error:
        raise InputError(f"{file}: not a safetensors file ({error})") from None
    if rename is not None:
        weights = dict(rename(name, weight) for name, weight in weights.items())
    if expected is None:
        return weights

    wrong = []
    for name, wanted, found in _differences(weights, expected):
        if found is None:
            wrong.append(f"missing {name}")
        elif wanted is None:
            wrong.append(f"unexpected {name}")
        else:
            wrong.append(f"{name} has shape {found}, expected {wanted}")
    if wrong:
        listed = "; ".join(wrong[:MOST_NAMED])
        more = f" and {len(wrong) - MOST_NAMED} more" if len(wrong) > MOST_NAMED else ""
        raise InputError(f"{file}: does not fit its config: {listed}{more}")
    return weights


def load_into(module: nn.Module, weights: Mapping[str, Tensor], file: str | Path) -> None:
    """Give a module its weights: each by its name, in its shape, and none left over.

    A module on the meta device takes over the tensors themselves; any other copies their values and
    keeps its own dtype and device. file is where the weights come from, for the InputError that is
    raised where they are those of another architecture.
    """
    wrong = _differences(weights, shapes(module))
    if wrong:
        name, wanted, found = min(wrong)
        expected = "none" if wanted is None else wanted
        got = "none" if found is None else found
        raise InputError(
            f"{file}: a checkpoint of another architecture: {len(wrong)} weights differ, "
            f"first {name}: expected {expected}, got {got}"
        )
    on_meta = any(weight.is_meta for weight in module.state_dict().values())
    module.load_state_dict(dict(weights), assign=on_meta)


def shapes(module: nn.Module) -> dict[str, Shape]:
    """The names and shapes of a module's weights: what read_weights may be told to expect."""
    return {name: tuple(weight.shape) for name, weight in module.state_dict().items()}


def _differences(
    weights: Mapping[str, Tensor], expected: Mapping[str, Shape]
) -> list[tuple[str, Shape | None, Shape | None]]:
    """(name, shape expected, shape found) of each weight that does not fit; None: not there."""
    found = {name: tuple(weight.shape) for name, weight in weights.items()}
    names = [*expected, *(name for name in found if name not in expected)]
    return [
        (name, expected.get(name), found.get(name))
        for name in names
        if expected.get(name) != found.get(name)
    ]


def write_weights(file: Path, weights: Mapping[str, Tensor]) -> None:
    """Write tensors to a safetensors file, whole or not at all.

    OSError names the file where it cannot be written, a full disk among other reasons.
    """
    ready = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
    try:
        with replacing(file) as temporary:
            save_file(ready, temporary, metadata={"format": "pt"})  # which transformers asks for
    except SafetensorError as error:
        raise OSError(None, f"can't be written ({error})", str(file)) from None


def weights_hash(weights: Mapping[str, Tensor], about: object = None) -> str:
    """SHA-256 of named weights, in hexadecimal, and of whatever else decides what they compute.

    about: any value that JSON can express, such as the configuration of the network. The order of
    the weights does not matter; their names, values and dtypes do.
    """
    start = b"" if about is None else json.dumps(about, sort_keys=True, default=str).encode()
    digest = hashlib.sha256(start)
    for name, weight in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(weight.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
