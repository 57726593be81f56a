"""Evaluation: names and counts come first, scores are shares that can be counted by hand."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from tinyldm.__main__ import COMMANDS
from tinyldm.cli import Parser, dispatch, guarded
from tinyldm.commands import evaluate as command
from tinyldm.errors import InputError
from tinyldm.folders import owned_file
from tinyldm.scores import attributes, evaluation, metrics
from tinyldm.scores.evaluation import evaluate
from tinyldm.scores.metrics import METRICS
from tinyldm.scores.written import table
from tinyldm.toy.monsters import ATTRIBUTES, draw, monsters

MONSTERS = [
    dict(colour="red", shape="round", feature="horns", eyes=1, action="main"),
    dict(colour="blue", shape="round", feature="wings", eyes=2, action="move"),
    dict(colour="gray", shape="square", feature="tail", eyes=3, action="jump"),
    dict(colour="pink", shape="square", feature="crown", eyes=3, action="die1"),
]


class Reader:
    """Reads off four images what was asked for, except for two colours and one number of eyes.

    Off others it reads the truth.
    """

    def read(self, images):
        if len(images) == 4:
            truth = {
                k: torch.tensor([values.index(m[k]) for m in MONSTERS])
                for k, values in ATTRIBUTES.items()
            }
            truth["colour"][:2] = 4
            truth["colour"][1] = 0
            truth["eyes"][3] = 0
            return truth
        return attributes.drawings(len(images), 2_000_000)[1]


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A folder with test.json, attributes.json and four images in samples/."""
    entries = {
        f"{k}_main": {"image_name": f"{k}_main.png", "text_prompt": f"monster {k}"}
        for k in range(4)
    }
    (tmp_path / "test.json").write_text(json.dumps(entries))
    (tmp_path / "attributes.json").write_text(
        json.dumps({f"{k}_main": m for k, m in enumerate(MONSTERS)})
    )
    (tmp_path / "samples").mkdir()
    for entry in entries.values():
        Image.new("RGB", (64, 64), "white").save(tmp_path / "samples" / entry["image_name"])
    monkeypatch.setattr(attributes, "load_classifier", lambda device: Reader())
    monkeypatch.setattr(metrics, "DRAWINGS", 10)
    return tmp_path


def test_toy_attributes_are_shares_of_the_images(toy):
    scores = evaluate(toy / "samples", toy / "test.json", device="cpu", metrics=["toy attributes"])[
        "toy attributes"
    ]
    assert scores["generated"] == {
        "colour": 0.5,
        "shape": 1.0,
        "feature": 1.0,
        "eyes": 0.75,
        "action": 1.0,
    }
    assert set(scores["real drawings"].values()) == {1.0}
    assert scores["value"] == pytest.approx((0.5 + 3 + 0.75) / 5)
    assert scores["n"] == 4
    assert "AttributeNet" in scores["extractor"]
    assert "64x64" in scores["preprocessing"]


def test_pictures_of_a_run_on_pixels_have_no_reconstructions_beside_them(toy):
    """No autoencoder drew them: their record says none."""
    record = {"vae": "none", "images": {f"{k}_main.png": f"monster {k}" for k in range(4)}}
    (toy / "samples" / "about").mkdir()
    (toy / "samples" / "about" / "samples.json").write_text(json.dumps(record))
    scores = evaluate(toy / "samples", toy / "test.json", device="cpu", metrics=["toy attributes"])
    rows = [name for name, row in scores["toy attributes"].items() if isinstance(row, dict)]
    assert rows == ["generated", "real drawings"]


def test_pitfall_22_the_report_names_what_made_it(toy, capsys):
    parser = Parser()
    command.add_arguments(parser)
    options = parser.parse_args(
        [
            str(toy / "samples"),
            "--prompts",
            str(toy / "test.json"),
            "--device",
            "cpu",
            "--out",
            str(toy / "new" / "scores.json"),
            "--metrics",
            "toy attributes",
        ]
    )
    assert guarded(command.run, options) == 0
    assert "generated" in capsys.readouterr().out
    report = json.loads((toy / "new" / "scores.json").read_text())
    assert report["prompts"] == str(toy / "test.json")
    assert report["scores"]["toy attributes"]["n"] == 4
    assert report["scores"]["toy attributes"]["extractor"].startswith("AttributeNet")
    assert report["versions"]["torch"] == torch.__version__
    assert guarded(command.run, options) == 2
    assert "exists already" in capsys.readouterr().err
    options.overwrite = True
    assert guarded(command.run, options) == 0


def test_a_file_that_another_process_writes_is_told_before_the_scoring(toy, capsys):
    out = toy / "scores.json"
    arguments = ["evaluate", str(toy / "samples"), "--prompts", str(toy / "test.json")]
    with owned_file(out):
        assert dispatch(COMMANDS, [*arguments, "--out", str(out)]) == 2
    assert "scores.json: another process is writing it" in capsys.readouterr().err
    assert not out.exists()


def test_it_says_that_no_reference_has_the_name_of_an_image(toy, capsys):
    (toy / "real").mkdir()
    for k in range(2):
        Image.new("RGB", (64, 64), (k, 0, 0)).save(toy / "real" / f"{k}.png")
    parser = Parser()
    command.add_arguments(parser)
    options = parser.parse_args(
        [
            str(toy / "samples"),
            "--prompts",
            str(toy / "test.json"),
            "--reference",
            str(toy / "real"),
            "--device",
            "cpu",
        ]
    )
    assert guarded(command.run, options) == 0
    out = capsys.readouterr().out
    assert "without clip-i, which needs --reference FOLDER with an image of each name" in out
    assert "clip-fd" in out


def test_missing_images_are_listed(toy):
    for k in (1, 3):
        (toy / "samples" / f"{k}_main.png").unlink()
    with pytest.raises(InputError, match=r"2 of 4 images are missing: 1_main.png, 3_main.png"):
        evaluate(toy / "samples", toy / "test.json")


def test_images_that_no_prompt_asks_for_are_listed(toy):
    Image.new("RGB", (64, 64)).save(toy / "samples" / "more.png")
    with pytest.raises(InputError, match=r"1 images that no prompt asks for: more.png"):
        evaluate(toy / "samples", toy / "test.json")


def test_all_that_scoring_needs_is_there_before_images_are(toy, monkeypatch):
    """Nothing is drawn yet: errors name what is missing, and references are read only once."""
    reads, shared = [], {}
    load = evaluation.Comparison.features
    monkeypatch.setattr(
        evaluation.Comparison,
        "features",
        lambda job, kind, files: reads.append(files) or load(job, kind, files),
    )
    (toy / "none").mkdir()
    given = dict(reference=toy / "samples", device="cpu", shared=shared)
    assert (
        evaluate(
            toy / "none",
            toy / "test.json",
            drawn=False,
            metrics=["clip-fd", "toy attributes"],
            **given,
        )
        == {}
    )
    assert reads == [tuple(evaluation.images_in(toy / "samples"))]
    assert "attributes" in shared
    kept = set(shared)
    for _ in range(2):
        scores = evaluate(toy / "samples", toy / "test.json", metrics=["clip-fd"], **given)
    assert set(shared) == kept
    assert scores["clip-fd"]["value"] == pytest.approx(0, abs=1e-6)
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(InputError, match="FID needs torchvision"):
        evaluate(toy / "none", toy / "test.json", drawn=False, metrics=["clip-t", "fid"], **given)


def test_images_of_other_prompts_are_refused(toy):
    (toy / "samples" / "about").mkdir()
    (toy / "samples" / "about" / "samples.json").write_text(
        json.dumps({"images": {"2_main.png": "a cat"}})
    )
    with pytest.raises(
        InputError, match=r"2_main.png: was drawn from 'a cat', but the prompt is 'monster 2'"
    ):
        evaluate(toy / "samples", toy / "test.json")


def test_images_of_several_sizes_are_refused(toy):
    Image.new("RGB", (32, 64)).save(toy / "samples" / "2_main.png")
    with pytest.raises(InputError, match=r"2_main.png: is 32x64, expected 64x64 as 0_main.png"):
        evaluate(toy / "samples", toy / "test.json")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not JSON"),
        ("{}", "says nothing of '0_main', which test.json names$"),
        ('{"0_main": {}}', "0_main.colour: expected one of red, .*, found null$"),
        (
            json.dumps({f"{k}_main": {"colour": "plaid"} for k in range(4)}),
            'colour: expected one of red, .*, found "plaid"$',
        ),
        (
            json.dumps({"0_main": {"colour": "red", "shape": "round", "feature": "horns"}}),
            r"0_main.eyes: expected one of 1, 2.*, found null$",
        ),
    ],
)
def test_a_broken_side_file_is_named(toy, content, said):
    (toy / "attributes.json").write_text(content)
    with pytest.raises(InputError, match=f"attributes.json: .*{said}"):
        evaluate(toy / "samples", toy / "test.json")


def test_reconstructions_are_scored_by_an_autoencoder(toy, monkeypatch):
    from tinyldm.autoencoder.kl import AutoencoderConfig, AutoencoderKL

    vae = AutoencoderKL(
        AutoencoderConfig(block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4)
    ).eval()
    monkeypatch.setattr(AutoencoderKL, "load", lambda name: vae)
    scores = evaluate(toy / "samples", vae="some", size=16, device="cpu")
    assert list(scores) == ["reconstruction"]
    assert scores["reconstruction"]["n"] == 4
    assert scores["reconstruction"]["preprocessing"].startswith("squashed to 16x16")
    # white against what this random network makes of white, by hand
    with torch.no_grad():
        made = vae.decode(vae.encode(torch.ones(1, 3, 16, 16)).mean)
    error = (255 - ((made.clamp(-1, 1) + 1) * 127.5).round()).double().square().mean() / 255**2
    assert scores["reconstruction"]["value"] == pytest.approx(-10 * error.log10().item(), abs=1e-3)
    both = evaluate(
        toy / "samples", toy / "test.json", vae="some", device="cpu", metrics=["toy attributes"]
    )
    assert list(both) == ["toy attributes"]
    assert "their reconstructions by VAE some" in both["toy attributes"]


def test_what_sample_py_keeps_beside_its_pictures_is_not_scored(toy, monkeypatch):
    """The grid lies in about/, beside the record; another folder of that name holds pictures."""
    from tinyldm.autoencoder.kl import AutoencoderConfig, AutoencoderKL

    monkeypatch.setattr(AutoencoderKL, "load", lambda name: vae)
    config = AutoencoderConfig(block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4)
    vae = AutoencoderKL(config).eval()
    for folder in ("samples/about", "samples/more/about", "samples/.hidden"):
        (toy / folder).mkdir(parents=True)
        Image.new("RGB", (130, 130)).save(toy / folder / "grid.png")
    (toy / "samples/about/samples.json").write_text('{"images": {}}')
    scores = evaluate(toy / "samples", vae="some", size=16, device="cpu")
    assert scores["reconstruction"]["n"] == 5  # four samples, and more/about/grid.png
    assert evaluate(toy / "samples/about", vae="some", size=16)["reconstruction"]["n"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (dict(images="nowhere"), "nowhere: no such folder"),
        (dict(), "nothing to score by: fid needs --reference"),
        (dict(reference="nowhere"), "nowhere: no such folder"),
        (dict(reference="empty"), "empty: no images there, nor test_mu.npy and test_sigma.npy"),
        (
            dict(reference="half"),
            "half: 3 of 4 images have no reference of their name: 1_main.png, .* leave clip-i out",
        ),
        (
            dict(reference="half", metrics=["clip-i"]),
            "--metrics clip-i: needs --reference FOLDER with an image of each",
        ),
        (dict(metrics=["clip-t"]), "--metrics clip-t: needs --prompts FILE"),
        (dict(metrics=["beauty"]), "--metrics beauty: expected some of fid, pytorch-fid, clip-i"),
        (
            dict(reference="samples", metrics=["reconstruction"], vae="tiny"),
            "reconstruction: needs --vae without",
        ),
        (dict(reference="samples"), "FID needs torchvision .*--metrics"),
        (
            dict(size=64),
            "--size 64: belongs to reconstruction alone, which needs --vae without --prompts",
        ),
        (dict(evaluator="judge", prompts=None), "config.json: no such file"),
        (dict(prompts="test.json", moments="empty"), "--moments empty: belongs to fid alone"),
        (
            dict(reference="samples", metrics=["clip-t"], prompts="test.json", inception="w.pth"),
            "--inception w.pth: belongs to",
        ),
        (dict(images="empty"), "empty: no images there"),
        (dict(images="empty", reference="samples", vae="tiny"), "empty: no images there"),
        (
            dict(images="one", reference="samples", metrics=["clip-fd"]),
            "distance of 1 and 4 images: expected 2 or more",
        ),
        (dict(reference="one", metrics=["clip-fd"]), "distance of 4 and 1 images"),
        (
            dict(images="one", moments="empty", metrics=["fid"]),
            "distance of 1 images: expected 2 or more",
        ),
        (dict(prompts="nowhere.json"), "nowhere.json: no such file"),
        (dict(device="tpu", vae="tiny"), "--device tpu"),
    ],
)
def test_bad_input(toy, monkeypatch, arguments, said):
    monkeypatch.chdir(toy)
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    (toy / "empty").mkdir()
    (toy / "half").mkdir()
    (toy / "one").mkdir()
    shutil.copy(toy / "samples" / "0_main.png", toy / "half")
    shutil.copy(toy / "samples" / "0_main.png", toy / "one")
    with pytest.raises(InputError, match=said):
        evaluate(**{"images": "samples", "device": "cpu", **arguments})


def test_toys_are_scored_by_the_tiny_clip_and_without_inception(toy):
    """The four images are white and equal, the references too."""
    scores = evaluate(toy / "samples", toy / "test.json", reference=toy / "samples", device="cpu")
    assert list(scores) == ["clip-i", "clip-t", "clip-fd", "cmmd", "toy attributes"]
    assert scores["clip-i"]["value"] == pytest.approx(1)
    assert scores["clip-fd"]["value"] == pytest.approx(0, abs=1e-6)
    assert all(
        score["n"] == 4 and score["extractor"] and score["preprocessing"]
        for score in scores.values()
    )
    assert "CLIP tiny" in scores["clip-t"]["extractor"]


def test_moments_beside_the_references_are_the_assignments(toy, monkeypatch):
    """FID alone goes by test_mu.npy and test_sigma.npy; here CLIP stands in for Inception."""
    from tinyldm.frozen.image import ClipScorer
    from tinyldm.scores import comparison

    files = [toy / "samples" / f"{k}_main.png" for k in range(4)]
    for k, file in enumerate(files):
        draw(monsters()[0][k], "stand").save(file)
    extractor = comparison.clip_extractor(ClipScorer.load("tiny"), "tiny")
    monkeypatch.setattr(comparison, "load_inception", lambda *a: extractor)
    known = extractor.features(files)
    (toy / "moments").mkdir()
    np.save(toy / "moments" / "test_mu.npy", known.mean(0).numpy() + 2)
    np.save(toy / "moments" / "test_sigma.npy", np.cov(known.numpy(), rowvar=False))
    scores = evaluate(toy / "samples", reference=toy / "moments", device="cpu")
    assert list(scores) == ["fid"]
    assert scores["fid"]["reference"] == str(toy / "moments")
    assert scores["fid"]["value"] == pytest.approx(
        4 * known.shape[1], rel=1e-4
    )  # the means are 2 apart everywhere
    both = evaluate(
        toy / "samples",
        reference=toy / "samples",
        moments=toy / "moments",
        clip="tiny",
        device="cpu",
    )
    assert list(both) == ["fid", "pytorch-fid", "clip-i", "clip-fd", "cmmd"]
    assert both["fid"]["value"] == pytest.approx(scores["fid"]["value"])
    assert both["pytorch-fid"]["value"] == pytest.approx(0, abs=1e-4)


def test_a_table_has_a_row_for_each_set():
    sets = {"a": {"p": 0.5, "q": 1.0}, "bb": {"p": 0.25, "q": 0.0}}
    facts = {"n": 3, "extractor": "x", "preprocessing": "long", "value": 0.75}
    text = "\n".join(table({"m": {**facts, **sets}, "k": {"n": 1, "value": 2}}))
    lines = [line.split() for line in text.splitlines()]
    assert lines == [
        ["m", "0.7500", "(n", "3,", "extractor", "x)"],
        ["p", "q"],
        ["a", "0.500", "1.000"],
        ["bb", "0.250", "0.000"],
        ["k", "2.0000", "(n", "1)"],
    ]


def test_every_metric_says_what_it_needs():
    assert all(metric.needs for metric in METRICS.values())


def test_an_evaluator_is_asked_for_where_it_is_what_is_missing(tmp_path, monkeypatch, capsys):
    """CLIP reads no lists of labels: no score is better than a score of nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test.json").write_text(json.dumps([["red cube"], ["blue cube"]]))
    for folder in ("drawn", "real"):
        (tmp_path / folder).mkdir()
        for k in range(2):
            Image.new("RGB", (8, 8), (90 * k, 0, 0)).save(tmp_path / folder / f"{k}.png")

    def run(*options):
        line = ["evaluate", "drawn", "--prompts", "test.json", "--device", "cpu", *options]
        return dispatch(COMMANDS, line)

    assert run() == 2
    told = capsys.readouterr().err
    assert "expected --evaluator FOLDER" in told
    assert "python -m tinyldm evaluator train" in told
    assert run("--reference", "real", "--clip", "tiny", "--metrics", "cmmd") == 0
    assert "evaluator" not in capsys.readouterr().out  # what was asked for is all there
    monkeypatch.setattr(evaluation, "suiting", lambda job: ["cmmd"])  # without Inception's weights
    assert run("--reference", "real", "--clip", "tiny") == 0
    assert "without evaluator: labels" in capsys.readouterr().out


def test_references_may_lie_in_class_folders(tmp_path):
    for kind in ("cats", "dogs", "__MACOSX"):
        (tmp_path / "pets" / kind).mkdir(parents=True)
        for k in range(2):
            Image.new("RGB", (8, 8), (90 * k, 0, 0)).save(tmp_path / "pets" / kind / f"{k}.png")
    real = evaluation.Real.read(tmp_path / "pets", None)
    shown = [file.relative_to(tmp_path).as_posix() for file in real.files]
    assert shown == ["pets/cats/0.png", "pets/cats/1.png", "pets/dogs/0.png", "pets/dogs/1.png"]
