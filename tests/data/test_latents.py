"""The latent cache, with stand-ins for the frozen models whose answers are known."""

import multiprocessing
import os
import resource
import shutil
import signal
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tinyldm.condition import Condition
from tinyldm.data import encode
from tinyldm.data.examples import Example
from tinyldm.data.images import from_bytes, load_image, to_bytes, to_pil
from tinyldm.data.latents import Augmentation, cache_folder, data_order, open_or_build
from tinyldm.errors import InputError
from tinyldm.tasks.base import Encoder

PLAIN = Augmentation(flip=False)


class Posterior(NamedTuple):
    mean: torch.Tensor
    std: torch.Tensor


class Vae:
    """Averages 4x4 pixels and adds a ramp from left to right.

    With the ramp, flipping does not commute with encoding.
    """

    factor, latent_channels = 4, 3

    def __init__(self, fingerprint="vae", spoil=None, std=0.0, pause=0.0, error=None):
        self.fingerprint = fingerprint
        self.spoil = spoil
        self.spread = std
        self.pause = pause
        self.error = error
        self.calls = 0

    def encode(self, images):
        self.calls += 1
        time.sleep(self.pause)
        if self.error is not None:
            raise self.error
        assert images.dtype == torch.float32
        assert not torch.is_autocast_enabled("cpu")
        mean = F.avg_pool2d(images, 4)
        mean = mean + torch.arange(mean.shape[-1])
        if self.spoil is not None:
            mean[0, 0, 0, 0] = self.spoil
        return Posterior(mean, torch.full_like(mean, self.spread))


class Text(Encoder):
    """A first token of 1, then one for each letter, its code in every place; pads with -99."""

    width = 2

    def __init__(self, fingerprint="text"):
        self.fingerprint = fingerprint
        self.seen = []

    def stored(self, prompts):
        self.seen += prompts
        n = 1 + max(map(len, prompts))
        tokens = torch.full((len(prompts), n, self.width), -99.0)
        mask = torch.zeros(len(prompts), n, dtype=torch.bool)
        for k, caption in enumerate(prompts):
            codes = torch.tensor([1.0, *map(ord, caption)])
            tokens[k, : len(codes)] = codes[:, None]
            mask[k, : len(codes)] = True
        return Condition(tokens, mask)


class Constant(Encoder):
    """Three tokens of one number for any prompt, and no mask."""

    fingerprint = "constant"
    width = 2

    def __init__(self, number):
        self.number = number

    def stored(self, prompts):
        return Condition(torch.full((len(prompts), 3, self.width), self.number))


def pictures(folder, n=6, size=8, captions=("a", "bcd")) -> list[Example]:
    """n examples with images of noise."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for k in range(n):
        Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8)).save(folder / f"{k}.png")
    return [
        Example(folder / f"{k}.png", tuple(f"{caption}{k}" for caption in captions))
        for k in range(n)
    ]


def opened(
    tmp_path,
    examples=None,
    vae=None,
    text=None,
    size=8,
    augmentation=PLAIN,
    **options,
):
    examples = pictures(tmp_path / "images") if examples is None else examples
    options = {"folder": tmp_path / "cache", "progress": False, "workers": 2, **options}
    return open_or_build(examples, vae or Vae(), text or Text(), size, augmentation, **options)


def latents_of(cache, indices, seed=0):
    """The latents as the VAE gave them: normalisation undone."""
    x0, _ = cache.batch(torch.tensor(indices), torch.Generator().manual_seed(seed))
    return x0 * cache.std + cache.mean


def words(condition: Condition) -> list[str]:
    """The captions that Text encoded."""
    codes = condition.tokens[..., 0].long()
    rows = [own[real].tolist() for own, real in zip(codes, condition.mask, strict=True)]
    assert all(row[0] == 1 for row in rows)
    return ["".join(map(chr, row[1:])) for row in rows]


# ---- what a batch holds


def test_pitfall_21_the_mirrored_entry_is_the_encoded_mirror_image(tmp_path):
    examples = pictures(tmp_path / "images", 1)
    cache = opened(tmp_path, examples, augmentation=Augmentation(flip=True))
    image = load_image(examples[0].image)
    plain, mirrored = (
        Vae().encode(from_bytes(to_bytes(view))[None]).mean[0]
        for view in (image, ImageOps.mirror(image))
    )
    assert not torch.allclose(mirrored, plain.flip(-1), atol=0.1)
    found = [latents_of(cache, [0], seed)[0] for seed in range(20)]
    near = [
        [torch.allclose(latent, view, atol=4e-3) for view in (plain, mirrored)] for latent in found
    ]
    assert all(sum(row) == 1 for row in near)
    assert 3 < sum(row[1] for row in near) < 17


@pytest.mark.parametrize("spoil", [float("nan"), float("inf"), 1e6])
def test_pitfall_21_what_is_not_a_finite_number_is_rejected(tmp_path, spoil):
    with pytest.raises(InputError, match=r"not finite.*0.png"):
        opened(tmp_path, vae=Vae(spoil=spoil), skip_bad=True)
    assert not [p for p in (tmp_path / "cache/latents").iterdir() if p.is_dir()]
    with pytest.raises(InputError, match="text encoder's tokens of ''"):
        opened(tmp_path, text=Constant(spoil))


def test_pitfall_23_latents_are_normalised_by_what_was_measured(tmp_path):
    """Over many draws each channel has mean 0 and variance 1, the posterior's spread included."""
    cache = opened(
        tmp_path, pictures(tmp_path / "images", 20), vae=Vae(std=0.7), augmentation=Augmentation()
    )
    assert cache.mean.shape == cache.std.shape == (3, 1, 1)
    assert cache.std.min() > 0.7
    indices = torch.arange(20).repeat(200)
    x0, _ = cache.batch(indices, torch.Generator().manual_seed(0))
    assert x0.dtype == torch.float32
    assert x0.shape == (4000, 3, 2, 2)
    assert x0.mean((0, 2, 3)).abs().max() < 0.02
    assert (x0.var((0, 2, 3)) - 1).abs().max() < 0.03


def test_pitfall_26_the_vae_encodes_in_float32_under_autocast(tmp_path):
    with torch.autocast("cpu", torch.bfloat16):
        opened(tmp_path)  # the stand-in asserts it


def test_a_batch_is_drawn_with_its_generator_alone(tmp_path):
    cache = opened(tmp_path, vae=Vae(std=0.5), augmentation=Augmentation())
    indices = torch.tensor([5, 0, 3, 3])
    torch.manual_seed(1)
    x0, condition = cache.batch(indices, torch.Generator().manual_seed(7))
    torch.manual_seed(2)
    again, condition2 = cache.batch(indices, torch.Generator().manual_seed(7))
    assert torch.equal(x0, again)
    assert torch.equal(condition.tokens, condition2.tokens)
    assert not torch.equal(x0[2], x0[3])
    assert not torch.equal(x0, cache.batch(indices, torch.Generator().manual_seed(8))[0])


def test_every_caption_of_its_own_image_comes_and_no_other(tmp_path):
    cache = opened(tmp_path)
    generator = torch.Generator().manual_seed(0)
    seen = [words(cache.batch(torch.tensor([4, 1]), generator)[1]) for _ in range(40)]
    assert {row[0] for row in seen} == {"a4", "bcd4"}
    assert {row[1] for row in seen} == {"a1", "bcd1"}
    condition = cache.batch(torch.tensor([0, 1, 2, 3, 4, 5] * 4), generator)[1]
    assert (condition.tokens[~condition.mask] == 0).all()  # and not the encoder's padding
    assert condition.tokens.shape[1] == condition.mask.sum(1).max() == 5


def test_pitfall_24_the_null_condition_is_the_encoded_empty_caption(tmp_path):
    cache = opened(tmp_path)
    assert len(cache.null) == 1
    assert words(cache.null) == [""]
    _, condition = cache.batch(torch.tensor([2, 3]), torch.Generator())
    assert words(condition.drop(cache.null, torch.tensor([True, False])))[0] == ""


def test_an_encoder_without_a_mask_and_examples_without_captions(tmp_path):
    cache = opened(tmp_path, pictures(tmp_path / "images", captions=()), text=Constant(1.0))
    _, condition = cache.batch(torch.tensor([0]), torch.Generator())
    assert torch.equal(condition.tokens, cache.null.tokens)
    assert condition.mask.all()


def test_each_distinct_caption_is_encoded_once(tmp_path):
    text, examples = Text(), pictures(tmp_path / "images")
    opened(tmp_path, [*examples, *examples], text=text)
    assert sorted(text.seen) == sorted({"", *(c for e in examples for c in e.prompts)})


def test_without_a_vae_the_pixels_come_back_exactly(tmp_path):
    """Statistics are measured the same way."""
    examples = pictures(tmp_path / "images")
    cache = open_or_build(
        examples, None, Text(), 8, PLAIN, folder=tmp_path / "cache", progress=False
    )
    x0, _ = cache.batch(torch.arange(6), torch.Generator())
    assert x0.mean((0, 2, 3)).abs().max() < 1e-3
    assert (x0.var((0, 2, 3), unbiased=False) - 1).abs().max() < 1e-3
    for example, latent in zip(examples, x0, strict=True):
        assert (
            to_pil(latent * cache.std + cache.mean).tobytes() == load_image(example.image).tobytes()
        )


def test_centred_on_the_mean_image_every_position_has_mean_zero(tmp_path):
    """What the mean image leaves of each channel has variance one; pixels come back as before."""
    examples = pictures(tmp_path / "images")
    cache = open_or_build(
        examples, None, Text(), 8, PLAIN, folder=tmp_path / "cache", progress=False
    )
    cache.centre()
    x0, _ = cache.batch(torch.arange(6), torch.Generator())
    assert x0.mean(0).abs().max() < 1e-3
    assert (x0.var((0, 2, 3), unbiased=False) - 1).abs().max() < 1e-3
    assert (
        to_pil(x0[2] * cache.std + cache.mean).tobytes() == load_image(examples[2].image).tobytes()
    )


def test_a_channel_that_never_changes_stays_finite(tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "x.png")
    cache = open_or_build(
        [Example(tmp_path / "x.png", ("x",))],
        None,
        Text(),
        8,
        folder=tmp_path / "c",
        progress=False,
    )
    assert cache.batch(torch.tensor([0]), torch.Generator())[0].abs().max() < 1e-3


def test_augmented_copies_are_encoded_too(tmp_path):
    augmentation = Augmentation(copies=3, crop=0.5, jitter=0.1)
    cache = opened(
        tmp_path, pictures(tmp_path / "images", 1, size=32), augmentation=augmentation, size=16
    )
    generator = torch.Generator().manual_seed(0)
    seen = {
        tuple(cache.batch(torch.tensor([0]), generator)[0].flatten().tolist()) for _ in range(100)
    }
    assert len(seen) == augmentation.views == 8
    assert cache.shape == (3, 4, 4)


def test_rectangular_sizes(tmp_path):
    assert opened(tmp_path, size=(8, 16)).shape == (3, 2, 4)
    for size in (10, (8, 10)):
        with pytest.raises(InputError, match=r"--size 10x.*multiples of 4"):
            opened(tmp_path, size=size)


# ---- bad images


def test_skip_bad_counts_and_leaves_out(tmp_path):
    examples = pictures(tmp_path / "images")
    examples[1].image.write_bytes(b"broken")
    examples[4].image.unlink()
    with pytest.raises(InputError, match=r"4.png: no such image"):
        opened(tmp_path, examples)
    cache = opened(tmp_path, examples, skip_bad=True)
    assert len(cache) == 4
    assert len(cache.left_out) == 2
    assert "1.png" in cache.left_out[0]
    assert "4.png" in cache.left_out[1]
    assert words(cache.batch(torch.arange(4), torch.Generator())[1])
    assert cache.mean.isfinite().all()
    kept = [words(cache.batch(torch.tensor([k]), torch.Generator())[1])[0][-1] for k in range(4)]
    assert kept == ["0", "2", "3", "5"]
    for k, number in enumerate(kept):  # and the latents are those of the same images
        expected = (
            Vae()
            .encode(from_bytes(to_bytes(load_image(tmp_path / f"images/{number}.png")))[None])
            .mean
        )
        assert torch.allclose(latents_of(cache, [k]), expected, atol=4e-3)
    examples[4].image.write_bytes(examples[0].image.read_bytes())
    with pytest.raises(InputError, match=r"1.png: not an image"):
        opened(tmp_path, examples)


def test_a_cache_that_left_images_out_is_not_opened_silently(tmp_path):
    examples = pictures(tmp_path / "images")
    examples[1].image.write_bytes(b"broken")
    opened(tmp_path, examples, skip_bad=True)
    with pytest.raises(InputError, match=r"1.png"):
        opened(tmp_path, examples)


def test_a_name_that_no_file_can_have(tmp_path):
    examples = [*pictures(tmp_path / "images"), Example(tmp_path / "a\0.png", ("x",))]
    with pytest.raises(InputError, match="a\0\\.png: no such image"):
        opened(tmp_path, examples)
    assert len(opened(tmp_path, examples, skip_bad=True).left_out) == 1


def test_no_images_at_all(tmp_path):
    with pytest.raises(InputError, match="no images"):
        opened(tmp_path, [])
    with pytest.raises(InputError, match=r"no image that can be read: .*nothing.png"):
        opened(tmp_path, [Example(tmp_path / "nothing.png", ("x",))], skip_bad=True)


# ---- the key


def calls(tmp_path, **changes) -> tuple[int, int]:
    """How often the two models were asked when the cache was opened."""
    vae, text = changes.pop("vae", Vae()), changes.pop("text", Text())
    opened(tmp_path, vae=vae, text=text, **changes)
    return vae.calls, len(text.seen)


def test_a_second_run_encodes_nothing(tmp_path):
    assert min(calls(tmp_path)) > 0
    assert calls(tmp_path) == (0, 0)
    moved = [
        Example(e.image.rename(tmp_path / f"moved{e.name}"), e.prompts)
        for e in pictures(tmp_path / "images")
    ]
    assert calls(tmp_path, examples=moved) == (0, 0)  # it is the content that counts


def test_a_change_rebuilds_what_depends_on_it(tmp_path):
    calls(tmp_path)
    assert calls(tmp_path, vae=Vae("another"))[0] > 0
    assert calls(tmp_path, text=Text("another")) == (0, 13)
    assert calls(tmp_path, size=4)[0] > 0
    assert calls(tmp_path, augmentation=Augmentation())[0] > 0
    assert calls(tmp_path, augmentation=Augmentation(flip=False, fit="crop"))[0] > 0
    assert calls(tmp_path, augmentation=Augmentation(flip=False, seed=5)) == (
        0,
        0,
    )  # nothing is drawn with it
    examples = pictures(tmp_path / "images")
    assert (
        calls(tmp_path, examples=[*examples[:5], Example(examples[5].image, ("new",))])[0] == 0
    )  # captions alone
    assert calls(tmp_path, examples=examples[::-1])[0] > 0
    image = Image.open(examples[3].image)
    image.putpixel((2, 2), (1, 2, 3))
    before = os.stat(examples[3].image)
    image.save(examples[3].image)
    os.utime(
        examples[3].image, ns=(before.st_atime_ns, before.st_mtime_ns)
    )  # one pixel, and the old date
    assert calls(tmp_path, examples=examples)[0] > 0


def test_the_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYLDM_CACHE", str(tmp_path / "elsewhere"))
    assert cache_folder() == tmp_path / "elsewhere"
    opened(tmp_path, folder=None)
    assert len(list((tmp_path / "elsewhere/latents").glob("*/cache.json"))) == 1
    monkeypatch.delenv("TINYLDM_CACHE")
    assert cache_folder() == Path.home() / ".cache/tinyldm"


# ---- interruption, damage, competition


def finished(tmp_path) -> list[Path]:
    """Whatever lies in the cache besides locks."""
    return [p for p in (tmp_path / "cache/latents").iterdir() if p.suffix != ".lock"]


def build_aside(tmp_path, pause, done=None, room=None):
    """Build in a process of its own, slowly; where files have little room, the error names one."""
    examples = [Example(tmp_path / f"images/{k}.png", ("x",)) for k in range(6)]
    vae = Vae(pause=pause)
    encode.PIXELS_AT_ONCE = {"cpu": 64}  # one image a call
    if room is None:
        opened(tmp_path, examples, vae=vae)
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
        with pytest.raises(OSError, match="File too large") as caught:
            opened(tmp_path, examples, vae=vae)
        assert Path(caught.value.filename).name == "latents.f16"
    if done is not None:
        done.put(vae.calls)


def spawn(*arguments):
    process = multiprocessing.get_context("spawn").Process(target=build_aside, args=arguments)
    process.start()
    return process


def test_a_build_killed_in_the_middle_leaves_nothing_to_be_taken_as_whole(tmp_path):
    pictures(tmp_path / "images")
    process = spawn(tmp_path, 0.2)
    deadline = time.monotonic() + 120
    while (
        not list(tmp_path.glob("cache/latents/.tinyldm-*/latents.f16"))
        and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    (left,) = finished(tmp_path)
    assert left.name.startswith(".tinyldm-")
    examples = [Example(tmp_path / f"images/{k}.png", ("x",)) for k in range(6)]
    cache = opened(tmp_path, examples)
    assert len(cache) == 6
    assert latents_of(cache, range(6)).isfinite().all()
    assert [p.name for p in finished(tmp_path)] == [
        left.name.split("-")[-1]
    ]  # and the remains are gone


def test_of_two_runs_at_once_one_builds_and_the_other_waits(tmp_path):
    pictures(tmp_path / "images")
    done = multiprocessing.get_context("spawn").Queue()
    both = [spawn(tmp_path, 0.1, done) for _ in range(2)]
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    assert sorted(done.get(timeout=5) for _ in both) == [0, 6]
    assert len(finished(tmp_path)) == 1


def test_a_disk_without_locks_will_do(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    assert calls(tmp_path)[0] > 0
    assert calls(tmp_path) == (0, 0)
    assert len(finished(tmp_path)) == 1


def test_ctrl_c_and_failure_clean_up(tmp_path):
    for error in (KeyboardInterrupt, RuntimeError):
        with pytest.raises(error):
            opened(tmp_path, vae=Vae(error=error()))
        assert finished(tmp_path) == []


def test_a_damaged_cache_is_built_again(tmp_path):
    opened(tmp_path)
    (folder,) = finished(tmp_path)
    for file in ("latents.f16", "cache.json"):
        (folder / file).write_bytes((folder / file).read_bytes()[:-1])
        assert calls(tmp_path)[0] > 0
        assert calls(tmp_path) == (0, 0)
    (folder / "latents.f16").unlink()
    assert calls(tmp_path)[0] > 0


def test_a_disk_without_room_is_named_before_and_while_writing(tmp_path, monkeypatch):
    full = shutil._ntuple_diskusage(total=10, used=0, free=10)
    monkeypatch.setattr("tinyldm.files.shutil.disk_usage", lambda path: full)
    with pytest.raises(OSError, match=r"disk has 0.00 GB left") as caught:
        opened(tmp_path)
    assert "latents.f16" in caught.value.filename
    assert finished(tmp_path) == []
    monkeypatch.undo()
    pictures(tmp_path / "images")
    process = spawn(tmp_path, 0, None, 100)
    process.join(120)
    assert process.exitcode == 0
    assert finished(tmp_path) == []


def test_a_finished_cache_is_opened_from_a_read_only_disk(tmp_path, monkeypatch):
    opened(tmp_path)

    def refuse(*arguments, **options):
        raise OSError(30, "Read-only file system")

    def open_to_read(file, mode="r", **options):
        return open(file, mode, **options) if mode in ("r", "rb") else refuse()

    monkeypatch.setattr("tinyldm.files.open", open_to_read, raising=False)
    monkeypatch.setattr("tinyldm.folders.FileLock", refuse)
    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    examples = [Example(tmp_path / f"images/{k}.png", (f"a{k}", f"bcd{k}")) for k in range(6)]
    assert len(opened(tmp_path, examples)) == 6
    with pytest.raises(OSError, match="Read-only"):
        opened(tmp_path, examples, vae=Vae("new"))


# ---- order


@given(
    n=st.integers(1, 40),
    batch=st.integers(1, 9),
    world=st.integers(1, 4),
    seed=st.integers(0, 2**31),
)
def test_the_order_takes_every_image_once_an_epoch(n, batch, world, seed):
    """Laid end to end, the batches of all ranks are permutations of the images.

    So no two ranks share an image of an epoch.
    """
    steps = range(4 * n // (batch * world) + 1)
    order = torch.cat(
        [data_order(n, batch, seed, rank, world, step) for step in steps for rank in range(world)]
    )
    epochs = order[: len(order) // n * n].reshape(-1, n)
    assert len(epochs) >= 4
    assert (epochs.sort(1).values == torch.arange(n)).all()
    assert n < 7 or len({tuple(epoch.tolist()) for epoch in epochs[:4]}) == 4


def test_the_order_is_a_function_of_the_step():
    forwards = [data_order(50, 4, 1, 0, 2, step).tolist() for step in range(60)]
    assert [data_order(50, 4, 1, 0, 2, step).tolist() for step in reversed(range(60))] == forwards[
        ::-1
    ]
    assert data_order(50, 4, 2, 0, 2, 0).tolist() != forwards[0]


def test_pitfall_27_ranks_share_no_image_within_an_epoch():
    ranks = [
        {i for step in range(5) for i in data_order(100, 5, 0, rank, 4, step).tolist()}
        for rank in range(4)
    ]
    assert sum(map(len, ranks)) == 100 == len(set.union(*ranks))
