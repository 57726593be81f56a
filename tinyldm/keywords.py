"""Options of a command as keywords of a function, parsed and checked in the same way."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from tinyldm.cli import Parser
from tinyldm.errors import InputError, shortened


def parse_keywords(parser: Parser, given: Mapping[str, Any]) -> argparse.Namespace:
    """Options given as keywords, parsed and checked as if they were typed on a command line.

    None stands for an option that is not given. A flag takes True or False, an option with several
    values a sequence. TypeError, with the nearest name, for a keyword that is no option.
    """
    actions = parser.options()
    words: list[str] = []
    for name, value in given.items():
        if name not in actions:
            near = get_close_matches(name, actions, n=1)
            advice = f"; did you mean {near[0]!r}?" if near else f" (see {parser.prog} --help)"
            raise TypeError(f"no option {name!r}{advice}")
        if value is not None:
            words += as_words(actions[name], value)
    return parser.parse_args(words)


def as_words(action: argparse.Action, value: Any) -> list[str]:
    """The words that give an option this value on a command line."""
    flag = action.option_strings[0]
    if action.nargs is None:
        return [f"{flag}={value}"]
    if action.nargs != 0:
        several = value if isinstance(value, (list, tuple)) else [value]
        return [flag, *(str(part) for part in several)]
    if not isinstance(value, bool):
        raise InputError(f"{flag} {shortened(str(value))}: expected True or False")
    switches = {True: flag, False: flag.replace("--", "--no-")}
    return [switches[value]] if switches[value] in action.option_strings else []
