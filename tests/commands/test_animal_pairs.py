"""The animal-object pairs at 64x64, from their published files to the archive to hand in."""

import csv
import zipfile

import numpy as np
import pytest
from bad_inputs import run_command
from PIL import Image

from tinyldm.tasks.base import find_task
from tinyldm.training.chosen import settings_for

ANIMALS, OBJECTS = ("fish", "owl", "shark"), ("chair", "apple", "sneaker")


@pytest.fixture
def published(tmp_path, monkeypatch):
    """train.csv and generate.csv as their pages show them, and nine images of 64x64."""
    monkeypatch.setenv("TINYLDM_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    pairs = [(animal, thing) for animal in ANIMALS for thing in OBJECTS]
    (tmp_path / "animals" / "images").mkdir(parents=True)
    with (tmp_path / "animals" / "train.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("id", "animal", "object"))
        for k, pair in enumerate(pairs, 1):
            table.writerow((f"{k:06d}.png", *pair))
            pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "animals" / "images" / f"{k:06d}.png")
    with (tmp_path / "animals" / "generate.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("id", "animal", "object", "prompt"))
        for k, (animal, thing) in enumerate(pairs[:3], 1):
            table.writerow((f"{k:06d}.png", animal, thing, f"a {animal} and a {thing}"))
    return tmp_path


def test_animal_pairs_from_the_download_to_the_archive(published):
    def command(line):
        ended = run_command(published, line.split())
        assert (ended.status, ended.crash) == (0, ""), ended
        return ended.out

    how = "--vae tiny --text-encoder tiny --max-steps 2 --batch-size 4 --device cpu"
    out = command(f"train.py --data animals --out runs/animals {how}")
    assert "animals: reading 9 images with train.csv" in out
    command("sample.py --prompts animals/generate.csv --steps 2 --out drawn")
    asked = "--prompts animals/generate.csv"
    told = command(f"submit drawn {asked} --out a.zip --inside generated_images")
    assert "3 images of 64x64" in told
    with zipfile.ZipFile(published / "a.zip") as archive:
        expected = [f"generated_images/{k:06d}.png" for k in (1, 2, 3)]
        assert archive.namelist() == expected
    told = command(f"evaluate drawn {asked} --reference animals --clip tiny --metrics clip-t cmmd")
    assert "clip-t" in told


def test_their_pictures_keep_their_64_pixels():
    text = find_task("text")
    assert settings_for({"data": "animals"}, (64, 64), text).size == (64, 64)
    small = settings_for({"data": "animals", "vae": "tiny"}, (64, 64), text)
    assert (small.preset, small.size, small.max_steps) == ("toy", (64, 64), 6000)
