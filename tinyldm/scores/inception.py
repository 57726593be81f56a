"""The two Inception networks that people measure FID with; both need torchvision, the extra `eval`.

"torchvision" is what the assignments use: torchvision's ImageNet weights without the last layer, on images that Pillow
has resized. "pytorch-fid" is the usual convention: the weights of the first FID paper (1706.08500) in PyTorch, which
pool otherwise, on images that are resized as tensors, without antialiasing. Their numbers can't be compared.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tinyldm.errors import InputError
from tinyldm.frozen.loading import weights_hash
from tinyldm.scores.features import Extractor


def prepare_by_pillow(image: Image.Image) -> Tensor:
    """To (3, 299, 299) in [-1, 1] by Pillow's bilinear filter, which averages where it shrinks, on 8-bit colours."""
    return _pixels(image.resize((299, 299), Image.Resampling.BILINEAR)) * 2 - 1


def prepare_as_tensor(image: Image.Image) -> Tensor:
    """To (3, 299, 299) in [-1, 1] by bilinear interpolation of four neighbours."""
    return (
        F.interpolate(_pixels(image)[None], (299, 299), mode="bilinear", align_corners=False)[0] * 2
        - 1
    )


def _pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


@dataclass(frozen=True)
class Inception:
    """Where the weights lie, how the network is built, how an image is prepared; option names the file of weights."""

    url: str
    option: str
    build: Callable[[], nn.Module]
    prepare: Callable[[Image.Image], Tensor]
    preprocessing: str


def _torchvision() -> nn.Module:
    from torchvision.models import inception_v3

    return inception_v3(weights=None, init_weights=False, transform_input=False)


def _pytorch_fid() -> nn.Module:
    """torchvision's network with 1008 classes; average pools leave their padding out, and the last one takes maxima."""
    from torchvision.models import inception_v3

    net = inception_v3(weights=None, init_weights=False, num_classes=1008, aux_logits=False)
    average = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
    pools = dict.fromkeys(("5b", "5c", "5d", "6b", "6c", "6d", "6e", "7b"), average)
    pools["7c"] = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)
    for name, pool in pools.items():

        def pool_anew(block, inputs, output, pool=pool):
            branch = block.branch_pool(pool(inputs[0]))  # the last channels of the block
            return torch.cat([output[:, : -branch.shape[1]], branch], dim=1)

        getattr(net, f"Mixed_{name}").register_forward_hook(pool_anew)
    return net


KINDS = {
    "torchvision": Inception(
        "https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth",
        "--inception",
        _torchvision,
        prepare_by_pillow,
        "299x299 (Pillow, bilinear), mean .5, deviation .5",
    ),
    "pytorch-fid": Inception(
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
        "pt_inception-2015-12-05-6726825d.pth",
        "--pytorch-fid",
        _pytorch_fid,
        prepare_as_tensor,
        "299x299 (tensor, bilinear, no antialiasing), to [-1, 1]",
    ),
}


def load_inception(
    kind: str, weights: str | Path | None = None, device: torch.device | str = "cpu"
) -> Extractor:
    """The pooled features (b, 2048) of one of KINDS; weights: a file, or None for the cache of torch.hub.

    InputError: torchvision is missing or broken; the weights are missing and can't be fetched, or don't fit.
    """
    known = KINDS[kind]
    try:
        net = known.build()
    except (ImportError, OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        remedy = "pip install 'tinyldm[eval]', or choose other --metrics"
        raise InputError(f"FID needs torchvision ({reason}): {remedy}") from None
    file = Path(weights) if weights is not None else _cached(known)
    try:
        net.load_state_dict(_read(file))
    except (RuntimeError, TypeError) as error:  # names each weight that doesn't fit, a line each
        first = " ".join(line.strip() for line in str(error).splitlines()[:2])[:200]
        raise InputError(f"{file}: not the weights of {kind}'s Inception ({first})") from None
    net.fc = nn.Identity()
    net = net.to(device).eval().requires_grad_(False)
    name = f"Inception {kind} {weights_hash(net.state_dict())[:16]}"
    return Extractor(
        name, known.preprocessing, known.prepare, lambda pixels: net(pixels.to(device))
    )


def _cached(known: Inception) -> Path:
    """The file of weights in the cache of torch.hub, fetched first if it isn't there."""
    name = known.url.rpartition("/")[2]
    file = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(
                known.url, str(file), hash_prefix=Path(name).stem.rpartition("-")[2]
            )
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"{file}: no such file, and {known.url} can't be fetched ({error}); download it elsewhere "
                f"and put it there, or give {known.option} FILE"
            ) from None
    return file


def _read(file: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of a .pth; of the latter nothing but tensors, so that no code can run."""
    try:
        return (
            load_file(file)
            if file.suffix == ".safetensors"
            else torch.load(file, "cpu", weights_only=True)
        )
    except FileNotFoundError:
        raise InputError(f"{file}: no such file of weights") from None
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise InputError(
            f"{file}: not a file of weights that can be read ({str(error).splitlines()[0]})"
        ) from None
