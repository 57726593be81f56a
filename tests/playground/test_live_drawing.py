"""What the playground draws: the pictures of a call, two at once, and where each step looked."""

import gc
import math
import threading
from dataclasses import replace

import pytest
import torch
from PIL import Image
from stand_ins import Lengths

from tinyldm.errors import InputError
from tinyldm.frozen.text import TextEncoder
from tinyldm.playground.drawing import (
    MARKS,
    Asked,
    Footage,
    Setting,
    channels,
    check_model,
    draw,
    own_settings,
)
from tinyldm.tasks.labels import LabelEncoder, LabelTask
from tinyldm.tasks.text import CaptionEncoder
from tinyldm.tasks.uncaptioned import NoCondition, UnconditionalTask

PROMPT = "Pixel art of a green ghost, waving."
TWO = (Setting(3.0, "dpm++", 6), Setting(1.0, "ddim", 4))


@pytest.fixture(scope="module")
def drawn(model):
    """The finished drawing, and the lengths of its sides after each step."""
    lengths, drawing = [], Footage()
    for drawing in draw(model, Asked(PROMPT, 5), TWO):
        lengths.append(tuple(len(side) for side in drawing.sides))
    return drawing, lengths


# ---- pictures


def test_each_side_ends_with_the_picture_of_a_call(model, drawn):
    for side, setting in zip(drawn[0].sides, TWO, strict=True):
        how = {"guidance": setting.guidance, "solver": setting.solver, "steps": setting.steps}
        (picture,) = model(PROMPT, seed=5, **how)
        noisy, estimate = side[-1].pictures
        assert noisy.tobytes() == estimate.tobytes() == picture.tobytes()
    assert len({side[-1].pictures[0].tobytes() for side in drawn[0].sides}) == 2


def test_both_sides_walk_down_their_levels_side_by_side(model, drawn):
    drawing, lengths = drawn
    for side, setting in zip(drawing.sides, TWO, strict=True):
        grid = model.schedule.grid(setting.steps)
        assert [frame.level for frame in side] == list(grid[1:])
        assert [frame.step.index for frame in side] == list(range(setting.steps))
    assert lengths[0] == (1, 0)
    noise = [math.inf, math.inf]
    for before, after in zip([(0, 0), *lengths], lengths, strict=False):
        (moved,) = [k for k in (0, 1) if after[k] > before[k]]
        assert noise[moved] == max(noise)  # the one that lies behind
        noise[moved] = drawing.sides[moved][after[moved] - 1].level.t
        if noise[moved] < 0:
            noise[moved] = -math.inf


def test_a_picture_is_drawn_on(model):
    init = Image.new("RGB", (50, 40), (200, 30, 30))
    *_, drawing = draw(model, Asked(PROMPT, 1, init, 0.5), TWO)
    assert [len(side) for side in drawing.sides] == [3, 2]  # half of the steps
    (picture,) = model(PROMPT, seed=1, init=init, strength=0.5, guidance=3, steps=6)
    assert drawing.sides[0][-1].pictures[0].tobytes() == picture.tobytes()


def test_looking_back(drawn):
    drawing, _ = drawn
    first, last = drawing.at(0), drawing.last
    assert [frame.step.index for frame in first] == [0, 0]
    assert [frame.step.index for frame in last] == [5, 3]
    assert [frame.step.index for frame in drawing.at(0.6)] == [3, 2]
    assert Footage().at(0.5) == (None, None)


def test_latents_are_shown_channel_by_channel(drawn):
    x = torch.stack([torch.full((2, 2), value) for value in (-3.0, 0.0, 3.0, 9.0)])
    picture = channels(x)
    colours = picture.getcolors()
    assert {colour for _, colour in colours} >= {(0,) * 3, (128,) * 3, (255,) * 3}
    assert dict((colour, n) for n, colour in colours)[(255,) * 3] >= 8  # 3 and beyond
    frame = drawn[0].sides[0][0]
    assert frame.latents[0].size != frame.pictures[0].size


# ---- attention


def test_attention_is_shared_out_among_the_words_and_the_marks(drawn):
    for frame in (frame for side in drawn[0].sides for frame in side):
        assert [word.text for word in frame.words] == [*PROMPT.split(), MARKS]
        shares = torch.tensor([word.share for word in frame.words])
        assert shares.min() > 0
        torch.testing.assert_close(shares.sum(), torch.tensor(1.0))
        whole = torch.stack([word.heat for word in frame.words]).sum(dim=0)
        torch.testing.assert_close(whole, torch.ones_like(whole))


def test_attention_to_words_depends_on_them(model):
    """Both sides are told the same; the same drawing with another word looks elsewhere."""
    one = TWO[1]
    *_, first = draw(model, Asked("a green ghost", 5), (one, one))
    *_, second = draw(model, Asked("a green slime", 5), (one, one))
    a, b, other = first.sides[0][0], first.sides[1][0], second.sides[0][0]
    for k in range(3):
        assert torch.equal(a.words[k].heat, b.words[k].heat)
        assert not torch.equal(a.words[k].heat, other.words[k].heat)


def test_guidance_0_reads_no_word(model):
    none = Setting(0.0, "ddim", 2)
    *_, drawing = draw(model, Asked(PROMPT, 1), (none, none))
    assert [frame.words for frame in drawing.sides[0]] == [(), ()]


@pytest.mark.parametrize(
    "text",
    [PROMPT, "waving!  don't", "", "   ", "Xylophon42 müde 漢字 🙂 a", "word " * 200],
)
def test_the_tokens_of_a_word_spell_it(text):
    encoder = TextEncoder.load("tiny")
    ids = encoder.tokenizer(text, truncation=True, max_length=encoder.max_length).input_ids
    words = encoder.words(text)
    assert [word for word, _ in words] == text.split()[: len(words)]
    if len(ids) < encoder.max_length:
        assert len(words) == len(text.split())
    for word, places in words:
        spelt = encoder.tokenizer.decode([ids[place] for place in places]).strip()
        assert spelt in (word, word.lower()) or places[-1] == encoder.max_length - 2  # cut off
        assert word.lower().startswith(spelt.lower())
    assert CaptionEncoder(encoder).words(text) == words


def test_the_token_of_a_label_is_its_own():
    names = ("gray cube", "red cube", "red sphere")
    encoder = LabelEncoder(names)
    tokens = encoder.encode(["red sphere, gray cube"]).tokens
    words = encoder.words("red sphere, gray cube")
    assert {word for word, _ in words} == {"red sphere", "gray cube"}
    for word, places in words:
        alone = encoder.encode([word]).tokens
        assert torch.equal(tokens[0, places], alone[0])
    assert LabelEncoder(names, "vector").words("gray cube") == []


# ---- what is refused, and what is left behind


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        (Setting(3.0, "heun", 5000), "between 1 and 1000 steps"),
        (Setting(3.0, "ddim", 0), "expected a whole number"),
        (Setting(math.nan, "ddim", 3), "--guidance nan"),
        (Setting(3.0, "consistency", 3), "expected another solver"),
        (Setting(3.0, "euler", 3), "euler"),
    ],
)
def test_what_does_not_fit_is_told_before_the_first_step(model, setting, word):
    for settings in ((setting, TWO[0]), (TWO[0], setting)):
        with pytest.raises(InputError, match=word):
            draw(model, Asked(PROMPT), settings)


def test_an_unknown_label_is_told_with_the_nearest(model):
    encoder = LabelEncoder(("red cube", "blue sphere"))
    labels = replace(model, task=LabelTask(), text_encoder=encoder)
    with pytest.raises(InputError, match="no label 'red cub', .* red cube"):
        draw(labels, Asked("red cub"), TWO)


def test_a_run_whose_prompts_are_files_is_refused(model):
    class Maps(Lengths):
        map_size = (8, 8)

    check_model(model)
    with pytest.raises(InputError, match=r"play takes runs .* sample\.py --run"):
        check_model(replace(model, text_encoder=Maps()))


def test_the_page_begins_with_two_settings_that_can_be_drawn(model):
    first, second = own_settings(model)
    assert first != second
    assert first.solver == second.solver
    assert next(draw(model, Asked(PROMPT), (first, second)))
    alone = replace(model, task=UnconditionalTask(), text_encoder=NoCondition())
    assert {setting.guidance for setting in own_settings(model)} == {3.0, 1.0}
    settings = {**model.checkpoint.config["settings"], "cfg_drop": 0.0}
    alone = replace(
        alone, checkpoint=replace(model.checkpoint, config={"settings": settings, "size": (32, 32)})
    )
    assert {setting.guidance for setting in own_settings(alone)} == {1.0}


def test_a_drawing_that_is_left_ends(model):
    """No thread goes on, and the network records nothing any more."""
    before = threading.active_count()
    drawings = draw(model, Asked(PROMPT), TWO)
    next(drawings)
    next(drawings)
    drawings.close()
    del drawings
    gc.collect()
    assert threading.active_count() == before
    assert not any(module._forward_hooks for module in model.network.modules())
