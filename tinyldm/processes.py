"""One process or several, which torchrun has started: what a job has to know of the others."""

from __future__ import annotations

import os
import re
import time
from argparse import ArgumentTypeError
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tinyldm.cli import Bounds, whole
from tinyldm.errors import InputError, reason

CPU = torch.device("cpu")
PATIENCE = timedelta(hours=12)
"""How long processes wait for each other, as while one encodes what only it does."""

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process, number `rank` of `world`. Rank 0 alone writes files and shows progress."""

    rank: int = 0
    world: int = 1
    device: torch.device = CPU

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until every process has reached this point."""
        if self.world > 1:
            dist.barrier()

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a value over all processes."""
        if self.world == 1:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total / self.world

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process, so that all make the same decision."""
        if self.world == 1:
            return flag
        return bool(self.mean(torch.tensor(float(flag), device=self.device)) > 0)

    def from_main(self, value: T) -> T:
        """The value that the main process has; the others wait for it."""
        if self.world == 1:
            return value
        box: list[Any] = [value]
        dist.broadcast_object_list(box)
        received: T = box[0]
        return received

    def gathered(self, own: list[T]) -> list[T]:
        """The lists of all processes, one after another in the order of their ranks."""
        if self.world == 1:
            return own
        parts: list[Any] = [None] * self.world
        dist.all_gather_object(parts, own)
        return [each for part in parts for each in part]

    def exchanged(self, own: Tensor, lengths: Sequence[int]) -> list[Tensor]:
        """The vectors of all processes, by rank. lengths: how many numbers each process has."""
        if self.world == 1:
            return [own]
        padded = own.new_zeros(max(lengths))  # all_gather takes vectors of one length
        padded[: len(own)] = own
        parts = own.new_empty(self.world, len(padded))
        dist.all_gather(list(parts), padded)
        return [part[:length] for part, length in zip(parts, lengths, strict=True)]

    def part_of(self, count: int) -> range:
        """This process's part of so many things: consecutive ones, at most one more than others."""
        return range(count * self.rank // self.world, count * (self.rank + 1) // self.world)

    def share(self, network: nn.Module) -> nn.Module:
        """The network with its gradients averaged over all processes."""
        return DistributedDataParallel(network) if self.world > 1 else network

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Run the block in rank 0 first, then in the others, which find what it has built."""
        if not self.is_main:
            self.barrier()
        yield
        if self.is_main:
            self.barrier()


GONE = re.compile("(closed|reset) by peer|Broken pipe|remote process exited", re.IGNORECASE)
"""What gloo and NCCL say where a process that they wait for is gone."""

ALONE = Processes()
"""A world of one, on the CPU."""


def launched(name: str, bounds: Bounds, default: str = "") -> int:
    """A number in the environment that torchrun sets; InputError where it is not one of bounds."""
    text = os.environ.get(name, default)
    try:
        return int(bounds(text))
    except ArgumentTypeError as error:
        what = f"{name} {error}" if text else f"{name} is not set: expected {bounds}"
        raise InputError(
            f"{what}; torchrun sets it for each of several processes; for one, unset WORLD_SIZE"
        ) from None


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Join the processes that torchrun has started; a plain run is a world of one."""
    world = launched("WORLD_SIZE", whole(1, 2**16), default="1")
    if world == 1:
        yield Processes(device=device)
        return
    launched("RANK", whole(0, world - 1))
    launched("MASTER_PORT", whole(0, 2**16 - 1))
    if device.type == "cuda":
        count = torch.cuda.device_count()
        device = torch.device("cuda", launched("LOCAL_RANK", whole(0, count - 1)))
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"the {world} processes of WORLD_SIZE don't find each other: {reason(error)}"
        ) from None
    try:
        yield Processes(dist.get_rank(), world, device)
    except RuntimeError as error:
        if not GONE.search(str(error)):
            raise
        time.sleep(5)  # so that torchrun sees first the process that has failed first
        raise InputError("another process of this job has ended") from None
    finally:
        dist.destroy_process_group()
