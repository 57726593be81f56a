"""The typed reader: JSON that a command reads back, checked against the type that it is to fill.

The type is a dataclass, or built from list, dict, tuple, Literal and the like, with Limits in
Annotated; pydantic checks it strictly: no true for 1, no "3" for 3, no NaN. pydantic is imported
when the first file is read, so that --help answers at once.

A type does not tell damage that leaves another value in range. So a file that only commands write
and read is sealed: it holds a checksum of everything else in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tinyldm.errors import InputError, printable, shortened
from tinyldm.files import checksum, read_text

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

MOST_SIDE = 65_536
SEAL = "checksum"
"""The key of a seal."""


@dataclass(frozen=True)
class Limits:
    """Bounds of a number, or of how many entries a list or an object has, for Annotated."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    min_length: int | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Called by pydantic: its schema of the type, with these bounds."""
        given = {name: limit for name, limit in asdict(self).items() if limit is not None}
        return {**handler(source), **given}


Count = Annotated[int, Limits(ge=1, le=10**12)]
Index = Annotated[int, Limits(ge=0, le=10**12)]  # also a count that may be 0
Side = Annotated[int, Limits(ge=1, le=MOST_SIDE)]  # of an image, in pixels
Positive = Annotated[float, Limits(gt=0)]

Extra = Literal["forbid", "ignore"]


def read_json(file: Path, kind: Any, extra: Extra = "forbid", wrong: str = "") -> Any:
    """The content of a JSON file as a value of a type; see as_type."""
    return parse_json(read_text(file), str(file), kind, extra=extra, wrong=wrong)


def parse_json(text: str, where: str, kind: Any, extra: Extra = "forbid", wrong: str = "") -> Any:
    """The value that a JSON text holds, of a type; `where` names its place in an InputError."""
    try:
        value = json.loads(text, object_pairs_hook=distinct_keys)
        # a lone surrogate such as \ud800 passes as JSON but is no text
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({error})") from None
    return as_type(value, where, kind, extra=extra, wrong=wrong)


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """An object of JSON with its seal, for a command to write."""
    return {**content, SEAL: checksum_of(content)}


def unsealed(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """An object that was read, without its seal; InputError, naming its place, if that is broken.

    Files of the first versions have no seal, and neither has one from which somebody took it out.
    """
    others = {key: value for key, value in content.items() if key != SEAL}
    if SEAL in content and content[SEAL] != checksum_of(others):
        raise InputError(
            f"{where}: damaged: not what was written (if it was changed on purpose, take {SEAL!r} "
            "out of it)"
        )
    return others


def checksum_of(content: Mapping[str, Any]) -> str:
    """The checksum of an object, whatever the order of its keys."""
    return checksum(json.dumps(content, sort_keys=True).encode())


def distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. A key that comes twice is refused: one of its values would be lost."""
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"the key {shortened(key)!r} comes twice")
        content[key] = value
    return content


def as_type(value: Any, where: str, kind: Any, extra: Extra = "forbid", wrong: str = "") -> Any:
    """A value of JSON as a value of a type: lists become tuples, objects become dataclasses.

    where: names the value's place, at the start of an InputError
    extra: what becomes of keys that a dataclass does not have
    wrong: what to say first of a value that does not fit, such as "not an evaluator"
    """
    from pydantic import ValidationError

    try:
        return adapter(kind, extra).validate_json(json.dumps([value]))[0]
    except ValidationError as error:
        problem = first_problem(error, value)
    except InputError as error:  # a dataclass has refused what it was to be made of
        problem = str(error)
    problem = printable(problem)
    raise InputError(f"{where}: {wrong} ({problem})" if wrong else f"{where}: {problem}") from None


def fits(cells: list[str], kind: Any) -> bool:
    """Whether the cells of a row of CSV are a tuple of a type, written as text."""
    from pydantic import ValidationError

    try:
        adapter(kind, "forbid").validate_python((tuple(cells),), strict=False)
    except ValidationError:
        return False
    return True


@cache
def adapter(kind: Any, extra: Extra) -> TypeAdapter[tuple[Any]]:
    """pydantic's checker of a list with one value of a type.

    The list is there because a configuration may be given for it, which its content inherits, and
    may not be given for a dataclass.
    """
    from pydantic import ConfigDict, TypeAdapter

    config = ConfigDict(strict=True, allow_inf_nan=False, extra=extra)
    return TypeAdapter(tuple[kind], config=config)


def first_problem(error: ValidationError, value: Any) -> str:
    """The first thing wrong with a value: its key, what was expected, what was found.

    Where several types are allowed, pydantic has an error for each of them at the same place.
    """
    problems = error.errors(include_url=False)
    found = [(tuple(place_in(value, each["loc"][1:])), each) for each in problems]
    place, first = found[0]
    unknown = first["type"] == "unexpected_keyword_argument"
    inside = [shortened(str(part)) for part in (place[:-1] if unknown else place)]
    start = f"{'.'.join(inside)}: " if inside else ""
    if first["type"] == "value_error":  # also raised by a dataclass
        return f"{start}{first['ctx']['error']}"
    if first["type"] == "missing":
        name = first["loc"][-1]
        lacking = (
            f"has no entry {name + 1}" if isinstance(name, int) else f"says nothing of {name!r}"
        )
        return start + lacking
    if unknown:
        return f"{start}unknown key {shortened(str(place[-1]))!r}"
    expected = dict.fromkeys(expectation(each) for other, each in found if other == place)
    return f"{start}expected {' or '.join(expected)}, found {as_json(first['input'])}"


def place_in(value: Any, parts: tuple[int | str, ...]) -> Iterator[int | str]:
    """The keys and numbers that lead to a part of a value, without pydantic's names of types."""
    for part in parts:
        is_key = isinstance(value, Mapping) and part in value
        if is_key or (isinstance(value, list) and isinstance(part, int) and part < len(value)):
            value = value[part]
            yield part


def expectation(problem: Mapping[str, Any]) -> str:
    """What pydantic expected, without its "Input should be"."""
    return str(problem["msg"]).removeprefix("Input should be ").replace("valid array", "valid list")


def as_json(value: Any) -> str:
    """A value as JSON writes it, for a message."""
    return shortened(json.dumps(value, default=repr))
