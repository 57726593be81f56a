"""What the latent cache writes: the posteriors of all views of all images, and the tokens of all captions."""

from __future__ import annotations

import math
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b, file_digest
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from tinyldm.data.images import Augmentation, from_bytes, load_image, to_bytes
from tinyldm.errors import InputError
from tinyldm.files import require_space, writing

CAPTIONS_AT_ONCE = 64
PIXELS_AT_ONCE = {"cpu": 2**19, "cuda": 2**21}  # 8 images of 256x256, or 32


def digests(files: list[Path], workers: int, progress: bool) -> list[str | None]:
    """A hash of the bytes of each file; None for one that can't be read."""

    def digest(file: Path) -> str | None:
        try:
            with open(file, "rb") as opened:
                return file_digest(opened, lambda: blake2b(digest_size=16)).hexdigest()
        except (OSError, ValueError):  # ValueError: no name that a file can have
            return None

    with ThreadPoolExecutor(workers) as pool:
        found = pool.map(digest, files)
        return list(
            tqdm(found, "reading images", len(files), unit="image", delay=2, disable=not progress)
        )


def _chunks(items, n: int):
    """Tuples of n items, the last maybe shorter."""
    items = iter(items)
    while chunk := tuple(islice(items, n)):
        yield chunk


def write_latents(
    folder: Path,
    files: list[Path],
    hashes: list[str | None],
    vae,
    size: tuple[int, int],
    augmentation: Augmentation,
    device,
    workers: int,
    progress: bool,
    skip_bad: bool,
) -> dict:
    """Write latents.f16, (rows, 2, c, h, w): mean and std of the posterior of each view of each image, in order.

    Without a VAE the pixels themselves, (rows, 1, 3, h, w). The header has the shape, the number of views, the mean
    and std of each channel of the sampled posterior, and what was left out, {index: why}.
    InputError: an image that can't be read, unless skip_bad; a VAE that gives anything not finite.
    """
    sums, left_out, shape = 0, {}, None
    limit = max(
        1, PIXELS_AT_ONCE.get(torch.device(device).type, 2**19) // math.prod(size)
    )  # views in one call
    images = _decoded(files, hashes, size, augmentation, workers)
    bar = tqdm(total=len(files), desc="encoding images", unit="image", disable=not progress)
    with bar, writing(folder / "latents.f16") as file:
        for batch in _chunks(images, math.ceil(limit / augmentation.views)):
            for index, pixels in batch:
                if isinstance(pixels, InputError):
                    if not skip_bad:
                        raise pixels
                    left_out[str(index)] = str(pixels)  # a string, as JSON will have it
            views = [pixels for _, pixels in batch if not isinstance(pixels, InputError)]
            for rows in torch.cat(views).split(limit) if views else ():
                record = _posterior(vae, from_bytes(rows.to(device)))
                if not torch.isfinite(record).all():
                    first, last = files[batch[0][0]], files[batch[-1][0]]
                    raise InputError(
                        f"the VAE's latents are not finite in float16, between {first} and {last}"
                    )
                if shape is None:
                    shape = list(record.shape[1:])
                    require_space(
                        folder / "latents.f16",
                        len(files) * augmentation.views * math.prod(shape) * 2,
                    )
                file.write(record.numpy())
                sums = sums + _moments(record)
            bar.update(len(batch))
    if shape is None:
        raise InputError(f"no image that can be read: {next(iter(left_out.values()))}")
    count, total, squares = sums  # (c,) each
    mean = total / count
    std = (squares / count - mean**2).clamp(min=0).sqrt()
    std[std < 1e-4] = 1  # a channel that never changes carries nothing that a scale could bring out
    views = (len(files) - len(left_out)) * augmentation.views
    return {
        "shape": [views, *shape],
        "views": augmentation.views,
        "left_out": left_out,
        "mean": mean.tolist(),
        "std": std.tolist(),
    }


def _decoded(
    files: list[Path], hashes: list[str | None], size, augmentation: Augmentation, workers: int
):
    """Yield (index, uint8 views (views, 3, h, w), or the InputError that the image gave), decoding a few ahead."""

    def decode(index: int):
        try:
            image = load_image(files[index])
            key = int(
                hashes[index] or "0", 16
            )  # the copies of an image follow from its bytes, not from its place
            return torch.stack([to_bytes(view) for view in augmentation.apply(image, size, key)])
        except InputError as error:
            return error

    with ThreadPoolExecutor(workers) as pool:
        ahead = deque()
        try:
            for index in range(len(files)):
                ahead.append((index, pool.submit(decode, index)))
                if len(ahead) > 4 * workers:
                    index, job = ahead.popleft()
                    yield index, job.result()
            while ahead:
                index, job = ahead.popleft()
                yield index, job.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@torch.no_grad()
def _posterior(vae, images: Tensor) -> Tensor:
    """Mean and std of the images' (b, 3, h, w) posteriors, float16 (b, 2, c, h, w); (b, 1, 3, h, w) without a VAE."""
    if vae is None:
        return images.unsqueeze(1).half().cpu()
    with torch.autocast(
        images.device.type, enabled=False
    ):  # float32: the encoder overflows float16
        posterior = vae.encode(images)
    return torch.stack([posterior.mean, posterior.std], 1).half().cpu().contiguous()


def _moments(record: Tensor) -> Tensor:
    """(3, c): count, sum and sum of squares of what a record's posteriors give when sampled."""
    mean, *std = record.double().unbind(1)
    squares = mean**2 + (std[0] ** 2 if std else 0)  # E x^2 = mean^2 + std^2
    return torch.stack([part.sum((0, 2, 3)) for part in (torch.ones_like(mean), mean, squares)])


@torch.no_grad()
def write_captions(folder: Path, captions: list[str], text_encoder, progress: bool) -> dict:
    """Write tokens.f16, (n, width), the real tokens of all captions in a row, and offsets.i64, where each begins."""
    offsets, width = [0], text_encoder.width
    encode = getattr(text_encoder, "stored", None) or text_encoder.encode
    bar = tqdm(total=len(captions), desc="encoding captions", unit="caption", disable=not progress)
    with bar, writing(folder / "tokens.f16") as file:
        for batch in _chunks(captions, CAPTIONS_AT_ONCE):
            encoded = encode(list(batch)).to("cpu")
            tokens = encoded.tokens.half()
            mask = (
                torch.ones(tokens.shape[:2], dtype=torch.bool)
                if encoded.mask is None
                else encoded.mask
            )
            for caption, rows, real in zip(batch, tokens, mask):
                rows = rows[real]  # (n, width)
                if not torch.isfinite(rows).all():
                    raise InputError(
                        f"the text encoder's tokens of {caption!r} are not finite in float16"
                    )
                file.write(rows.numpy())
                offsets.append(offsets[-1] + len(rows))
            bar.update(len(batch))
    with writing(folder / "offsets.i64") as file:
        file.write(np.array(offsets, np.int64))
    return {"width": width, "tokens": offsets[-1]}
