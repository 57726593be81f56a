"""How every command parses its options and ends: one line and status 2 for bad input, never a traceback."""

from __future__ import annotations

import argparse
import re
import sys
from importlib import import_module

from tinyldm.errors import InputError


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows each default that tells something; leaves the lines of descriptions and examples as they are."""

    def _get_help_string(self, action):
        if any(
            action.default is nothing for nothing in (None, False, argparse.SUPPRESS)
        ) or "%(default)" in (action.help or ""):
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that takes no abbreviations, shows defaults, and says what is wrong in one line."""

    def __init__(self, **options):
        super().__init__(**{"formatter_class": HelpFormatter, "allow_abbrev": False, **options})

    def error(self, message: str):
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def guarded(job, *arguments) -> int:
    """Run job(*arguments) and return the exit status: 0, 2 for bad input, a full disk or memory, 130 for Ctrl-C."""
    try:
        job(*arguments)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not re.search(
            "out of memory|allocate memory", str(error)
        ):
            raise
        print(
            "error: out of memory: give a smaller --batch-size, --size or --preset, or train with --accumulate",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def dispatch(
    commands: dict[str, tuple[str, str]],
    arguments: list[str] | None = None,
    prog: str | None = None,
) -> int:
    """Parse and run one of commands, a table name -> (module, help).

    Only the module of the command asked for is imported; it gives add_arguments(parser) and run(options).
    """
    return guarded(_dispatch, commands, sys.argv[1:] if arguments is None else arguments, prog)


def _dispatch(commands: dict[str, tuple[str, str]], arguments: list[str], prog: str | None) -> None:
    parser = Parser(
        prog=prog, description="The commands of tinyldm; COMMAND --help tells more about each."
    )
    subparsers = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=Parser
    )
    for name, (module, text) in commands.items():
        subparser = subparsers.add_parser(name, help=text, description=text)
        if name in arguments[:1]:
            import_module(module).add_arguments(subparser)
    options = parser.parse_args(arguments)
    import_module(commands[options.command][0]).run(options)


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) from "64" or from WIDTHxHEIGHT, such as "512x384"."""
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if match is None:
        raise InputError(
            f"--size {text}: expected a number of pixels such as 64, or WIDTHxHEIGHT such as 512x384"
        )
    width = int(match[1])
    return int(match[2] or width), width
