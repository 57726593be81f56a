"""Equal fingerprints mean equal conditions: everything that decides them is in the hash."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from test_text import byte_tokenizer, clip_model

from tinyldm.data.examples import Example
from tinyldm.data.images import Augmentation
from tinyldm.data.latents import open_or_build
from tinyldm.errors import InputError
from tinyldm.frozen import loading
from tinyldm.frozen.image import ClipScorer
from tinyldm.frozen.style import StyleEncoder
from tinyldm.frozen.text import TextEncoder
from tinyldm.scores.features import clip_extractor
from tinyldm.tasks.landscape import LandscapeEncoder
from tinyldm.tasks.text import CaptionEncoder
from tinyldm.training.checkpoint import find_checkpoint, read_config
from tinyldm.training.frozen_models import load_frozen

FORMAT_1 = Path(__file__).parents[1] / "assets" / "format_1" / "text"
TEXT = "A Cat,  sat; aaa"


def edit(file: Path, change) -> None:
    """Change the content of a JSON file in place."""
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def lower(tokenizer):
    tokenizer["normalizer"] = {"type": "Lowercase"}


def split_words(tokenizer):
    pattern = {"Regex": r"\s+"}
    split = {"type": "Split", "pattern": pattern, "behavior": "Removed", "invert": False}
    parts = [split, tokenizer["pre_tokenizer"]]
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": parts}


def begin_twice(tokenizer):
    single = tokenizer["post_processor"]["single"]
    single.insert(0, single[0])


@pytest.mark.parametrize("change", [lower, split_words, begin_twice])
def test_a_tokenizer_of_the_same_vocabulary_is_another(published, folder, change):
    edit(folder / "tokenizer.json", change)
    before, after = TextEncoder.load(published), TextEncoder.load(folder)
    a, b = before.encode([TEXT]).tokens, after.encode([TEXT]).tokens
    assert a.shape != b.shape or not torch.allclose(a, b)
    assert before.fingerprint != after.fingerprint


def with_merges(folder, merges, **settings):
    """The CLIP with vocab.json and merges.txt in place of tokenizer.json."""
    model = clip_model(vocabulary=520)
    model.save_pretrained(folder)
    words = sorted(byte_tokenizer().get_vocab())
    letters = [word for word in words if len(word) == 1]
    vocabulary = ["<pad>", "<end>", "<start>", *letters, *(letter + "</w>" for letter in letters)]
    vocabulary += ["at", "at</w>", "ca", "aa"]
    numbers = {word: k for k, word in enumerate(vocabulary)}
    (folder / "vocab.json").write_text(json.dumps(numbers))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    special = {"pad_token": "<pad>", "eos_token": "<end>", "bos_token": "<start>"}
    settings = {"tokenizer_class": "CLIPTokenizer", "unk_token": "<end>", **special, **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_the_merges_of_a_slow_tokenizer_count(tmp_path):
    first, again, other, none = (tmp_path / name for name in ("first", "again", "other", "none"))
    with_merges(first, ["c a", "a t</w>"])
    with_merges(again, ["c a", "a t</w>"])
    with_merges(other, ["a t</w>", "c a"])
    with_merges(none, [])
    encoders = [TextEncoder.load(place) for place in (first, again, other, none)]
    assert set(encoders[0].files) == {"vocab.json", "merges.txt", "tokenizer_config.json"}
    tokens = [encoder.tokenizer("a cat").input_ids for encoder in encoders]
    assert tokens[0] == tokens[1] != tokens[2] != tokens[3]
    prints = [encoder.fingerprint for encoder in encoders]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


@pytest.mark.parametrize(
    "change", [{"padding_side": "left"}, {"model_max_length": 9}, {"bos_token": "<end>"}]
)
def test_the_settings_of_a_tokenizer_count(published, folder, change):
    edit(folder / "tokenizer_config.json", lambda settings: settings.update(change))
    assert TextEncoder.load(published).fingerprint != TextEncoder.load(folder).fingerprint


def test_what_changes_no_token_does_not_count(published, folder):
    """Where a copy lies, what libraries note in it, and files that tokenizer.json replaces."""
    notes = {"name_or_path": "somebody/clip", "transformers_version": "4.0", "chat_template": "x"}
    edit(folder / "tokenizer_config.json", lambda settings: settings.update(notes))
    (folder / "merges.txt").write_text("of no use")
    (folder / "README.md").write_text("# CLIP")
    before, after = TextEncoder.load(published), TextEncoder.load(folder)
    assert torch.equal(before.encode([TEXT]).tokens, after.encode([TEXT]).tokens)
    assert before.fingerprint == after.fingerprint
    before.encode([TEXT])  # which leaves padding and truncation in the tokenizer
    assert before.fingerprint == TextEncoder.load(published).fingerprint


@pytest.mark.parametrize("name", ["image_mean", "image_std"])
def test_the_statistics_of_the_pixels_count(published, folder, name):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    before, after = [], []
    for source, found in ((published, before), (folder, after)):
        style, scorer = StyleEncoder.load(str(source)), ClipScorer.load(str(source))
        found += [style.encode([image]), style.fingerprint]
        found += [LandscapeEncoder(style, (2, 2)).fingerprint]
        found += [scorer.images([image]), clip_extractor(scorer, "x").name]
        edit(folder / "preprocessor_config.json", lambda all: all.update({name: [0.4, 0.5, 0.6]}))
    assert not torch.allclose(before[0], after[0])
    assert not torch.allclose(before[3], after[3])
    assert all(
        a != b for a, b in zip(before[1:3] + before[4:], after[1:3] + after[4:], strict=True)
    )


# ---- what a run records, and what the first versions recorded


def config_of(name, fingerprint):
    """As much of a checkpoint's config as its frozen models need."""
    facts = {"task": "text", "name": str(name)}
    fingerprints = {"text_encoder_fingerprint": fingerprint}
    return {"vae": "none", "size": [8, 8], "condition": facts, **fingerprints}


def test_a_run_refuses_a_tokenizer_that_is_not_its_own(published, folder):
    recorded = TextEncoder.load(published).fingerprint
    models = load_frozen(config_of(published, recorded), "cpu")
    assert models.fingerprints["text_encoder_fingerprint"] == recorded
    edit(folder / "tokenizer.json", lower)
    with pytest.raises(InputError, match="is not the encoder that the run was trained with"):
        load_frozen(config_of(folder, recorded), "cpu")


def test_a_run_of_the_first_versions_keeps_the_fingerprint_that_it_recorded(folder):
    """Of the tokenizer that was the vocabulary alone."""
    former = TextEncoder.load(folder).former_fingerprint
    assert former != TextEncoder.load(folder).fingerprint
    models = load_frozen(config_of(folder, former), "cpu")
    assert models.fingerprints["text_encoder_fingerprint"] == former
    assert models.encoder.fingerprint == former  # by which it finds its captions in the cache
    with pytest.raises(InputError, match="is not the encoder"):
        load_frozen(config_of(folder, "0123456789abcdef"), "cpu")
    new = load_frozen(config_of(folder, None), "cpu")
    assert new.encoder.fingerprint == TextEncoder.load(folder).fingerprint


def test_the_former_fingerprint_is_the_one_in_a_run_that_the_first_version_trained():
    recorded = read_config(find_checkpoint(FORMAT_1))["text_encoder_fingerprint"]
    encoder = CaptionEncoder(TextEncoder.load("tiny"))
    assert encoder.fingerprint != encoder.former_fingerprint == recorded
    assert encoder.answer_to(recorded)
    assert encoder.fingerprint == recorded
    assert not CaptionEncoder(TextEncoder.load("tiny")).answer_to("another")


def test_a_landscape_run_of_the_first_versions_keeps_its_fingerprint_too(published):
    """The statistics of the pixels were left out."""
    from tinyldm.data.cache import key_of
    from tinyldm.frozen.loading import fingerprint
    from tinyldm.tasks.segmentation import CLASSES

    style = StyleEncoder.load(str(published))
    of_the_tower = fingerprint(style.model, "colours of quarters")
    former = key_of(("landscape", of_the_tower, CLASSES))[:16]
    encoder = LandscapeEncoder(style, (2, 2))
    assert encoder.fingerprint != former
    assert encoder.answer_to(former)
    assert encoder.fingerprint == former


def test_cached_captions_of_another_tokenizer_are_not_taken(published, folder, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    examples = [Example(tmp_path / "x.png", (TEXT,))]
    edit(folder / "tokenizer.json", lower)
    found = []
    for source in (published, folder):
        encoder = CaptionEncoder(TextEncoder.load(source))
        how = {"folder": tmp_path / "cache", "progress": False}
        cache = open_or_build(examples, None, encoder, 8, Augmentation(flip=False), **how)
        _, condition = cache.batch(torch.tensor([0]), torch.Generator())
        found.append(condition.tokens)
        expected = encoder.text_encoder.encode([TEXT]).tokens
        assert torch.allclose(condition.tokens, expected, atol=2e-3)
    assert not torch.allclose(*found)


# ---- code of its own


@pytest.mark.parametrize("load", [TextEncoder.load, ClipScorer.load, StyleEncoder.load])
@pytest.mark.parametrize(
    ("file", "entry"),
    [
        ("config.json", {"AutoModel": "mine.Model", "AutoConfig": "mine.Config"}),
        ("config.json", {"AutoModelForTextEncoding": "elsewhere/model--mine.Model"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["mine.Tokenizer", None]}),
        ("tokenizer_config.json", ["mine.Tokenizer", "mine.Tokenizer"]),
        ("preprocessor_config.json", {"AutoImageProcessor": "mine.Processor"}),
        ("processor_config.json", {"AutoProcessor": "mine.Processor"}),
    ],
)
def test_a_model_that_asks_for_code_of_its_own_is_refused(folder, monkeypatch, load, file, entry):
    """Whether or not transformers could do without; there is no question, whatever the answer."""
    exploded = folder / "exploded"
    (folder / "mine.py").write_text(f"open({str(exploded)!r}, 'w').close()")
    if not (folder / file).exists():
        (folder / file).write_text("{}")
    edit(folder / file, lambda content: content.update(auto_map=entry))

    def asked(*_):
        raise AssertionError("a question was asked")

    monkeypatch.setattr("builtins.input", asked)
    with pytest.raises(InputError) as caught:
        load(str(folder))
    said = str(caught.value)
    assert (
        f"{folder}: {file} asks for Python code of its own (auto_map), which is never run" in said
    )
    assert "\n" not in said
    assert not exploded.exists()


@pytest.mark.parametrize("nothing", [{}, []])
def test_an_auto_map_that_asks_for_nothing_is_let_through(folder, nothing):
    edit(folder / "config.json", lambda content: content.update(auto_map=nothing))
    assert TextEncoder.load(folder).width == 32


def test_a_part_of_a_config_may_not_ask_for_code_either(folder):
    part = {"auto_map": {"AutoModel": "mine.Model"}}
    edit(folder / "config.json", lambda content: content["text_config"].update(part))
    with pytest.raises(InputError, match=r"config\.json asks for Python code of its own"):
        TextEncoder.load(folder)


def test_one_function_loads_models_through_transformers():
    """And that one tells it to trust none."""
    package = Path(loading.__file__).parents[1]
    loaders = []
    for file in package.rglob("*.py"):
        text = file.read_text()
        if re.search(r"(from|import) transformers", text) and ".from_pretrained(" in text:
            loaders.append(file)
    assert loaders == [Path(loading.__file__)]
    assert '"trust_remote_code": False' in loaders[0].read_text()


@pytest.mark.parametrize("wrapper", ["text_model", "vision_model"])
def test_a_fingerprint_does_not_depend_on_how_transformers_wraps_a_tower(wrapper):
    """5.0 has the layers of a CLIP's tower in a module, 5.23 at the top."""
    from tinyldm.frozen.loading import fingerprint

    config = SimpleNamespace(to_dict=lambda: {"hidden_size": 3, "transformers_version": "5"})
    layer = torch.nn.Linear(3, 3)
    plain = torch.nn.ModuleDict({"embeddings": layer})
    wrapped = torch.nn.ModuleDict({wrapper: plain})
    prints = []
    for model in (plain, wrapped, torch.nn.ModuleDict({"other": plain})):
        weights = model.state_dict()
        named = SimpleNamespace(config=config, state_dict=lambda weights=weights: weights)
        prints.append(fingerprint(named))
    assert prints[0] == prints[1] != prints[2]
