"""A cache whose bytes have changed is built anew, and it holds the images that its key names."""

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_latents import Text, Vae, finished, latents_of, opened, pictures

from tinyldm.condition import Condition
from tinyldm.data import cache as cache_module
from tinyldm.data import latents, maps
from tinyldm.data.encode import file_hash
from tinyldm.data.examples import Example
from tinyldm.data.images import load_image
from tinyldm.errors import InputError
from tinyldm.tasks.base import Encoder


def cache_files(tmp_path) -> dict[str, Path]:
    """The files of the one cache, by name."""
    found = [*tmp_path.glob("cache/latents/*/*"), *tmp_path.glob("cache/captions/*/*")]
    files = {f"{file.parents[1].name} {file.name}": file for file in found}
    assert set(files) == {
        "latents latents.f16",
        "latents cache.json",
        "captions tokens.f16",
        "captions offsets.i64",
        "captions cache.json",
    }
    return files


def flip(file: Path, place: int) -> None:
    """Change one bit of the byte at a place."""
    content = bytearray(file.read_bytes())
    content[place] ^= 4
    file.write_bytes(content)


def batch_of(cache):
    x0, condition = cache.batch(torch.arange(6), torch.Generator().manual_seed(0))
    return torch.cat([x0.flatten(), condition.tokens.flatten()])


# ---- damage


@pytest.mark.parametrize("place", [0, -1, "middle"])
@pytest.mark.parametrize(
    "name", ["latents latents.f16", "captions tokens.f16", "captions offsets.i64"]
)
def test_one_bit_that_has_flipped_has_the_cache_built_anew(tmp_path, capsys, name, place):
    examples = pictures(tmp_path / "images")
    whole = batch_of(opened(tmp_path, examples))
    file = cache_files(tmp_path)[name]
    content = file.read_bytes()
    flip(file, file.stat().st_size // 2 if place == "middle" else place)
    capsys.readouterr()
    vae, text = Vae(), Text()
    assert torch.equal(batch_of(opened(tmp_path, examples, vae=vae, text=text)), whole)
    assert (vae.calls > 0, len(text.seen) > 0) == (name.startswith("lat"), name.startswith("cap"))
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"{file.parent}: {file.name} is damaged; it is built anew"
    assert file.read_bytes() == content


def test_zeroed_bytes_are_damage(tmp_path):
    examples = pictures(tmp_path / "images")
    whole = batch_of(opened(tmp_path, examples))
    file = cache_files(tmp_path)["latents latents.f16"]
    file.write_bytes(bytes(file.stat().st_size))
    assert torch.equal(batch_of(opened(tmp_path, examples)), whole)


@pytest.mark.parametrize("change", [{"mean": [0.0, 0.0, 0.0]}, {"views": 2}, {"checksums": {}}])
def test_a_header_with_another_value_is_damage(tmp_path, capsys, change):
    examples = pictures(tmp_path / "images")
    whole = batch_of(opened(tmp_path, examples))
    file = cache_files(tmp_path)["latents cache.json"]
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    assert torch.equal(batch_of(opened(tmp_path, examples)), whole)
    assert "cache.json is damaged; it is built anew" in capsys.readouterr().err


def test_a_file_that_was_cut_off_is_told_too(tmp_path, capsys):
    examples = pictures(tmp_path / "images")
    opened(tmp_path, examples)
    capsys.readouterr()
    file = cache_files(tmp_path)["latents latents.f16"]
    file.write_bytes(file.read_bytes()[:-1])
    opened(tmp_path, examples)
    assert f"{file.parent}: is damaged; it is built anew" in capsys.readouterr().err


def test_a_whole_cache_is_opened_without_a_word(tmp_path, capsys):
    opened(tmp_path)
    capsys.readouterr()
    opened(tmp_path)
    assert capsys.readouterr().err == ""


# ---- caches without checksums, of the first versions


def without_checksums(tmp_path) -> None:
    """Make the caches those of the first versions."""
    for file in tmp_path.glob("cache/*/*/cache.json"):
        header = json.loads(file.read_text())
        header.pop("checksums", None)
        file.write_text(json.dumps(header))


def test_an_old_cache_is_kept_and_given_checksums(tmp_path, capsys):
    examples = pictures(tmp_path / "images")
    whole = batch_of(opened(tmp_path, examples))
    header = json.loads(cache_files(tmp_path)["latents cache.json"].read_text())
    without_checksums(tmp_path)
    vae, text = Vae(), Text()
    assert torch.equal(batch_of(opened(tmp_path, examples, vae=vae, text=text)), whole)
    assert vae.calls == len(text.seen) == 0
    assert json.loads(cache_files(tmp_path)["latents cache.json"].read_text()) == header
    flip(cache_files(tmp_path)["latents latents.f16"], 7)
    opened(tmp_path, examples, vae=vae)
    assert vae.calls > 0


@pytest.mark.parametrize(
    "change",
    [
        {"views": "1"},
        {"views": 2},
        {"views": 10**9},
        {"shape": [6, 2]},
        {"mean": [None]},
        {"mean": [0.0]},
        {"mean": [0.0, 0.0, 1e308]},
        {"std": [1e308, 1.0, 1.0]},
        {"std": [-1.0]},
        {"left_out": {"x": ""}},
        {"left_out": {"0": ""}},
        {"files": {"../latents.f16": 1}},
        {"files": {"a\0b": 1}},
        {"views": "deep"},
    ],
)
def test_the_header_of_an_old_cache_that_is_of_another_form_is_damage(tmp_path, capsys, change):
    """Nothing but the types of its values tells it."""
    examples = pictures(tmp_path / "images")
    whole = batch_of(opened(tmp_path, examples))
    without_checksums(tmp_path)
    file = cache_files(tmp_path)["latents cache.json"]
    text = json.dumps({**json.loads(file.read_text()), **change})
    file.write_text(text.replace('"deep"', "[" * 3000 + "]" * 3000))
    assert torch.equal(batch_of(opened(tmp_path, examples)), whole)
    assert "is damaged; it is built anew" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "start", "value"),
    [
        ("captions offsets.i64", 0, np.int64(1)),
        ("captions offsets.i64", 8, np.int64(10**9)),
        ("captions offsets.i64", 8, np.int64(-1)),
        ("captions tokens.f16", 0, np.float16("inf")),
        ("latents latents.f16", 2, np.float16("nan")),
    ],
)
def test_values_that_make_no_sense_are_damage_in_an_old_cache(tmp_path, capsys, name, start, value):
    examples = pictures(tmp_path / "images")
    whole = batch_of(opened(tmp_path, examples))
    without_checksums(tmp_path)
    file = cache_files(tmp_path)[name]
    content = bytearray(file.read_bytes())
    content[start : start + value.nbytes] = value.tobytes()
    file.write_bytes(content)
    assert torch.equal(batch_of(opened(tmp_path, examples)), whole)
    assert f"{file.parent}: is damaged; it is built anew" in capsys.readouterr().err


def test_an_old_cache_on_a_read_only_disk_is_opened(tmp_path, monkeypatch):
    examples = pictures(tmp_path / "images")
    opened(tmp_path, examples)
    without_checksums(tmp_path)

    def refuse(*arguments):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(cache_module, "write_text", refuse)
    vae = Vae()
    assert len(opened(tmp_path, examples, vae=vae)) == 6
    assert vae.calls == 0


def test_an_old_cache_of_images_that_were_taken_for_black_is_built_anew(tmp_path, capsys):
    """The key is that of the file, which has not changed; what is read from it has."""
    file = tmp_path / "float.tiff"
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(file)
    examples = [Example(file, ("grey",)), *pictures(tmp_path / "images")]
    opened(tmp_path, examples)
    without_checksums(tmp_path)
    old = cache_files(tmp_path)["latents latents.f16"]
    old.write_bytes(bytes(old.stat().st_size))
    cache = opened(tmp_path, examples)
    assert "read some of its images otherwise; it is built anew" in capsys.readouterr().err
    expected = Vae().encode(torch.full((1, 3, 8, 8), 128 / 127.5 - 1)).mean
    assert torch.allclose(latents_of(cache, [0]), expected, atol=4e-3)


# ---- large files


@pytest.fixture
def large(monkeypatch):
    """latents.f16 counts as large; all other files do not."""
    monkeypatch.setattr(cache_module, "LARGE", 120)


def test_a_large_file_is_compared_while_training_has_begun(tmp_path, large):
    examples = pictures(tmp_path / "images")
    whole = batch_of(opened(tmp_path, examples))
    cache = opened(tmp_path, examples)
    cache.check_files()
    assert torch.equal(batch_of(cache), whole)
    file = cache_files(tmp_path)["latents latents.f16"]
    flip(file, 10)
    cache = opened(tmp_path, examples)  # at once
    for _ in range(2):
        with pytest.raises(InputError, match="the cache is built anew") as caught:
            cache.check_files()
        assert str(caught.value).startswith(f"{file}: damaged")
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"latents.f16: damaged"):
        batch_of(cache)
    vae = Vae()
    cache = opened(tmp_path, examples, vae=vae)
    cache.check_files()
    assert vae.calls > 0
    assert torch.equal(batch_of(cache), whole)


def test_an_old_large_cache_is_given_checksums_too(tmp_path, large):
    examples = pictures(tmp_path / "images")
    opened(tmp_path, examples)
    header = json.loads(cache_files(tmp_path)["latents cache.json"].read_text())
    without_checksums(tmp_path)
    vae = Vae()
    opened(tmp_path, examples, vae=vae).check_files()
    assert vae.calls == 0
    assert json.loads(cache_files(tmp_path)["latents cache.json"].read_text()) == header


def test_the_other_processes_of_a_job_leave_the_checksums_to_the_first(tmp_path, monkeypatch):
    examples = pictures(tmp_path / "images")
    opened(tmp_path, examples)

    def read(*arguments):
        raise AssertionError("a file was read once more")

    monkeypatch.setattr("tinyldm.data.checksums.file_checksum", read)
    opened(tmp_path, examples, verify=False).check_files()
    with pytest.raises(AssertionError):
        opened(tmp_path, examples)


# ---- files that change while they are encoded


def after_hashing(monkeypatch, module, change):
    """Call change() once, between the hashing of the files and their encoding."""
    hashing, done = module.file_hashes, []

    def hash_then_change(*arguments, **options):
        hashes = hashing(*arguments, **options)
        if not done:
            done.append(change())
        return hashes

    monkeypatch.setattr(module, "file_hashes", hash_then_change)


@pytest.mark.parametrize("skip_bad", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        lambda file: Image.new("RGB", (8, 8), "red").save(file),
        lambda file: file.unlink(),
        lambda file: file.write_bytes(b"broken"),
    ],
)
def test_an_image_that_changes_while_it_is_encoded_stops_the_build(
    tmp_path, monkeypatch, change, skip_bad
):
    examples = pictures(tmp_path / "images")
    file = examples[3].image
    before = load_image(file)
    after_hashing(monkeypatch, latents, lambda: change(file))
    with pytest.raises(InputError, match=r"3\.png: was changed while"):
        opened(tmp_path, examples, skip_bad=skip_bad)
    assert finished(tmp_path) == []
    before.save(file)
    vae = Vae()
    cache = opened(tmp_path, examples, vae=vae, skip_bad=skip_bad)
    assert vae.calls > 0
    assert cache.left_out == []


def test_an_image_that_appears_while_others_are_encoded_is_not_taken_for_broken(
    tmp_path, monkeypatch
):
    examples = pictures(tmp_path / "images")
    content = examples[3].image.read_bytes()
    examples[3].image.unlink()
    after_hashing(monkeypatch, latents, lambda: examples[3].image.write_bytes(content))
    with pytest.raises(InputError, match=r"3\.png: was changed while"):
        opened(tmp_path, examples, skip_bad=True)
    assert opened(tmp_path, examples, skip_bad=True).left_out == []


def test_a_build_that_stops_leaves_no_thread_behind(tmp_path):
    """Else the thread that happens to collect it waits for itself, and the interpreter says so."""
    examples = pictures(tmp_path / "images")
    examples[3].image.write_bytes(b"broken")
    before = set(threading.enumerate())
    with pytest.raises(InputError, match=r"3\.png") as refused:
        opened(tmp_path, examples)
    assert refused.tb is not None  # its frames hold what the build had in hand
    assert set(threading.enumerate()) <= before


class Shown(Encoder):
    """Prompts are files of images, known by their content; a token is the mean colour."""

    fingerprint, width = "shown", 3

    def keys(self, prompts):
        return [file_hash(prompt) if prompt else "" for prompt in prompts]

    def stored(self, prompts):
        means = [np.array(load_image(p)).mean((0, 1)) if p else np.ones(3) for p in prompts]
        return Condition(torch.from_numpy(np.stack(means)).float()[:, None])


def test_a_file_that_a_prompt_names_is_what_its_key_says(tmp_path):
    pictures(tmp_path / "images", 12)
    images = [tmp_path / "images" / f"{k}.png" for k in range(12)]
    examples = [Example(images[k], (images[k + 6],)) for k in range(6)]

    class Replaced(Shown):
        def stored(self, prompts):
            Image.new("RGB", (8, 8), "red").save(images[8])
            return super().stored(prompts)

    whole = images[8].read_bytes()
    with pytest.raises(InputError, match=r"8\.png: was changed while"):
        opened(tmp_path, examples, text=Replaced())
    images[8].write_bytes(whole)
    condition = opened(tmp_path, examples, text=Shown()).batch(torch.tensor([2]), torch.Generator())
    expected = np.array(load_image(images[8])).mean((0, 1))
    assert np.allclose(condition[1].tokens[0, 0].numpy(), expected, atol=0.1)


class Mapped(Text):
    """Prompts are files of maps."""

    map_size = (2, 2)

    def stored(self, prompts):
        return super().stored([str(prompt) for prompt in prompts])

    def map_file(self, prompt):
        return prompt

    def read_map(self, prompt, image=None):
        return load_image(prompt).convert("L")


@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_map_that_changes_while_it_is_read_stops_the_build(tmp_path, monkeypatch, skip_bad):
    pictures(tmp_path / "images", 12)
    images = [tmp_path / "images" / f"{k}.png" for k in range(12)]
    examples = [Example(images[k], (images[k + 6],)) for k in range(6)]
    change = [
        lambda: Image.new("RGB", (8, 8), "red").save(images[9]),
        lambda: images[9].write_bytes(b"broken"),
    ][skip_bad]
    after_hashing(monkeypatch, maps, change)
    with pytest.raises(InputError, match=r"9\.png: was changed while"):
        opened(tmp_path, examples, text=Mapped(), skip_bad=skip_bad)
    assert not [path for path in tmp_path.glob("cache/maps/*") if path.is_dir()]


# ---- the names of today


def test_problems_are_told_by_the_names_of_the_data_set_in_use(tmp_path):
    """Two data sets with the same content share a cache, and the first is gone."""
    examples = pictures(tmp_path / "first", 12)
    files = [example.image for example in examples]
    files[2].write_bytes(b"broken")  # an image
    files[9].write_bytes(b"broken")  # a map
    examples = [Example(files[k], (files[k + 6],)) for k in range(6)]
    assert len(opened(tmp_path, examples, text=Mapped(), skip_bad=True).left_out) == 2
    opened(tmp_path, [Example(file, ("x",)) for file in files[:3]], skip_bad=True)
    shutil.move(tmp_path / "first", tmp_path / "second")
    moved = [tmp_path / "second" / file.name for file in files]
    examples = [Example(moved[k], (moved[k + 6],)) for k in range(6)]
    vae = Vae()
    cache = opened(tmp_path, examples, vae=vae, text=Mapped(), skip_bad=True)
    assert vae.calls == 0
    assert {line.split(": ")[0] for line in cache.left_out} == {str(moved[2]), str(moved[9])}
    assert "first" not in " ".join(cache.left_out)
    with pytest.raises(InputError, match=r"second/9\.png: not an image"):
        opened(tmp_path, examples, text=Mapped())
    with pytest.raises(InputError, match=r"second/2\.png: not an image"):
        opened(tmp_path, [Example(file, ("x",)) for file in moved[:3]])
