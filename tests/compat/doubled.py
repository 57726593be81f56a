"""diffusers' own schedulers without their rounding."""

import numpy as np
import torch


class Double:
    """A module of which float32 is double.

    In float32 diffusers is off by more than 1e-4 where alpha is small, which says nothing about a
    formula.
    """

    def __init__(self, module):
        self.module = module

    def __getattr__(self, name):
        return getattr(self.module, "float64" if name == "float32" else name)


def make_double(monkeypatch, *modules):
    """Let these modules of diffusers compute in double precision."""
    for module in modules:
        monkeypatch.setattr(module, "np", Double(np))
        monkeypatch.setattr(module, "torch", Double(torch))
