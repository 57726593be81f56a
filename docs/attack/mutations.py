"""Damage: bytes that are flipped, zeroed, cut off, added or exchanged, and JSON values that are not
what they should be.

mutant(content, suffix, chance) is the whole of it: the damaged content and what was done, in words.
It depends on nothing but its arguments, so that a fault can be replayed.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from random import Random
from typing import Any

NAMES = (  # hostile texts: some are no names of files, some lead elsewhere, some are markup
    "../../escaped",
    "/tmp/tinyldm-escaped",
    "..",
    ".",
    "",
    " ",
    "a/../../escaped.png",
    "\x00",
    "two\nlines",
    "\x1b[2Jred\x1b[31m",
    "\u202eexe.png",
    "<script>alert(1)</script>",
    "{{7*7}}",
    "%s%n",
    "os:system",
    "builtins:exec",
    "material:make",
    "no_such_module:build",
    "nan",
    "C:\\escaped",
    "é" * 300,
    "x" * 100_000,
    "~",
    "-",
)
HUGE = (2**31, 2**63, 2**64, 10**18, 10**400, 1e30, 1e308, -(2**63), 10**9)
OTHERS: tuple[Any, ...] = ("text", 3, 2.5, True, False, [], {}, [1], {"a": 1}, [[]], "1", 0)
RAW = ("NaN", "Infinity", "-Infinity", "1e999", "-0.0", '"\\ud800"', "01", "'x'", "1" * 400)
DEEP = 3000


def mutant(content: bytes, suffix: str, chance: Random) -> tuple[bytes, str]:
    """A damaged copy of the content of a file, which is never equal to it, and what was done.

    suffix: of the file's name; it says which forms of damage make sense
    """
    forms: list[Callable[[bytes, Random], tuple[bytes, str]]] = [damaged_bytes]
    if suffix in (".json", ".jsonl"):
        forms += [damaged_json] * 3
    elif suffix == ".safetensors":
        forms += [damaged_header, damaged_values]
    elif suffix in (".csv", ".txt"):
        forms += [damaged_lines] * 2
    while True:
        found, what = chance.choice(forms)(content, chance)
        if found != content:
            return found, what


# ---- bytes


def damaged_bytes(content: bytes, chance: Random) -> tuple[bytes, str]:
    """Any file."""
    ways = (flip, flip, zero, cut, cut, extend, swap, overwrite, insert, remove)
    way = chance.choice(ways if content else (extend, insert))
    # half of the damage is near the start, where headers are
    end = len(content) if chance.random() < 0.5 else min(len(content), 200)
    place = chance.randrange(end) if end else 0
    return way(content, place, chance)


def flip(content: bytes, place: int, chance: Random) -> tuple[bytes, str]:
    changed = bytearray(content)
    places = [place]
    places += [chance.randrange(len(content)) for _ in range(chance.choice((0, 0, 3)))]
    for k in places:
        changed[k] ^= 1 << chance.randrange(8)
    return bytes(changed), f"bits flipped at {places}"


def zero(content: bytes, place: int, chance: Random) -> tuple[bytes, str]:
    n = chance.choice((1, 4, 64, 4096))
    end = min(len(content), place + n)
    return content[:place] + bytes(end - place) + content[end:], f"{place} to {end} zeroed"


def cut(content: bytes, place: int, chance: Random) -> tuple[bytes, str]:
    end = chance.choice((0, place, max(0, len(content) - 1)))
    return content[:end], f"cut off at {end}"


def extend(content: bytes, place: int, chance: Random) -> tuple[bytes, str]:
    more = chance.choice((bytes(1), bytes(512), b"\n", b"x", content, chance.randbytes(64)))
    return content + more, f"{len(more)} bytes added at the end"


def swap(content: bytes, place: int, chance: Random) -> tuple[bytes, str]:
    n = chance.choice((1, 8, 128))
    a, b = sorted((place, chance.randrange(max(1, len(content)))))
    b = max(b, a + n)
    one, other = content[a : a + n], content[b : b + n]
    changed = content[:a] + other + content[a + n : b] + one + content[b + n :]
    return changed, f"{n} bytes at {a} and {b} exchanged"


def overwrite(content: bytes, place: int, chance: Random) -> tuple[bytes, str]:
    n = chance.choice((1, 2, 16, 256))
    return content[:place] + chance.randbytes(n) + content[place + n :], f"{n} random at {place}"


def insert(content: bytes, place: int, chance: Random) -> tuple[bytes, str]:
    n = chance.choice((1, 3, 64))
    return content[:place] + chance.randbytes(n) + content[place:], f"{n} put in at {place}"


def remove(content: bytes, place: int, chance: Random) -> tuple[bytes, str]:
    n = chance.choice((1, 3, 64))
    return content[:place] + content[place + n :], f"{n} taken out at {place}"


# ---- JSON


class Raw(str):
    """JSON as it is to stand in the file, which no serialiser would write."""


def written(value: Any, indent: int | None = 1) -> bytes:
    """A tree as JSON; Raw strings in it stand there as they are."""
    raws: list[str] = []

    def marked(node: Any) -> Any:
        if isinstance(node, Raw):
            raws.append(str(node))
            return f"@raw {len(raws) - 1}@"
        if isinstance(node, dict):
            return {key: marked(child) for key, child in node.items()}
        if isinstance(node, list):
            return [marked(child) for child in node]
        return node

    text = json.dumps(marked(value), indent=indent)
    for k, raw in enumerate(raws):
        text = text.replace(f'"@raw {k}@"', raw)
    return text.replace('"@twice@', '"').encode()


def places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key or index) of every value in a tree."""
    found = []
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            children = list(node.items())
        elif isinstance(node, list):
            children = list(enumerate(node))
        else:
            continue
        for key, child in children:
            found.append((node, key))
            waiting.append(child)
    return found


def replacement(before: Any, chance: Random) -> tuple[Any, str]:
    """Something to put in the place of a value, and what it is called."""
    kinds = ["type", "null", "hostile", "huge", "raw", "deep", "small", "empty"]
    if isinstance(before, (int, float)) and not isinstance(before, bool):
        kinds += ["sign", "huge", "raw"]
    kind = chance.choice(kinds)
    if kind == "null":
        return None, "null"
    if kind == "huge":
        many = chance.choice(HUGE)
        what = f"huge, {len(str(many))} signs"
        return (Raw(str(many)) if isinstance(many, int) else many), what
    if kind == "raw":
        raw = chance.choice(RAW)
        return Raw(raw), f"raw {raw[:20]}"
    if kind == "deep":
        opening, closing = chance.choice((("[", "]"), ('{"a":', "}")))
        return Raw(opening * DEEP + "1" + closing * DEEP), "nested 3000 deep"
    if kind == "hostile":
        return chance.choice(NAMES), "a hostile text"
    if kind == "sign" and isinstance(before, (int, float)):
        return (-before if before else -1), "the sign"
    if kind == "small":
        return small_change(before, chance), "a little"
    if kind == "empty":
        return type(before)() if before is not None else "", "emptied"
    return chance.choice(OTHERS), "another type"


def small_change(before: Any, chance: Random) -> Any:
    """A value of the same type that is another one."""
    if isinstance(before, bool):
        return not before
    if isinstance(before, int):
        return before + chance.choice((1, -1, 7))
    if isinstance(before, float):
        return before * chance.choice((0.5, 1.25))
    if isinstance(before, str):
        return before + chance.choice(("x", " ", "s"))
    if isinstance(before, list):
        return chance.choice((before[:-1], before + before[-1:]))
    return before


def damaged_tree(tree: Any, chance: Random) -> tuple[bytes, str]:
    """A tree with one value, or one key, that is wrong."""
    everywhere = places(tree)
    if not everywhere or chance.random() < 0.03:
        return written(replacement(tree, chance)[0]), "all of it replaced"
    node, key = chance.choice(everywhere)
    before = node[key]
    way = chance.random()
    if way < 0.1:
        del node[key]
        return written(tree), f"{key!r} left out"
    if way < 0.15 and isinstance(node, dict):
        node[f"@twice@{key}"] = replacement(before, chance)[0]
        return written(tree), f"{key!r} twice"
    if way < 0.2 and isinstance(node, dict):
        node[chance.choice(("unknown", *NAMES))] = before
        return written(tree), f"a key more beside {key!r}"
    if way < 0.25:
        other, other_key = chance.choice(everywhere)
        node[key], other[other_key] = other[other_key], before
        return written(unlooped(tree)), f"{key!r} and {other_key!r} exchanged"
    node[key], what = replacement(before, chance)
    return written(tree), f"{key!r}: {what}"


def unlooped(tree: Any) -> Any:
    """The tree, or nothing where an exchange has put a value into itself."""
    try:
        json.dumps(tree)
    except (ValueError, RecursionError):
        return None
    return tree


def damaged_json(content: bytes, chance: Random) -> tuple[bytes, str]:
    """A JSON file, or one line of a file with JSON in each."""
    try:
        return damaged_tree(json.loads(content), chance)
    except ValueError:
        lines = content.splitlines()
    k = chance.randrange(len(lines))
    changed, what = damaged_tree(json.loads(lines[k]), chance)
    lines[k] = changed.replace(b"\n", b" ")
    return b"\n".join(lines) + b"\n", f"line {k + 1}: {what}"


# ---- safetensors: 8 bytes with the length of the header, the header in JSON, the values


def damaged_header(content: bytes, chance: Random) -> tuple[bytes, str]:
    """Another header, in a file that is otherwise well formed."""
    size = int.from_bytes(content[:8], "little")
    changed, what = damaged_tree(json.loads(content[8 : 8 + size]), chance)
    if chance.random() < 0.2:
        length = chance.choice((0, 1, 2**40, 2**63, 2**64 - 1, len(content)))
        return length.to_bytes(8, "little") + content[8:], f"a header of {length} bytes"
    return len(changed).to_bytes(8, "little") + changed + content[8 + size :], f"header: {what}"


def damaged_values(content: bytes, chance: Random) -> tuple[bytes, str]:
    """Some values of one tensor that are not finite, huge, or others."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    tensors = {name: about for name, about in header.items() if name != "__metadata__"}
    name = chance.choice(sorted(tensors))
    start, end = (8 + size + offset for offset in tensors[name]["data_offsets"])
    value = chance.choice((float("nan"), float("inf"), float("-inf"), 3e38, 1e30, 0.0, -1.0))
    word = struct.pack("<f", value)
    if chance.random() < 0.5:
        place = start + 4 * chance.randrange(max(1, (end - start) // 4))
        return content[:place] + word + content[place + 4 :], f"{name}: one value is {value}"
    many = word * ((end - start) // 4)
    return content[:start] + many + content[start + len(many) :], f"{name}: all are {value}"


# ---- tables and lists


def damaged_lines(content: bytes, chance: Random) -> tuple[bytes, str]:
    """A file of lines, of cells if they have commas."""
    lines = content.decode().splitlines()
    k = chance.randrange(len(lines))
    way = chance.choice(("cell", "cell", "cell", "less", "twice", "order", "quote", "column"))
    if way == "less":
        del lines[k]
    elif way == "twice":
        lines.insert(k, lines[k])
    elif way == "order":
        chance.shuffle(lines)
    elif way == "quote":
        lines[k] = chance.choice(('"' + lines[k], lines[k] + '"', lines[k].replace(",", ";")))
    elif way == "column":
        lines[k] += chance.choice((",", ",x", ",,,,,,"))
    else:
        cells = lines[k].split(",")
        hostile = (*NAMES, "nan", "inf", "-1", "1e999", "9" * 5000, "0x10", "½", "1_000")
        cells[chance.randrange(len(cells))] = chance.choice(hostile)
        lines[k] = ",".join(cells)
    ending = chance.choice(("\n", "\n", "\r\n", "\r"))
    return (ending.join(lines) + ending).encode("utf-8", "surrogatepass"), f"line {k + 1}: {way}"
