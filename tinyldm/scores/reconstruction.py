"""What an autoencoder keeps of pictures: its reconstructions, their PSNR and SSIM."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from tinyldm.autoencoder.kl import AutoencoderKL
from tinyldm.data.examples import IMAGE_SUFFIXES
from tinyldm.data.images import from_bytes, load_image, resize
from tinyldm.errors import InputError
from tinyldm.scores.similarity import psnr, ssim


@dataclass(frozen=True)
class Reconstruction:
    """Over a set of pictures: the mean of their PSNR in dB, the PSNR of the pooled squared error, the mean SSIM."""

    images: int
    mean: float
    pooled: float
    ssim: float

    @classmethod
    def of(cls, each: Tensor, likeness: Tensor) -> Reconstruction:
        """From the PSNR and the SSIM of each picture, (n,) both."""
        pooled = -10 * torch.log10((10 ** (-each / 10)).mean())
        return cls(len(each), each.mean().item(), pooled.item(), likeness.mean().item())


def to_batch(pictures: np.ndarray | Tensor) -> Tensor:
    """uint8 (b, h, w, 3) to float (b, 3, h, w) in [-1, 1]."""
    return from_bytes(torch.as_tensor(pictures).permute(0, 3, 1, 2)).contiguous()


def to_pictures(batch: Tensor) -> Tensor:
    """The inverse of to_batch; values beyond [-1, 1] are clipped."""
    return ((batch.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)


@torch.no_grad()
def reconstruct(
    vae: AutoencoderKL, pictures: np.ndarray | Tensor, batch_size: int = 64, noise: float = 0.0
) -> Tensor:
    """decode(mean) of uint8 pictures (n, h, w, 3), of the same shape and type, in float32.

    noise: standard deviation of an error put on the latents, in units of their own; how a sampler's errors would look.
    """
    generator, device, parts = torch.Generator().manual_seed(0), vae.device, []
    for batch in torch.as_tensor(pictures).split(batch_size):
        z = vae.encode(to_batch(batch).to(device)).mean
        if noise:
            z = z + noise * z.std((0, 2, 3), keepdim=True) * torch.randn(
                z.shape, generator=generator
            ).to(z)
        parts.append(to_pictures(vae.decode(z)).cpu())
    return torch.cat(parts)


def each_score(
    vae: AutoencoderKL, pictures: np.ndarray | Tensor, noise: float = 0.0
) -> tuple[Tensor, Tensor]:
    """PSNR and SSIM (n,) of the 8-bit reconstructions of uint8 pictures (n, h, w, 3)."""
    pictures = torch.as_tensor(pictures)
    a, b = (p.permute(0, 3, 1, 2) for p in (reconstruct(vae, pictures, noise=noise), pictures))
    return psnr(a, b, span=255.0), ssim(a, b, span=255.0)


def picture_scores(
    vae: AutoencoderKL, pictures: np.ndarray | Tensor, noise: float = 0.0
) -> Reconstruction:
    """The scores of the 8-bit reconstructions of uint8 pictures (n, h, w, 3)."""
    return Reconstruction.of(*each_score(vae, pictures, noise))


def folder_scores(
    vae: AutoencoderKL,
    folder: str | Path,
    size: int | None = None,
    limit: int | None = None,
    batch_size: int = 64,
) -> Reconstruction:
    """The scores over the pictures in a folder, squashed to size x size (None: left as they are)."""
    files = sorted(f for f in Path(folder).rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES)[:limit]
    if not files:
        raise InputError(
            f"{folder}: no pictures there (expected {', '.join(IMAGE_SUFFIXES)} files)"
        )
    scores = []
    for start in tqdm(range(0, len(files), batch_size), desc="reconstructing", unit="batch"):
        pictures = [_read(file, size, vae.factor) for file in files[start : start + batch_size]]
        same = all(p.shape == pictures[0].shape for p in pictures)
        scores += [
            each_score(vae, part)
            for part in ([torch.stack(pictures)] if same else [p[None] for p in pictures])
        ]
    return Reconstruction.of(*(torch.cat(parts) for parts in zip(*scores)))


def _read(file: Path, size: int | None, factor: int) -> Tensor:
    image = load_image(file)
    image = image if size is None else resize(image, size)
    if image.width % factor or image.height % factor or min(image.size) < 11:
        raise InputError(
            f"{file}: {image.width}x{image.height}, expected sides of at least 11, divisible by {factor} "
            "(give a --size)"
        )
    return torch.from_numpy(np.array(image))
