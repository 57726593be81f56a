"""The one table of settings: what each class takes, the defaults, and what is supported of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any, Literal, NamedTuple


class Setting(NamedTuple):
    """A setting of a published class.

    default:   diffusers' own
    supported: the values that have a meaning here; None where that is any value
    """

    default: Any
    supported: tuple[Any, ...] | None = None


def _read_table() -> dict[str, dict[str, Setting]]:
    """settings.json: for each class its settings in diffusers' order.

    A setting is a list of its default and, where not every value is supported, of those that are.
    """
    text = (Path(__file__).parent / "settings.json").read_text("utf-8")
    table: dict[str, dict[str, Setting]] = {}
    for kind, settings in json.loads(text).items():
        table[kind] = {}
        for name, (default, *supported) in settings.items():
            if isinstance(default, list):
                default = tuple(default)
            table[kind][name] = Setting(default, tuple(supported[0]) if supported else None)
    return table


SETTINGS = _read_table()


def signature_of(known: Mapping[str, Setting]) -> Signature:
    """The signature of a constructor that takes these settings, in any of the ways of calling."""
    kind = Parameter.POSITIONAL_OR_KEYWORD
    parameters = [Parameter("self", kind)]
    for name, setting in known.items():
        annotation: Any = Parameter.empty
        if setting.supported is not None:
            annotation = Literal[setting.supported]
        parameters.append(Parameter(name, kind, default=setting.default, annotation=annotation))
    return Signature(parameters)


def _foreign_settings() -> frozenset[str]:
    """Settings in the files of other schedulers, which a scheduler here accepts and ignores."""
    names = {"skip_prk_steps", "interpolation_type", "timestep_type", "sigma_min", "sigma_max"}
    for kind, settings in SETTINGS.items():
        if "Scheduler" in kind:
            names |= settings.keys()
    return frozenset(names)


FOREIGN = _foreign_settings()
