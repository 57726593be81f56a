"""What the latent cache writes: the posteriors of all images, and the tokens of all prompts."""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from tinyldm.data.cache import Header
from tinyldm.data.checksums import Verification
from tinyldm.data.examples import Prompt
from tinyldm.data.images import (
    Augmentation,
    check_file,
    from_bytes,
    load_image,
    read_image_file,
    to_bytes,
)
from tinyldm.errors import InputError
from tinyldm.files import append_file, checksum, file_checksum, require_space, writing
from tinyldm.processes import ALONE, Processes
from tinyldm.typed import Count, Index, Limits

if TYPE_CHECKING:
    from tinyldm.tasks.base import Encoder

LATENTS = "latents.f16"
PROMPTS_AT_ONCE = 64
FILES_AT_ONCE = 16  # that a thread reads before it looks for more work
PIXELS_AT_ONCE = {"cpu": 2**19, "cuda": 2**21}  # 8 images of 256x256, or 32

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class LatentsHeader(Header):
    """The type of the header of latents; see write_latents."""

    shape: tuple[Count, Count, Count, Count, Count]
    views: Count
    left_out: dict[Index, str]
    mean: list[Annotated[float, Limits(ge=-1e6, le=1e6)]]  # latents are float16
    std: list[Annotated[float, Limits(gt=0, le=1e6)]]

    def __post_init__(self) -> None:
        if self.files.get(LATENTS) != 2 * math.prod(self.shape):
            raise ValueError("shape: expected that of latents.f16")
        if {len(self.mean), len(self.std)} != {self.shape[2]}:
            raise ValueError("mean, std: expected one number for each channel")


@dataclass(frozen=True, kw_only=True)
class TokensHeader(Header):
    """The type of the header of captions; see write_tokens."""

    width: Count
    tokens: Index

    def __post_init__(self) -> None:
        if self.files.get("tokens.f16") != 2 * self.tokens * self.width:
            raise ValueError("width, tokens: expected the shape of tokens.f16")


class ChangedError(InputError):
    """A file is no longer what it was when the key of the cache was made.

    skip_bad leaves no such file out, for it may be whole again when the cache is opened.
    """

    def __init__(self, file: Path | str):
        super().__init__(
            f"{file}: was changed while the data was being encoded; start again once it is finished"
        )


def file_hash(file: Path) -> str | None:
    """A hash of the bytes of an image file; None for one that cannot be read."""
    try:
        check_file(file)
        return file_checksum(file)
    except (OSError, InputError):
        return None


def file_hashes(files: Sequence[Path], workers: int, progress: bool) -> list[str | None]:
    """The hashes of files, read by `workers` threads."""
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        parts = pool.map(lambda part: [*map(file_hash, part)], chunks(files, FILES_AT_ONCE))
        found = chain.from_iterable(parts)
        bar = tqdm(found, "reading images", len(files), unit="image", delay=2, disable=not progress)
        try:
            return list(bar)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # a signal does not wait for the rest


def chunks(items: Iterable[T], n: int) -> Iterator[tuple[T, ...]]:
    """Tuples of n items; the last one may be shorter."""
    items = iter(items)
    while chunk := tuple(islice(items, n)):
        yield chunk


@dataclass(frozen=True)
class Building:
    """How a cache is built.

    root:         the folder of all caches
    workers:      threads that read images
    skip_bad:     leave out what cannot be read, in place of an InputError
    verification: compares large files with their checksums; None: sizes alone are compared
    processes:    those that each encode a share of the images
    """

    root: Path
    device: torch.device | str = "cpu"
    workers: int = 4
    progress: bool = True
    skip_bad: bool = False
    verification: Verification | None = None
    processes: Processes = ALONE


@dataclass(frozen=True)
class ImageSet:
    """Images to encode.

    hashes: of the files' bytes, None where a file cannot be read
    size:   (h, w) of every view
    """

    files: tuple[Path, ...]
    hashes: tuple[str | None, ...]
    size: tuple[int, int]
    augmentation: Augmentation

    def views(self, index: int) -> Tensor:
        """All views of image `index`, uint8 (views, 3, h, w).

        The bytes that are decoded are those that were hashed; ChangedError if they are no longer.
        """
        image = load_image(self.files[index], self.content(index))
        # the copies of an image follow from its bytes, not from its place in the folder
        key = int(self.hashes[index] or "0", 16)
        views = self.augmentation.apply(image, self.size, key)
        return torch.stack([to_bytes(view) for view in views])

    def content(self, index: int) -> bytes:
        """The bytes of image `index`, whose hash is the one in the key of the cache."""
        file, known = self.files[index], self.hashes[index]
        try:
            content = read_image_file(file)
        except InputError:
            if known is None:
                raise
            raise ChangedError(file) from None
        if checksum(content) != known:
            raise ChangedError(file)
        return content

    def decoded(
        self, indices: Iterable[int], workers: int
    ) -> Generator[tuple[int, Tensor | InputError], None, None]:
        """(index, views or the error of that image) for some images; a few are decoded ahead.

        Close it if you stop before its end: its threads live until then.
        """

        def decode(index: int) -> Tensor | InputError:
            try:
                return self.views(index)
            except InputError as error:
                return error

        with ThreadPoolExecutor(workers) as pool:
            ahead: deque[tuple[int, Any]] = deque()
            try:
                for index in indices:
                    ahead.append((index, pool.submit(decode, index)))
                    if len(ahead) > 4 * workers:
                        first, job = ahead.popleft()
                        yield first, job.result()
                while ahead:
                    first, job = ahead.popleft()
                    yield first, job.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


@dataclass
class Share:
    """What one process has written of latents.f16, for consecutive images.

    rows:     views written
    shape:    of one record, (2, c, h, w) or (1, c, h, w); empty without any
    left_out: {index: why}
    sums:     1 + 2 c numbers for each call of the VAE: how many values a channel had; the sum of
              the means of each channel; the sum of E x^2 of each, of what is sampled
    """

    rows: int = 0
    shape: tuple[int, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    sums: array[float] = field(default_factory=lambda: array("d"))

    def sort_out(
        self, batch: Iterable[tuple[int, Tensor | InputError]], skip_bad: bool
    ) -> list[Tensor]:
        """The views of the images that could be read; with skip_bad, the others are left out."""
        good = []
        for index, pixels in batch:
            if isinstance(pixels, Tensor):
                good.append(pixels)
            elif skip_bad and not isinstance(pixels, ChangedError):
                self.left_out[str(index)] = str(pixels)  # a string, as JSON will have it
            else:
                raise pixels
        return good

    def add(self, record: Tensor) -> None:
        """Count posteriors (b, 2, c, h, w), or pixels (b, 1, c, h, w)."""
        self.rows += len(record)
        self.shape = tuple(record.shape[1:])
        record = record.double()
        mean = record[:, 0]  # (b, c, h, w)
        squares = mean**2
        if record.shape[1] == 2:
            squares = squares + record[:, 1] ** 2  # E x^2 = mean^2 + std^2 of what is sampled
        self.sums.append(mean[:, 0].numel())
        self.sums.extend(mean.sum((0, 2, 3)).tolist())
        self.sums.extend(squares.sum((0, 2, 3)).tolist())


def mean_and_std(shares: Sequence[Share]) -> tuple[Tensor, Tensor]:
    """(c,) each, of all shares; added up in one order, however the images were shared out.

    The deviation of a channel that never changes is given as 1.
    """
    channels = next(share.shape[1] for share in shares if share.rows)
    sums = np.concatenate([np.array(share.sums) for share in shares]).reshape(-1, 1 + 2 * channels)
    total = torch.from_numpy(np.add.accumulate(sums)[-1])
    mean, square = (total[1:] / total[0]).chunk(2)
    std = (square - mean**2).clamp(min=0).sqrt()
    std[std < 1e-4] = 1
    return mean, std


def write_latents(folder: Path, images: ImageSet, vae: Any, building: Building) -> dict[str, Any]:
    """Write latents.f16, (rows, 2, c, h, w): mean and std of the posterior of each view, in order.

    Without a VAE the pixels themselves, (rows, 1, 3, h, w). Each process of the building encodes
    its share; see write_share. The header returned has the shape, the number of views, the mean and
    std of each channel of the sampled posteriors, and what was left out, {index: why}.
    """
    shares = write_shares(folder, images, vae, building)
    left_out = {index: why for share in shares for index, why in share.left_out.items()}
    rows = sum(share.rows for share in shares)
    if not rows:
        raise InputError(f"no image that can be read: {next(iter(left_out.values()))}")
    for place in range(1, len(shares)):
        part = folder / share_name(place)
        append_file(folder / LATENTS, part)
        part.unlink()
    mean, std = mean_and_std(shares)
    shape = next(share.shape for share in shares if share.rows)
    return {
        "shape": [rows, *shape],
        "views": images.augmentation.views,
        "left_out": left_out,
        "mean": mean.tolist(),
        "std": std.tolist(),
    }


def write_shares(folder: Path, images: ImageSet, vae: Any, building: Building) -> list[Share]:
    """Write this process's share of latents.f16; returns what each process has written.

    A process that does not see the folder, because it runs on a machine with a disk of its own,
    has no share. The calls of the VAE are the same, whatever the number of processes.
    """
    processes = building.processes
    seen = processes.gathered([folder.is_dir()])
    crew = [rank for rank, sees in enumerate(seen) if sees]
    share = Share()
    if processes.rank in crew:
        place = crew.index(processes.rank)
        at_once = images_at_once(images, building.device)
        batches = math.ceil(len(images.files) / at_once)
        mine = Processes(place, len(crew)).part_of(batches)  # the crew is numbered anew
        own = range(len(images.files))[mine.start * at_once : mine.stop * at_once]
        share = write_share(folder / share_name(place), images, vae, building, own=own)
    shares = processes.gathered([share])
    return [shares[rank] for rank in crew]


def share_name(place: int) -> str:
    """The file for a share: latents.f16 itself for the first, to which the others are appended."""
    return f"{LATENTS}.part{place}" if place else LATENTS


def images_at_once(images: ImageSet, device: torch.device | str) -> int:
    """How many images are encoded together, with all their views."""
    return math.ceil(views_at_once(images, device) / images.augmentation.views)


def views_at_once(images: ImageSet, device: torch.device | str) -> int:
    """How many views a call of the VAE takes."""
    most = PIXELS_AT_ONCE.get(torch.device(device).type, PIXELS_AT_ONCE["cpu"])
    return max(1, most // math.prod(images.size))


def write_share(path: Path, images: ImageSet, vae: Any, building: Building, *, own: range) -> Share:
    """Write the posteriors of all views of some of the images to a file, in order.

    InputError: an image that cannot be read, unless skip_bad; a VAE whose latents are not finite.
    """
    share = Share()
    limit, views = views_at_once(images, building.device), images.augmentation.views
    bar = tqdm(total=len(own), desc="encoding images", unit="image", disable=not building.progress)
    reading = closing(images.decoded(own, building.workers))
    with bar, reading as decoded, writing(path) as file:
        for batch in chunks(decoded, images_at_once(images, building.device)):
            good = share.sort_out(batch, building.skip_bad)
            for rows in torch.cat(good).split(limit) if good else ():
                record = posterior_record(vae, from_bytes(rows.to(building.device)))
                if not torch.isfinite(record).all():
                    first, last = images.files[batch[0][0]], images.files[batch[-1][0]]
                    raise InputError(
                        f"the VAE's latents are not finite in float16, between {first} and {last}"
                    )
                if not share.rows:
                    require_space(path, 2 * record[0].numel() * views * len(images.files))
                file.write(record.numpy().data)
                share.add(record)
            bar.update(len(batch))
    return share


@torch.no_grad()
def posterior_record(vae: Any, images: Tensor) -> Tensor:
    """Mean and std of the posteriors of images (b, 3, h, w): float16 (b, 2, c, h, w).

    Without a VAE the images themselves, (b, 1, 3, h, w).
    """
    if vae is None:
        return images.unsqueeze(1).half().cpu()
    # in float32 whatever the caller runs in: an encoder overflows in float16
    with torch.autocast(images.device.type, enabled=False):
        posterior = vae.encode(images)
    return torch.stack([posterior.mean, posterior.std], 1).half().cpu().contiguous()


@torch.no_grad()
def write_tokens(
    folder: Path, prompts: Mapping[str, Prompt], encoder: Encoder, progress: bool
) -> dict[str, Any]:
    """Write tokens.f16, (n, width), the unmasked tokens of all prompts, one prompt after another.

    offsets.i64 says where each prompt begins.
    prompts: by their keys, Encoder.keys; ChangedError for one whose key is another when it has been
             encoded, since the file that it names was replaced
    """
    offsets = [0]
    bar = tqdm(total=len(prompts), desc="encoding captions", unit="caption", disable=not progress)
    with bar, writing(folder / "tokens.f16") as file:
        for keys in chunks(prompts, PROMPTS_AT_ONCE):
            batch = [prompts[key] for key in keys]
            encoded = encoder.stored(batch).to("cpu")
            for prompt, key, now in zip(batch, keys, encoder.keys(batch), strict=True):
                if key and now != key:  # the empty prompt has the key ""
                    raise ChangedError(str(prompt))
            if encoded.tokens is None:
                raise InputError(f"the encoder keeps no tokens of {str(batch[0])!r}")
            tokens, mask = encoded.tokens.half(), encoded.mask  # (b, n, width), (b, n)
            for k, prompt in enumerate(batch):
                rows = tokens[k] if mask is None else tokens[k][mask[k]]  # (n, width)
                if not torch.isfinite(rows).all():
                    raise InputError(
                        f"the text encoder's tokens of {str(prompt)!r} are not finite in float16"
                    )
                file.write(rows.contiguous().numpy().data)
                offsets.append(offsets[-1] + len(rows))
            bar.update(len(batch))
    with writing(folder / "offsets.i64") as file:
        file.write(np.array(offsets, np.int64).data)
    return {"width": encoder.width, "tokens": offsets[-1]}
