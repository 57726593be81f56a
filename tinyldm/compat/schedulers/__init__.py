"""The schedulers, under diffusers' paths; Scheduler, which they share, is in base."""

from tinyldm import compat

__getattr__ = compat.__getattr__
