"""How commands take their options and how they end: bad input is one line and exit status 2.

Options are declared once, as fields of a settings dataclass made by option(); add_options() puts
them on a parser. Nothing here imports torch, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from importlib import import_module
from pathlib import Path
from textwrap import wrap
from typing import Any, NoReturn

from tinyldm.errors import InputError, shortened
from tinyldm.installation import called
from tinyldm.signals import Stopped, end_with_parent, interrupted_by_signal, tell
from tinyldm.spelling import SuggestingParser, nearest

# ---- numbers


@dataclass(frozen=True)
class Bounds:
    """The numbers that an option takes, from minimum to maximum; made by whole() and real().

    exclusive: the minimum itself is excluded
    As a `type` of argparse it parses and checks; check_options() holds saved settings to the same.
    """

    kind: type[int] | type[float]
    minimum: float
    maximum: float
    exclusive: bool = False

    def __str__(self) -> str:
        noun = "a whole number" if self.kind is int else "a number"
        lowest, highest = (f"{x:,}".removesuffix(".0") for x in (self.minimum, self.maximum))
        if self.maximum == math.inf:
            return f"{noun} of at least {lowest}"
        if self.exclusive:
            return f"{noun} above {lowest}, at most {highest}"
        return f"{noun} from {lowest} to {highest}"

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, self.kind)):
            return False
        above = value > self.minimum or (value == self.minimum and not self.exclusive)
        return above and value <= self.maximum  # neither is true of nan

    def __call__(self, text: str) -> int | float:
        """The number that a text says; argparse's error for any other text or number."""
        try:
            value = self.kind(text)
        except ValueError:  # no number, or one of more digits than Python converts
            value = math.nan
        if value not in self:
            raise argparse.ArgumentTypeError(f"{shortened(text)}: expected {self}")
        return value


def whole(minimum: int, maximum: int) -> Bounds:
    """The integers from minimum to maximum."""
    return Bounds(int, minimum, maximum)


def real(minimum: float, maximum: float, exclusive: bool = False) -> Bounds:
    """The real numbers from minimum, or with `exclusive` above it, to maximum."""
    return Bounds(float, minimum, maximum, exclusive)


# Bounds that several commands share. They are far beyond what is useful; what they keep out would
# end in a traceback, a full memory or a wait without end.
STEPS = whole(1, 10**9)  # of an optimiser
SOLVER_STEPS = whole(1, 10**5)
SEED = whole(0, 2**63 - 1)
BATCH_SIZE = whole(1, 2**16)
GUIDANCE = real(0, 1000)
SIDE = whole(1, 2**14)  # of a picture, in pixels


def check_options(settings: Any) -> None:
    """InputError for a value of a settings dataclass that its option would not take."""
    for f in fields(settings):
        value = getattr(settings, f.name)
        if "option" not in f.metadata or value is None:
            continue
        how: Option = f.metadata["option"]
        values = value if isinstance(value, (tuple, list)) else [value]
        if how.choices is not None and value not in how.choices:
            expected = f"one of {', '.join(how.choices)}{nearest(value, how.choices)}"
        elif how.bounds is not None and not all(number in how.bounds for number in values):
            expected = str(how.bounds)
        else:
            continue
        raise InputError(f"{flag_of(f.name)} {as_typed(value)}: expected {expected}")


def as_typed(value: object) -> str:
    """A value as one types it on a command line: a size (h, w) is WIDTHxHEIGHT."""
    if isinstance(value, tuple):
        return "x".join(str(side) for side in reversed(value))
    if isinstance(value, list):
        return " ".join(str(part) for part in value)
    return shortened(str(value))


# ---- options, declared as fields of a dataclass


@dataclass(frozen=True)
class Option:
    """How a field is given on a command line.

    help:      what it does
    group:     the heading under which the help lists it
    default:   what the help calls its default; None: the value itself, "": nothing
    bounds:    the numbers it takes
    parse:     text -> value, where neither bounds nor the type of the field say it
    choices:   the values allowed
    metavar:   what the help calls the value; None: after its type
    negatable: a flag that can also be switched off, --flip and --no-flip
    more:      further arguments of argparse's add_argument
    """

    help: str
    group: str
    default: str | None = None
    bounds: Bounds | None = None
    parse: Callable[[str], Any] | None = None
    choices: tuple[str, ...] | None = None
    metavar: str | tuple[str, ...] | None = None
    negatable: bool = False
    more: Mapping[str, Any] = field(default_factory=dict)


def option(value: Any, help: str, group: str, **how: Any) -> Any:
    """A dataclass field with a default value that is also an option; `how`: fields of Option."""
    return field(default=value, metadata={"option": Option(help, group, **how)})


METAVARS: dict[Any, str] = {int: "N", float: "X", str: "NAME"}


def flag_of(name: str) -> str:
    """The command-line spelling of a field: cfg_drop is --cfg-drop, and_ is --and."""
    return f"--{name.rstrip('_').replace('_', '-')}"


def add_options(
    parser: argparse.ArgumentParser,
    settings: type,
    only: Iterable[str] | None = None,
    heading: str | None = None,
) -> None:
    """Add the options of a settings dataclass to a parser, under their headings.

    only: the names of the fields to add, in place of all; heading: one for all, in place of theirs
    """
    groups = {group.title: group for group in parser._action_groups}
    names = None if only is None else set(only)
    for f in fields(settings):
        if "option" not in f.metadata or (names is not None and f.name not in names):
            continue
        title = heading or f.metadata["option"].group
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        add_option(groups[title], f)


def add_option(group: argparse._ArgumentGroup, f: Field[Any]) -> None:
    """Add the option that a dataclass field declares."""
    how: Option = f.metadata["option"]
    shown = how.default if how.default is not None else default_text(f.default)
    text = f"{how.help} (default: {shown})" if shown else how.help
    flag, kind = flag_of(f.name), str(f.type).removesuffix(" | None")
    if kind == "bool":
        action = argparse.BooleanOptionalAction if how.negatable else "store_true"
        group.add_argument(flag, action=action, help=text, dest=f.name)
        return
    if how.choices is not None:
        group.add_argument(flag, choices=how.choices, help=text, dest=f.name)
        return
    parse = how.parse or how.bounds or str
    metavar = how.metavar or METAVARS[how.bounds.kind if how.bounds else parse]
    group.add_argument(flag, type=parse, metavar=metavar, help=text, dest=f.name, **how.more)


def default_text(value: Any) -> str:
    """A default as the help shows it; empty for a flag that is off or a value that is absent."""
    if value is None or value is MISSING or isinstance(value, bool):
        return ""
    return str(value)


def any_text(text: str) -> str:
    """The type of an option that may be empty: the empty prompt asks for any picture."""
    return text


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) from "64", or from WIDTHxHEIGHT such as "512x384"."""
    match = re.fullmatch(r"(\d{1,9})(?:x(\d{1,9}))?", text)
    width, height = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if width not in SIDE or height not in SIDE:
        raise argparse.ArgumentTypeError(
            f"{shortened(text)}: expected pixels such as 64, or WIDTHxHEIGHT such as 512x384, "
            f"each {SIDE}"
        )
    return height, width


def load_object(name: str, flag: str) -> Any:
    """The object `my_module:name`, with my_module in the current folder or on Python's path.

    flag: the option that named it, for the message of an InputError
    """
    module_name, _, attribute = name.partition(":")
    if not all(module_name.split(".")) or not attribute:
        raise InputError(f"{flag} {name}: expected my_module:name")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise InputError(f"{flag} {name}: no module {module_name} ({error})") from None
    except SyntaxError as error:
        place = f"{error.filename}, line {error.lineno}"
        raise InputError(f"{flag} {name}: {place}: not Python ({error.msg})") from None
    if attribute not in vars(module):
        raise InputError(f"{flag} {name}: {module_name} has no {attribute}")
    return vars(module)[attribute]


# ---- parsers, and how commands end


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows each default that says something; leaves descriptions and examples as they are.

    Commands that a text names are called as they are where this copy of the library lies.
    """

    def _split_lines(self, text: str, width: int) -> list[str]:
        words = " ".join(called(text).split())  # an address or an option stays on one line
        return wrap(words, width, break_long_words=False, break_on_hyphens=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return super()._fill_text(called(text), width, indent)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        says_it_already = "(default:" in (action.help or "")
        if says_it_already or action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


class Parser(SuggestingParser):
    """An ArgumentParser without abbreviations that says in one line what is wrong."""

    def __init__(self, **options: Any):
        super().__init__(**{"formatter_class": HelpFormatter, "allow_abbrev": False, **options})

    def end_with(self, examples: str) -> None:
        """Let --help end with these examples."""
        self.epilog = examples

    def shorten_usage(self) -> None:
        """Let the first line of --help not list the options, where they are too many."""
        self.usage = "%(prog)s [OPTIONS]"

    def keep_only_given(self) -> None:
        """From now on, an option that is not given is absent from the parsed options."""
        self.argument_default = argparse.SUPPRESS

    def options(self) -> dict[str, argparse.Action]:
        """What argparse knows of each option but --help, by the name of its value."""
        return {action.dest: action for action in self._actions if action.dest != "help"}

    def error(self, message: str) -> NoReturn:
        """What argparse calls for a wrong command line: an InputError, as for any other input."""
        message = re.sub(r"^argument (\S+): (?=expected )", r"\1: ", message)
        message = re.sub(r"^argument (-\S+): (.*: expected )", r"\1 \2", message, flags=re.DOTALL)
        raise InputError(f"{message} (see {self.prog} --help)")

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """What argparse makes of the arguments of one option.

        An empty text is none of them, except for any_text. So OUT=; python train.py --out "$OUT"
        is an error, and never taken for no --out at all.
        """
        own = arg_strings[:1] if action.nargs == argparse.PARSER else arg_strings  # not a part's
        if action.type is not any_text and any(not text.strip() for text in own):
            raise argparse.ArgumentError(action, "expected a value, got an empty text")
        return super()._get_values(action, arg_strings)


OUT_OF_MEMORY = (
    "out of memory: give a smaller --batch-size, --size or --preset, or train with --accumulate"
)


def guarded(job: Callable[..., object], *arguments: Any) -> int:
    """Run job(*arguments) and return the exit status.

    0; 2 for bad input, a full disk or too little memory, with one line on stderr; after a signal
    128 and its number: 130 for Ctrl-C, 143 for SIGTERM.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_parent()
    with interrupted_by_signal() as interruption:
        try:
            status = attempt(job, *arguments)
            if not interruption.requested:
                return status
            status = Stopped(interruption.number).status
        except Stopped as stopped:
            status = stopped.status
        except KeyboardInterrupt:
            status = Stopped().status
        except Exception:
            if not interruption.requested:
                raise
            # whatever a library has made of the interruption
            status = Stopped(interruption.number).status
    tell("interrupted")
    return status


def attempt(job: Callable[..., object], *arguments: Any) -> int:
    """Run job(*arguments) and return the exit status, 0 or 2; see guarded."""
    try:
        job(*arguments)
    except InputError as error:
        return fail(str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return fail(f"{where}{error.strerror or error}")
    except MemoryError:
        return fail(OUT_OF_MEMORY)
    except RuntimeError as error:
        if not re.search("out of memory|allocate memory", str(error)):
            raise
        return fail(OUT_OF_MEMORY)
    return 0


def fail(reason: str) -> int:
    """Say in one line on stderr why a command ends; returns the exit status, 2.

    Of the processes of torchrun, the first alone says it; the others leave it to the report with
    which torchrun ends, and which repeats it. Its format is that of torch.distributed.elastic.
    """
    line = f"error: {clipped(reason)}"
    report = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if report:
        more = {"py_callstack": line, "timestamp": str(int(time.time()))}
        Path(report).write_text(json.dumps({"message": {"message": line, "extraInfo": more}}))
    tell(line)
    return 2


def clipped(message: str) -> str:
    """The message with endless names and numbers cut in their middle."""
    return re.sub(r"(\S{100})\S{200,}(\S{100})", r"\1...\2", message)


def dispatch(
    commands: Mapping[str, str], arguments: Sequence[str] | None = None, prog: str | None = None
) -> int:
    """Parse and run one of the commands, a table name -> line of help; see run_command."""
    arguments = sys.argv[1:] if arguments is None else arguments
    return guarded(run_command, commands, arguments, prog)


def run_command(commands: Mapping[str, str], arguments: Sequence[str], prog: str | None) -> None:
    """Run the command that the arguments name.

    A command lives in tinyldm/commands/NAME.py, which has add_arguments(parser) and run(options).
    Only the module of the command asked for is imported.
    """
    parser = Parser(prog=prog, description="The commands of tinyldm. COMMAND --help explains each.")
    subparsers = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=Parser
    )
    for name, text in commands.items():
        subparser = subparsers.add_parser(name, help=text, description=text)
        if name in arguments[:1]:
            import_module(f"tinyldm.commands.{name}").add_arguments(subparser)
    options = parser.parse_args(arguments)
    import_module(f"tinyldm.commands.{options.command}").run(options)
