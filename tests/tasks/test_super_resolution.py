"""Small pictures become maps as a plain resize says; train.py and sample.py on pixels, latents."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from stand_ins import SMALL_RUN

import sample as sample_script
import train as train_script
from tinyldm.data.images import Augmentation, load_image
from tinyldm.data.latents import open_or_build
from tinyldm.errors import InputError
from tinyldm.nn.unet import UNetConfig
from tinyldm.sampling.settings import SampleOptions
from tinyldm.tasks.base import find_task, read_examples
from tinyldm.tasks.pictures import to_area
from tinyldm.tasks.super_resolution import SmallPictures
from tinyldm.training.checkpoint import find_checkpoint, load_checkpoint, read_config
from tinyldm.training.presets import PRESETS

TASK = find_task("super-resolution")
TINY = UNetConfig(channels=(8, 16), attention="none", middle="none", blocks=1, groups=4)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with four pictures of noise, and nothing that describes them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TINYLDM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(PRESETS, "tiny-test", TINY)
    Path("photos").mkdir()
    for k in range(4):
        pixels = np.random.default_rng(k).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(f"photos/{k}.png")


def train(**given):
    asked = {**SMALL_RUN, "data": "photos", "task": "super-resolution", "preset": "tiny-test"}
    train_script.train({**asked, "out": "run", **given})


def draw(out, **options):
    how = {"steps": 2, "device": "cpu", "out": out, "run": "run", **options}
    sample_script.draw(SampleOptions(**how))
    return {file.name: load_image(file) for file in sorted(Path(out).glob("*.png"))}


@pytest.mark.parametrize("vae", ["none", "tiny"])
def test_it_is_trained_on_any_images_and_draws_a_folder_of_them(place, vae):
    train(vae=vae, max_steps=2)
    config = read_config(find_checkpoint("run"))
    assert config["condition"] == {"task": "super-resolution", "small": [8, 8]}
    assert config["settings"]["cfg_drop"] == 0
    assert load_checkpoint("run").network.config.map_channels == 3
    Path("small").mkdir()
    for k in range(2):
        load_image(f"photos/{k}.png").resize((8, 8), Image.Resampling.BICUBIC).save(
            f"small/{k}.png"
        )
    of_small = draw("of_small", prompts="small")
    assert {name: picture.size for name, picture in of_small.items()} == {
        "0.png": (32, 32),
        "1.png": (32, 32),
    }
    assert of_small["0.png"].tobytes() != of_small["1.png"].tobytes()
    of_large = draw("of_large", prompts="photos")  # are made as small first
    assert len(of_large) == 4
    assert of_large["0.png"].tobytes() == of_small["0.png"].tobytes()


def test_the_network_sees_the_small_picture_enlarged(place):
    """Pixels: the cache's maps are Pillow's small pictures, enlarged by torch's bicubic."""
    _, examples = read_examples("photos", task="super-resolution")
    encoder = SmallPictures((8, 8), (32, 32))
    cache = open_or_build(examples, None, encoder, 32, Augmentation(flip=True))
    seen = []
    for k in range(4):
        small = load_image(f"photos/{k}.png").resize((8, 8), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None] / 127.5 - 1
        seen.append(torch.nn.functional.interpolate(pixels, size=(32, 32), mode="bicubic"))
    seen = torch.cat(seen)
    for seed in range(3):  # views are drawn: as they are, and mirrored with their pictures
        x0, condition = cache.batch(torch.arange(4), torch.Generator().manual_seed(seed))
        for k, map in enumerate(condition.maps):
            original = (np.array(load_image(f"photos/{k}.png")) / 127.5 - 1).transpose(2, 0, 1)
            picture = (x0 * cache.std + cache.mean)[k].numpy()
            mirrored = not np.allclose(picture, original, atol=1e-2)
            if mirrored:
                assert np.allclose(picture, original[..., ::-1], atol=1e-2)
                expected = seen[k].flip(-1)
                torch.testing.assert_close(map, expected, rtol=0, atol=0.03)  # rounded after
            else:
                torch.testing.assert_close(map, seen[k])
    assert condition.tokens is None
    assert condition.vector is None
    asked = encoder.encode([TASK.prompt(f"{k}.png", Path("photos")) for k in range(4)])
    torch.testing.assert_close(asked.maps, seen)


def test_a_single_text_is_one_prompt(place):
    encoder = SmallPictures((8, 8), (32, 32))
    alone = encoder.encode("photos/0.png")
    assert torch.equal(alone.maps, encoder.encode(["photos/0.png"]).maps)


def test_a_linked_picture_is_recorded_by_its_place_in_the_data(place):
    """So a run and its data can move, with the link or with a picture in its place."""
    Path("photos/0.png").rename("elsewhere.png")
    Path("photos/0.png").symlink_to(Path("elsewhere.png").resolve())
    _, examples = read_examples("photos", task="super-resolution")
    told = [TASK.text(example.prompts[0], Path("photos")) for example in examples]
    assert told == ["0.png", "1.png", "2.png", "3.png"]


def test_where_latents_are_smaller_no_pixel_is_lost():
    pictures = torch.randn(2, 3, 16, 8)
    folded = to_area(pictures, (4, 2))
    assert folded.shape == (2, 48, 4, 2)
    assert torch.equal(folded[0, :16, 1, 1], pictures[0, 0, 4:8, 4:8].flatten())
    assert torch.equal(torch.nn.functional.pixel_shuffle(folded, 4), pictures)
    assert torch.equal(to_area(pictures, (16, 8)), pictures)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"factor": 5}, "--factor 5: expected a divisor of the size, 32x32"),
        ({"task": None, "factor": 4}, "--factor 4: belongs to --task super-resolution"),
        ({"task": "text"}, "--task text: photos is for|photos: not a known layout"),
        ({"data": "empty"}, "empty: not a known layout, .*images, in the folder or in its train/"),
    ],
)
def test_bad_input_is_one_line(place, given, said):
    Path("empty").mkdir()
    asked = {**SMALL_RUN, "data": "photos", "task": "super-resolution", "out": "no", **given}
    if asked["task"] is None:
        del asked["task"]
    with pytest.raises(InputError, match=said) as caught:
        train_script.train(asked)
    assert "\n" not in str(caught.value)
    assert not Path("no").exists()


def test_a_factor_belongs_to_this_task_and_has_to_fit_the_latents(place):
    with pytest.raises(InputError, match="--factor 2: belongs to --task super-resolution"):
        find_task("text").check_options({"factor": 2})
    with pytest.raises(InputError, match="small pictures of 12x12 do not fit latents of 8x8"):
        TASK.encoder({"small": (12, 12)}, (8, 8), "cpu")
    assert TASK.encoder({"small": (16, 16)}, (8, 8), "cpu").finish(
        TASK.encoder({"small": (16, 16)}, (8, 8), "cpu").stored(["a"]), None, None
    ).maps.shape == (1, 12, 8, 8)


def test_broken_prompts_are_told_before_anything_is_drawn(place):
    train(vae="none", max_steps=1)
    Path("broken.png").write_text("no picture")
    for prompt in ("broken.png", "nowhere.png"):
        with pytest.raises(InputError, match=f"{prompt}: "):
            draw("none", prompt=[prompt])
    assert not Path("none").exists()
