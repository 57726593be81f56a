"""Task labels: from the assignment's files to conditions, and both commands on nine pictures."""

import json
from dataclasses import asdict

import pytest
import torch
from PIL import Image

import sample as sample_script
from tinyldm.autoencoder.kl import AutoencoderConfig, AutoencoderKL
from tinyldm.autoencoder.pixels import load_vae
from tinyldm.cli import guarded
from tinyldm.data.examples import Examples, Request
from tinyldm.errors import InputError
from tinyldm.nn.unet import UNet, UNetConfig
from tinyldm.sampling.settings import SampleOptions
from tinyldm.tasks import base
from tinyldm.tasks.base import find_task, read_requests
from tinyldm.tasks.labels import LabelEncoder, Labels, read_names, wanted_labels
from tinyldm.training.checkpoint import load_checkpoint
from tinyldm.training.chosen import settings_for
from tinyldm.training.presets import PRESETS
from tinyldm.training.settings import LABEL_FORMS
from train import train

NAMES = ("gray cube", "red cube", "gray sphere", "red sphere")
SMALL = UNetConfig(channels=(8, 16), attention=("none", "cross"), blocks=1, heads=2, groups=4)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Nine pictures, 320x240 as the original ones, and the files of the assignment."""
    monkeypatch.setenv("TINYLDM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(PRESETS, "toy", SMALL)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "iclevr"
    (folder / "images").mkdir(parents=True)
    train = {
        f"scene_{k}.png": [NAMES[k % 4], NAMES[(k + 1) % 4]][: 1 + k % 2] for k in range(8)
    } | {"scene_8.png": []}
    for k, name in enumerate(train):
        Image.new("RGB", (320, 240), (20 * k, 100, 100)).save(folder / "images" / name)
    content = {
        "train": train,
        "objects": {name: k for k, name in enumerate(NAMES)},
        "test": [["red cube"], ["gray sphere", "red sphere", "gray cube"], []],
    }
    for name, values in content.items():
        (folder / f"{name}.json").write_text(json.dumps(values))
    return folder


def read_examples(folder, **options) -> Examples:
    """The examples of a folder, all of which are labelled here."""
    task, examples = base.read_examples(folder, **options)
    assert task.name == "labels"
    return examples


def rewrite(file, change):
    content = json.loads(file.read_text())
    file.write_text(json.dumps(change(content)))


def test_the_layout_is_told_from_the_files(data):
    examples = read_examples(data)
    assert examples.names == NAMES
    assert len(examples) == 9
    prompts = {e.name: e.prompts for e in examples}
    assert prompts["scene_3.png"] == (Labels(("red sphere", "gray cube")),)
    assert str(prompts["scene_3.png"][0]) == "red sphere, gray cube"
    assert prompts["scene_8.png"] == (Labels(),)
    assert str(prompts["scene_8.png"][0]) == ""
    requests = read_requests(data / "test.json")[1:]
    three = Labels(("gray sphere", "red sphere", "gray cube"))
    assert requests == [Request("1.png", three), Request("2.png", Labels())]
    assert [request.text for request in requests] == ["gray sphere, red sphere, gray cube", ""]


def test_tokens_tell_names_and_the_words_they_share():
    """Two tokens' inner product counts what their labels share.

    The name and both words, or one word, or nothing.
    """
    rows = LabelEncoder(NAMES).encode([Labels((name,)) for name in NAMES]).tokens[:, 0]
    shared = torch.tensor([[3, 1, 1, 0], [1, 3, 0, 1], [1, 0, 3, 1], [0, 1, 1, 3]])
    torch.testing.assert_close(rows @ rows.T / rows.shape[1] * 3, shared.float())
    alone = LabelEncoder(("cat", "dog")).encode([Labels(("dog",)), Labels(("cat",))]).tokens[:, 0]
    torch.testing.assert_close(alone, 2**0.5 * torch.tensor([[0.0, 1], [1, 0]]))


def test_the_forms_say_the_same():
    texts = ["red sphere, gray cube", "", "gray cube,red sphere , gray cube"]
    hot = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0], [1, 0, 0, 1]])
    prompts = [Labels.of(text) for text in texts]
    forms = {form: LabelEncoder(NAMES, form, (2, 3)).encode(prompts) for form in LABEL_FORMS}
    assert {form: set(c.parts()) for form, c in forms.items()} == {
        "tokens": {"tokens", "mask"},
        "vector": {"vector"},
        "maps": {"maps"},
        "tokens+vector": {"tokens", "mask", "vector"},
    }
    assert torch.equal(forms["vector"].vector, hot)
    assert torch.equal(forms["tokens+vector"].vector, hot)
    assert torch.equal(forms["maps"].maps, hot[:, :, None, None].expand(3, 4, 2, 3))
    assert forms["tokens"].mask.tolist() == [[True, True], [False, False], [True, True]]
    assert torch.equal(wanted_labels(prompts, NAMES), hot.bool())


def test_the_order_of_tokens_is_nothing_to_the_network():
    torch.manual_seed(0)
    encoder = LabelEncoder(NAMES)
    unet = UNet(UNetConfig(**{**asdict(SMALL), "token_dim": encoder.width}))
    for p in unet.parameters():
        torch.nn.init.normal_(p, std=0.2)
    c = encoder.encode([Labels.of("gray cube, red sphere, red cube")])
    turned = c.map(lambda part: part.flip(1))
    x, t = torch.randn(1, 4, 8, 8), torch.tensor([500.0])
    torch.testing.assert_close(unet(x, t, c), unet(x, t, turned))
    other = encoder.encode([Labels.of("gray cube, gray sphere, red cube")])
    assert (unet(x, t, c) - unet(x, t, other)).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda c: c | {"scene_1.png": ["red sfere"]},
            ["train.json: scene_1.png", "'red sfere'", "red sphere"],
        ),
        (
            lambda c: c | {"scene_1.png": "red cube"},
            ["scene_1.png", "expected a valid list", '"red cube"'],
        ),
        (lambda c: c | {"scene_9.png": []}, ["scene_9.png", "no such image"]),
    ],
)
def test_what_is_wrong_in_the_training_labels_is_named(data, change, told):
    rewrite(data / "train.json", change)
    with pytest.raises(InputError) as caught:
        read_examples(data)
    assert all(word in str(caught.value) for word in told)
    assert "\n" not in str(caught.value)


def test_an_unknown_label_of_the_test_set_is_named_with_its_place(data):
    rewrite(data / "test.json", lambda c: [*c, ["red cuba"]])
    with pytest.raises(
        InputError,
        match=r"test.json: entry 3: no label 'red cuba', expected one of 4, such as red cube",
    ):
        read_requests(data / "test.json")
    (data / "objects.json").unlink()  # what the labels are is for the run to say
    requests = read_requests(data / "test.json")
    assert requests[3].text == "red cuba"
    with pytest.raises(InputError, match=r"prompt 'red cuba': no label 'red cuba'"):
        LabelEncoder(("red cube", "blue cube")).check([requests[3].prompt])


@pytest.mark.parametrize("place", ["image", "iclevr", "train", "."])
def test_images_may_lie_in_several_places(data, place):
    (data / place).mkdir(exist_ok=True)
    for file in (data / "images").iterdir():
        file.rename(data / place / file.name)
    assert {example.image.parent for example in read_examples(data)} == {data / place}


def test_missing_images_may_be_left_out(data):
    (data / "images" / "scene_4.png").unlink()
    examples = read_examples(data, skip_bad=True)
    assert len(examples) == 8
    assert len(examples.problems) == 1
    assert "scene_4.png" in examples.problems[0]
    with pytest.raises(InputError, match=r"--task text: .* is for --task labels"):
        read_examples(data, skip_bad=True, task="text")


@pytest.mark.parametrize(
    "objects", [{}, {"a": 0, "b": 2}, {"a": 0, "b": 0}, {"a": 0, "b": "1"}, {"a,b": 0}, {" a": 0}]
)
def test_objects_must_be_names_with_numbers(data, objects):
    (data / "objects.json").write_text(json.dumps(objects))
    with pytest.raises(InputError, match=r"objects.json: "):
        read_names(data)


def sample(*arguments) -> int:
    options = sample_script.parser().parse_args([*map(str, arguments), "--steps", "3"])
    return guarded(lambda: sample_script.draw(SampleOptions(**vars(options))))


@pytest.mark.parametrize("form", LABEL_FORMS)
def test_both_commands(data, form, capsys):
    """In latents, and with tokens+vector in pixels."""
    pixels = form == "tokens+vector"
    options = dict(
        data=str(data),
        label_form=form,
        vae="none" if pixels else "tiny",
        centre=pixels,
        size=(16, 16),
    )
    train(options | {"out": "run", "max_steps": 2, "batch_size": 4, "precision": "float32"})
    strip = ["--strip", "red sphere, gray cube"]
    assert sample("--run", "run", "--prompts", data / "test.json", "--out", "out", *strip) == 0
    assert sorted(p.name for p in (data.parent / "out").glob("*.png")) == [
        "0.png",
        "1.png",
        "2.png",
    ]
    for name, size in {
        "0.png": (16, 16),
        "about/grid.png": (38, 38),
        "about/strip.png": (3 * 18 + 2, 38),
    }.items():
        with Image.open(data.parent / "out" / name) as image:
            assert image.size == size
    capsys.readouterr()
    for option, text, told in (
        ("--prompt", "red sfere", "red sphere"),
        ("--strip", " , ", "names nothing"),
        ("--strip", "cube", "gray cube"),
    ):
        assert sample("--run", "run", "--out", "never", option, text) == 2
        assert told in capsys.readouterr().err
        assert not (data.parent / "never").exists()


def test_no_labels_at_all_are_an_unconditional_model(data):
    rewrite(data / "train.json", lambda c: {name: [] for name in c})
    (data / "test.json").unlink()
    train(
        dict(
            data=str(data), size=(16, 16), out="run", max_steps=2, batch_size=4, precision="float32"
        )
    )
    assert sample("--run", "run", "--prompt", "", "--prompt", "red cube", "--out", "out") == 0
    assert len(list((data.parent / "out").glob("*.png"))) == 2


def test_an_autoencoder_that_keeps_the_size_is_no_pixels(data):
    """Its latents have channels of its own, at the image's own resolution."""
    AutoencoderKL(
        AutoencoderConfig(block_out_channels=[8], layers_per_block=1, norm_num_groups=1)
    ).save_pretrained("flat")
    assert not any(p.requires_grad for p in load_vae("flat").parameters())  # frozen
    train(
        dict(
            data=str(data),
            vae="flat",
            size=(16, 16),
            out="run",
            max_steps=1,
            batch_size=2,
            precision="float32",
        )
    )
    assert load_checkpoint("run").config["latent_shape"] == [4, 16, 16]
    assert sample("--run", "run", "--prompt", "red cube", "--out", "out") == 0


def test_options_of_another_task_are_refused(data):
    for name, value, told in (
        ("text_encoder", "tiny", "--text-encoder tiny: belongs to --task text"),
        ("label_form", "words", "--label-form"),
    ):
        with pytest.raises(InputError, match=told):
            train({"data": str(data), "out": "run", name: value})
    for name, value in {
        "label_form": "vector",
        "style_drop": 0.3,
        "image_encoder": "tiny",
    }.items():  # the toy set
        with pytest.raises(
            InputError, match=f"--{name.replace('_', '-')} {value}: belongs to --task"
        ):
            settings_for({name: value}, (64, 64), find_task("text"))
    assert not (data.parent / "run").exists()
