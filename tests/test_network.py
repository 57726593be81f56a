"""train.py --network: a network from a module of the user's own trains, is recorded and samples."""

import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from stand_ins import SMALL_RUN, AveragingVae, Lengths, without_seal

import sample as sample_script
import train as train_script
from tinyldm.errors import InputError
from tinyldm.sampling.settings import SampleOptions
from tinyldm.training import frozen_models
from tinyldm.training.checkpoint import find_checkpoint, load_checkpoint, read_config
from tinyldm.training.network import build_network
from tinyldm.weights import read_weights

MODULE = '''
"""Two convolutions, told of the time and of the mean of the tokens."""

import torch
from torch import nn


class Small(nn.Module):
    def __init__(self, channels, token_dim):
        super().__init__()
        self.first = nn.Conv2d(channels, 8, 3, padding=1)
        self.told = nn.Linear(token_dim + 1, 8)
        self.last = nn.Conv2d(8, channels, 3, padding=1)

    def forward(self, x_t, t, condition=None):
        said = torch.cat([condition.tokens.mean(1), t[:, None] / 1000], 1)
        return self.last(torch.tanh(self.first(x_t) + self.told(said)[:, :, None, None]))


def build(channels, size, token_dim, vector_dim, map_channels):
    assert (size, vector_dim, map_channels) == ((8, 8), None, 0)
    return Small(channels, token_dim)


def narrow(channels):
    return Small(channels, 6)


def nothing(**shape):
    return None


number = 7
'''


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder to work in, with four images of noise in data/ and the user's own my_module.py."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TINYLDM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_module", raising=False)
    Path("my_module.py").write_text(MODULE)
    Path("my_typo.py").write_text("import torch\ndef build(:\n")
    Path("data").mkdir()
    generator = torch.Generator().manual_seed(0)
    for k in range(4):
        pixels = torch.randint(0, 256, (32, 32, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(f"data/{k}.png")
    lines = [json.dumps({"file_name": f"{k}.png", "text": "x" * k}) for k in range(4)]
    Path("data/metadata.jsonl").write_text("\n".join(lines))
    models = frozen_models.FrozenModels(AveragingVae(), Lengths(scale=0.1))
    monkeypatch.setattr(frozen_models, "load_frozen", lambda config, device, place="": models)
    yield
    sys.modules.pop("my_module", None)


def train(**given):
    small = {**SMALL_RUN, "network": "my_module:build"}
    train_script.train({"out": "run", **({} if given.get("resume") else small), **given})


def draw(out):
    options = SampleOptions(
        run="run", steps=2, precision="float32", device="cpu", prompt=["xxx", "x"], out=out
    )
    sample_script.draw(options)
    return [file.read_bytes() for file in sorted(Path(out).glob("*.png"))]


def config_file():
    return find_checkpoint("run") / "config.json"


def name_in_checkpoint(recipe):
    """Let the checkpoint say that its network is built otherwise."""
    config = without_seal(config_file())
    config["network"] = recipe
    config_file().write_text(json.dumps(config))


def test_it_trains_and_samples(capsys):
    train()
    assert "run: my_module:build network of 0.00" in capsys.readouterr().out
    assert Path("run/previews/step-0000002.png").is_file()
    network = load_checkpoint("run").network
    assert type(network).__name__ == "Small"
    one, other = draw("drawn")
    assert one != other
    with Image.open("drawn/00-xxx.png") as image:
        assert image.size == (32, 32)
    assert draw("again") == [one, other]


def test_the_checkpoint_records_how_to_build_it():
    train()
    arguments = {
        "channels": 3,
        "size": [8, 8],
        "token_dim": 6,
        "vector_dim": None,
        "map_channels": 0,
    }
    config = read_config(find_checkpoint("run"))
    assert config["network"] == {"build": "my_module:build", "arguments": arguments}
    assert config["settings"]["network"] == "my_module:build"
    assert isinstance(build_network(config["network"]), torch.nn.Module)


def test_it_resumes_bit_for_bit():
    train(max_steps=3, out="whole", lr_schedule="constant")
    train(lr_schedule="constant")
    train(resume=True, max_steps=3)
    whole, parts = (
        read_weights(find_checkpoint(run) / "training.safetensors") for run in ("whole", "run")
    )
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    with pytest.raises(InputError, match="--network my_module:narrow: the run was started with"):
        train(resume=True, max_steps=4, network="my_module:narrow")


REFUSED = [
    ("nowhere:build", "--network nowhere:build: no module nowhere"),
    ("my_module.part:build", "--network my_module.part:build: no module my_module.part"),
    ("my_module:missing", "--network my_module:missing: my_module has no missing"),
    ("my_module", "--network my_module: expected my_module:name"),
    (":build", "--network :build: expected my_module:name"),
    (".my_module:build", "--network .my_module:build: expected my_module:name"),
    ("my_typo:build", "--network my_typo:build: .*my_typo.py, line 2: not Python"),
    ("my_module:narrow", "--network my_module:narrow: .*unexpected keyword.*expected a function"),
    ("my_module:number", "--network my_module:number: .*not callable.*expected a function"),
    ("my_module:nothing", "--network my_module:nothing: returned no torch module"),
    ("os:system", "--network os:system: not a function that builds a network"),
    ("subprocess:run", "--network subprocess:run: not a function that builds a network"),
    ("os.path:join", "--network os.path:join: not a function that builds a network"),
    ("builtins:exec", "--network builtins:exec: not a function that builds a network"),
]


@pytest.mark.parametrize(("name", "message"), REFUSED, ids=[name for name, _ in REFUSED])
def test_what_builds_no_network_is_refused_in_one_line(name, message):
    with pytest.raises(InputError, match=message) as caught:
        train(network=name)
    assert "\n" not in str(caught.value)
    assert not Path("run").exists()


@pytest.mark.parametrize(("name", "message"), REFUSED, ids=[name for name, _ in REFUSED])
def test_a_checkpoint_is_not_trusted_further(name, message):
    """One from the internet may name anything, and nothing of Python itself is called for it."""
    train(max_steps=1)
    name_in_checkpoint({**read_config(find_checkpoint("run"))["network"], "build": name})
    with pytest.raises(InputError, match=message) as caught:
        draw("drawn")
    assert str(caught.value).startswith(str(find_checkpoint("run") / "config.json"))
    assert "\n" not in str(caught.value)
    assert not Path("drawn").exists()


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"build": "my_module:build", "arguments": {"command": "ls"}}, "not a function that"),
        ({"build": "os:system", "arguments": {"command": "ls"}}, "not a function that"),
        ({"build": "my_module:build"}, "config.json: network: says nothing of 'arguments'"),
        (
            {"build": "my_module:build", "arguments": {"size": 8}},
            "config.json: network.arguments: says nothing of 'channels'",
        ),
        (
            {"build": "my_module:build", "arguments": [1, 2]},
            r"config.json: network: arguments: expected an object, found \[1, 2\]",
        ),
        ({"build": 7, "arguments": {"size": [8, 8]}}, "build: expected a valid string, found 7"),
        ("UNet", r"config.json: network: expected an object, found .UNet."),
    ],
)
def test_a_recipe_that_makes_no_sense_is_one_line(recipe, message):
    train(max_steps=1)
    name_in_checkpoint(recipe)
    with pytest.raises(InputError, match=message) as caught:
        load_checkpoint("run")
    assert "\n" not in str(caught.value)


def test_a_mistake_in_the_function_itself_is_told_as_it_is():
    text = MODULE.replace(
        "return Small(channels, token_dim)", "return Small(channels, token_dim, 1)"
    )
    Path("my_module.py").write_text(text)
    with pytest.raises(TypeError, match="positional arguments"):
        train()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("schedule", 3, "config.json: schedule: expected an object, found 3"),
        ("size", "x", r"config.json: size: expected a valid list, found .x."),
        ("size", [8], "config.json: size: has no entry 2"),
        ("settings", [], r"config.json: settings: expected an object, found \[\]"),
        ("condition", {"task": "nope"}, "config.json: --task nope: expected text, labels"),
    ],
)
def test_a_broken_config_is_one_line_that_names_it(key, value, message):
    train(max_steps=1)
    file = find_checkpoint("run") / "config.json"
    file.write_text(json.dumps({**without_seal(file), key: value}))
    with pytest.raises(InputError, match=message):
        draw("drawn")
    assert not Path("drawn").exists()


def test_weights_of_another_network_are_named():
    train(max_steps=1)
    text = Path("my_module.py").read_text().replace("channels, 8, 3", "channels, 4, 3")
    Path("my_module.py").write_text(text.replace("8, channels", "4, channels"))
    sys.modules.pop("my_module")
    with pytest.raises(InputError, match=r"model.safetensors: does not fit its config: "):
        load_checkpoint("run")
