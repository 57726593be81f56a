"""The maps kept beside the latents: the same view of a map as of its image, read once."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tinyldm.condition import Condition
from tinyldm.data.encode import Building, file_hashes
from tinyldm.data.examples import Example
from tinyldm.data.images import Augmentation
from tinyldm.data.latents import open_or_build
from tinyldm.data.maps import MapCache, open_maps
from tinyldm.errors import InputError
from tinyldm.tasks.base import Encoder

PLAIN = Augmentation(flip=False)
MIRRORED = Augmentation()


class Maps(Encoder):
    """Prompts are paths of maps; a condition is the map itself, and remembers what was drawn."""

    fingerprint = "maps"
    width = 1
    map_size = (4, 6)

    def __init__(self):
        self.read = []
        self.generators = []

    def stored(self, prompts):
        return Condition(torch.zeros(len(prompts), 1, 1), torch.zeros(len(prompts), 1).bool())

    def finish(self, stored, maps, generator):
        self.generators.append(generator)
        if maps is None:
            maps = torch.zeros(len(stored), *self.map_size)
        return Condition(maps=maps[:, None].float())

    def map_file(self, prompt):
        return prompt

    def read_map(self, prompt, image=None):
        self.read.append((prompt.name, image.name))
        try:
            return Image.open(prompt).copy()
        except OSError:
            raise InputError(f"{prompt}: no map") from None


@pytest.fixture
def examples(tmp_path):
    """Five images, 12x8, whose maps are their red channels."""
    rng = np.random.default_rng(0)
    found = []
    for k in range(5):
        content = rng.integers(0, 256, (4, 6, 3)).repeat(2, 0).repeat(2, 1).astype(np.uint8)
        Image.fromarray(content).save(tmp_path / f"{k}.png")
        Image.fromarray(content[..., 0].copy()).save(tmp_path / f"map{k}.png")
        found.append(Example(tmp_path / f"{k}.png", (tmp_path / f"map{k}.png",)))
    return found


def opened(examples, encoder, augmentation=PLAIN, skip_bad=False) -> MapCache:
    hashes = file_hashes([example.image for example in examples], 1, False)
    root = examples[0].image.parent / "cache"
    how = Building(root, workers=1, progress=False, skip_bad=skip_bad)
    return open_maps(examples, encoder, hashes, augmentation, how)


def reds(examples) -> torch.Tensor:
    """What the maps show, at the size at which they are kept."""
    pixels = [np.array(Image.open(example.image))[::2, ::2, 0] for example in examples]
    return torch.from_numpy(np.stack(pixels))


def test_rows_are_the_maps_at_the_size_asked_for(examples):
    maps = opened(examples, Maps())
    assert maps.left_out == {}
    rows = maps.rows(np.array([3, 0, 3]))
    assert rows.dtype == torch.uint8
    assert torch.equal(rows, reds(examples)[[3, 0, 3]])


def test_the_views_of_a_map_stand_side_by_side(examples):
    rows = opened(examples, Maps(), MIRRORED).rows(np.arange(10)).view(5, 2, 4, 6)
    assert torch.equal(rows[:, 0], reds(examples))
    assert torch.equal(rows[:, 1], reds(examples).flip(-1))


def test_a_map_is_read_once_beside_its_image(examples):
    first, again = Maps(), Maps()
    key = opened(examples, first).key
    assert first.read == [(f"map{k}.png", f"{k}.png") for k in range(5)]
    assert opened(examples, again).key == key
    assert again.read == []


def test_the_key_follows_maps_images_size_and_views(examples):
    keys = {opened(examples, Maps()).key, opened(examples, Maps(), MIRRORED).key}
    small = type("Small", (Maps,), {"map_size": (2, 3)})
    keys.add(opened(examples, small()).key)
    keys.add(opened(examples[::-1], Maps()).key)
    Image.new("L", (12, 8)).save(examples[1].prompts[0])
    keys.add(opened(examples, Maps()).key)
    Image.new("RGB", (12, 8)).save(examples[1].image)
    keys.add(opened(examples, Maps()).key)
    assert len(keys) == 6


def test_a_wrong_map_is_named_or_left_out(examples):
    expected = reds(examples)
    examples[2].prompts[0].write_bytes(b"no")
    with pytest.raises(InputError, match=r"map2\.png: no map"):
        opened(examples, Maps())
    maps = opened(examples, Maps(), skip_bad=True)
    assert list(maps.left_out) == [2]
    assert "map2.png" in maps.left_out[2]
    assert torch.equal(maps.rows(np.arange(4)), expected[[0, 1, 3, 4]])
    with pytest.raises(InputError, match=r"map2\.png: no map"):  # though the cache is there now
        opened(examples, Maps())


def test_no_map_that_can_be_read(examples):
    for example in examples:
        example.prompts[0].write_bytes(b"no")
    with pytest.raises(InputError, match=r"no map that can be read: .*map0\.png"):
        opened(examples, Maps(), skip_bad=True)


@pytest.mark.parametrize("augmentation", [MIRRORED, Augmentation(copies=2, crop=0.4, jitter=0.01)])
def test_a_batch_has_the_view_of_the_map_that_its_image_has(examples, augmentation):
    """Whatever is left out: image 1 is broken, map 3 is."""
    examples[1].image.write_bytes(b"no")
    examples[3].prompts[0].write_bytes(b"no")
    cache = open_or_build(
        examples,
        None,
        Maps(),
        (8, 12),
        augmentation,
        folder=examples[0].image.parent / "cache",
        progress=False,
        skip_bad=True,
    )
    assert len(cache) == 3
    left_out = {Path(line.split(": ")[0]).name for line in cache.left_out}
    assert left_out == {"1.png", "map3.png"}
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        x0, condition = cache.batch(torch.arange(3), generator)
        red = ((x0 * cache.std + cache.mean)[:, 0] + 1) * 127.5
        red = F.avg_pool2d(red[:, None], 2)
        pair = torch.stack([red.flatten(1), condition.maps.flatten(1)], 1)  # (b, 2, pixels)
        mirrored = torch.stack([red.flip(-1).flatten(1), condition.maps.flatten(1)], 1)
        assert min(torch.corrcoef(both)[0, 1] for both in pair) > 0.8
        assert max(torch.corrcoef(both)[0, 1] for both in mirrored) < 0.8


def test_the_encoder_finishes_every_batch_with_its_generator(examples):
    encoder = Maps()
    cache = open_or_build(
        examples,
        None,
        encoder,
        (8, 12),
        PLAIN,
        folder=examples[0].image.parent / "cache",
        progress=False,
    )
    assert not cache.null.maps.any()
    assert encoder.generators == [None]
    generator = torch.Generator()
    _, condition = cache.batch(torch.tensor([4, 4, 1]), generator)
    assert encoder.generators == [None, generator]
    assert torch.equal(condition.maps[:, 0], reds(examples)[[4, 4, 1]].float())
