"""Damaged copies of values and of tensors, each with what was done to it."""

import copy
import json

import torch
from safetensors.torch import save

WRONG = {  # what takes the place of a value of JSON
    "null": lambda value: None,
    "true": lambda value: True,
    "negative": lambda value: -1,
    "zero": lambda value: 0,
    "half": lambda value: 0.5,
    "huge": lambda value: 10**9,
    "endless": lambda value: 10**30,
    "overflow": lambda value: 1e300,
    "NaN": lambda value: float("nan"),
    "infinite": lambda value: float("inf"),
    "text": lambda value: "x",
    "escape": lambda value: "\x1b[31m\n",
    "list": lambda value: [],
    "object": lambda value: {},
    "nested": lambda value: [[value], value],
    "inside": lambda value: {"a": value},
}


def paths(value, at=()):
    """The keys and numbers that lead to each part of a value of JSON."""
    yield at
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths(part, (*at, key))


def part_of(value, path):
    for key in path:
        value = value[key]
    return value


def replaced(value, path, new):
    if not path:
        return new
    value = copy.deepcopy(value)
    part_of(value, path[:-1])[path[-1]] = new
    return value


def json_mutants(value, each=None):
    """(what was done, the damaged text). each: how many kinds of damage a part gets, in turn."""
    kinds = list(WRONG)
    each = each or len(kinds)
    for number, path in enumerate(paths(value)):
        old = part_of(value, path)
        for k in range(each):
            kind = kinds[(number * each + k) % len(kinds)]
            yield (path, kind), json.dumps(replaced(value, path, WRONG[kind](old)))
        if path:
            without = copy.deepcopy(value)
            del part_of(without, path[:-1])[path[-1]]
            yield (path, "missing"), json.dumps(without)


def can_be_written(dtype):
    """Whether this safetensors knows a dtype; 0.4 knows no complex numbers."""
    try:
        save({"x": torch.zeros(1, dtype=dtype)})
    except KeyError:
        return False
    return True


def tensor_mutants(tensors, names):
    """(what was done, the damaged tensors): of these names, one is damaged in each."""
    for name in names:
        old = tensors[name]
        wrong = {
            "another shape": torch.zeros(3, *old.shape, dtype=old.dtype),
            "empty": old.flatten()[:0].clone(),
            "whole numbers": old.to(torch.int64),
            "bytes": old.to(torch.uint8),
        }
        if can_be_written(torch.complex64):
            wrong["complex"] = old.to(torch.complex64)
        if old.is_floating_point():
            wrong["eight bits"] = old.to(torch.float8_e4m3fn)
            wrong["NaN"] = old.clone().fill_(float("nan"))
            wrong["infinite"] = old.clone()
            wrong["infinite"].view(-1)[-1] = float("-inf")
        for kind, new in wrong.items():
            yield (name, kind), {**tensors, name: new}
        yield (name, "missing"), {key: value for key, value in tensors.items() if key != name}
        yield (name, "twice"), {**tensors, f"{name}2": old.clone()}


def byte_mutants(content, seed=0, count=10):
    """(what was done, the damaged bytes): cut off, changed near the start, or longer."""
    random = torch.Generator().manual_seed(seed)
    for k in range(count):
        place = int(torch.randint(len(content), (), generator=random))
        start = place % min(len(content), 400)
        yield (place, "cut off"), content[:place]
        yield (start, "changed"), content[:start] + bytes([k * 25]) + content[start + 1 :]
        yield (k, "longer"), content + bytes(k + 1)
