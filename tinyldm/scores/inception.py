"""The two Inception networks that people measure FID with; both need torchvision, the extra `eval`.

"torchvision" is what the assignments use: torchvision's ImageNet weights without the last layer, on
images that Pillow has resized. "pytorch-fid" is the usual convention: the weights of the first FID
paper (1706.08500) in PyTorch, with other pooling, on images that are resized as tensors without
antialiasing. Numbers of one cannot be compared with numbers of the other.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from tinyldm.errors import InputError, reason
from tinyldm.files import check_regular
from tinyldm.scores.features import Extractor
from tinyldm.weights import read_weights, weights_hash

SIDE = 299  # pixels that both networks look at


def prepare_by_pillow(image: Image.Image) -> Tensor:
    """An RGB image -> (3, 299, 299) in [-1, 1], by Pillow's bilinear filter on 8-bit colours.

    The filter averages where it shrinks.
    """
    resized = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return _pixels(resized) * 2 - 1


def prepare_as_tensor(image: Image.Image) -> Tensor:
    """An RGB image -> (3, 299, 299) in [-1, 1], by bilinear interpolation of four neighbours."""
    pixels = _pixels(image)[None]
    resized = F.interpolate(pixels, (SIDE, SIDE), mode="bilinear", align_corners=False)
    return resized[0] * 2 - 1


def _pixels(image: Image.Image) -> Tensor:
    """An RGB image -> (3, h, w) in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


@dataclass(frozen=True)
class Inception:
    """One of the networks: where its weights lie, how it is built and how an image is prepared.

    option:        of `python -m tinyldm evaluate`, names a file of weights
    preprocessing: what prepare does, in words
    """

    url: str
    option: str
    build: Callable[[], nn.Module]
    prepare: Callable[[Image.Image], Tensor]
    preprocessing: str


def _torchvision() -> nn.Module:
    from torchvision.models import inception_v3

    return inception_v3(weights=None, init_weights=False, transform_input=False)


def _pytorch_fid() -> nn.Module:
    """torchvision's network with 1008 classes and other pooling.

    Average pools leave their padding out, and the pool of the last block takes maxima.
    """
    from torchvision.models import inception_v3

    net = inception_v3(weights=None, init_weights=False, num_classes=1008, aux_logits=False)
    average = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
    maximum = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)
    for name in ("5b", "5c", "5d", "6b", "6c", "6d", "6e", "7b"):
        net.get_submodule(f"Mixed_{name}").register_forward_hook(partial(_pool_anew, average))
    net.get_submodule("Mixed_7c").register_forward_hook(partial(_pool_anew, maximum))
    return net


def _pool_anew(pool: Callable, block, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    """The output of a block whose pooled branch, its last channels, is pooled by `pool` instead."""
    branch = block.branch_pool(pool(inputs[0]))
    others = output[:, : -branch.shape[1]]
    return torch.cat([others, branch], dim=1)


KINDS = {
    "torchvision": Inception(
        url="https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth",
        option="--inception",
        build=_torchvision,
        prepare=prepare_by_pillow,
        preprocessing="299x299 (Pillow, bilinear), mean .5, deviation .5",
    ),
    "pytorch-fid": Inception(
        url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
        "pt_inception-2015-12-05-6726825d.pth",
        option="--pytorch-fid",
        build=_pytorch_fid,
        prepare=prepare_as_tensor,
        preprocessing="299x299 (tensor, bilinear, no antialiasing), to [-1, 1]",
    ),
}


def load_inception(
    kind: str, weights: str | Path | None = None, device: torch.device | str = "cpu"
) -> Extractor:
    """One of KINDS, whose pooled features are (b, 2048).

    weights: a file, or None for the cache of torch.hub. InputError: torchvision is missing or
    broken; the weights are missing and cannot be fetched, or do not fit.
    """
    known = KINDS[kind]
    try:
        net = known.build()
    except (ImportError, OSError, RuntimeError) as error:
        remedy = "pip install 'tinyldm[eval]', or choose other --metrics"
        raise InputError(f"FID needs torchvision ({reason(error)}): {remedy}") from None
    file = Path(weights) if weights is not None else _cached(known)
    try:
        net.load_state_dict(_read(file))
    except (RuntimeError, TypeError) as error:  # names each weight that does not fit, a line each
        raise InputError(
            f"{file}: not the weights of {kind}'s Inception ({reason(error)})"
        ) from None
    net.register_module("fc", nn.Identity())  # no classes, but the features before them
    net = net.to(device).eval().requires_grad_(False)

    def embed(pixels: Tensor) -> Tensor:
        return net(pixels.to(device))

    return Extractor(
        name=f"Inception {kind} {weights_hash(net.state_dict())[:16]}",
        preprocessing=known.preprocessing,
        prepare=known.prepare,
        embed=embed,
    )


def _cached(known: Inception) -> Path:
    """The file of weights in the cache of torch.hub, fetched first if it is not there."""
    name = known.url.rpartition("/")[2]
    file = Path(torch.hub.get_dir()) / "checkpoints" / name
    if file.is_file():
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    _, _, beginning_of_hash = file.stem.rpartition("-")
    try:
        torch.hub.download_url_to_file(known.url, str(file), hash_prefix=beginning_of_hash)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{file}: no such file, and {known.url} can't be fetched ({error}); download it "
            f"elsewhere and put it there, or give {known.option} FILE"
        ) from None
    return file


def _read(file: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or .pth file; of the latter only tensors: no code runs."""
    if file.suffix == ".safetensors":
        return read_weights(file)
    check_regular(file, "file of weights")
    try:
        with warnings.catch_warnings(action="ignore"):  # of files that are refused anyway
            return torch.load(file, "cpu", weights_only=True)
    except Exception as error:  # broken bytes make torch raise almost anything
        raise InputError(
            f"{file}: not a file of weights that can be read ({reason(error)})"
        ) from None
