"""Under torchrun each process encodes its share, and the cache is that of one process."""

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from test_latents import Text, Vae, pictures

from tinyldm.data import encode
from tinyldm.data.examples import Example
from tinyldm.data.latents import Augmentation, open_or_build
from tinyldm.processes import Processes, joined

COUNT, SIZE = 11, 8
BROKEN = 4
WAYS = {"flipped": {}, "copies": {"copies": 2, "crop": 0.9}}


def build(place, root, processes, vae=None, **views):
    """The cache of a folder's images, one of which is broken; three views a call of the VAE."""
    encode.PIXELS_AT_ONCE = {"cpu": 3 * SIZE * SIZE}
    examples = [Example(place / "images" / f"{k}.png", (f"a{k}",)) for k in range(COUNT)]
    return open_or_build(
        examples,
        vae or Vae(std=0.3),
        Text(),
        SIZE,
        Augmentation(**views),
        folder=root,
        progress=False,
        skip_bad=True,
        processes=processes,
    )


def _one_of_two(rank, port, place, results):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with joined(torch.device("cpu")) as processes:
        for name, views in WAYS.items():
            vae = Vae(std=0.3)
            cache = build(place, place / "two" / name, processes, vae, **views)
            results[rank, name] = (vae.calls, len(cache), cache.key)
            again = Vae(std=0.3)
            build(place, place / "two" / name, processes, again, **views)
            assert again.calls == 0  # it is there
        apart = Vae(std=0.3)  # two machines with a disk each
        (place / f"disk-{rank}").mkdir()
        os.chdir(place / f"disk-{rank}")
        cache = build(place, Path(), processes, apart)
        results[rank, "apart"] = (apart.calls, len(cache), cache.key)


def files(root):
    """path -> bytes of all files of a cache but for locks."""
    found = {p.relative_to(root): p.read_bytes() for p in Path(root).rglob("*") if p.is_file()}
    return {path: content for path, content in found.items() if path.suffix != ".lock"}


@pytest.mark.slow
def test_the_cache_of_two_processes_is_that_of_one_byte_for_byte(tmp_path):
    pictures(tmp_path / "images", COUNT, SIZE)
    (tmp_path / "images" / f"{BROKEN}.png").write_bytes(b"no image")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with mp.Manager() as manager:
        shared = manager.dict()
        mp.spawn(_one_of_two, (port, tmp_path, shared), nprocs=2)
        results = dict(shared)
    for name, views in WAYS.items():
        vae = Vae(std=0.3)
        cache = build(tmp_path, tmp_path / "one" / name, Processes(), vae, **views)
        (first, *of_first), (second, *of_second) = results[0, name], results[1, name]
        assert of_first == of_second == [len(cache), cache.key]
        assert first + second == vae.calls
        assert abs(first - second) <= vae.calls / 3
        assert files(tmp_path / "two" / name) == files(tmp_path / "one" / name)
    assert results[0, "apart"] == results[1, "apart"]
    alone = files(tmp_path / "one" / "flipped")
    assert files(tmp_path / "disk-0") == files(tmp_path / "disk-1") == alone
