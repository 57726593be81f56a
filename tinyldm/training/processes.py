"""One process or several, which torchrun has started: what a job has to know of the others."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tinyldm.errors import InputError

CPU = torch.device("cpu")


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


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Join the processes that torchrun has started; a plain run is a world of one."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Processes(device=device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), world, device)
    except RuntimeError as error:
        if not GONE.search(str(error)):
            raise
        time.sleep(5)  # so that torchrun sees first the process that has failed first
        raise InputError("another process of this training has ended") from None
    finally:
        dist.destroy_process_group()
