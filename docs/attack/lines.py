"""Random command lines: options of every command, with values that may or may not do.

A line that does something is changed here and there. What would only take long is left out, for a
training of a million steps is no fault: numbers of steps and of pictures are small, or wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib import import_module
from random import Random
from typing import Any

from mutations import NAMES

import sample as sample_script
import train as train_script
from tinyldm.__main__ import COMMANDS
from tinyldm.cli import Bounds, Parser, run_command
from tinyldm.training.options import train_parser

PLACES = (  # what lies in the folder, and what does not
    "captions",
    "labels",
    "land",
    "toy",
    "pairs",
    "table",
    "samples",
    "toys",
    "runs/captions",
    "runs/labels",
    "runs/land",
    "runs/captions/checkpoints/step-0000002",
    "runs",
    "evaluator",
    "clip",
    "vae",
    "diffusers",
    "moments",
    "captions/0.png",
    "captions/prompts.txt",
    "toy/test.json",
    "toy/train_info.json",
    "labels/test.json",
    "land/label_to_img.json",
    "pairs/generate.csv",
    "runs/captions/scores.json",
    "nothing-there",
    "/dev/null",
    "/dev/zero",
    "tiny",
    "none",
)
NEW = ("out/a", "out/b", "out/c.json", "out/d.zip", "out/e.png", "out/f.svg", "out/g/h")
NUMBERS = ("0", "-1", "1", "2", "3", "nan", "inf", "-inf", "1e308", "1e-320", "1.5", "", "x", "0x2")
WRONG = ("9" * 400, "1" + "0" * 30, "-" + "9" * 30, "1_0", "½", "+-1", "1e999", "2e0")
SIZES = ("16", "32x24", "0", "-1", "x", "16x", "1" + "0" * 20, "99999x99999", "17", "8")
DEVICES = ("cpu", "cpu", "auto", "hpu", "cuda:7", "meta", "", "cpu:3", "mps", "xla", "é")
LONG = ("max_steps", "steps", "epochs", "batch_size", "train", "test", "count", "rows", "widths")
SMALL = ("1", "2", "2", "3", "0", "-1", "nan", "1.5", "x", "")
WHOLE = (  # lines that do something, in a second or two
    "train.py --data captions --vae vae --text-encoder clip --size 16 --preset toy --max-steps 1 "
    "--batch-size 2 --device cpu --out out/run",
    "train.py --resume --out runs/captions --max-steps 3",
    "train.py --resume --out runs/labels --max-steps 3",
    "train.py --data captions --vae vae --text-encoder clip --size 16 --preset toy --max-steps 1 "
    "--batch-size 2 --device cpu --out runs/captions --overwrite",
    "sample.py --run runs/captions --steps 2 --device cpu --out out/a",
    "sample.py --run runs/captions --prompt x --prompt y --steps 2 --device cpu --out out/b",
    "sample.py --run runs/land --prompts land/label_to_img.json --steps 2 --out out/c --device cpu",
    "sample.py --run runs/labels --strip cube --steps 2 --device cpu --guidance 2 --seed 3",
    "tinyldm encode --data captions --vae vae --text-encoder clip --size 16 --device cpu",
    "tinyldm encode --data land --vae vae --image-encoder clip --size 32x24 --device cpu",
    "tinyldm evaluator train --data labels --out out/e --size 16 --steps 1 --batch-size 2",
    "tinyldm landscapes --out out/l --train 2 --test 1 --size 32x24",
    "tinyldm vae train --data captions --out out/v --size 16 --steps 1 --batch-size 2 --device cpu",
    "tinyldm convert runs/captions --out out/d",
    "tinyldm convert diffusers --out out/n",
    "tinyldm sweep --run runs/captions --prompts captions/prompts.txt --clip clip --steps 1 "
    "--guidance 1 --count 2 --device cpu --out out/s",
    "tinyldm submit toys --prompts toy/test.json --size 16 --out out/z.zip",
    "tinyldm picture curve runs/captions --out out/f.svg",
    "tinyldm picture previews runs/captions --out out/p.gif",
    "tinyldm picture neighbours samples --train toy/train --clip clip --out out/q.png",
    "tinyldm report runs/captions",
    "tinyldm evaluate samples --reference captions --metrics clip-fd --clip clip --device cpu "
    "--out out/scores.json",
    "tinyldm evaluate captions --vae vae --size 16 --device cpu",
    "tinyldm evaluate toys --prompts toy/test.json --metrics clip-t --clip clip",
)


def actions_of(words: list[str]) -> list[argparse.Action]:
    """The options of the command that a line calls."""
    if words[0] == "train.py":
        return train_parser()._actions
    if words[0] == "sample.py":
        return sample_script.parser()._actions
    parser = Parser(prog=words[1])
    import_module(f"tinyldm.commands.{words[1]}").add_arguments(parser)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices[words[2]]._actions
    return parser._actions


def value_of(action: argparse.Action, chance: Random) -> str:
    """A value for an option."""
    if action.choices and chance.random() < 0.8:
        return str(chance.choice(list(action.choices)))
    if action.dest in LONG:
        return chance.choice(SMALL)
    if action.dest == "device":
        return chance.choice(DEVICES)
    if action.dest == "size":
        return chance.choice(SIZES)
    if action.dest == "out":
        return chance.choice((*NEW, *NEW, *PLACES[:4], "samples", "runs/captions", ""))
    if isinstance(action.type, Bounds):
        return chance.choice(NUMBERS + WRONG)
    if action.dest in ("vae", "text_encoder", "image_encoder", "clip", "start"):
        return chance.choice(("tiny", "clip", "vae", "nothing-there", "", "captions", "no/such"))
    if chance.random() < 0.15:
        return chance.choice(NAMES)
    return chance.choice(PLACES)


def command_line(number: int, seed: int) -> list[str]:
    """Command line `number`: one that does something, with up to four changes."""
    chance = Random(f"{seed} line {number}")
    line = [word.replace("cube", "red cube") for word in chance.choice(WHOLE).split()]
    actions = actions_of(line)
    options = {flag: action for action in actions for flag in action.option_strings}
    quick = [flag for flag in options if flag not in ("-h", "--help", "--compile", "--epochs")]
    for _ in range(chance.choice((0, 1, 1, 1, 2, 3, 4))):
        before_a_word = enumerate(
            line[:-1]
        )  # a change before may have left an option without value
        places = [k for k, word in before_a_word if word in options and options[word].nargs != 0]
        way = chance.random()
        if way < 0.5 and places:  # another value
            k = chance.choice(places)
            line[k + 1] = value_of(options[line[k]], chance)
        elif way < 0.8 and quick:  # an option more, or once more
            flag = chance.choice(quick)
            values = [value_of(options[flag], chance)] if options[flag].nargs != 0 else []
            line += [flag, *values]
        elif way < 0.9 and len(line) > 3:  # a word less
            k = chance.randrange(1, len(line))
            if line[k] not in ("--max-steps", "--steps", "--train"):
                del line[k]
        else:
            words = ("--no-such", "-x", "--", *NAMES)
            line.insert(chance.randrange(1, len(line) + 1), chance.choice(words))
    return line


def job(line: list[str]) -> Callable[[], Any]:
    """A function that does what the command line says, as the command does."""

    def do() -> Any:
        rest = line[1:]
        if line[0] == "train.py":
            sys.argv = ["train.py", *rest]
            return train_script.main()
        if line[0] == "sample.py":
            sys.argv = ["sample.py", *rest]
            return sample_script.main()
        return run_command(COMMANDS, rest, "python -m tinyldm")

    return do
