"""Task landscape: maps and images stay together, wrong files are named, styles guided apart."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from stand_ins import without_seal
from transformers import CLIPModel, CLIPVisionConfig, CLIPVisionModel

import sample as sample_script
from tinyldm.cli import guarded
from tinyldm.condition import Condition
from tinyldm.data.examples import Examples
from tinyldm.data.images import Augmentation, load_image
from tinyldm.data.latents import open_or_build
from tinyldm.diffusion.guidance import Guidance
from tinyldm.errors import InputError
from tinyldm.frozen.loading import TINY
from tinyldm.frozen.style import StyleEncoder
from tinyldm.methods.composition import StepwiseGuidance
from tinyldm.nn.unet import UNetConfig
from tinyldm.sampling.settings import SampleOptions
from tinyldm.tasks import base
from tinyldm.tasks.base import read_requests
from tinyldm.tasks.landscape import LandscapeEncoder, Scene, map_then_style
from tinyldm.tasks.segmentation import CLASSES, class_shares, load_map
from tinyldm.training.checkpoint import find_checkpoint, read_config
from tinyldm.training.frozen_models import load_frozen
from tinyldm.training.presets import PRESETS
from train import train

FLIPPED = Augmentation(flip=True)
PLAIN = Augmentation(flip=False)


class MeanColour:
    """A style encoder whose one token is the mean colour."""

    width, fingerprint = 3, "mean"

    def encode(self, images):
        return torch.stack(
            [torch.from_numpy(np.array(image)).float().mean((0, 1)) for image in images]
        )[:, None]


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Six landscapes of 32x24 in the assignment's layout; the colour of a pixel tells its class."""
    monkeypatch.setenv("TINYLDM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    folder, rng = tmp_path / "land", np.random.default_rng(0)
    for name in ("train_resized/imgs", "train_resized/labels", "val_B_labels_resized"):
        (folder / name).mkdir(parents=True)
    for k in range(6):
        scene = rng.integers(0, len(CLASSES), (3, 4)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
        Image.fromarray(scene).save(folder / "train_resized/labels" / f"{k}.png")
        Image.fromarray(np.stack([scene * 8] * 3, 2)).save(
            folder / "train_resized/imgs" / f"{k}.jpg", quality=100
        )
        if k < 2:
            Image.fromarray(scene).save(folder / "val_B_labels_resized" / f"v{k}.png")
    (folder / "label_to_img.json").write_text(json.dumps({"v0.png": "3.jpg", "v1.png": "5.jpg"}))
    return folder


def read_examples(folder, **options) -> Examples:
    """The examples of a folder, all of which are landscapes here."""
    task, examples = base.read_examples(folder, **options)
    assert task.name == "landscape"
    return examples


def opened(data, augmentation=FLIPPED, style_drop=0.0, size=(24, 32), **options):
    encoder = LandscapeEncoder(MeanColour(), size, style_drop)
    return open_or_build(
        read_examples(data), None, encoder, size, augmentation, progress=False, **options
    )


def test_the_layout_is_told_from_the_files(data):
    examples = read_examples(data)
    assert examples.names == CLASSES
    assert len(CLASSES) == 29
    assert len(examples) == 6
    first, _second = read_requests(data / "label_to_img.json")
    assert first.name == "v0.jpg"
    assert first.text == f"{data}/val_B_labels_resized/v0.png | {data}/train_resized/imgs/3.jpg"


def test_shares_count_the_pixels_of_a_cell():
    maps = torch.randint(
        29, (2, 8, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    shares = class_shares(maps, (2, 3))
    assert shares.shape == (2, 29, 2, 3)
    cell = maps[1, 4:8, 4:8].flatten().tolist()
    torch.testing.assert_close(
        shares[1, :, 1, 1], torch.tensor([cell.count(c) / 16 for c in range(29)])
    )
    flat = class_shares(torch.full((1, 8, 8), 7, dtype=torch.uint8), (2, 2))
    assert torch.equal(flat.argmax(1), torch.full((1, 2, 2), 7))
    assert set(flat.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    "augmentation", [Augmentation(), Augmentation(copies=3, crop=0.5, jitter=0.01)]
)
def test_map_and_image_are_augmented_together(data, augmentation):
    """In the middle of a block the colour tells the class, whatever the view.

    Another view agrees in few pixels.
    """
    cache = opened(data, augmentation)
    generator, right, wrong, views = torch.Generator().manual_seed(0), [], [], set()
    for _ in range(20):
        x0, condition = cache.batch(torch.arange(6), generator)
        grey = ((x0 * cache.std + cache.mean)[:, 0] + 1) * 127.5
        flat = (grey[:, 1:-1, 1:-1] - grey[:, 2:, 2:]).abs() + (
            grey[:, 1:-1, 1:-1] - grey[:, :-2, :-2]
        ).abs() < 2
        classes, read = condition.maps.argmax(1)[:, 1:-1, 1:-1], (grey / 8).round()[:, 1:-1, 1:-1]
        right.append(((classes - read).abs() <= 1)[flat].float().mean())
        wrong.append(((classes.flip(-1) - read).abs() <= 1)[flat].float().mean())
        views |= {tuple(x.flatten().tolist()) for x in x0}
    assert min(right) > 0.97
    assert max(wrong) < 0.7
    assert len(views) > 6


def test_the_style_of_a_sample_is_its_own_image_and_is_dropped_alone(data):
    examples, generator = read_examples(data), torch.Generator().manual_seed(0)
    _x0, condition = opened(data).batch(torch.tensor([4]), generator)
    expected = torch.from_numpy(np.array(load_image(examples[4].image))).float().mean((0, 1))
    for style in (condition.tokens[0, 0], condition.vector[0]):
        torch.testing.assert_close(style, expected, rtol=1e-3, atol=0)
    _, dropped = opened(data, style_drop=1.0).batch(torch.tensor([4]), generator)
    assert not dropped.mask.any()
    assert not dropped.tokens.any()
    assert not dropped.vector.any()
    assert torch.equal(dropped.maps.sum(1), torch.ones(1, 24, 32))
    half = (
        opened(data, style_drop=0.5)
        .batch(torch.arange(6).repeat(50), generator)[1]
        .mask.float()
        .mean()
    )
    assert 0.4 < half < 0.6
    null = opened(data).null
    assert not null.mask.any()
    assert null.maps.shape == (1, 29, 24, 32)
    assert not null.maps.any()
    assert null.vector.shape == (1, 3)
    assert not null.vector.any()


def test_prompts_give_what_training_gave(data):
    encoder = LandscapeEncoder(MeanColour(), (6, 8))
    cache = open_or_build(read_examples(data), None, encoder, (24, 32), PLAIN, progress=False)
    _, trained = cache.batch(torch.tensor([2]), torch.Generator())
    map_alone = Scene("train_resized/labels/2.png", folder=data)
    asked = encoder.encode([read_examples(data)[2].prompts[0], map_alone, Scene()])
    torch.testing.assert_close(asked.maps[0], trained.maps[0])
    torch.testing.assert_close(asked.tokens[:1], trained.tokens, rtol=1e-3, atol=0)
    torch.testing.assert_close(
        asked.vector, torch.cat([trained.vector, torch.zeros(2, 3)]), rtol=1e-3, atol=0
    )
    assert asked.mask.tolist() == [[True], [False], [False]]
    assert torch.equal(asked.maps[1], asked.maps[0])
    assert not asked.maps[2].any()


def test_prompts_maps_are_resized_to_classes_that_are_there(data):
    """Blocks of 8 pixels on cells of 8 pixels: each cell is of one class.

    And that although the map is made smaller on the way.
    """
    text = f"{data}/train_resized/labels/2.png"
    maps = LandscapeEncoder(MeanColour(), (3, 4)).encode([Scene.of(text)]).maps
    with Image.open(text) as scene:
        assert np.array_equal(maps[0].argmax(0), np.array(scene)[4::8, 4::8])
    assert set(maps.unique().tolist()) == {0.0, 1.0}


def test_another_map_is_other_data(data):
    before = opened(data).key
    assert opened(data).key == before
    Image.fromarray(np.zeros((24, 32), np.uint8)).save(data / "train_resized/labels/1.png")
    assert opened(data).key != before


def test_a_changed_image_is_a_changed_style(data):
    before = opened(data).batch(torch.tensor([0]), torch.Generator())[1].tokens
    Image.new("RGB", (32, 24), "red").save(data / "train_resized/imgs/0.jpg")
    after = opened(data).batch(torch.tensor([0]), torch.Generator())[1].tokens
    assert (after - before).abs().max() > 10


def spoil_values(data):
    Image.fromarray(np.full((24, 32), 29, np.uint8)).save(data / "train_resized/labels/1.png")


def spoil_channels(data):
    Image.new("RGB", (32, 24)).save(data / "train_resized/labels/1.png")


def spoil_size(data):
    Image.new("L", (32, 20)).save(data / "train_resized/labels/1.png")


def spoil_bytes(data):
    (data / "train_resized/labels/1.png").write_bytes(b"no")


def lose_map(data):
    (data / "train_resized/labels/1.png").unlink()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (spoil_values, "1.png: a value of 29, expected classes from 0 to 28"),
        (spoil_channels, "1.png: .* one channel"),
        (spoil_size, "1.png: is 32x20, but its image 1.jpg is 32x24"),
        (spoil_bytes, "1.png: not an image"),
        (lose_map, "1.png: no such segmentation map"),
    ],
)
def test_a_wrong_map_is_named(data, spoil, told):
    spoil(data)
    with pytest.raises(InputError, match=told):
        opened(data)
    assert not list(Path("cache").glob("maps/*/maps.u8"))


@pytest.mark.parametrize("spoil", [spoil_values, spoil_size, spoil_bytes])
def test_a_wrong_map_may_be_left_out(data, spoil):
    """What remains are the other pairs, each map still with its image.

    Without skip_bad the same cache is refused.
    """
    whole = opened(data, PLAIN).batch(torch.arange(6), torch.Generator())[1].maps
    spoil(data)
    cache = opened(data, PLAIN, skip_bad=True)
    assert len(cache) == 5
    assert len(cache.left_out) == 1
    assert "1.png: " in cache.left_out[0]
    assert torch.equal(
        cache.batch(torch.arange(5), torch.Generator())[1].maps, whole[[0, 2, 3, 4, 5]]
    )
    with pytest.raises(InputError, match=r"1.png: "):
        opened(data, PLAIN)


def test_a_broken_image_is_named_or_left_out_with_its_map(data):
    whole = opened(data, PLAIN).batch(torch.arange(6), torch.Generator())[1].maps
    (data / "train_resized/imgs/2.jpg").write_bytes(b"no")
    with pytest.raises(InputError, match=r"2.jpg: not an image that can be read"):
        opened(data, PLAIN)
    cache = opened(data, PLAIN, skip_bad=True)
    assert len(cache) == 5
    assert "2.jpg: " in cache.left_out[0]
    assert torch.equal(
        cache.batch(torch.arange(5), torch.Generator())[1].maps, whole[[0, 1, 3, 4, 5]]
    )


def test_missing_files_of_the_test_set_are_named(data):
    file = data / "label_to_img.json"
    for scene, reference, told in (
        ("v0.png", "9.jpg", "no such reference image: 9.jpg"),
        ("v9.png", "3.jpg", "no such map: v9.png"),
    ):
        file.write_text(json.dumps({scene: reference}))
        with pytest.raises(InputError, match=told):
            read_requests(file)
    file.write_text(json.dumps({"v0.png": "3.jpg", "v1.png": 5}))
    with pytest.raises(InputError, match="v1.png: expected a valid string, found 5"):
        read_requests(file)
    encoder = LandscapeEncoder(MeanColour(), (6, 8))
    for text, told in (
        (f"{data}/nowhere.png", "nowhere.png: no such"),
        ("", "expected a segmentation map"),
        (f"{data}/val_B_labels_resized/v0.png | gone.jpg", "gone.jpg: no such image"),
    ):
        with pytest.raises(InputError, match=told):
            encoder.check([Scene.of(text)])


def test_every_image_counts_whatever_its_suffix(data):
    (data / "train_resized/imgs/4.jpg").rename(data / "train_resized/imgs/4.jpeg")
    assert [example.name for example in read_examples(data)] == [
        "0.jpg",
        "1.jpg",
        "2.jpg",
        "3.jpg",
        "4.jpeg",
        "5.jpg",
    ]


def test_hidden_files_are_no_landscapes(data):
    """A Mac leaves such files in an archive, beside the images and beside their maps."""
    for name in ("imgs/._0.jpg", "labels/._0.png"):
        (data / "train_resized" / name).write_bytes(b"\x00\x05\x16\x07")
    assert len(read_examples(data)) == 6


def test_maps_of_a_palette_hold_their_numbers(tmp_path):
    image = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4)).convert("P")
    image.putpalette([255 - k // 3 for k in range(768)])
    image.save(tmp_path / "p.png")
    assert np.array_equal(np.asarray(load_map(tmp_path / "p.png")), np.arange(12).reshape(3, 4))


def test_style_tokens_are_those_of_the_whole_clip():
    """The first token of an image is what CLIP itself calls its pooled output.

    It is so after the tower's last norm.
    """
    encoder, rng = StyleEncoder.load("tiny"), np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8))
    tokens = encoder.encode([image, image.transpose(Image.Transpose.ROTATE_180)])
    assert tokens.shape == (2, 65, 128 + 12)
    assert not tokens.requires_grad
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
    whole = CLIPModel.from_pretrained(TINY).float()
    expected = whole.vision_model(pixel_values=(pixels - encoder.mean) / encoder.std).pooler_output
    torch.testing.assert_close(tokens[:1, 0, :128], expected, rtol=1e-3, atol=1e-3)


def test_style_tokens_tell_the_colours_of_their_patch():
    """The quarters of each 8x8 patch, as means of pixels in [0, 1], in the tower's units."""
    encoder, rng = StyleEncoder.load("tiny"), np.random.default_rng(0)
    pixels = rng.integers(0, 256, (64, 64, 3), np.uint8)
    tokens = encoder.encode([Image.fromarray(pixels)])[0, :, 128:].view(65, 3, 2, 2)
    mean, std = (x.flatten().numpy() for x in (encoder.mean, encoder.std))
    for patch, y, x in ((0, 0, 0), (13, 1, 5), (63, 7, 7)):
        for i, j in ((0, 0), (0, 1), (1, 0)):
            quarter = pixels[8 * y + 4 * i :, 8 * x + 4 * j :][:4, :4].reshape(-1, 3).mean(0)
            assert np.allclose(tokens[1 + patch, :, i, j], (quarter / 255 - mean) / std, atol=1e-4)
    assert np.allclose(
        tokens[0].mean((1, 2)), (pixels.reshape(-1, 3).mean(0) / 255 - mean) / std, atol=1e-4
    )


@pytest.mark.parametrize(("side", "patch"), [(32, 16), (42, 14), (28, 7)])
def test_style_tokens_tell_the_colours_of_patches_of_any_size(side, patch):
    """Where each patch is of one colour, so are its quarters.

    Patches are in the order of the tower.
    """
    shape = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    tower = CLIPVisionModel(CLIPVisionConfig(**shape, image_size=side, patch_size=patch)).eval()
    colours = np.random.default_rng(0).integers(0, 256, (side // patch, side // patch, 3), np.uint8)
    image = Image.fromarray(colours.repeat(patch, 0).repeat(patch, 1))
    tokens = StyleEncoder(tower, (0.0,) * 3, (1.0,) * 3).encode([image])[0, 1:, 8:].view(-1, 3, 4)
    assert np.allclose(tokens, colours.reshape(-1, 3, 1) / 255, atol=1e-5)


def test_a_run_that_took_another_style_is_refused_by_name(data, small):
    train(small | {"data": str(data), "out": "run"})
    config, frozen = (
        read_config(find_checkpoint("run")),
        {"text_encoder": "a/clip", "text_encoder_fingerprint": "old"},
    )
    with pytest.raises(InputError, match=r"^tiny: is not the encoder that run was trained with"):
        load_frozen(config | frozen, "cpu", "run")


def linear(x_t, t, condition):
    """A denoiser that adds 1 for a map and 10 for a style."""
    of_map = condition.maps.flatten(1).any(1).float()
    of_style = (condition.mask.any(1) & condition.vector.any(1)).float()
    return x_t + (of_map + 10 * of_style).view(-1, 1, 1, 1)


def test_map_and_style_are_guided_apart():
    b, no = 3, torch.zeros(1, 1, dtype=torch.bool)
    null = Condition(torch.zeros(1, 1, 2), no, torch.zeros(1, 2), torch.zeros(1, 29, 4, 4))
    condition = Condition(
        torch.ones(b, 5, 2), ~no.expand(b, 5), torch.ones(b, 2), torch.ones(b, 29, 4, 4)
    )
    x, t = torch.randn(b, 2, 4, 4), torch.tensor([10.0, 500.0, 900.0])
    for of_map, of_style in ((1.0, 1.0), (3.0, 0.0), (2.0, 5.0)):
        guided = StepwiseGuidance((of_map, of_style), map_then_style(null))(linear)(x, t, condition)
        torch.testing.assert_close(guided, x + of_map + 10 * of_style)
    same = StepwiseGuidance((4.0, 4.0), map_then_style(null))(linear)(x, t, condition)
    torch.testing.assert_close(same, Guidance(4.0, null)(linear)(x, t, condition))


@pytest.fixture
def small(monkeypatch):
    config = UNetConfig(channels=(8, 16), attention=("none", "cross"), blocks=1, heads=2, groups=4)
    monkeypatch.setitem(PRESETS, "toy", config)
    return dict(vae="tiny", image_encoder="tiny", max_steps=2, batch_size=2, precision="float32")


def test_data_that_moved_are_those_of_the_run(data, small, monkeypatch):
    """Named by another path they are the same data.

    The prompts of the previews are found from another folder.
    """
    train(small | {"data": "land", "out": "run"})
    (data.parent / "else").mkdir()
    monkeypatch.chdir(data.parent / "else")
    assert sample("--run", "../run", "--out", "out") == 0
    data.rename(data.parent / "moved")
    train({"resume": True, "out": "../run", "data": "../moved", "max_steps": 3})
    assert (data.parent / "run/checkpoints/step-0000003").is_dir()


def test_a_run_and_its_data_on_another_machine(data, small, monkeypatch, capsys):
    """The previews are drawn where --data says that the data are, and to the same pictures."""
    train(small | {"data": str(data), "out": "run"})
    prompts = read_config(find_checkpoint("run"))["preview_prompts"]
    first = "val_B_labels_resized/v0.png | train_resized/imgs/3.jpg"
    assert prompts == [first, first.replace("v0", "v1").replace("3.jpg", "5.jpg")]
    assert sample("--run", "run", "--out", "before") == 0
    there = data.parent / "another" / "machine"
    there.mkdir(parents=True)
    data.rename(there / "moved")
    Path("run").rename(there / "run")
    monkeypatch.chdir(there)
    capsys.readouterr()
    assert sample("--run", "run", "--out", "after") == 2
    assert "no such" in capsys.readouterr().err
    assert sample("--run", "run", "--out", "after", "--data", "moved") == 0
    before = sorted((data.parent / "before").glob("*.png"))
    after = sorted(Path("after").glob("*.png"))
    assert len(after) == 2
    assert [p.name for p in after] == [p.name for p in before]
    assert [p.read_bytes() for p in after] == [p.read_bytes() for p in before]


def test_an_old_run_whose_prompts_are_whole_paths(data, small, monkeypatch):
    train(small | {"data": "land", "out": "run"})
    file = find_checkpoint("run") / "config.json"
    config = without_seal(file)
    del config["data_folder"]
    places = "val_B_labels_resized/v0.png", "train_resized/imgs/3.jpg"
    config["preview_prompts"] = [" | ".join(str(data / place) for place in places)]
    file.write_text(json.dumps(config))
    (data.parent / "else").mkdir()
    monkeypatch.chdir(data.parent / "else")
    assert sample("--run", "../run", "--out", "out") == 0
    assert len(list(Path("out").glob("*.png"))) == 1


def sample(*arguments) -> int:
    def job():
        options = sample_script.parser().parse_args([*map(str, arguments), "--steps", "2"])
        sample_script.draw(SampleOptions(**vars(options)))

    return guarded(job)


def test_both_commands(data, small, capsys):
    train(small | {"data": str(data), "out": "run"})
    how = ["--guidance-map", 2, "--guidance-style", 3]
    assert (
        sample("--run", "run", "--prompts", data / "label_to_img.json", "--out", "out", *how) == 0
    )
    for name in ("v0.jpg", "v1.jpg"):
        with Image.open(Path("out") / name) as image:
            assert image.size == (32, 24)
            assert image.format == "JPEG"
    again = ["--run", "run", "--prompts", data / "label_to_img.json", "--out", "out", *how]
    before, file = (Path("out") / "v0.jpg").read_bytes(), data / "train_resized/imgs/3.jpg"
    assert sample(*again) == 0
    kept = file.read_bytes()
    for content, told in (
        (b"no", "3.jpg: not an image"),
        (kept + b"0", "another content of maps or references"),
    ):
        file.write_bytes(content)
        assert sample(*again, *["--overwrite"][: content == b"no"]) == 2  # which takes nothing away
        assert told in capsys.readouterr().err
        assert (Path("out") / "v0.jpg").read_bytes() == before
    (data / "train_resized/imgs/3.jpg").unlink()
    for wrong, told in (
        (["--prompts", data / "label_to_img.json"], "3.jpg"),
        (["--prompt", "x.png"], "x.png: no such"),
        (["--guidance-map", "2", "--guidance", "2"], "--guidance-map"),
        (
            ["--guidance-style", "inf"],
            "--guidance-style inf: expected a number from -1,000",
        ),
    ):
        capsys.readouterr()
        assert sample("--run", "run", "--out", "never", *wrong) == 2
        assert told in capsys.readouterr().err
        assert not Path("never").exists()
