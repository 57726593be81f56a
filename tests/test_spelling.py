"""A mistyped word is told with the one that was probably meant, and with the help to look at."""

import argparse
import difflib
import io
from contextlib import redirect_stdout

import pytest
from bad_inputs import fault, parser_of, picture, run_command

from tinyldm.__main__ import COMMANDS
from tinyldm.errors import InputError
from tinyldm.spelling import nearest
from tinyldm.training.options import FIRST, train_parser
from tinyldm.training.settings import TrainSettings


def test_the_nearest_word():
    known = ["--max-steps", "--batch-size", "--data", "clip-t", "ddim", "toy", "fid"]
    for typed, meant in {
        "--max_steps": "--max-steps",
        "--batch": "--batch-size",
        "--Dat": "--data",
        "clip_t": "clip-t",
        "dimm": "ddim",
        "tyo": "toy",
        "fdi": "fid",
    }.items():
        assert nearest(typed, known) == f", did you mean {meant}?"
    for typed in ("--colour", "", "--", "--d"):
        assert nearest(typed, known) == ""


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("train.py --max_steps 3", ["--max_steps", "did you mean --max-steps?", "(see train.py"]),
        ("train.py --lr-schedule cosin", ["did you mean cosine?", "(see train.py --help)"]),
        ("train.py --task classs", ["--task classs", "did you mean classes?"]),
        (
            "train.py --data samples --vae none --size 16 --preset bas",
            ["--preset bas", "did you mean base?"],
        ),
        ("train.py --data samples --vae tny --size 16", ["tny: expected tiny", "mean tiny?"]),
        ("sample.py --guidence 3", ["did you mean --guidance?", "(see sample.py --help)"]),
        ("sample.py --solver ddmi", ["did you mean dd", "(see sample.py --help)"]),
        ("evalute samples", ["did you mean evaluate?", "(see python -m tinyldm --help)"]),
        # what is missing is not told in place of what is mistyped
        ("submit samples --promts x", ["did you mean --prompts?", "tinyldm submit --help)"]),
        ("submit samples", ["required: --prompts", "tinyldm submit --help)"]),
        ("evaluate samples more", ["unrecognized arguments: more", "tinyldm evaluate --help)"]),
        ("evaluate samples --metrics clip_t", ["--metrics clip_t", "did you mean clip-t?"]),
        ("evaluator train --dta x", ["did you mean --data?", "tinyldm evaluator train --help)"]),
        ("vae trian --data x", ["did you mean train?", "tinyldm vae --help)"]),
    ],
)
def test_a_mistyped_word_is_told_with_the_nearest(tmp_path, monkeypatch, line, words):
    monkeypatch.setenv("TINYLDM_CACHE", str(tmp_path / "cache"))
    picture(tmp_path / "samples" / "0.png")
    assert fault(run_command(tmp_path, line.split()), *words) == ""


@pytest.mark.parametrize("command", ["train.py", "sample.py", *COMMANDS])
def test_every_parser_suggests_for_each_of_its_options(command):
    """Two letters of each option are exchanged; what is suggested is at least as like as it is."""
    parsers = [parser_of(command)]
    for action in parsers[0]._actions:
        if isinstance(action, argparse._SubParsersAction):
            parsers += action.choices.values()
    for parser in parsers:
        if parser._subparsers is not None:
            continue
        for flag in parser._option_string_actions:
            if len(flag) < 8:
                continue
            typed = f"{flag[:-3]}{flag[-2]}{flag[-3]}{flag[-1]}"
            if typed == flag:
                continue
            with pytest.raises(InputError, match=f"{typed}, did you mean") as caught:
                parser.parse_args([typed])
            told = str(caught.value).split("did you mean ")[1].split("?")[0]
            likeness = [difflib.SequenceMatcher(None, typed, each).ratio() for each in (told, flag)]
            assert told == flag or likeness[0] >= likeness[1]
            assert f"(see {parser.prog} --help)" in str(caught.value)


def test_a_value_may_look_like_an_option_of_no_parser():
    options = train_parser().parse_args(["--out=--strange", "--data", "--a name with spaces"])
    assert (options.out, options.data) == ("--strange", "--a name with spaces")


def test_keywords_are_suggested_too():
    with pytest.raises(InputError, match="unknown settings: max_step, did you mean max_steps?"):
        TrainSettings.from_dict({"max_step": 3})


# ---- the help of train.py


def help_of(parser):
    out = io.StringIO()
    with redirect_stdout(out), pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    return out.getvalue()


def test_the_help_begins_with_what_matters():
    text = help_of(train_parser())
    flags = [f"--{name.replace('_', '-')} " for name in (*FIRST, "out")]
    assert len(flags) == 6
    places = [text.index(f"\n  {flag}") for flag in flags]
    assert places == sorted(places)
    assert text.index("usage: train.py [OPTIONS]") < places[0] < 300
    bad = text.index("when the pictures are bad:")
    others = [text.index(f"\n{title}:") for title in ("data", "model", "training", "run")]
    assert places[-1] < bad < min(others)
    for flag in flags:
        assert text.count(f"\n  {flag}") == 1


def test_options_of_one_task_stand_under_that_task():
    for command in ("train.py", "sample.py", "encode"):
        parser = parser_of(command)
        groups = {
            flag: group.title
            for group in parser._action_groups
            for action in group._group_actions
            for flag in action.option_strings
        }
        for flag, task in {
            "--text-encoder": "--task text",
            "--label-form": "--task classes",
            "--image-encoder": "--task landscape",
            "--style-drop": "--task landscape",
            "--guidance-map": "--task landscape",
            "--guidance-style": "--task landscape",
        }.items():
            assert task in groups.get(flag, task)
            assert flag not in groups or flag in help_of(parser)


def test_what_the_help_says_of_bad_pictures_names_options_that_exist():
    import re

    from tinyldm.training.options import BAD_PICTURES

    known = set()
    for command in ("train.py", "sample.py", "evaluate"):
        known |= parser_of(command)._option_string_actions.keys()
    assert set(re.findall(r"--[a-z-]+", BAD_PICTURES)) <= known
