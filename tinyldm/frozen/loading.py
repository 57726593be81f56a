"""Loading models through transformers, strictly: every weight must be there and fit."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tinyldm.errors import InputError
from tinyldm.frozen.hub import Role, find_file, local_or_hub
from tinyldm.typed import read_json
from tinyldm.weights import check_finite, weights_hash

TINY = Path(__file__).parent.parent / "assets" / "clip"
# The files of a model that may name Python code of its own, under this key
CONFIGS = (
    "config.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
    "processor_config.json",
)
CODE = "auto_map"
LAYERS = ("num_hidden_layers", "num_layers", "num_decoder_layers")
MOST_LAYERS = 1000  # transformers builds them one by one, before it looks at the weights
# The numbers 0, 1, 2, ... of the positions, which old files hold among the weights
POSITION_IDS = (
    "embeddings.position_ids",
    "text_model.embeddings.position_ids",
    "vision_model.embeddings.position_ids",
)


def resolve(name: str | Path) -> str:
    """The folder or hub name that a name stands for; "tiny" is the CLIP in the package."""
    return str(TINY) if str(name) == "tiny" else str(name)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the bars and reports of transformers; what matters in them is raised as an error."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def load_pretrained(loader: Any, source: str, role: Role, **options: Any) -> Any:
    """loader.from_pretrained(source, **options), from a folder, the hub's cache or the hub.

    loader: a class of transformers: a model, a tokenizer, AutoConfig, ...
    Code that comes with a model is never run. InputError, in one line, where it cannot be loaded,
    or where it asks for code of its own.
    """

    def load(source: str, local_files_only: bool) -> Any:
        check_configs(source, local_files_only)
        how = {"local_files_only": local_files_only, "trust_remote_code": False, **options}
        if not local_files_only:
            return loader.from_pretrained(source, **how)  # a download shows its progress
        with quiet():
            return loader.from_pretrained(source, **how)

    return local_or_hub(load, source, role)


def check_configs(source: str, local_files_only: bool) -> None:
    """InputError for a model that asks in one of its configs for code of its own, or for an
    endless number of layers, which transformers would begin to build.
    """
    for name in CONFIGS:
        file = find_file(source, name, local_files_only)
        if file is None:
            continue
        content = read_json(file, dict[str, Any])
        layers = [n for key in LAYERS for n in values_of(content, key) if isinstance(n, int)]
        if max(layers, default=0) > MOST_LAYERS:
            raise InputError(f"{name} asks for more than {MOST_LAYERS} layers")
        if any(values_of(content, CODE)):
            raise InputError(
                f"{name} asks for Python code of its own ({CODE}), which is never run; "
                "expected a model that transformers itself knows"
            )


def values_of(content: Any, key: str) -> Iterator[Any]:
    """The values of a key in the content of a config, at any depth."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if key in value:
                yield value[key]
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def load_model(
    model_class: Any,
    source: str,
    role: Role,
    other_parts: tuple[str, ...] = (),
    optional: tuple[str, ...] = (),
) -> Any:
    """A model of a class of transformers in float32, in eval mode, its weights frozen.

    other_parts: weights in the file whose names start with one of these belong to another model
    optional:    weights whose names start with one of these may be missing
    InputError unless every other weight is there, in its shape, finite, and the file has no more.
    Where there is no safetensors file, a pytorch_model.bin is read, as tensors only: no code runs.
    """
    model, report = load_pretrained(
        model_class,
        source,
        role,
        dtype=torch.float32,
        weights_only=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # so that they are reported, not raised by transformers
    )
    ignored = (*other_parts, *POSITION_IDS)
    wrong = {
        "missing": [name for name in report["missing_keys"] if not name.startswith(optional)],
        "unexpected": [name for name in report["unexpected_keys"] if not name.startswith(ignored)],
        "mismatched": [name for name, *_shapes in report["mismatched_keys"]],
    }
    for kind, names in wrong.items():
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise InputError(
                f"{role.name} {source}: {kind} weight {min(names)}{more} for {model_class.__name__}"
            )
    check_finite(model.state_dict(), f"{role.name} {source}")
    return model.eval().requires_grad_(False)


def fingerprint(model: Any, *about: object) -> str:
    """A hash of a transformers model: its configuration, its weights, and whatever else is given.

    about: all other values, expressible in JSON, that decide what is computed with it
    Some versions of transformers wrap the tower of a CLIP in a module, so that the names of all its
    weights begin with the module's; these beginnings do not count.
    """
    config = model.config.to_dict()
    for name in ("_name_or_path", "transformers_version"):  # change nothing that is computed
        config.pop(name, None)
    weights = model.state_dict()
    for wrapper in ("text_model.", "vision_model."):
        if all(name.startswith(wrapper) for name in weights):
            weights = {name.removeprefix(wrapper): weight for name, weight in weights.items()}
    return weights_hash(weights, [config, *about])[:16]
