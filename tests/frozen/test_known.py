"""An encoder whose files have been loaded before is known without being loaded, and is the same."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from test_text import clip_model

from tinyldm.errors import InputError
from tinyldm.frozen import known
from tinyldm.frozen.style import StyleEncoder, StyleEncoderOnDemand
from tinyldm.frozen.text import TextEncoder, TextEncoderOnDemand
from tinyldm.tasks.text import TextTask

TEXTS = ["a cat", "another"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYLDM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def loads(monkeypatch):
    """The names under which text encoders and style encoders are loaded, one after another."""
    names = []
    for kind in (TextEncoder, StyleEncoder):

        def load(name, *how, plain=kind.load):
            names.append(name)
            return plain(name, *how)

        monkeypatch.setattr(kind, "load", load)
    return names


def test_a_text_encoder_is_loaded_once_to_be_known_and_then_to_encode(published, loads):
    plain = TextEncoder.load(published)
    first = TextEncoderOnDemand(published)
    assert loads == [published] * 2
    assert torch.equal(first.encode(TEXTS).tokens, plain.encode(TEXTS).tokens)
    assert len(loads) == 2  # it was there already

    again = TextEncoderOnDemand(published)
    assert len(loads) == 2
    assert (again.width, again.fingerprint) == (plain.width, plain.fingerprint)
    assert torch.equal(again.encode(TEXTS).tokens, plain.encode(TEXTS).tokens)
    assert again.words("a cat") == plain.words("a cat")
    assert again.former_fingerprint == plain.former_fingerprint
    assert len(loads) == 3


def test_a_style_encoder_likewise(published, loads):
    plain, _ = StyleEncoder.load(str(published)), StyleEncoderOnDemand(str(published))
    again = StyleEncoderOnDemand(str(published))
    assert len(loads) == 2
    assert (again.width, again.fingerprint) == (plain.width, plain.fingerprint)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    assert torch.equal(again.encode([image]), plain.encode([image]))
    assert len(loads) == 3


def test_one_folder_may_hold_several_encoders(published):
    """Both towers of a CLIP; and captions are padded, or they are not."""
    for _ in range(2):
        encoders = [
            TextEncoderOnDemand(published),
            TextEncoderOnDemand(published, padded=True),
            StyleEncoderOnDemand(str(published)),
        ]
        told = [encoder.fingerprint for encoder in encoders]
        assert told == [
            TextEncoder.load(published).fingerprint,
            TextEncoder.load(published, padded=True).fingerprint,
            StyleEncoder.load(str(published)).fingerprint,
        ]


def change_tokenizer(folder):
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "normalizer": {"type": "Lowercase"}}))


def change_weights(folder):
    model = clip_model()
    with torch.no_grad():
        next(model.text_model.parameters()).add_(1)
    model.save_pretrained(folder)


@pytest.mark.parametrize("change", [change_tokenizer, change_weights])
def test_other_files_make_another_encoder(folder, loads, change):
    before = TextEncoderOnDemand(folder).fingerprint
    change(folder)
    after = TextEncoderOnDemand(folder).fingerprint
    assert len(loads) == 2
    assert before != after == TextEncoder.load(folder).fingerprint


def test_the_same_files_elsewhere_are_the_same_encoder(published, folder, loads):
    TextEncoderOnDemand(published)
    (folder / "README.md").write_text("# CLIP")
    TextEncoderOnDemand(folder)
    assert loads == [published]


def test_another_transformers_reads_the_files_anew(published, loads, monkeypatch):
    TextEncoderOnDemand(published)
    monkeypatch.setattr(known, "version", lambda name: "1000.0")
    TextEncoderOnDemand(published)
    assert len(loads) == 2


@pytest.mark.parametrize("content", ["", "{}", '{"width": 32, "fingerprint": "0", "checksum": ""}'])
def test_a_damaged_note_is_not_believed(published, loads, cache, content):
    told = TextEncoderOnDemand(published).fingerprint
    (note,) = (cache / "encoders").iterdir()
    whole = note.read_text()
    note.write_text(content)
    assert TextEncoderOnDemand(published).fingerprint == told
    assert len(loads) == 2
    assert note.read_text() == whole


def test_where_nothing_can_be_noted_the_encoder_is_loaded(published, loads, cache):
    cache.write_text("a file, not a folder")
    for _ in range(2):
        encoder = TextEncoderOnDemand(published)
    assert len(loads) == 2
    assert encoder.fingerprint == TextEncoder.load(published).fingerprint


def test_files_that_change_before_they_are_loaded_are_noticed(folder):
    TextEncoderOnDemand(folder)
    encoder = TextEncoderOnDemand(folder)
    change_tokenizer(folder)
    with pytest.raises(InputError, match=f"text encoder {folder}: its files have changed"):
        encoder.encode(TEXTS)


def test_files_that_change_while_they_are_loaded_are_not_noted(folder, cache, monkeypatch):
    plain = TextEncoder.load

    def load(*how):
        encoder = plain(*how)
        change_tokenizer(folder)
        return encoder

    monkeypatch.setattr(TextEncoder, "load", load)
    TextEncoderOnDemand(folder)
    assert not (cache / "encoders").exists()


@pytest.mark.parametrize("name", ["nowhere", "no/such/folder", "no\0name"])
def test_an_encoder_that_is_not_there_is_an_error_at_once(name, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError) as plain:
        TextEncoder.load(name)
    with pytest.raises(InputError) as caught:
        TextEncoderOnDemand(name)
    assert str(caught.value) == str(plain.value)


def test_captions_can_have_their_encoder_loaded_at_once(published, loads):
    for _ in range(2):
        encoder = TextTask().encoder({"name": str(published)}, (2, 2), "cpu")
    assert len(loads) == 1
    encoder.get_ready()
    encoder.stored(TEXTS)
    assert len(loads) == 2


def test_loading_draws_no_random_numbers(published):
    """A training loads its encoder between two steps, which must not depend on that."""
    TextEncoderOnDemand(published), StyleEncoderOnDemand(str(published))
    late = TextEncoderOnDemand(published), StyleEncoderOnDemand(str(published))
    torch.manual_seed(0)
    state = torch.get_rng_state()
    late[0].encode(TEXTS)
    assert late[1].loaded.width
    assert torch.equal(torch.get_rng_state(), state)
