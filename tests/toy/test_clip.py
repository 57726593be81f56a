"""The tiny CLIP: how it is trained, and the one that ships in the package."""

import math

import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPModel

from tinyldm.__main__ import COMMANDS
from tinyldm.cli import dispatch
from tinyldm.commands.toy import script
from tinyldm.errors import InputError
from tinyldm.frozen.image import ClipScorer
from tinyldm.frozen.loading import TINY
from tinyldm.frozen.text import TextEncoder
from tinyldm.toy import monsters as toy

tiny_clip = script("train_clip")
scenes = script("scenes")


@pytest.fixture(scope="module")
def encoder():
    return TextEncoder.load("tiny")


def test_training_is_repeatable_and_writes_a_whole_clip(tmp_path, monkeypatch):
    monkeypatch.setattr(
        tiny_clip, "corpus", lambda *_: [scenes.caption(scenes.Random(k)) for k in range(300)]
    )
    for name in ("one", "two"):
        tiny_clip.train_clip(tmp_path / name, steps=2, batch_size=4)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name
    assert TextEncoder.load(tmp_path / "one").width == 128
    with pytest.raises(InputError, match="not empty"):
        tiny_clip.train_clip(tmp_path / "one", steps=2)


def test_bad_numbers_end_in_one_line(tmp_path, capsys):
    assert dispatch(COMMANDS, ["toy", "clip", "--out", str(tmp_path / "x"), "--steps", "0"]) == 2
    assert capsys.readouterr().err.startswith("error: --steps 0")


def test_training_pictures_leave_out_held_out_monsters():
    known, unknown = toy.monsters()
    for step in range(20):
        _, captions = tiny_clip.training_batch(step, 0, 16, known)
        assert len(captions) == 20
        said = " ".join(captions)
        assert not any(
            prompt["given_description"] in said
            for prompt, _ in toy.test_prompts(unknown, 0).values()
        )


def test_loss_falls_on_one_batch():
    torch.manual_seed(0)
    known = toy.monsters()[0]
    images, captions = tiny_clip.training_batch(1, 0, 12, known)
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    model = tiny_clip.new_model(len(tokenizer))
    reader = tiny_clip.TokenReader(model.text_model.embeddings.token_embedding)
    optimizer = torch.optim.AdamW(
        [*model.parameters(), reader.own.weight, reader.before.weight], lr=1e-3
    )
    losses = []
    for _ in range(12):
        loss = sum(tiny_clip.step_loss(model, reader, tokenizer, images=images, captions=captions))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.85 * losses[0]


def test_contrastive_loss_of_known_cases():
    unit = torch.eye(8)
    assert tiny_clip.contrastive_loss(unit, unit, torch.tensor(100.0)) < 1e-6
    same = unit[:1].expand(8, -1)
    assert tiny_clip.contrastive_loss(same, same, torch.tensor(5.0)).item() == pytest.approx(
        math.log(8)
    )


def test_shipped_folder_is_small_and_opens_in_transformers():
    assert sum(file.stat().st_size for file in TINY.iterdir()) < 5_000_000
    model, info = CLIPModel.from_pretrained(TINY, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.config.text_config.eos_token_id == AutoTokenizer.from_pretrained(TINY).eos_token_id


def test_no_text_is_unknown_and_any_two_words_differ(encoder):
    words = ["red", "龙", "虎", "🐉", "🐅", "zxqv", "zxqw", "Ωμέγα", "дракон", "a\x00b"]
    there = encoder.tokenizer("红龙 🐉 zxqv").input_ids
    assert encoder.tokenizer.decode(there, skip_special_tokens=True).strip() == "红龙 🐉 zxqv"
    assert encoder.tokenizer("Red Cube").input_ids == encoder.tokenizer("red cube").input_ids
    condition = encoder.encode([f"a {word} monster" for word in words])
    last = torch.stack(
        [t[m][-1] for t, m in zip(condition.tokens, condition.mask, strict=True)]
    )  # the state that ends the caption
    distance = torch.cdist(last, last) + 1e9 * torch.eye(len(words))
    assert distance.min() > 0.05 * last.norm(dim=1).mean()
    assert encoder.encode([""]).mask.sum() == 2


def test_every_toy_attribute_is_read_from_the_states(encoder):
    """A linear map of the mean state, fitted to training captions, works on test captions."""
    known, unknown = toy.monsters()
    r = scenes.Random(0)

    def states(monsters):
        condition = encoder.encode([toy.describe(m, r) for m in monsters])
        mask = condition.mask[..., None].float()
        mean = (condition.tokens * mask).sum(1) / mask.sum(1)
        return torch.cat([mean, torch.ones(len(mean), 1)], dim=1)

    train, test = states(known), states(unknown)
    for name in ("colour", "shape", "feature", "eyes"):
        values = toy.ATTRIBUTES[name]
        answers = torch.tensor([values.index(getattr(m, name)) for m in known])
        map_ = torch.linalg.lstsq(train, torch.nn.functional.one_hot(answers).float()).solution
        found = (test @ map_).argmax(1)
        assert (
            found == torch.tensor([values.index(getattr(m, name)) for m in unknown])
        ).float().mean() > 0.9


def test_scorer_prefers_the_true_caption():
    scorer = ClipScorer.load("tiny")
    pages = [Image.new("RGB", (96, 64), colour) for colour in scenes.SOLID_COLOURS]
    texts = [f"a plain {colour} picture" for colour in scenes.SOLID_COLOURS]
    similarity = scorer.images(pages) @ scorer.texts(texts).T
    assert (similarity.argmax(1) == torch.arange(8)).sum() >= 6
    assert torch.allclose(similarity.abs().clamp(max=1), similarity.abs(), atol=1e-5)


def test_scorer_sees_large_images_as_it_sees_small_ones():
    scorer = ClipScorer.load("tiny")
    image = toy.draw(toy.monsters()[0][0], "stand")
    large = scorer.images([image.resize((256, 256), Image.Resampling.NEAREST)])
    assert (large @ scorer.images([image]).T).item() > 0.95


def test_an_installed_package_says_where_the_scripts_are(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tinyldm.commands.toy.SCRIPTS", tmp_path / "docs" / "assets")
    out = str(tmp_path / "x")
    for part in (["clip", "--out", out], ["vae", "--out", out], ["score-clip"]):
        assert dispatch(COMMANDS, ["toy", *part]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: train_")
        assert "docs/assets of the repository" in error
        assert error.count("\n") == 1
    assert not (tmp_path / "x").exists()
