"""The latent cache: each image goes through the VAE once, each prompt through its encoder once.

Two folders below the cache folder, each named by a hash of all that it depends on: latents/ by the
bytes of the images, their preprocessing and the VAE; captions/ by the prompts and their encoder.
Where prompts hold maps there is a third, maps/. Training reads nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tinyldm.condition import Condition
from tinyldm.data.cache import build_once, cache_folder, key_of, problem_of, read_header
from tinyldm.data.checksums import Damaged, Verification, doubtful_latents, doubtful_tokens
from tinyldm.data.encode import (
    Building,
    ImageSet,
    LatentsHeader,
    TokensHeader,
    file_hashes,
    write_latents,
    write_shares,
    write_tokens,
)
from tinyldm.data.examples import Example, Examples, Prompt
from tinyldm.data.images import Augmentation, check_size, load_image, pair, read_anew
from tinyldm.data.maps import MapCache, open_maps
from tinyldm.errors import InputError
from tinyldm.processes import ALONE, Processes
from tinyldm.randomness import numpy_stream

if TYPE_CHECKING:
    from tinyldm.tasks.base import Encoder

VERSION = 1  # of the files and of what is computed: a part of every key


def open_or_build(
    examples: Sequence[Example],
    vae: Any,
    encoder: Encoder,
    size: int | tuple[int, int],
    augmentation: Augmentation | None = None,
    *,
    folder: str | Path | None = None,
    device: torch.device | str = "cpu",
    workers: int = 4,
    progress: bool = True,
    skip_bad: bool = False,
    verify: bool = True,
    processes: Processes = ALONE,
) -> LatentCache:
    """The latent cache of examples; it is built unless it is there already, and whole.

    vae:     encode(images (b, 3, h, w) in [-1, 1]) gives mean and std; it has a factor and a
             fingerprint, and is on the device already. None: the pixels themselves
    folder:  in place of cache_folder()
    workers: threads that read images
    verify:  compare the files with their checksums, the large ones in a thread that check_files()
             waits for; False: compare sizes alone
    processes: those of torchrun, all of which call this; each encodes its share of the images
    InputError: an image that is missing or broken, unless skip_bad leaves it out; a size that the
    VAE cannot take.
    """
    size = pair(size)
    augmentation = augmentation or Augmentation()
    check_size(size, 1 if vae is None else vae.factor)
    if not examples:
        raise InputError("no images to encode")
    building = Building(
        Path(folder) if folder else cache_folder(),
        device,
        workers=max(workers, 1),
        progress=progress,
        skip_bad=skip_bad,
        verification=Verification() if verify else None,
        processes=processes,
    )
    return assemble(examples, vae, encoder, building, size=size, augmentation=augmentation)


def assemble(
    examples: Sequence[Example],
    vae: Any,
    encoder: Encoder,
    building: Building,
    *,
    size: tuple[int, int],
    augmentation: Augmentation,
) -> LatentCache:
    """The cache of examples; of those that are left where maps or images cannot be read."""
    problems = list(examples.problems) if isinstance(examples, Examples) else []
    hashes = hashes_of(examples, building)
    maps, good = with_maps(examples, hashes, encoder, augmentation, building=building)
    examples = [examples[k] for k in good]
    hashes = [hashes[k] for k in good]
    problems += maps.left_out.values() if maps is not None else ()

    images = ImageSet(tuple(e.image for e in examples), tuple(hashes), size, augmentation)
    latents, left_out = open_latents(images, vae, building)
    kept = [k for k in range(len(examples)) if k not in left_out]
    problems += left_out.values()

    captions, choices = open_tokens([examples[k] for k in kept], encoder, building)
    cache = LatentCache(
        latents,
        captions,
        choices,
        encoder,
        maps=maps,
        kept=kept,
        left_out=problems,
        verification=building.verification,
    )
    if building.verification is not None:
        building.verification.start()  # now that all headers have been read
    return cache


def with_maps(
    examples: Sequence[Example],
    hashes: Sequence[str | None],
    encoder: Encoder,
    augmentation: Augmentation,
    *,
    building: Building,
) -> tuple[MapCache | None, list[int]]:
    """The maps of the examples, if their prompts have any, and which of the examples are left."""
    if encoder.map_size is None:
        return None, list(range(len(examples)))
    with building.processes.main_first():
        maps = open_maps(examples, encoder, hashes, augmentation, building=building)
    return maps, [k for k in range(len(examples)) if k not in maps.left_out]


def hashes_of(examples: Sequence[Example], building: Building) -> list[str | None]:
    """The hashes of the images; InputError for one that cannot be read, unless skip_bad."""
    files = [example.image for example in examples]
    own = building.processes.part_of(len(files))
    hashes = file_hashes(files[own.start : own.stop], building.workers, building.progress)
    hashes = building.processes.gathered(hashes)
    if None in hashes and not building.skip_bad:
        file = files[hashes.index(None)]
        load_image(file)  # raises, and says what is wrong with it
        raise InputError(f"{file}: could not be read")
    return hashes


def open_latents(images: ImageSet, vae: Any, building: Building) -> tuple[Path, dict[int, str]]:
    """The folder with the latents of all images, and the images left out, {index: why}."""
    model = "pixels" if vae is None else vae.fingerprint
    views = images.augmentation.to_dict()
    key = key_of((VERSION, images.hashes, images.size, views, model))
    folder = building.root / "latents" / key
    header = build_together(folder, images, vae, building)
    left_out = {}
    for index in map(int, header["left_out"]):
        file = images.files[index]
        left_out[index] = problem_of(file, partial(load_image, file))
        if not building.skip_bad:
            raise InputError(left_out[index])
    return folder, left_out


def build_together(folder: Path, images: ImageSet, vae: Any, building: Building) -> dict[str, Any]:
    """The header of a folder of latents, which all processes build together unless it is there.

    The main process looks, holds the lock, and tells the others which draft to write their shares
    to, if any. Then they open what has been built; where they see another disk, they build it.
    """
    processes = building.processes
    nothing: Path | None = None
    if not processes.is_main:
        draft = processes.from_main(nothing)
        if draft is not None:
            write_shares(draft, images, vae, building)
        processes.barrier()
        return build_together(folder, images, vae, replace(building, processes=ALONE))

    called = False

    def build(draft: Path) -> dict[str, Any]:
        nonlocal called
        called = True
        processes.from_main(draft)
        return write_latents(draft, images, vae, building)

    header = build_once(
        folder,
        build,
        LatentsHeader,
        building.verification,
        doubt=partial(doubt, images),
    )
    if not called:
        processes.from_main(nothing)
    processes.barrier()
    return header


def doubt(images: ImageSet, folder: Path, header: dict[str, Any]) -> str | None:
    """What speaks against latents of the first versions, which have no checksums, or None."""
    if any(read_anew(file) for file in images.files):
        return "was built by a version that read some of its images otherwise"
    return doubtful_latents(folder, header, len(images.files), images.augmentation.views)


def open_tokens(
    examples: Sequence[Example], encoder: Encoder, building: Building
) -> tuple[Path, list[list[int]]]:
    """The folder with the stored tokens of all prompts, and the numbers of each example's prompts.

    Number 0 is the empty prompt. An example without prompts has that one.
    """
    prompts = [prompt for example in examples for prompt in example.prompts]
    keys = encoder.keys(prompts)
    distinct: dict[str, Prompt] = {"": encoder.empty}
    for key, prompt in zip(keys, prompts, strict=True):
        distinct.setdefault(key, prompt)
    order = sorted(distinct, key=lambda key: (len(key), key))  # "" is first
    asked = {key: distinct[key] for key in order}
    folder = building.root / "captions" / key_of((VERSION, order, encoder.fingerprint))
    with building.processes.main_first():
        build_once(
            folder,
            lambda new: write_tokens(new, asked, encoder, building.progress),
            TokensHeader,
            building.verification,
            doubt=partial(doubtful_tokens, prompts=len(asked)),
        )

    number = {key: k for k, key in enumerate(order)}
    choices = []
    start = 0
    for example in examples:
        own = keys[start : start + len(example.prompts)]
        start += len(own)
        choices.append([number[key] for key in own or [""]])
    return folder, choices


class LatentCache:
    """Latents and encoded prompts on disk, handed out as normalised batches.

    mean, std: (c, 1, 1), of each channel of the sampled latents; x0 = (latent - mean) / std. After
               centre(), mean is (c, h, w).
    null:      Condition with one row, the empty prompt, for training and sampling alike
    shape:     (c, h, w) of one latent
    views:     of each image
    left_out:  a line for each image that skip_bad left out
    longest:   the number of tokens of the longest prompt
    key:       a hash of all that a batch depends on: images, prompts, preprocessing, frozen models
    """

    def __init__(
        self,
        latents: Path,
        captions: Path,
        choices: Sequence[Sequence[int]],
        encoder: Encoder,
        *,
        maps: MapCache | None,
        kept: Sequence[int],
        left_out: Sequence[str],
        verification: Verification | None,
    ):
        """Open two finished cache folders.

        choices:      the numbers of each image's prompts
        maps, kept:   maps that batches have too, and the numbers of those of the images
        verification: compares large files with their checksums, in a thread of its own
        """
        header = read_header(latents, LatentsHeader)
        tokens_header = read_header(captions, TokensHeader)
        if header is None or tokens_header is None:
            raise InputError(f"{latents if header is None else captions}: not a finished cache")
        self.folder = latents
        self.encoder = encoder
        self.left_out = list(left_out)
        self.verification = verification
        self.key = key_of((latents.name, captions.name, choices))
        self.views: int = header["views"]
        self.shape: tuple[int, ...] = tuple(header["shape"][2:])
        self.mean = torch.tensor(header["mean"])[:, None, None]
        self.std = torch.tensor(header["std"])[:, None, None]
        self._maps = maps
        if maps is not None:
            self.key = key_of((self.key, maps.key))
        self._map_rows = (np.array(kept)[:, None] * self.views + np.arange(self.views)).ravel()

        file = latents / "latents.f16"
        self._latents = np.asarray(np.memmap(file, np.float16, "r", shape=tuple(header["shape"])))
        self._offsets = torch.from_numpy(np.fromfile(captions / "offsets.i64", np.int64))
        self.longest = int(self._offsets.diff().max())
        width = tokens_header["width"]
        if self.longest:
            tokens = np.memmap(captions / "tokens.f16", np.float16, "r")
            self._tokens = np.asarray(tokens.reshape(-1, width))
        else:  # no prompt says anything, and an empty file cannot be mapped
            self._tokens = np.zeros((1, width), np.float16)
        self._counts = torch.tensor([len(numbers) for numbers in choices])
        self._firsts = self._counts.cumsum(0) - self._counts
        self._choices = torch.tensor([number for numbers in choices for number in numbers])

    @cached_property
    def null(self) -> Condition:
        return self.encoder.finish(self.tokens(torch.tensor([0])), None, None)

    def __len__(self) -> int:
        return len(self._counts)

    def check_files(self) -> None:
        """Wait until all files are known to be whole; Damaged if one is not."""
        if self.verification is not None:
            self.verification.wait()

    def centre(self) -> None:
        """Let mean be that of each position, (c, h, w), and std what is left of each channel."""
        power = self.mean**2 + self.std**2  # E x^2
        self.mean = torch.tensor(self._latents[:, 0].mean(0, dtype=np.float64)).float()
        left = (power - self.mean.square().mean((1, 2), keepdim=True)).clamp(min=0).sqrt()
        self.std = left.where(left > 1e-4, 1)

    def normalise_by(self, mean: Tensor, std: Tensor) -> None:
        """Let x0 be (latent - mean) / std with these, (c, 1, 1) or (c, h, w): another run's."""
        self.mean, self.std = mean, std

    def batch(
        self, indices: Tensor, generator: torch.Generator, device: torch.device | str = "cpu"
    ) -> tuple[Tensor, Condition]:
        """x0 float32 (b, c, h, w), normalised, and its condition, for images (b,).

        The view, the prompt and the noise of the posterior are drawn with the generator, which is
        on the CPU whatever the device. Damaged if the files turn out to be.
        """
        if self.verification is not None and self.verification.problem is not None:
            raise Damaged(self.verification.problem)
        b = len(indices)
        view = torch.randint(self.views, (b,), generator=generator)
        which = (torch.rand(b, generator=generator) * self._counts[indices]).long()
        rows = (indices * self.views + view).numpy()
        record = sent(torch.from_numpy(self._latents[rows]), device).float()
        latents = record[:, 0]  # (b, c, h, w)
        if record.shape[1] == 2:  # mean and std of a posterior, not pixels: sample it
            noise = torch.randn(b, *self.shape, generator=generator)
            latents = latents + record[:, 1] * sent(noise, device)
        x0 = (latents - sent(self.mean, device)) / sent(self.std, device)  # (b, c, h, w)
        stored = self.tokens(self._choices[self._firsts[indices] + which], device)
        maps = None if self._maps is None else self._maps.rows(self._map_rows[rows])
        return x0, self.encoder.finish(stored, maps, generator)

    def tokens(self, numbers: Tensor, device: torch.device | str = "cpu") -> Condition:
        """The stored tokens of these prompts (b,), padded with zeros to the longest."""
        begins = self._offsets[numbers]
        lengths = self._offsets[numbers + 1] - begins
        position = torch.arange(max(1, int(lengths.max())))
        mask = position < lengths[:, None]  # (b, n)
        rows = torch.where(mask, begins[:, None] + position, 0)
        tokens = torch.from_numpy(self._tokens[rows.numpy()])  # (b, n, width)
        tokens = tokens.masked_fill_(~mask[..., None], 0)
        return Condition(sent(tokens, device).float(), sent(mask, device))


def sent(tensor: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on a device. The host does not wait until a GPU has it."""
    if str(device).startswith("cuda"):
        tensor = tensor.pin_memory()  # from other memory, the copy would wait for all that goes on
    return tensor.to(device, non_blocking=True)


def data_order(n: int, batch_size: int, seed: int, rank: int, world: int, step: int) -> Tensor:
    """The indices (batch_size,), below n, of the images that a rank trains on in a step.

    All batches of all ranks, laid end to end, are one permutation of the images after another, so
    every image comes once an epoch, on one rank, and none is dropped at an epoch's end. It is a
    function of its arguments, so that a run resumes anywhere.
    """
    positions = np.arange(batch_size) + (step * world + rank) * batch_size
    epochs = positions // n
    order = []
    for epoch in np.unique(epochs):
        order.append(permutation(n, seed, int(epoch))[positions[epochs == epoch] % n])
    return torch.from_numpy(np.concatenate(order))


@lru_cache(maxsize=4)
def permutation(n: int, seed: int, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The order of n images in an epoch."""
    return numpy_stream(seed, "order", position=epoch).permutation(n)
