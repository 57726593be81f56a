"""Jobs that edit: what they draw compared with what plain jobs draw, and how they go on."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from test_drawing import Pixels, Words, run  # noqa: F401 (a fixture)

import sample as sample_script
from tinyldm.autoencoder.pixels import Pixels as WithoutVae
from tinyldm.data.examples import Request
from tinyldm.data.images import load_image, save_image
from tinyldm.diffusion.ddim import DDIM
from tinyldm.diffusion.schedule import NoiseSchedule
from tinyldm.errors import InputError
from tinyldm.sampling import drawing
from tinyldm.sampling.compositions import Composition
from tinyldm.sampling.drawing import Painter, encode_prompts
from tinyldm.sampling.editing import Editing, read_mask
from tinyldm.sampling.settings import Drawing, SampleOptions
from tinyldm.tasks.text import CaptionEncoder
from tinyldm.training import frozen_models
from tinyldm.training.frozen_models import FrozenModels

STEPS = 6


class Halves(Pixels):
    """Latents that are the image at half the size, by the mean of 2x2 pixels."""

    def encode(self, images):
        return SimpleNamespace(mean=torch.nn.functional.avg_pool2d(images, 2))


@pytest.fixture
def place(run, monkeypatch):  # noqa: F811
    """The run of test_drawing, which can encode as well; a picture and a mask, 32x32 pixels."""
    models = FrozenModels(Halves(), CaptionEncoder(Words()))
    monkeypatch.setattr(frozen_models, "load_frozen", lambda config, device, place: models)
    picture = np.random.default_rng(0).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    Image.fromarray(picture.repeat(8, 0).repeat(8, 1)).save("init.png")
    mask = np.zeros((32, 32), np.uint8)
    mask[5:14, 9:20] = 255
    Image.fromarray(mask).save("mask.png")
    return run


def draw(out, *prompts, **options):
    """What sample.py draws: its pictures (h, w, 3) as numbers, in the order of their names."""
    how = {"steps": STEPS, "precision": "float32", "device": "cpu", **options}
    sample_script.draw(SampleOptions(run="runs/pets", prompt=list(prompts) or None, out=out, **how))
    return [pixels(file) for file in sorted(Path(out).glob("*.png"))]


def pixels(file):
    return np.array(load_image(file)).astype(int)


def same(one, other):
    """Whether pictures agree but for the rounding of another batch size."""
    pairs = zip(one, other, strict=True)
    return all(np.abs(a - b).max() <= 1 for a, b in pairs)


def test_all_of_the_strength_is_the_plain_drawing(place):
    plain = draw("plain", "a cat", "a dog")
    for k, options in enumerate([{"solver": "ddpm"}, {}]):
        again = draw(f"full-{k}", "a cat", "a dog", init="init.png", strength=1.0, **options)
        assert same(again, draw(f"plain-{k}", "a cat", "a dog", **options))
    assert same(again, plain)
    assert not same(draw("part", "a cat", "a dog", init="init.png"), plain)


def test_no_strength_is_what_the_vae_keeps_of_the_picture(place):
    found = draw("none", "a cat", "a dog", init="init.png", strength=0.0)
    small = load_image("init.png").resize((16, 16), Image.Resampling.BICUBIC)
    vae = Halves()
    tensor = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None] / 127.5 - 1
    kept = vae.decode(vae.encode(tensor).mean)[0].permute(1, 2, 0)
    expected = ((kept + 1) * 127.5).round().numpy()
    assert same(found, [expected, expected])


def test_more_strength_leads_further_away(place):
    start, *rest = (
        draw(f"s{s}", "a cat", init="init.png", strength=s)[0] for s in (0.0, 0.2, 0.5, 0.9)
    )
    distances = [np.abs(each - start).mean() for each in rest]
    assert distances == sorted(distances)
    assert distances[0] > 1


@pytest.mark.parametrize(
    "options",
    [{}, {"solver": "heun"}, {"solver": "ddpm"}, {"strength": 0.5}, {"resample": 3}],
)
def test_what_the_mask_keeps_is_kept_to_the_bit(place, options):
    found = draw("out", "a cat", "a dog", init="init.png", mask="mask.png", **options)
    small = np.array(load_image("init.png").resize((16, 16), Image.Resampling.BICUBIC)).astype(int)
    drawn = np.zeros((16, 16), bool)
    drawn[2:7, 4:10] = True  # every pixel of which any part is white
    for picture in found:
        assert (picture[~drawn] == small[~drawn]).all()
        assert (picture[drawn] != small[drawn]).any(axis=1).mean() > 0.9


def test_a_mask_may_be_grey_and_has_the_size_of_the_picture(place):
    grey = np.full((32, 32), 127, np.uint8)
    grey[0, 31] = 128
    Image.fromarray(grey).save("grey.png")
    drawn = np.array(read_mask(Path("grey.png"), Path("init.png"), (16, 16)))
    assert drawn.nonzero()[0].tolist() == [0]
    assert drawn.nonzero()[1].tolist() == [15]
    Image.fromarray(grey[:16]).save("flat.png")
    with pytest.raises(InputError, match="flat.png: has 32x16 pixels, expected 32x32"):
        draw("out", "a cat", init="init.png", mask="flat.png")
    assert not Path("out").exists()


def calm(x, t, condition):
    """v near that of normal data, which is 0, and a little different for each prompt."""
    told = condition.tokens.sum((1, 2)).view(-1, 1, 1, 1) / 16  # padding is zero
    return 0.3 * torch.tanh(x + 3 * told)


def test_inversion_leads_back_to_the_picture(place):
    """The noise that is found, drawn with the same prompt and without guidance; but not with
    another prompt, and not the noise of the seed."""
    editing = Editing(init=load_image("init.png").resize((16, 16)), invert="a cat")
    encoder = CaptionEncoder(Words())
    errors = {}
    for steps in (20, 160):
        painter = Painter(
            network=calm,
            schedule=NoiseSchedule(),
            prediction="v",
            latent_shape=(3, 8, 8),
            mean=torch.zeros(3, 1, 1),
            std=torch.full((3, 1, 1), 0.5),
            vae=Halves(),
            how=Drawing(steps, DDIM(), guidance=1.0, precision="float32"),
        )
        painter = editing.begin(painter, FrozenModels(Halves(), encoder), 2, seed=0)
        condition = encode_prompts(encoder, ["a cat", "a long green eel"])
        assert painter.starts.shape == (2, 3, 8, 8)
        own, other = painter.draw(condition, [5, 6], noise=painter.starts)
        seeded = replace(painter, canvas=None).draw(condition, [5, 6])[0]
        (kept,) = painter.decode(painter.canvas.x0)
        errors[steps] = [mean_difference(each, kept) for each in (own, other, seeded)]
    assert errors[160][0] < errors[20][0] / 4  # DDIM is of first order
    assert errors[160][0] < 3
    assert errors[160][1] > 5
    assert errors[160][2] > 20


def mean_difference(one, other):
    """Of two pictures, in grey levels."""
    return np.abs(np.array(one).astype(int) - np.array(other)).mean()


def test_a_row_between_two_prompts_ends_with_each(place):
    row = draw("row", "a cat", "a dog", interpolate=4)
    assert [p.name for p in sorted(Path("row").glob("*.png"))][:2] == [
        "00-0-percent.png",
        "01-33-percent.png",
    ]
    first, last = draw("first", "a cat")[0], draw("last", "a dog")[0]
    assert same([row[0], row[3]], [first, last])
    assert not same([row[1]], [row[2]])
    with Image.open("row/about/grid.png") as grid:
        assert grid.size == (4 * 18 + 2, 18 + 2)


def test_a_row_between_two_seeds_ends_with_each(place):
    row = draw("row", "a cat", interpolate=3, to_seed=7)
    ends = draw("first", "a cat") + draw("last", "a cat", seed=7)
    assert same([row[0], row[2]], ends)
    both = draw("both", "a cat", "a dog", interpolate=3, to_seed=7)
    assert same([both[0], both[2]], draw("f", "a cat") + draw("l", "a dog", seed=7))
    onto = draw("onto", "a cat", interpolate=3, to_seed=7, init="init.png", strength=0.5)
    assert same([onto[0]], draw("one", "a cat", init="init.png", strength=0.5))


def test_weights_add_up_to_the_scale_of_guidance(place):
    """null + g (w_1 (D - null) + w_2 (D - null)), with the same prompt twice."""
    twice = draw("twice", "a cat", "a dog", and_=[["a cat", "0.5"]], guidance=2.0)
    assert same([twice[0]], draw("three", "a cat", guidance=3.0))
    assert same(draw("off", "a cat", and_=[["a dog", "0"]]), draw("plain", "a cat"))
    back = draw("back", "a cat", and_=[["a dog"], ["a dog", "-1"]])
    assert same(back, draw("again", "a cat"))
    assert not same(draw("not", "a cat", and_=[["a dog", "-1"]]), back)
    assert not same(draw("and", "a cat", and_=[["a dog"]]), back)


@pytest.mark.parametrize(
    "more",
    [{"guidance_rescale": 0.7}, {"guidance_interval": [0.5, 3.0]}, {"guide": "runs/pets"}],
)
def test_compositions_are_guided_as_one_prompt_is(place, more):
    """The first of a row between two prompts is the first prompt; the same prompt twice is it, too;
    and what is asked for changes the picture."""
    plain = draw("plain", "a cat", **more)
    row = draw("row", "a cat", "a dog", interpolate=3, **more)
    assert same([row[0]], plain)
    assert same(draw("half", "a cat", and_=[["a cat", "0"]], **more), plain)
    assert not same(plain, draw("other", "a cat"))


def test_a_run_without_a_null_condition_composes_nothing(place):
    file = place / "checkpoints" / "step-0000007" / "config.json"
    config = json.loads(file.read_text())
    config.pop("checksum")  # as if it had been written so
    file.write_text(json.dumps(config | {"settings": {"cfg_drop": 0.0}}))
    with pytest.raises(InputError, match="--and: the run was trained with --cfg-drop 0"):
        draw("out", "a cat", and_=[["a dog"]])
    row = draw("row", "a cat", "a dog", interpolate=3)  # which the null condition is no part of
    assert same([row[0]], draw("plain", "a cat"))


EDITS = {
    "init": "init.png",
    "mask": "mask.png",
    "strength": 0.8,
    "invert": "a bird",
    "and_": [["a dog", "0.5"]],
    "strip": "a cat",
    "batch_size": 2,
}


def test_an_interrupted_job_goes_on_and_ends_the_same(place, monkeypatch):
    prompts = ("a cat", "a dog", "a bird")
    whole = draw("whole", *prompts, **EDITS)
    saved = []

    def broken(image, path, **how):
        saved.append(path)
        if len(saved) == 2:
            raise OSError(28, "No space left on device", str(path))
        save_image(image, path, **how)

    with monkeypatch.context() as patched:
        patched.setattr(drawing, "save_image", broken)
        with pytest.raises(OSError, match="No space"):
            draw("part", *prompts, **EDITS)
    assert len(list(Path("part").glob("*.png"))) == 1
    assert same(draw("part", *prompts, **EDITS), whole)
    assert same([pixels("part/about/strip.png")], [pixels("whole/about/strip.png")])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"init": "other.png"}, "another picture to draw on"),
        ({"mask": "other.png"}, "another mask"),
        ({"mask": None}, "another mask"),
        ({"resample": 2}, "another resample"),
        ({"strength": 0.7}, "strength 0.8, now 0.7"),
        ({"invert": "a cow"}, "invert a bird, now a cow"),
        ({"invert": None}, "another invert"),
        ({"and_": [["a dog", "0.6"]]}, "another list of prompts"),
        ({"and_": None}, "another list of prompts"),
    ],
)
def test_another_edit_is_another_job(place, change, said):
    given = {**EDITS, "strip": None}
    before = draw("out", "a cat", **given)
    other = np.array(load_image("mask.png"))
    other[20:24, :16] = 255
    Image.fromarray(other).save("other.png")
    with pytest.raises(InputError, match=said):
        draw("out", "a cat", **{**given, **change})
    assert same(draw("out", "a cat", **given), before)


def test_the_same_picture_in_another_file_is_the_same_job(place):
    draw("out", "a cat", **EDITS)
    load_image("init.png").save("copy.bmp")
    draw("out", "a cat", **{**EDITS, "init": "copy.bmp"})


def test_a_strip_of_an_edited_picture_has_its_steps(place):
    draw("out", "a cat", init="init.png", strength=0.5, strip="a dog")
    with Image.open("out/about/strip.png") as strip:
        assert strip.size == (3 * 18 + 2, 2 * 18 + 2)  # half of the steps


def test_a_strip_of_a_resampled_picture_has_its_steps(place):
    edit = {"init": "init.png", "mask": "mask.png", "strength": 0.5, "strip": "a dog"}
    assert draw("out", "a cat", **edit, resample=1)[0].shape == (16, 16, 3)
    draw("more", "a cat", **edit, resample=3)
    for out, steps in (("out", 3), ("more", 7)):
        with Image.open(f"{out}/about/strip.png") as strip:
            assert strip.size == (steps * 18 + 2, 2 * 18 + 2)


def test_plain_jobs_record_what_they_did(place):
    """Their folders are continued by every version."""
    draw("out", "a cat")
    record = json.loads(Path("out/about/samples.json").read_text())
    assert not {"init", "strength", "mask", "invert", "interpolate", "to_seed"} & record.keys()
    draw("filled", "a cat", init="init.png", mask="mask.png", resample=1)
    assert "resample" not in json.loads(Path("filled/about/samples.json").read_text())


def test_a_composition_reads_as_one_would_say_it():
    prompt = Composition(("a cat", "a dog", "horns"), (1.0, 0.5, -1.0))
    assert str(prompt) == "a cat AND a dog (0.5) AND horns (-1)"
    editing = Editing(also=(("horns", -1.0),))
    (request,) = editing.requests([Request("0.png", "a cat")])
    assert request.text == "a cat AND horns (-1)"


def test_without_a_vae_the_pixels_are_the_latents():
    images = torch.rand(2, 3, 4, 4)
    posterior = WithoutVae().encode(images)
    assert torch.equal(posterior.mean, images)
    assert not posterior.std.any()
