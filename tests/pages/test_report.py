"""report.html: whole, self-contained, and its command line makes the same run."""

import base64
import io
import json
import re
import shlex
import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tinyldm.errors import InputError
from tinyldm.folders import numbered
from tinyldm.pages import curves, report
from tinyldm.pages.html import embedded, render
from tinyldm.pages.ranking import summary
from tinyldm.pages.report import (
    after_save,
    command_line,
    first_to_last,
    loss_by_noise,
    step_of,
    write_report,
)
from tinyldm.tasks.base import find_task
from tinyldm.training.chosen import settings_for
from tinyldm.training.options import train_parser
from tinyldm.training.settings import TrainSettings

VOID = {"meta", "img", "br"}


class Reader(HTMLParser):
    """Collects text and attributes, and checks that every tag is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.tags = [], "", []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data + " "


def read(file):
    reader = Reader()
    reader.feed(file.read_text(encoding="utf-8"))
    assert reader.open == []
    return reader


@pytest.fixture
def run(tmp_path):
    """The folder of a run of ten steps with previews, scores and a prompt that looks like HTML."""
    folder = tmp_path / "first"
    checkpoint = folder / "checkpoints" / "step-0000010"
    checkpoint.mkdir(parents=True)
    config = {
        "format": 1,
        "step": 10,
        "settings": TrainSettings(max_steps=10).to_dict(),
        "size": [64, 64],
        "vae": "tiny",
        "text_encoder": "tiny",
        "prediction": "v",
        "progress": {"step": 10, "skipped": 3},
        "preview_prompts": ["a <script>ghost</script>"],
        "machine": "one abacus",
    }
    (checkpoint / "config.json").write_text(json.dumps(config))
    save_file({"w": torch.zeros(1_000_000)}, checkpoint / "model.safetensors")
    rows = "".join(f"{k},{1 / k},0.001,0.5,{'inf' if k == 3 else 64}\n" for k in range(1, 11))
    (folder / "log.csv").write_text("step,loss,lr,grad_norm,images_per_second\n" + rows)
    (folder / "previews").mkdir()
    for step in range(1, 11):
        Image.new("RGB", (266, 266), (25 * step, 0, 0)).save(
            folder / "previews" / f"step-{step:07d}.png"
        )
    score = {"n": 7, "extractor": "CLIP x", "value": 0.25}
    scores = {"clip-t": score, "reconstruction": {**score, "value": None}}
    (folder / "scores.json").write_text(json.dumps({"scores": scores}))
    return folder


def test_a_report_tells_what_a_person_asks_for(run):
    text = read(write_report(run)).text
    for words in (
        "10 of 10, finished",
        "1.0M parameters",
        "one abacus",
        "toy monsters",
        "step 10",
        "0.2500",
        "infinite",
        "CLIP x",
        "python train.py --max-steps 10",
        "python sample.py --run",
        "--lr-schedule",
        "<script>ghost<",
    ):
        assert words in text, words
    assert re.search(r"batches left out\s+3", text)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"network": "mine:build"}, "mine:build network"),
        ({"lora": 4}, "LoRA of rank 4 for a toy network"),
        ({"controlnet": True}, "ControlNet for a toy network"),
    ],
)
def test_a_report_names_what_was_trained_and_no_preset_that_was_not(run, given, said):
    """In its title, its heading and the row "network"."""
    file = run / "checkpoints" / "step-0000010" / "config.json"
    config = json.loads(file.read_text())
    config["settings"] |= given
    config["base"] = {"checkpoint": "runs/other", "weights": ""}
    file.write_text(json.dumps(config))
    assert read(write_report(run)).text.count(said) == 3


def test_a_report_is_one_file_without_scripts(run):
    reader = read(write_report(run))
    assert not {"script", "link", "iframe"} & {tag for tag, _ in reader.tags}
    sources = [a["src"] for _, a in reader.tags if "src" in a]
    assert len(sources) == 9
    assert all(s.startswith("data:image/webp;base64,") for s in sources)
    assert not any(name.startswith("on") or name == "href" for _, a in reader.tags for name in a)
    assert (
        "meta",
        {"name": "viewport", "content": "width=device-width, initial-scale=1"},
    ) in reader.tags
    newest = Image.open(io.BytesIO(base64.b64decode(sources[0].partition(",")[2])))
    assert newest.size == (266, 266)
    assert abs(newest.convert("RGB").getpixel((9, 9))[0] - 250) < 8


def test_a_run_that_has_just_begun_has_a_report(run):
    (run / "log.csv").unlink()
    (run / "scores.json").unlink()
    for file in (run / "previews").iterdir():
        file.unlink()
    text = read(write_report(run)).text
    assert "Nothing to draw yet" in text
    assert "not yet" in text
    assert "Scores" not in text


def test_training_goes_on_without_its_report(run, capsys):
    (run / "scores.json").write_text("{}")
    with pytest.raises(InputError, match=r"scores.json: not scores of python -m tinyldm evaluate"):
        write_report(run)
    after_save(run)
    assert "report.html: not written" in capsys.readouterr().err
    with pytest.raises(InputError, match="holds no checkpoint"):
        write_report(run / "previews")


@pytest.mark.parametrize(
    "settings",
    [
        TrainSettings(),
        TrainSettings(prediction="v"),
        TrainSettings(schedule="cosine"),
        TrainSettings(
            flip=False,
            schedule="cosine",
            prediction="v",
            zero_snr=True,
            size=(48, 96),
            lr=3e-4,
            copies=2,
            crop=0.7,
            compile=True,
        ),
        replace(
            settings_for({"data": "my data", "vae": "tiny"}, (64, 64), find_task("text")),
            snr_gamma=5.0,
        ),
        replace(settings_for({"data": "clevr"}, (240, 320), find_task("labels")), lr=3e-4),
        replace(
            settings_for({"data": "monsters"}, (256, 256), find_task("text")),
            max_steps=7,
            size=(384, 512),
        ),
    ],
)
def test_the_command_line_makes_the_same_settings(settings):
    task = find_task(settings.task)
    words = shlex.split(command_line(settings.to_dict(), task))
    assert words[:2] == ["python", "train.py"]
    given = vars(train_parser().parse_args(words[2:]))
    assert settings_for(given, (64, 64), task) == settings


def test_a_run_that_was_converted_has_no_report(run):
    file = run / "checkpoints" / "step-0000010" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "settings": {"cfg_drop": 0.1}}))
    with pytest.raises(InputError, match="was not trained here"):
        write_report(run)


def test_defaults_need_no_options():
    assert command_line(TrainSettings().to_dict(), find_task("text")) == "python train.py"


def test_spread_keeps_the_ends():
    assert first_to_last(list(range(5)), 8) == [0, 1, 2, 3, 4]
    assert first_to_last(list(range(100)), 4) == [0, 33, 66, 99]


def test_wide_pictures_are_made_smaller(tmp_path):
    Image.new("RGBA", (400, 100), (0, 0, 0, 0)).save(tmp_path / "a.png")
    shown = embedded(tmp_path / "a.png", "<a>", 200)
    assert (shown.width, shown.height) == (200, 50)
    inside = Image.open(io.BytesIO(base64.b64decode(shown.source.partition(",")[2])))
    assert inside.size == (200, 50)


def test_the_curves_stand_in_the_page(run):
    reader = read(write_report(run))
    described = [a["aria-label"] for tag, a in reader.tags if tag == "svg"]
    assert described == [
        "loss, smoothed over step",
        "learning rate over step",
        "norm of the gradient over step",
        "images/s over step",
    ]
    ids = [a["id"] for _, a in reader.tags if "id" in a]
    assert len(ids) == len(set(ids))  # no chart takes its parts from another one


def test_the_loss_by_noise_level_stands_in_the_page(run):
    file = run / "loss_by_noise.csv"
    file.write_text("t,sigma_over_alpha,samples,loss\n24.5,0.01,30,0.9\n974.5,100,34,0.2\n974.5,")
    assert loss_by_noise(file).lines[0].points == ((-2.0, 0.9), (2.0, 0.2))
    described = [a["aria-label"] for tag, a in read(write_report(run)).tags if tag == "svg"]
    assert described[1] == "loss over log10 of sigma / alpha"


def test_equal_runs_have_equal_reports(run):
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def test_without_matplotlib_the_page_says_so_once_and_shows_the_rest(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    reader = read(write_report(run))
    assert reader.text.count("Curves need matplotlib: pip install 'tinyldm[plots]'") == 1
    assert "svg" not in {tag for tag, _ in reader.tags}
    assert len([a for tag, a in reader.tags if tag == "img"]) == 9
    for words in ("10 of 10, finished", "0.2500", "python train.py --max-steps 10"):
        assert words in reader.text
    assert not curves.available()


HOSTILE = """</code></td></li></p></b></h1></title></style><script>alert(1)</script><img src=x
 onerror="alert(2)">' onload='x' "><svg onload=alert(3)>&lt;&#60;\u202e\x07 {{ 7 * 7 }} {% raw %}
 $\\frac{1}$ <!-- <![CDATA["""


def structure(reader):
    """The tags of a page and the names of their attributes, in order."""
    return [(tag, sorted(attributes)) for tag, attributes in reader.tags]


def write_hostile(run, text):
    """Put a text wherever a run, its scores and its sweep say something in words."""
    file = run / "checkpoints" / "step-0000010" / "config.json"
    config = json.loads(file.read_text())
    config["settings"] |= {"preset": text, "data": text, "device": text}
    config |= {"vae": text, "text_encoder": text, "machine": text}
    config["condition"] = {"task": "text", "name": text}
    config["preview_prompts"] = [text]
    file.write_text(json.dumps(config))
    score = {"n": 3, "extractor": text, "value": 0.25}
    (run / "scores.json").write_text(json.dumps({"scores": {text: score}}))
    rows = []
    for guidance, steps, solver in ((1, 5, text), (2, 10, text), (2, 5, "ddim")):
        scores = {"clip-t": guidance + 0.5, "clip-fd": steps + 0.5}
        row = {"checkpoint": text, "guidance": guidance, "steps": steps, "solver": solver}
        rows.append({**row, "step": steps, "made": text, "scores": scores})
    asked = {"prompts": {text: text}, "metrics": ["clip-t", "clip-fd"]}
    facts = {"n": 3, "extractor": text, "preprocessing": text, "reference": text}
    result = {"asked": asked, "advice": text, "rows": rows, "readers": {text: facts}}
    (run / "sweep").mkdir(exist_ok=True)
    (run / "sweep" / "sweep.json").write_text(json.dumps(result))


@pytest.fixture
def any_settings(monkeypatch):
    """Settings are shown whatever they say: it is the page that is tested, not TrainSettings."""
    monkeypatch.setattr(report, "command_line", lambda settings, task: settings["data"])


def test_nothing_that_a_run_says_becomes_markup(run, any_settings):
    """Plain and hostile words give the same tags and attributes, and are shown as they are."""
    write_hostile(run, "plain words")
    plain = read(write_report(run))
    assert "svg" in {tag for tag, _ in plain.tags}
    write_hostile(run, HOSTILE)
    hostile = read(write_report(run))
    assert structure(hostile) == structure(plain)
    assert "script" not in {tag for tag, _ in hostile.tags}
    for _, attributes in hostile.tags:
        assert not [name for name in attributes if name.startswith("on")]
        links = [value for name, value in attributes.items() if name.endswith("href")]
        assert all(link.startswith("#") for link in links)
    shown = " ".join(hostile.text.split())
    assert shown.count("alert(2)") >= 15
    assert "{{ 7 * 7 }} {% raw %}" in shown
    assert "49" not in [word for word in shown.split() if word.isdigit()]


def test_names_of_folders_and_files_are_no_markup(run, any_settings):
    """A folder and a file of scores may have any name that the disk allows."""
    name = "<script>alert(1)<script>\" onload='x'\n&lt;"
    folder = run.rename(run.with_name(name))
    (folder / "scores.json").rename(folder / "scores<script>\n\"'.json")
    reader = read(write_report(folder))
    assert "script" not in {tag for tag, _ in reader.tags}
    assert not [a for _, a in reader.tags for key in a if key.startswith("on")]
    assert "scores<script>" in reader.text
    assert reader.text.count("<script>alert(1)<script>\" onload='x'\\n&lt;: toy network") == 2
    assert reader.text.count("<script>alert(1)<script>") >= 5  # in the commands, quoted for a shell


@pytest.mark.parametrize("page", ["report", "sweep"])
def test_a_page_shows_no_sign_that_hides_or_turns_others(run, any_settings, page):
    """A command to copy reads as it will run: no right-to-left override, no control character."""
    write_hostile(run, HOSTILE + "\x1b\u2066\n")
    folder = run.rename(run.with_name("gnp.\u202e\udcffexe"))
    if page == "report":
        text = write_report(folder).read_text(encoding="utf-8")
    else:
        found = summary(folder / "sweep" / "sweep.json")
        text = render("sweep.html", title=f"Sweep of {folder.name}", summary=found)
    assert {sign for sign in text if not sign.isprintable()} == {"\n"}
    assert "gnp.\\u202e\\udcffexe" in text
    assert "\\x1b\\u2066\\n" in text


def test_a_sweep_page_of_hostile_words_has_the_elements_of_a_plain_one(run):
    pages = []
    for text in ("plain words", HOSTILE):
        write_hostile(run, text)
        found = summary(run / "sweep" / "sweep.json")
        reader = Reader()
        reader.feed(render("sweep.html", title=f"Sweep of {text}", summary=found))
        assert reader.open == []
        pages.append(structure(reader))
    assert pages[0] == pages[1]
    assert "svg" in {tag for tag, _ in pages[1]}


def test_previews_are_known_by_their_names_and_ordered_by_their_steps(run):
    """A picture that somebody put beside them is none, whatever it is called."""
    before = structure(read(write_report(run)))
    for name in ("step-<img src=x onerror=alert(1)>.png", "step-best.png", "step-.png"):
        (run / "previews" / name).write_bytes(b"no image")
    page = write_report(run)
    assert structure(read(page)) == before
    assert "onerror" not in page.read_text()
    shutil.copy(run / "previews" / "step-0000010.png", run / "previews" / "step-10000000.png")
    shutil.copy(run / "previews" / "step-0000010.png", run / "previews" / "step-9999999.png")
    assert [step_of(file) for file in numbered(run / "previews", ".png")[-2:]] == [
        "step 9999999",
        "step 10000000",
    ]


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"asked": {"metrics": ["clip-t"], "prompts": {}}, "rows": [], "readers": {}},
        {"asked": {"metrics": ["beauty"], "prompts": {}}, "rows": [{"scores": {"beauty": 1}}]},
        {"asked": [], "rows": "x"},
    ],
)
def test_a_sweep_that_is_none_is_named(run, content):
    (run / "sweep").mkdir()
    (run / "sweep" / "sweep.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"sweep.json: not a sweep of python -m tinyldm sweep"):
        write_report(run)


@pytest.mark.parametrize(
    "facts", [{"n": "many"}, {"n": 1, "reference n": None}, {"extractor": 3}, {"reference": None}]
)
def test_what_read_the_scores_of_a_sweep_is_numbers_and_words(run, facts):
    write_hostile(run, "plain words")
    file = run / "sweep" / "sweep.json"
    content = json.loads(file.read_text())
    summary(file)
    file.write_text(json.dumps({**content, "readers": {"clip-t": facts}}))
    with pytest.raises(InputError, match=r"sweep.json: not a sweep .*readers"):
        summary(file)
