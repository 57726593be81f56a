"""What commands say to bad input: one line that names it, exit status 2, and nothing touched."""

import argparse
import itertools
import shlex

import hypothesis
import pytest
from bad_inputs import Ended, build_place, fault, parser_of, run_command, tree
from hypothesis import strategies as st

from tinyldm.__main__ import COMMANDS
from tinyldm.cli import Bounds

DIGITS = "9" * 400
MANY = "9" * 5000  # more than Python turns into an int

TRAIN = "train.py --data photos --vae none --text-encoder tiny --size 16 --device cpu --out new"
SAMPLE = "sample.py --run runs/good --device cpu --out new --steps 2"
ENCODE = "encode --data photos --vae none --text-encoder tiny --size 16 --device cpu"
SWEEP = (
    "sweep --run runs/good --prompts prompts/good.json --metrics clip-t --clip tiny --device cpu"
)
EVALUATE = "evaluate samples --device cpu --clip tiny --metrics clip-fd --reference photos"
VAE = "vae train --data photos --size 16 --out new --device cpu --widths 8 --latent-channels 4"
JUDGE = "evaluator train --data clevr --out new --size 16 --device cpu"

NUMBERS = {  # options that take a number, and numbers that they do not take
    TRAIN: {
        "--copies": [-1, 1001, DIGITS, "1.5", "nan"],
        "--batch-size": [0, 65537, DIGITS, "x"],
        "--accumulate": [0, 10**12],
        "--workers": [0, 10**6, MANY],
        "--max-steps": [0, -1, 10**10, "1e3", MANY],
        "--epochs": [0, DIGITS, "inf"],
        "--lr": [0, -1, "nan", "inf", "1e308", DIGITS],
        "--lr-every": [0],
        "--lr-decay": [0, 2],
        "--warmup": [-1, 10**18],
        "--weight-decay": [-1, "1e300"],
        "--clip": [0, "inf"],
        "--ema": [1, -0.5, "nan"],
        "--snr-gamma": [-1, "inf"],
        "--perceptual": [-1, "1e308"],
        "--perceptual-from": [-1],
        "--cfg-drop": [-0.1, 1.1, "nan"],
        "--style-drop": [2],
        "--hold-out": [0.6, -1, "nan"],
        "--crop": [0, 1.5],
        "--jitter": [-1, 2],
        "--shift": [0, "1e9"],
        "--preview-guidance": [-1, "1e308", "nan"],
        "--sample-every": [0],
        "--save-every": [0, DIGITS],
        "--seed": [-1, 2**63, DIGITS, MANY],
        "--size": ["0", "7", "8x-8", "99999", DIGITS, MANY, "big", "16x16x16", "\u0661\u0666x"],
    },
    SAMPLE: {
        "--steps": [0, 10**6, "nan", DIGITS, MANY],
        "--guidance": ["1e308", "nan", "-inf", DIGITS],
        "--guidance-map": ["1e308"],
        "--guidance-style": ["nan"],
        "--guidance-rescale": [2, "nan"],
        "--eta": [-1, 2],
        "--order": [0, 4, "two"],
        "--batch-size": [0, 10**9],
        "--seed": [-1, 2**64],
        "--strength": [-0.1, 1.1, "nan", "half"],
        "--interpolate": [1, 10**6, "x"],
        "--to-seed": [-1, DIGITS],
    },
    ENCODE: {"--copies": [10**9], "--workers": [0], "--seed": [MANY], "--hold-out": ["inf"]},
    SWEEP: {
        "--guidance": ["nan", "-1", "1e308"],
        "--steps": [0, DIGITS],
        "--count": [0, 10**20],
        "--seed": [-1],
        "--batch-size": [0],
    },
    EVALUATE: {"--batch-size": [0, MANY], "--size": [0, 10**9, "16x16"]},
    VAE: {
        "--steps": [0, DIGITS],
        "--batch-size": [0, 10**9],
        "--lr": [0, "nan"],
        "--kl": [-1, "inf"],
        "--ema": [1],
        "--augment": [2],
        "--flip": [-1],
        "--squared": ["nan"],
        "--adversarial": [-1],
        "--save-every": [0],
        "--seed": [-1],
        "--widths": [0, 10**9],
        "--latent-channels": [0, DIGITS],
        "--size": [0, MANY],
    },
    JUDGE: {
        "--steps": [0],
        "--batch-size": [0, DIGITS],
        "--lr": ["nan", -1],
        "--seed": [2**70],
        "--size": ["none"],
    },
    "landscapes --out new": {
        "--train": [0, 10**9],
        "--test": [0, MANY],
        "--size": ["8", DIGITS],
        "--seed": [-1],
    },
    "toy draw --out new": {"--seed": [-1, MANY]},
    "toy clip --out new": {"--steps": [0, DIGITS], "--batch-size": [1], "--seed": [-1]},
    "toy vae --out new": {"--steps": [0, "x"], "--seed": [DIGITS]},
    "toy score-clip": {"--seed": ["nan"]},
    "picture neighbours samples --train photos --clip tiny --device cpu --out new.png": {
        "--rows": [0, 10**6, MANY]
    },
    "submit samples --prompts prompts/good.json": {"--size": [0, -1, DIGITS]},
    "convert broken/diffusers --out new": {"--size": [0, "x"]},
}

ROWS = [  # a command line, and the words that its one line has to have
    ("train.py --data nowhere --out new", "nowhere no such folder"),
    ("train.py --data bad/a-file --out new", "bad/a-file not a folder"),
    ("train.py --data bad/empty --out new", "bad/empty known layout"),
    ("train.py --colour red", "--colour"),
    ("train.py surplus", "surplus"),
    ("train.py --lr", "--lr expected one argument"),
    ("{train} --preset huge", "--preset huge"),
    ("train.py --schedule wavy", "--schedule wavy"),
    ("train.py --prediction y", "--prediction"),
    ("train.py --precision int8", "--precision int8"),
    ("train.py --lr-schedule x", "--lr-schedule"),
    ("train.py --label-form maps --data photos --out new", "--label-form maps"),
    ("train.py --task labels --data photos --out new", "--task labels"),
    ("train.py --task nothing --data photos --out new", "--task nothing"),
    ("train.py --task no_module:Task --data photos --out new", "--task no_module:Task"),
    ("train.py --task :x --data photos --out new", "--task :x"),
    ("train.py --task json:dumps --data photos --out new", "--task json:dumps"),
    ("train.py --task bad:Task --data photos --out new", "--task bad:Task"),
    ("{train} --network no_module:build", "--network no_module:build"),
    ("{train} --network json", "--network json"),
    ("{train} --network json:nothing", "--network json:nothing"),
    ("train.py --network photos:build --preset toy --data photos --out new", "--preset"),
    ("{train} --network os:system", "--network os:system"),
    ("train.py --device hpu", "--device hpu"),
    ("train.py --device cuda:99", "--device cuda:99"),
    ("train.py --device mkldnn", "--device mkldnn"),
    ("train.py --zero-snr --prediction eps --data photos --out new", "--zero-snr"),
    ("train.py --lr-decay 0.5 --data photos --out new", "--lr-decay"),
    ("train.py --preview-guidance 2 --cfg-drop 0 --data photos --out new", "--preview-guidance"),
    ("train.py --perceptual 1 --vae none --data photos --out new", "--perceptual"),
    ("train.py --perceptual-from 5 --data photos --out new", "--perceptual-from"),
    (
        "{train} --perceptual 1 --perceptual-from 9999 --max-steps 5 --vae tiny",
        "--perceptual-from 9999",
    ),
    ("train.py --epochs 1 --max-steps 5 --out new", "--epochs"),
    ("train.py --overwrite", "--overwrite"),
    ("train.py --resume --overwrite --out new", "--overwrite"),
    ("train.py --resume --out nowhere", "nowhere"),
    ("train.py --resume --out photos", "photos no checkpoint"),
    ("train.py --resume --out runs/good --lr 7", "--lr 7"),
    ("train.py --resume --out runs/good --size 32x24", "--size 32x24"),
    ("train.py --resume --out runs/good --data clevr", "clevr"),
    ("train.py --out mine", "--out mine"),
    ("train.py --out mine --overwrite", "--out mine"),
    ("train.py --out runs/good", "runs/good --resume"),
    ("train.py --out photos/0.png --overwrite", "photos/0.png"),
    ("{train} --out photos/0.png/x", "photos/0.png"),
    ("{train} --out /proc/none/x", "/proc/none"),
    ("{train} --text-encoder nobody/nothing", "nobody/nothing --text-encoder"),
    ("{train} --text-encoder photos", "photos"),
    ("{train} --text-encoder mine/notes.txt", "mine/notes.txt"),
    ("{train} --vae nobody/nothing", "nobody/nothing --vae"),
    ("{train} --vae mine", "mine"),
    ("{train} --vae tiny --size 18", "--size 18x18 multiples"),
    ("{train} --copies 2", "--copies"),
    ("{train} --jitter 0.5", "--jitter"),
    ("{train} --batch-size 4 --accumulate 3", "--accumulate 3"),
    ("{train} --batch-size 4 --accumulate 8", "--accumulate 8"),
    (
        "train.py --data land --vae none --image-encoder nobody/nothing --size 16 --out new",
        "nobody/nothing",
    ),
    ("train.py --data clevr --text-encoder tiny --out new", "--text-encoder"),
    ("train.py --data clevr --hold-out 0.5 --style-drop 0.5 --out new", "--style-drop"),
    ("sample.py surplus", "surplus"),
    ("sample.py --run nowhere", "nowhere"),
    ("sample.py --run photos", "photos no checkpoint"),
    ("sample.py --run photos/0.png", "photos/0.png"),
    ("sample.py --run runs", "runs"),
    ("{sample} --prompt a --prompts prompts/good.json", "--prompts"),
    ("{sample} --steps 1001", "--steps 1001"),
    ("{sample} --device hpu", "--device hpu"),
    ("{sample} --solver euler", "--solver"),
    ("{sample} --eta 1", "--eta"),
    ("{sample} --order 2 --solver ddim", "--order"),
    ("{sample} --guidance-interval 2 1", "--guidance-interval"),
    ("{sample} --guidance-interval nan 1", "--guidance-interval nan"),
    ("{sample} --guidance-interval -1 1", "--guidance-interval"),
    ("{sample} --guidance-interval 1", "--guidance-interval"),
    ("{sample} --guidance 1 --guidance-rescale 0.5", "guidance"),
    ("{sample} --guidance-map 2", "--guidance-map"),
    ("{sample} --out mine/notes.txt", "mine/notes.txt"),
    ("{sample} --out /proc/none", "/proc/none"),
    ('{sample} --strip ""', "--strip"),
    ("{sample} --mask photos/0.png", "--mask --init"),
    ("{sample} --init photos/0.png --resample 3", "--resample --mask"),
    ("{sample} --strength 0.5", "--strength --init"),
    ("{sample} --invert x", "--invert --init"),
    ("{sample} --init nowhere.png", "nowhere.png no such image"),
    ("{sample} --init photos", "photos"),
    ("{sample} --init /dev/null", "/dev/null"),
    ("{sample} --init bad/image-cut/0.png", "bad/image-cut/0.png"),
    ("{sample} --init bad/image-text/0.png", "bad/image-text/0.png"),
    ("{sample} --init photos/0.png --mask bad/image-nothing/0.png", "bad/image-nothing/0.png"),
    ("{sample} --init photos/0.png --mask mixed/b.png", "--mask mixed/b.png 8x8 16x16"),
    ("{sample} --init photos/0.png --mask mixed/black.png", "mixed/black.png white"),
    ("{sample} --init photos/0.png --strength 0 --strip a", "--strip --strength 0"),
    ("{sample} --init photos/0.png --invert a --solver ddpm", "--invert ddpm"),
    ("{sample} --init photos/0.png --invert a --interpolate 3 --to-seed 4", "--to-seed --invert"),
    ("{sample} --interpolate 3", "--interpolate --prompt"),
    ("{sample} --interpolate 3 --prompt a", "--interpolate --to-seed"),
    ("{sample} --interpolate 3 --prompts prompts/good.json", "--interpolate"),
    ("{sample} --interpolate 3 --prompt a --prompt b --prompt c --to-seed 1", "--interpolate"),
    ("{sample} --interpolate 3 --prompt a --prompt b --solver sde-dpm++", "sde-dpm++"),
    ("{sample} --to-seed 3", "--to-seed --interpolate"),
    ("{sample} --interpolate 3 --prompt a --prompt b --count 9", "--count --interpolate"),
    ("{sample} --and a b", "--and weight"),
    ("{sample} --and a 1 2", "--and weight"),
    ("{sample} --and a nan", "--and weight"),
    ("{sample} --and a 1e6", "--and weight"),
    ("{sample} --and", "--and"),
    ("{sample} --prompts prompts/nowhere.json", "prompts/nowhere.json no such file"),
    ("{sample} --prompts prompts/folder.json", "prompts/folder.json"),
    ("{sample} --prompts prompts", "prompts"),
    ("{sample} --prompts /dev/null", "/dev/null"),
    ("encode --data nowhere", "nowhere"),
    (
        "encode --data photos --vae none --text-encoder tiny --size 16 --device cuda:99",
        "--device cuda:99",
    ),
    ("encode --data photos --vae none --text-encoder tiny --size 16 --lr 3", "--lr"),
    ("encode --task labels --data photos", "--task labels"),
    ("evaluator", "PART"),
    ("evaluator train --data photos --out new --device cpu", "--task text"),
    ("evaluator train --data nowhere --out new", "nowhere"),
    ("evaluator train --data clevr --out mine --device cpu", "--out mine"),
    ("evaluator train --data clevr --out mine/notes.txt --device cpu", "mine/notes.txt"),
    ("evaluator train --data clevr --out new --task text --device cpu", "--task text"),
    ("evaluator train --data clevr --out new --device hpu", "--device hpu"),
    ("evaluator train --out new", "--data"),
    ("landscapes", "--out"),
    ("landscapes --out mine --train 1 --test 1 --size 16", "mine"),
    ("landscapes --out mine --train 1 --test 1 --size 16 --overwrite", "mine"),
    ("landscapes --out photos/0.png --train 1 --test 1 --size 16", "photos/0.png"),
    ("landscapes --out /proc/none --train 1 --test 1 --size 16", "/proc"),
    ("toy", "PART"),
    ("toy paint", "paint"),
    ("toy draw --out mine", "mine"),
    ("toy draw --out mine --overwrite", "mine"),
    ("toy draw --out photos/0.png", "photos/0.png"),
    ("toy draw --out /proc/none", "/proc"),
    ("toy clip --out mine --steps 1", "mine"),
    ("toy vae --out mine --steps 1", "mine"),
    ("toy vae --out photos/0.png --steps 1", "photos/0.png"),
    ("toy score-clip --clip nobody/nothing", "nobody/nothing"),
    ("toy score-clip --clip mine", "mine"),
    ("vae", "PART"),
    ("vae train --data photos", "--out"),
    ("vae train --data nowhere --out new --device cpu", "nowhere"),
    ("vae train --data bad/empty --out new --device cpu", "bad/empty"),
    ("vae train --data bad/image-text --size 16 --out new --device cpu --widths 8", "0.png"),
    ("vae train --data photos --out mine --device cpu", "--out mine"),
    ("vae train --data photos --out mine/notes.txt --device cpu", "mine/notes.txt"),
    ("vae train --data photos --out new --resume --overwrite", "--resume"),
    ("vae train --data photos --out new --resume --device cpu", "new"),
    ("vae train --data photos --out new --start mine --device cpu", "mine"),
    ("vae train --data photos --out new --start tiny --widths 8", "--start"),
    ("vae train --data photos --out new --size 18 --device cpu", "--size 18x18"),
    ("vae train --data photos --out new --critic-from 5", "--critic-from"),
    ("vae train --data photos --out new --device hpu", "--device hpu"),
    ("convert nowhere --out new", "nowhere"),
    ("convert mine --out new", "mine"),
    ("convert runs/good --out mine", "--out mine"),
    ("convert runs/good --out mine/notes.txt", "mine/notes.txt"),
    ("convert runs/good --out new --vae tiny", "--vae"),
    ("convert runs/good --out new --size 16", "--size"),
    ("convert runs/good", "--out"),
    ("convert broken/diffusers --out new", "broken/diffusers"),
    ("grid nowhere", "nowhere"),
    ("merge nowhere --out merged", "nowhere"),
    ("merge runs/good --out merged", "expected a run of train.py --lora"),
    ("grid photos", "photos"),
    ("grid runs/good --steps 65", "65"),
    ("grid runs/good --solver ddpm --device cpu", "--solver ddpm"),
    ("grid runs/good --fine 4 --steps 5 --device cpu", "--fine 4"),
    ("grid runs/good --prompts prompts/nowhere.json", "prompts/nowhere.json"),
    ("grid runs/good --guidance nan", "--guidance nan"),
    ("{sample} --spacing fitted", "grids.json"),
    ("sweep --run nowhere", "nowhere"),
    ("sweep --run photos --device cpu", "photos"),
    ("sweep --run runs/good --device cpu", "--hold-out"),
    ("sweep --run runs/good --checkpoints 5 --device cpu", "--checkpoints 5"),
    ("sweep --run runs/good --checkpoints x --device cpu", "--checkpoints x"),
    ("sweep --run runs/good --prompts prompts/nowhere.json", "prompts/nowhere.json"),
    ("sweep --run runs/good --prompts prompts/list.json", "prompts/list.json"),
    ("{sweep} --metrics beauty", "--metrics beauty"),
    ("{sweep} --device hpu", "--device hpu"),
    ("{sweep} --solver x", "--solver"),
    ("{sweep} --clip nobody/nothing --out new", "nobody/nothing"),
    ("{sweep} --metrics evaluator --evaluator mine --out new", "mine"),
    ("{sweep} --metrics clip-fd --reference nowhere --out new", "nowhere"),
    ("{sweep} --out mine/notes.txt", "mine/notes.txt"),
    ("submit samples", "--prompts"),
    ("submit nowhere --prompts prompts/good.json", "nowhere"),
    ("submit samples --prompts prompts/nowhere.json", "prompts/nowhere.json"),
    ("submit samples --prompts prompts/good.json", "samples"),
    ("submit samples --prompts prompts/good.json --size 16", "samples"),
    ("submit samples --prompts prompts/list.json", "prompts/list.json"),
    ("submit samples --prompts prompts/good.txt", "prompts/good.txt"),
    ("submit samples --prompts prompts/good.json --out new.rar", "--out new.rar"),
    ("play", "RUN"),
    ("play nowhere", "nowhere"),
    ("play photos", "photos"),
    ("play mine/notes.txt", "mine/notes.txt"),
    ("play runs/good --port 0", "--port 0"),
    ("play runs/good --port 65536", "--port 65536"),
    ("play runs/good --prot 8000", "did you mean --port"),
    ("exercise samples", "samples: exists already"),
    ("exercise new --only ddmi", "did you mean dd"),
    ("submit samples --prompts prompts/good.json --inside ../x --out new.zip", "--inside"),
    ("submit samples --prompts prompts/good.json --inside x", "--inside"),
    ("submit samples --prompts prompts/good.json --overwrite", "--overwrite"),
    ("submit samples/0.png --prompts prompts/good.json", "samples/0.png"),
    ("picture", "PART"),
    ("picture previews nowhere --out new.png", "nowhere"),
    ("picture previews mine --out new.png", "mine"),
    ("picture previews runs/good --out new.exe", "--out new.exe"),
    ("picture previews runs/good --out photos/0.png", "photos/0.png"),
    ("picture curve mine --out new.svg", "mine"),
    ("picture curve nowhere --out new.svg", "nowhere"),
    ("picture curve runs/good --out new.png", "--out new.png"),
    ("picture curve runs/good --out mine/notes.txt/new.svg", "mine/notes.txt"),
    ("picture neighbours nowhere --train photos --clip tiny --out new.png", "nowhere"),
    ("picture neighbours samples --train bad/empty --clip tiny --out new.png", "bad/empty"),
    (
        "picture neighbours samples --train samples --clip nobody/nothing --out new.png",
        "samples expected at least",
    ),
    (
        "picture neighbours samples --train clevr/images --clip tiny --out new.png --device hpu",
        "clevr/images",
    ),
    ("report", "RUN"),
    ("report nowhere", "nowhere"),
    ("report mine", "mine"),
    ("report photos/0.png", "photos/0.png"),
    ("evaluate", "IMAGES"),
    ("evaluate nowhere", "nowhere"),
    ("evaluate samples --device cpu", "nothing to score"),
    ("evaluate samples --metrics beauty --device cpu", "--metrics beauty"),
    ("evaluate samples --reference nowhere --device cpu", "nowhere"),
    ("evaluate samples --reference bad/empty --device cpu", "bad/empty"),
    (
        "evaluate bad/empty --reference photos --device cpu --metrics clip-fd --clip tiny",
        "bad/empty",
    ),
    (
        "evaluate samples --reference photos --device hpu --metrics clip-fd --clip tiny",
        "--device hpu",
    ),
    ("evaluate samples --overwrite", "--overwrite"),
    ("evaluate samples --out mine/notes.txt", "mine/notes.txt"),
    ("evaluate samples --vae mine --device cpu", "mine"),
    ("evaluate samples --vae nobody/nothing --device cpu", "nobody/nothing"),
    ("evaluate samples --vae tiny --size 18 --device cpu", "18"),
    ("evaluate samples --prompts prompts/nowhere.json --device cpu", "prompts/nowhere.json"),
    (
        "evaluate samples --prompts prompts/good.json --device cpu --clip nobody/nothing",
        "samples no prompt asks",
    ),
    ("evaluate mixed --reference photos --metrics clip-fd --clip tiny --device cpu", "mixed"),
    (
        "evaluate samples --reference photos --moments mine --metrics fid --device cpu",
        "mine/test_mu.npy",
    ),
    ("evaluate samples --evaluator mine --prompts clevr/test.json --device cpu", "mine"),
    ("evaluate samples --evaluator nowhere --device cpu", "nowhere"),
    (
        "evaluate bad/image-text --reference photos --metrics clip-fd --clip tiny --device cpu",
        "0.png",
    ),
    (
        "evaluate samples --size 16 --reference photos --metrics clip-fd --clip tiny --device cpu",
        "--size",
    ),
    ("nothing", "nothing"),
    ("--colour", ""),
    ("report --run x", "--run"),
]

BAD_PROMPTS = (
    "empty.json",
    "empty.txt",
    "list.json",
    "number.json",
    "no-json.json",
    "outside.json",
    "absolute.json",
    "hidden.json",
    "suffix.json",
    "long.json",
    "nul.json",
    "line.json",
    "same.json",
    "no-name.json",
    "prompt-3.json",
    "constants.json",
    "nan.csv",
    "columns.csv",
    "prompts.xml",
    "latin.txt",
)
BAD_DATA = (
    "empty-table",
    "no-json",
    "a-list",
    "no-text",
    "no-name",
    "text-3",
    "name-null",
    "missing-image",
    "name-nul",
    "name-line",
    "name-long",
    "name-folder",
    "twice",
    "surrogate",
    "deep",
    "number-long",
    "latin",
    "csv-columns",
    "csv-ragged",
    "csv-quote",
    "csv-twice",
    "image-cut",
    "image-text",
    "image-nothing",
    "monsters",
    "monsters-key",
    "clevr-name",
    "clevr-list",
    "clevr-objects",
    "map-rgb",
    "map-size",
    "map-class",
    "map-none",
)


def table():
    """All command lines, each with the words that have to be in what it says."""
    for line, options in NUMBERS.items():
        for flag, values in options.items():
            for value in values:
                yield [*shlex.split(line), flag, str(value)], [flag, "expected"]
    for line, words in ROWS:
        line = line.format(train=TRAIN, sample=SAMPLE, sweep=SWEEP)
        yield shlex.split(line), words.split()
    for name in BAD_PROMPTS:
        yield [*shlex.split(SAMPLE), "--prompts", f"prompts/{name}"], [f"prompts/{name}"]
    for name in BAD_DATA:
        encoder = [] if name.startswith(("clevr", "map")) else ["--text-encoder", "tiny"]
        line = ["encode", "--data", f"bad/{name}", "--vae", "none", "--size", "16", *encoder]
        yield [*line, "--device", "cpu"], [f"bad/{name}"]


TABLE = list(table())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder that all the lines run in; the latent cache is elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYLDM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield build_place(tmp_path_factory.mktemp("place"))


def name_of(line):
    """A line as the name of a test."""
    return shlex.join(line)[:120].encode("unicode_escape").decode()


@pytest.mark.parametrize(("line", "words"), TABLE, ids=[name_of(line) for line, _ in TABLE])
def test_bad_input_is_one_line_and_touches_nothing(place, line, words):
    before = tree(place)
    ended = run_command(place, line)
    assert fault(ended, *words) == ""
    assert tree(place) == before


# ---- random command lines

DOOMED = {  # the last words of a line, which end it after all that was checked before
    "train.py": "--vae nobody/nothing",
    "sample.py": "--run runs/good --prompts prompts/empty.json",
    "encode": "--vae nobody/nothing",
    "evaluator train": "--data bad/empty",
    "landscapes": "--out mine",
    "toy draw": "--out mine",
    "vae train": "--data bad/empty",
    "convert": "nowhere --out new",
    "sweep": "--run runs/good --metrics evaluator --evaluator mine",
    "submit": "samples --prompts prompts/good.json",
    "picture neighbours": "samples --train photos --out mine/notes.txt/n.png --clip tiny",
    "evaluate": "samples --clip nobody/nothing",
}
SPOKEN = [
    "photos",
    "clevr",
    "land",
    "bad/no-json",
    "bad/empty",
    "runs/good",
    "prompts/good.json",
    "samples",
    "mine",
    "nowhere",
    "mine/notes.txt",
    "/dev/null",
    "/dev/zero",
    "tiny",
    "none",
    "new",
    ".",
    "..",
    "/",
    "~",
    "~nobody/x",
    "cpu",
    "auto",
    "hpu",
    "16",
    "0",
    "-1",
    "nan",
]
STRANGE = [
    "two\nlines",
    "\x1b[31mred\x07",
    "caf\udce9",
    "\u202egnp.exe",
    "x" * 5000,
    "a:b",
    "-",
    "--",
]
COUNTS = [
    "0",
    "1",
    "2",
    "-1",
    "7",
    "1.5",
    "nan",
    "inf",
    "-inf",
    "1e308",
    "1e-320",
    DIGITS,
    MANY,
    "x",
]


def options_of(command):
    """The options of a command or of its part, but for --help: flag -> action of argparse."""
    name, _, part = command.partition(" ")
    parser = parser_of(name)
    if part:
        (parts,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
        parser = parts.choices[part]
    return {
        a.option_strings[0]: a for a in parser._actions if a.option_strings and a.dest != "help"
    }


def command_lines():
    """Strategy: a command, options with values that may or may not do, and its DOOMED end."""

    def values(action):
        some = st.sampled_from(COUNTS if isinstance(action.type, Bounds) else SPOKEN + STRANGE)
        if action.choices:
            some = st.sampled_from([*action.choices, "x"])
        if action.nargs == 0:
            return st.just([])
        return st.lists(some, min_size=1, max_size=3 if action.nargs else 1)

    def line(command):
        options = options_of(command)
        words = st.sampled_from(sorted(options)).flatmap(
            lambda flag: values(options[flag]).map(lambda given: [flag, *given])
        )
        chosen = st.lists(words, min_size=1, max_size=4)
        start, end = command.split(), DOOMED[command].split()
        if "--data" in options:
            start += ["--data", "photos"]  # the toy set is drawn where there is no --data
        return chosen.map(lambda parts: [*start, *itertools.chain(*parts), *end])

    return st.sampled_from(sorted(DOOMED)).flatmap(line)


@hypothesis.settings(max_examples=100)
@hypothesis.given(line=command_lines())
def test_random_command_lines_end_in_one_line(place, line):
    before = tree(place)
    ended = run_command(place, line)
    assert fault(ended) == ""
    assert tree(place) == before


def test_the_table_covers_every_command():
    assert len(TABLE) >= 150
    assert {line[0] for line, _ in TABLE} >= {"train.py", "sample.py", *COMMANDS}


def test_what_is_not_bad_is_no_fault(place, tmp_path):
    """run_command() and fault() tell the one from the other."""
    assert run_command(place, ["report", "--help"]).status == 0
    ended = run_command(place, ["picture", "curve", "runs/good", "--out", str(tmp_path / "c.svg")])
    assert ended.status == 0
    assert fault(ended)
    assert fault(Ended(2, "", "error: a\nerror: b\n"))
    assert fault(Ended(2, "", "error: a\x1b[31m\n"))
    assert fault(Ended(1, "", "", "Traceback"))
    assert fault(Ended(2, "", "error: a\n"), "b")
    assert not fault(Ended(2, "", "error: a b\n"), "b")
