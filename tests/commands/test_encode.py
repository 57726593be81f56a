"""python -m tinyldm encode, with stand-ins for the frozen models."""

import json
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from stand_ins import AveragingVae

from tinyldm.__main__ import COMMANDS
from tinyldm.cli import dispatch
from tinyldm.condition import Condition
from tinyldm.tasks.base import Encoder
from tinyldm.training import frozen_models


class Ones(Encoder):
    """The same three tokens for any text."""

    width, fingerprint = 2, "text"

    def stored(self, prompts):
        return Condition(torch.ones(len(prompts), 3, 2))


@pytest.fixture
def data(tmp_path, monkeypatch):
    """An image folder of four images, 16x8.

    The stand-ins take the place of what --vae and --text-encoder name.
    """
    monkeypatch.setenv("TINYLDM_CACHE", str(tmp_path / "cache"))
    for k in range(4):
        Image.new("RGB", (16, 8), (60 * k, 0, 0)).save(tmp_path / f"{k}.png")
    lines = (json.dumps({"file_name": f"{k}.png", "text": f"red {k}"}) for k in range(4))
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    vae = AveragingVae()
    models = frozen_models.FrozenModels(vae, Ones())
    monkeypatch.setattr(frozen_models, "load_frozen", lambda config, device: models)
    return SimpleNamespace(folder=tmp_path, vae=vae)


def encode(*arguments) -> int:
    return dispatch(COMMANDS, ["encode", *map(str, arguments), "--device", "cpu"])


def test_the_cache_is_built_once_and_told(data, capsys):
    assert encode("--data", data.folder, "--size", "16x8") == 0
    told = capsys.readouterr().out
    assert "4 images of 2 views" in told
    assert "3x2x4" in told
    assert "latents" in told
    calls = data.vae.calls
    assert encode("--data", data.folder, "--size", "16x8") == 0
    assert data.vae.calls == calls > 0
    assert encode("--data", data.folder, "--size", "16x8", "--no-flip") == 0
    assert data.vae.calls > calls


def test_what_is_wrong_with_the_only_image_is_told(data, capsys):
    (data.folder / "metadata.jsonl").write_text(json.dumps({"file_name": "none.png", "text": "a"}))
    assert encode("--data", data.folder) == 2
    assert "none.png: no such image" in capsys.readouterr().err


def test_what_skip_bad_left_out_is_told(data, capsys):
    (data.folder / "2.png").write_bytes(b"broken")
    assert encode("--data", data.folder, "--size", 16) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {data.folder / '2.png'}")
    assert encode("--data", data.folder, "--size", 16, "--skip-bad") == 0
    assert "3 images" in (told := capsys.readouterr().out)
    assert "1 left out" in told
    assert "2.png" in told


def test_a_large_cache_that_is_damaged_is_told_and_the_next_call_builds_it_anew(
    data, capsys, monkeypatch
):
    monkeypatch.setattr("tinyldm.data.cache.LARGE", 100)
    options = ("--data", data.folder, "--size", "16x8")
    assert encode(*options) == 0
    (file,) = data.folder.glob("cache/latents/*/latents.f16")
    content = file.read_bytes()
    file.write_bytes(bytes(len(content)))
    capsys.readouterr()
    assert encode(*options) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {file}: damaged")
    assert encode(*options) == 0
    assert file.read_bytes() == content


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--data", "nowhere"], "nowhere: no such folder"),
        (["--size", "18"], "--size 18x18: expected multiples of 4"),
        (["--size", "big"], "--size big"),
        (["--size", "16", "--copies", "2"], "--copies, --crop, --jitter"),
        (["--size", "16", "--jitter", "0.5"], "--copies, --crop, --jitter"),
        (["--size", "16", "--workers", "0"], "--workers 0: expected a whole number"),
    ],
)
def test_bad_input_is_one_line_and_status_2(data, capsys, arguments, told):
    assert encode("--data", data.folder, *arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert told in error
    assert "\n" not in error
    assert not (data.folder / "cache").exists()
