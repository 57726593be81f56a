"""What an autoencoder keeps of pictures: its reconstructions, their PSNR and SSIM."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from tinyldm.autoencoder.kl import AutoencoderKL
from tinyldm.data.examples import IMAGE_SUFFIXES
from tinyldm.data.images import from_bytes, load_image, resize
from tinyldm.errors import InputError
from tinyldm.scores.files import samples_below
from tinyldm.scores.similarity import psnr, ssim


@dataclass(frozen=True)
class ReconstructionScores:
    """The scores of a set of reconstructions.

    mean:   of the PSNR of each picture, in dB
    pooled: the PSNR of the squared error of all pictures together, never above the mean
    ssim:   the mean SSIM
    """

    images: int
    mean: float
    pooled: float
    ssim: float

    @classmethod
    def of(cls, psnrs: Tensor, ssims: Tensor) -> ReconstructionScores:
        """From the PSNR and the SSIM of each picture, (n,) both."""
        error = (10 ** (-psnrs / 10)).mean()
        pooled = -10 * torch.log10(error)
        return cls(len(psnrs), psnrs.mean().item(), pooled.item(), ssims.mean().item())


def to_batch(pictures: np.ndarray | Tensor) -> Tensor:
    """uint8 (b, h, w, 3) -> float (b, 3, h, w) in [-1, 1]."""
    return from_bytes(torch.as_tensor(pictures).permute(0, 3, 1, 2)).contiguous()


def to_pictures(batch: Tensor) -> Tensor:
    """The inverse of to_batch; values beyond [-1, 1] are clipped."""
    bytes_ = ((batch.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return bytes_.permute(0, 2, 3, 1)


@torch.no_grad()
def reconstruct(
    vae: AutoencoderKL, pictures: np.ndarray | Tensor, batch_size: int = 64, noise: float = 0.0
) -> Tensor:
    """decode(mean of encode) of uint8 pictures (n, h, w, 3), of the same shape and type.

    noise: the standard deviation of an error added to the latents, relative to that of each
           channel; it shows what the errors of a sampler would look like
    """
    generator = torch.Generator().manual_seed(0)
    made = []
    for batch in torch.as_tensor(pictures).split(batch_size):
        z = vae.encode(to_batch(batch).to(vae.device)).mean
        if noise:
            error = torch.randn(z.shape, generator=generator).to(z)
            z = z + noise * z.std((0, 2, 3), keepdim=True) * error
        made.append(to_pictures(vae.decode(z)).cpu())
    return torch.cat(made)


def psnr_and_ssim(
    vae: AutoencoderKL, pictures: np.ndarray | Tensor, noise: float = 0.0
) -> tuple[Tensor, Tensor]:
    """PSNR and SSIM (n,) of the 8-bit reconstructions of uint8 pictures (n, h, w, 3)."""
    pictures = torch.as_tensor(pictures)
    made = reconstruct(vae, pictures, noise=noise).permute(0, 3, 1, 2)
    given = pictures.permute(0, 3, 1, 2)
    return psnr(made, given, span=255.0), ssim(made, given, span=255.0)


def picture_scores(
    vae: AutoencoderKL, pictures: np.ndarray | Tensor, noise: float = 0.0
) -> ReconstructionScores:
    """The scores of the 8-bit reconstructions of uint8 pictures (n, h, w, 3)."""
    psnrs, ssims = psnr_and_ssim(vae, pictures, noise)
    return ReconstructionScores.of(psnrs, ssims)


def folder_scores(
    vae: AutoencoderKL,
    folder: str | Path,
    size: int | None = None,
    limit: int | None = None,
    batch_size: int = 64,
) -> ReconstructionScores:
    """The scores over the pictures in a folder and those below it, at most `limit` of them.

    size: squash them to size x size first; None: leave them as they are.
    """
    files = samples_below(Path(folder))[:limit]
    if not files:
        kinds = ", ".join(IMAGE_SUFFIXES)
        raise InputError(f"{folder}: no pictures there (expected {kinds} files)")
    psnrs, ssims = [], []
    for start in tqdm(range(0, len(files), batch_size), desc="reconstructing", unit="batch"):
        batch = [_read(file, size, vae.factor) for file in files[start : start + batch_size]]
        for part in _of_one_size(batch):
            part_psnrs, part_ssims = psnr_and_ssim(vae, part)
            psnrs.append(part_psnrs)
            ssims.append(part_ssims)
    return ReconstructionScores.of(torch.cat(psnrs), torch.cat(ssims))


def _of_one_size(pictures: list[Tensor]) -> list[Tensor]:
    """Pictures (h, w, 3) as one batch if they have the same size, else each as its own batch."""
    if all(picture.shape == pictures[0].shape for picture in pictures):
        return [torch.stack(pictures)]
    return [picture[None] for picture in pictures]


def _read(file: Path, size: int | None, factor: int) -> Tensor:
    """An image file as uint8 (h, w, 3); InputError where its size suits neither VAE nor SSIM."""
    image = load_image(file)
    if size is not None:
        image = resize(image, size)
    if image.width % factor or image.height % factor or min(image.size) < 11:
        raise InputError(
            f"{file}: {image.width}x{image.height}, expected sides of at least 11, "
            f"divisible by {factor} (give a --size)"
        )
    return torch.from_numpy(np.array(image))
