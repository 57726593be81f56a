"""Weights on disk: the one strict reader and the one writer of safetensors files, and their hash.

Pickles are never read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from tinyldm.errors import InputError, reason
from tinyldm.files import check_regular, replacing

Shape = tuple[int, ...]
Rename = Callable[[str, Tensor], tuple[str, Tensor]]

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MOST_NAMED = 4  # differences that a message lists one by one


def read_weights(
    file: str | Path,
    expected: Mapping[str, Tensor] | None = None,
    rename: Rename | None = None,
) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, in the dtype they are stored in, on the CPU.

    expected: a tensor of each name, such as a module's state_dict(), on any device; the file must
              hold exactly these names, in these shapes; see check_fit. None: anything goes
    rename:   (name, weight) as they stand in the file -> as they are called and shaped today; it is
              applied before the comparison with expected.
    InputError names the file, and which weights are wrong: they do not fit, or are not finite.
    """
    check_regular(file, "file of weights")
    try:
        weights = load_file(file)
    except SafetensorError as error:
        raise InputError(f"{file}: not a safetensors file ({reason(error)})") from None
    except (AttributeError, KeyError) as error:  # a dtype that this torch does not have
        raise InputError(
            f"{file}: not a safetensors file that torch reads ({reason(error)})"
        ) from None
    if rename is not None:
        weights = dict(rename(name, weight) for name, weight in weights.items())
    if expected is not None:
        check_fit(weights, expected, file)
    check_finite(weights, file)
    return weights


def check_fit(
    weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], file: str | Path
) -> None:
    """InputError, naming the file, unless weights have exactly the names and shapes expected.

    Each of FLOATS may stand for another; any other dtype must be the one expected.
    """
    check_shapes(shapes(weights), shapes(expected), file)
    for name, wanted in expected.items():
        found = weights[name].dtype
        if found != wanted.dtype and not {found, wanted.dtype} <= set(FLOATS):
            raise InputError(f"{file}: {name} is {_name(found)}, expected {_name(wanted.dtype)}")


def shapes(weights: Mapping[str, Tensor]) -> dict[str, Shape]:
    """The shape of each weight."""
    return {name: tuple(weight.shape) for name, weight in weights.items()}


def check_shapes(
    found: Mapping[str, Shape], expected: Mapping[str, Shape], file: str | Path
) -> None:
    """InputError, naming the file, unless it has weights of exactly these names and shapes."""
    wrong = []
    for name in [*expected, *(name for name in found if name not in expected)]:
        if name not in found:
            wrong.append(f"missing {name}")
        elif name not in expected:
            wrong.append(f"unexpected {name}")
        elif found[name] != expected[name]:
            wrong.append(f"{name} has shape {found[name]}, expected {expected[name]}")
    if wrong:
        listed = "; ".join(wrong[:MOST_NAMED])
        more = f" and {len(wrong) - MOST_NAMED} more" if len(wrong) > MOST_NAMED else ""
        raise InputError(f"{file}: does not fit its config: {listed}{more}")


def check_finite(weights: Mapping[str, Tensor], file: str | Path) -> None:
    """InputError, naming the file, for a weight that holds NaN or an infinity."""
    for name, weight in weights.items():
        if not weight.is_floating_point():
            continue
        if weight.dtype not in FLOATS:
            expected = ", ".join(map(_name, FLOATS))
            raise InputError(f"{file}: {name} is {_name(weight.dtype)}, expected {expected}")
        # the least and the largest in one pass; NaN is both
        if weight.numel() and not all(limit.isfinite() for limit in weight.aminmax()):
            raise InputError(f"{file}: {name} is not finite")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def load_into(module: nn.Module, weights: Mapping[str, Tensor], file: str | Path) -> None:
    """Give a module its weights: each by its name, in its shape, and none left over.

    A module on the meta device takes over the tensors themselves; any other copies their values and
    keeps its own dtype and device. file is where the weights come from, for the InputError that is
    raised where they are those of another architecture.
    """
    own = module.state_dict()
    check_fit(weights, own, file)
    module.load_state_dict(dict(weights), assign=any(weight.is_meta for weight in own.values()))


# ---- before anything is built


@contextmanager
def sized_by(file: str | Path, config: object) -> Iterator[None]:
    """A block that builds on the meta device the module whose weights a file holds.

    config: what the module is built from. InputError, before memory or time is spent, where it asks
    for more weights or larger ones than there are in the file.
    """
    held = read_shapes(file)
    most = max([HARMLESS, len(held), *(side for shape in held.values() for side in shape)])
    for number in whole_numbers(config):
        if number > most:
            raise InputError(f"{file}: does not fit its config, which asks for a size of {number}")
    most_weights = 2 * len(held) + 100  # a few too many or too few are named one by one, later
    left = most_weights

    def count(module: nn.Module, name: str, weight: nn.Parameter) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise InputError(
                f"{file}: does not fit its config, which asks for more than {most_weights} weights"
            )

    counting = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"):
            yield
    finally:
        counting.remove()


HARMLESS = 4096  # a size that nobody has to be afraid of, on the meta device


def whole_numbers(value: object) -> Iterator[int]:
    """The whole numbers in nested lists, objects and dataclasses."""
    if is_dataclass(value):
        value = vars(value)
    if isinstance(value, int):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from whole_numbers(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from whole_numbers(part)


def read_shapes(file: str | Path) -> dict[str, Shape]:
    """The shapes of the tensors in a safetensors file, which are not read."""
    check_regular(file, "file of weights")
    try:
        with safe_open(file, "pt") as opened:
            names = opened.keys()
            return {name: tuple(opened.get_slice(name).get_shape()) for name in names}
    except SafetensorError as error:
        raise InputError(f"{file}: not a safetensors file ({reason(error)})") from None


# ---- writing


def write_weights(file: Path, weights: Mapping[str, Tensor]) -> None:
    """Write tensors to a safetensors file, whole or not at all.

    InputError names a weight that is not finite, which nobody could load; OSError names the file
    where it cannot be written, a full disk among other reasons.
    """
    check_finite(weights, file)
    ready = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
    try:
        with replacing(file) as temporary:
            save_file(ready, temporary, metadata={"format": "pt"})  # which transformers asks for
    except SafetensorError as error:
        raise OSError(None, f"can't be written ({reason(error)})", str(file)) from None


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
