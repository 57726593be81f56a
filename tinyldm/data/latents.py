"""The latent cache: each image once through the VAE, each caption once through the text encoder, then memory-mapped.

Two folders below the cache folder, each named by a hash of all that it depends on: latents/ by the bytes of the images,
their preprocessing and the VAE; captions/ by the captions and the text encoder. Training reads nothing else.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tinyldm.condition import Condition
from tinyldm.data.cache import build_once, cache_folder, key_of, read_header
from tinyldm.data.encode import digests, write_captions, write_latents
from tinyldm.data.examples import Example
from tinyldm.data.images import Augmentation, load_image, pair
from tinyldm.errors import InputError

__all__ = ["Augmentation", "LatentCache", "cache_folder", "data_order", "open_or_build"]
VERSION = 1  # of the files and of what is computed: a part of every key


def open_or_build(
    examples: list[Example],
    vae,
    text_encoder,
    size: int | tuple[int, int],
    augmentation: Augmentation = Augmentation(),
    folder: str | Path | None = None,
    device="cpu",
    workers: int = 4,
    progress: bool = True,
    skip_bad: bool = False,
) -> LatentCache:
    """The latent cache of examples, built first unless it is there.

    vae: encode(images (b, 3, h, w) in [-1, 1]) gives mean and std; factor and fingerprint; None for pixels as they are.
    text_encoder: encode(list of captions) gives a Condition; width and fingerprint. Both already are on the device.
        It may have stored(captions), the tokens to keep instead, and finish, which makes the condition of them.
    folder: instead of cache_folder(). workers: threads that read images.
    InputError: an image that is missing or broken, unless skip_bad leaves it out; a size that the VAE can't take.
    """
    size = pair(size)
    factor = 1 if vae is None else vae.factor
    if size[0] % factor or size[1] % factor:
        raise InputError(
            f"--size {size[1]}x{size[0]}: expected multiples of {factor}, by which the VAE shrinks images"
        )
    if not examples:
        raise InputError("no images to encode")
    root, workers = Path(folder) if folder else cache_folder(), max(workers, 1)

    files = [example.image for example in examples]
    hashes = digests(files, workers, progress)
    if None in hashes and not skip_bad:
        file = files[hashes.index(None)]
        load_image(file)  # tells what is wrong with it
        raise InputError(f"{file}: could not be read")
    model = "pixels" if vae is None else vae.fingerprint
    latents = root / "latents" / key_of(VERSION, hashes, size, augmentation.to_dict(), model)
    header = build_once(
        latents,
        lambda new: write_latents(
            new, files, hashes, vae, size, augmentation, device, workers, progress, skip_bad
        ),
    )
    if header["left_out"] and not skip_bad:
        raise InputError(next(iter(header["left_out"].values())))

    choices = [
        e.captions or ("",) for k, e in enumerate(examples) if str(k) not in header["left_out"]
    ]
    texts = sorted(
        {"", *(text for texts in choices for text in texts)}, key=lambda text: (len(text), text)
    )
    captions = root / "captions" / key_of(VERSION, texts, text_encoder.fingerprint)
    build_once(captions, lambda new: write_captions(new, texts, text_encoder, progress))
    left_out = [*getattr(examples, "problems", ()), *header["left_out"].values()]
    number = {text: k for k, text in enumerate(texts)}
    finish = getattr(text_encoder, "finish", None)
    return LatentCache(
        latents, captions, [[number[text] for text in texts] for texts in choices], left_out, finish
    )


class LatentCache:
    """Latents and encoded captions on disk, handed out as normalised batches.

    mean, std: (c, 1, 1), of each channel of the sampled latents; x0 = (latent - mean) / std; after centre(), mean is
        (c, h, w)
    null: Condition with one row, the encoded empty caption, for training and sampling alike
    shape: (c, h, w) of one latent
    left_out: a line for each image that skip_bad left out; skipped is their number
    longest: the number of tokens of the longest caption
    key: a hash of all that a batch depends on: images, captions, preprocessing and the frozen models
    finish: (stored condition, rows (b,) of the latents or None, generator) -> the condition that the network gets
    """

    def __init__(
        self,
        latents: Path,
        captions: Path,
        choices: list[list[int]],
        left_out: list[str],
        finish=None,
    ):
        header, width = read_header(latents), read_header(captions)["width"]
        self._latents = np.asarray(
            np.memmap(latents / "latents.f16", np.float16, "r", shape=tuple(header["shape"]))
        )
        self._offsets = torch.from_numpy(np.fromfile(captions / "offsets.i64", np.int64))
        self.longest = int(
            self._offsets.diff().max()
        )  # 0: no caption says anything, and no empty file can be mapped
        tokens = (
            np.memmap(captions / "tokens.f16", np.float16, "r")
            if self.longest
            else np.zeros(width, np.float16)
        )
        self._tokens = np.asarray(tokens.reshape(-1, width))
        self._counts = torch.tensor([len(numbers) for numbers in choices])
        self._firsts = self._counts.cumsum(0) - self._counts
        self._choices = torch.tensor([number for numbers in choices for number in numbers])
        self.views, self.shape = header["views"], tuple(header["shape"][2:])
        self.mean, self.std = (
            torch.tensor(header[name])[:, None, None] for name in ("mean", "std")
        )
        self.folder, self.left_out, self.key = (
            latents,
            left_out,
            key_of(latents.name, captions.name, choices),
        )
        self.finish = finish or (lambda condition, rows, generator: condition)

    @cached_property
    def null(self) -> Condition:
        return self.finish(self._captions(torch.tensor([0])), None, None)

    def __len__(self) -> int:
        return len(self._counts)

    @property
    def skipped(self) -> int:
        return len(self.left_out)

    def centre(self) -> None:
        """Let the mean (c, h, w) be that of each position, and the std what then is left of each channel."""
        power = self.mean**2 + self.std**2  # E x^2
        self.mean = torch.tensor(self._latents[:, 0].mean(0, dtype=np.float64)).float()
        left = (power - self.mean.square().mean((1, 2), keepdim=True)).clamp(min=0).sqrt()
        self.std = left.where(left > 1e-4, 1)

    def batch(
        self, indices: Tensor, generator: torch.Generator, device="cpu"
    ) -> tuple[Tensor, Condition]:
        """x0 float32 (b, c, h, w), normalised, and its captions, for images (b,).

        View, caption and the noise of the posterior are drawn with the generator, a CPU one, whatever the device.
        """
        b = len(indices)
        view = torch.randint(self.views, (b,), generator=generator)
        which = (torch.rand(b, generator=generator) * self._counts[indices]).long()
        rows = (indices * self.views + view).numpy()
        mean, *std = (
            torch.from_numpy(self._latents[rows]).to(device).float().unbind(1)
        )  # (b, c, h, w) each
        if std:
            mean = mean + std[0] * torch.randn(b, *self.shape, generator=generator).to(device)
        x0 = (mean - self.mean.to(device)) / self.std.to(device)
        condition = self._captions(self._choices[self._firsts[indices] + which], device)
        return x0, self.finish(condition, rows, generator)

    def _captions(self, numbers: Tensor, device="cpu") -> Condition:
        """The encoded captions of these numbers (b,), padded with zeros to the longest."""
        lengths = self._offsets[numbers + 1] - self._offsets[numbers]
        position = torch.arange(max(1, int(lengths.max())))
        mask = position < lengths[:, None]  # (b, n)
        rows = torch.where(mask, self._offsets[numbers][:, None] + position, 0)
        tokens = torch.from_numpy(self._tokens[rows.numpy()]).masked_fill_(
            ~mask[..., None], 0
        )  # (b, n, width)
        return Condition(tokens.to(device).float(), mask.to(device))


def data_order(n: int, batch_size: int, seed: int, rank: int, world: int, step: int) -> Tensor:
    """The indices (batch_size,) below n that a rank trains on in a step: a function, so that a run resumes anywhere.

    All batches of all ranks, laid end to end, are one permutation of the images after another, each drawn from
    (seed, epoch): every image comes once an epoch, on one rank, and none is dropped at an epoch's end.
    """
    positions = np.arange(batch_size) + (step * world + rank) * batch_size
    epochs = positions // n
    order = [
        _permutation(n, seed, int(epoch))[positions[epochs == epoch] % n]
        for epoch in np.unique(epochs)
    ]
    return torch.from_numpy(np.concatenate(order))


@lru_cache(maxsize=4)
def _permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(n)
