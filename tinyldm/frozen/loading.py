"""Loading through transformers, strictly: first from folders and what was fetched before, then from the hub."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from pathlib import Path

import torch

from tinyldm.errors import InputError


@contextmanager
def quiet():
    """Without the bars and reports of transformers: what matters in them is raised as an error."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def load_pretrained(load, source: str, what: str, option: str, files: str = ""):
    """load(source, local_files_only=...): from a folder or the cache of the hub, or else from the hub itself.

    what and option name the model and its option in the one line of an InputError, files those worth fetching.
    """
    from huggingface_hub import HfApi

    try:
        with quiet():
            return load(source, local_files_only=True)
    except (
        Exception
    ) as error:  # whatever transformers, tokenizers, safetensors and pickle make of broken files
        if Path(source).exists():
            raise InputError(f"{what} {source}: {' '.join(str(error).split())[:240]}") from error
    try:
        HfApi().model_info(
            source, timeout=10
        )  # one question, so that a missing network doesn't take many retries
        return load(source, local_files_only=False)
    except Exception as error:
        raise InputError(
            f"{what} {source} is not a folder and can't be fetched ({type(error).__name__}): where there is "
            f"a network, `hf download {source}{files} --local-dir FOLDER`, then give {option} FOLDER; or "
            f"use {option} tiny"
        ) from error


def load_weights(
    model_class, source: str, what: str, option: str, other_parts: tuple[str, ...] = (), spare=()
):
    """model_class from source in float32, frozen; raises InputError unless every weight is there and fits.

    Weights in the file that begin with other_parts belong to something else; those that begin with spare may lack.
    A pytorch_model.bin, where there is no safetensors file, is read as tensors only and never runs code.
    """
    strict = dict(
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        weights_only=True,
        dtype=torch.float32,
    )

    def load(name, **how):
        return model_class.from_pretrained(name, **how, **strict)

    model, info = load_pretrained(load, source, what, option)
    numbers = "embeddings.position_ids"  # 0, 1, 2, ...: old files hold them
    other = (*other_parts, numbers, f"text_model.{numbers}", f"vision_model.{numbers}")
    wrong = {
        "missing": [k for k in info["missing_keys"] if not k.startswith(tuple(spare))],
        "unexpected": [k for k in info["unexpected_keys"] if not k.startswith(other)],
        "mismatched": [k[0] for k in info["mismatched_keys"]],
    }
    for kind, keys in wrong.items():
        if keys:
            rest = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise InputError(
                f"{what} {source}: {kind} weight {min(keys)}{rest} for {model_class.__name__}"
            )
    return model.eval().requires_grad_(False)


def weights_hash(weights: dict[str, torch.Tensor], about=None) -> str:
    """A hash of named weights, and of what else decides what is computed with them: anything that JSON can say."""
    digest = hashlib.sha256(
        b"" if about is None else json.dumps(about, sort_keys=True, default=str).encode()
    )
    for name, weight in sorted(weights.items()):
        digest.update(name.encode() + weight.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def fingerprint(model, *known) -> str:
    """A hash of a model's configuration and weights, and of what else decides what it computes."""
    config = {
        k: v
        for k, v in model.config.to_dict().items()
        if k not in ("_name_or_path", "transformers_version")
    }
    return weights_hash(model.state_dict(), [config, *known])[:16]
