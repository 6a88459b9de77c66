"""One process, or several that train together under `torchrun`."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from pi_dynn.errors import InputError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Keep the memory that a training step frees for the next one, until the process ends.

    glibc gives large blocks back at once, and the kernel clears every page of them anew, step by step. A no-op with
    another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


@dataclass(frozen=True)
class Processes:
    """This process among `world` of them, and the device it computes on."""

    rank: int = 0
    world: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and messages."""
        return self.rank == 0

    def share(self, value: Any) -> Any:
        """Broadcast `value` of the first process to all."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def wait(self) -> None:
        """Wait until all processes are here (barrier)."""
        if self.world > 1:
            dist.barrier()

    def wrap(self, module: nn.Module, some_unused: bool) -> nn.Module:
        """`module` with gradients averaged over the processes; `some_unused` if not all get one in each step."""
        if self.world == 1:
            return module
        devices = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(
            module, device_ids=devices, find_unused_parameters=some_unused, broadcast_buffers=False
        )


ALONE = Processes()


def choose_device(name: str | None, local_rank: int = 0) -> torch.device:
    """The device of that name; None takes a GPU if there is one. Raises InputError for one that is not there."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", local_rank)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {name!r} cannot be used ({reason}): give --device cpu") from error
    return device


@contextmanager
def open_processes(device: str | None = None) -> Iterator[Processes]:
    """The processes `torchrun` started, joined; or this one alone.

    Raises: InputError for a device that cannot be used.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = choose_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if world == 1:
        yield Processes(device=chosen)
        return
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), world, chosen)
    finally:
        dist.destroy_process_group()
