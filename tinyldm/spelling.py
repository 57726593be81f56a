"""Mistyped words: what was probably meant. Importing this is quick."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import Any


def nearest(word: object, known: Iterable[object]) -> str:
    """ ", did you mean X?" with the known word that is most like a mistyped one; "" if none is."""
    from difflib import get_close_matches

    plain = {str(each).lower().lstrip("-"): str(each) for each in known}
    typed = str(word).lower().lstrip("-")
    begun = [each for each in plain if len(typed) > 2 and each.startswith(typed)]
    swapped = [each for each in plain if sorted(each) == sorted(typed)]  # tyo for toy
    found = begun or swapped or get_close_matches(typed, plain, n=1, cutoff=0.7)
    return f", did you mean {plain[found[0]]}?" if found else ""


class SuggestingParser(argparse.ArgumentParser):
    """An ArgumentParser that suggests the nearest option or value.

    The parser of a command or of its part refuses by itself what it does not know, so that the
    message names the help to look at; argparse leaves that to the outermost parser.
    """

    def parse_known_args(  # type: ignore[override]  # whose overloads have any kind of namespace
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """What argparse reads. Nothing is ever left over."""
        args = sys.argv[1:] if args is None else args
        self.check_options_known(args)
        parsed, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return parsed, rest

    def check_options_known(self, args: Sequence[str]) -> None:
        """End with an error at the first option that is not one; before argparse misses another."""
        known = self._option_string_actions
        for word in args:
            name = word.partition("=")[0]
            if word == "--" or self._subparsers is not None:
                return  # what follows is for others
            if name.startswith("--") and " " not in word and name not in known:
                self.error(f"unrecognized arguments: {word}{nearest(name, known)}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """argparse's check of a value that has to be one of several, with a suggestion."""
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            message = f"{error.message}{nearest(value, action.choices or ())}"
            raise argparse.ArgumentError(action, message) from None
