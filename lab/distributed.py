"""Several processes that work on one job, as torchrun starts them; everything works unchanged in one process.

A process has a *rank* 0..n-1. Rank 0 writes and prints. Each computes on its GPU, or on the CPU where there is none.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from lab.errors import InputError

PATIENCE = timedelta(days=2)  # one process may write or extract for hours while the others wait


@contextmanager
def processes() -> Iterator[None]:
    """Join the processes that torchrun started, if it did, and leave them again at the end."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ or dist.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        number, found = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
        if number >= found:
            raise InputError(
                f"process {number} has no GPU of its own: this machine has {found}; start {found} processes"
            )
        torch.cuda.set_device(number)
    # gloo beside nccl: objects and tensors on the CPU are exchanged as well
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this process is the one that writes and prints."""
    return rank() == 0


def share(count: int) -> tuple[int, int]:
    """This process's part start..stop of `count` items; the parts follow one another and differ by one at most."""
    return rank() * count // world_size(), (rank() + 1) * count // world_size()


def total(values: Tensor) -> Tensor:
    """The sum of a tensor over all processes; it may be changed in place."""
    if world_size() > 1:
        values = values.contiguous()
        dist.all_reduce(values)
    return values


def largest(value: float, device: torch.device) -> float:
    """The largest of all processes' values."""
    if world_size() > 1:
        found = torch.tensor([value], dtype=torch.float64, device=device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return float(found)
    return value


def gather(values: Tensor) -> list[Tensor]:
    """A tensor of every process, by rank; all have one shape but for the last dimension."""
    if world_size() == 1:
        return [values]
    values = values.contiguous()
    sizes = [torch.zeros(1, dtype=torch.int64, device=values.device) for _ in range(world_size())]
    dist.all_gather(sizes, torch.tensor([values.shape[-1]], device=values.device))
    longest = max(int(size) for size in sizes)
    room = values.new_zeros(*values.shape[:-1], longest)
    room[..., : values.shape[-1]] = values
    found = [torch.empty_like(room) for _ in range(world_size())]
    dist.all_gather(found, room)
    return [values[..., : int(size)] for values, size in zip(found, sizes, strict=True)]


@contextmanager
def first_process_first() -> Iterator[None]:
    """Do something in rank 0, then in the others: who comes second finds what the first one made."""
    if not is_first():
        wait()
    yield
    if is_first():
        wait()


def wait() -> None:
    """Return when all processes have come this far."""
    if world_size() > 1:
        dist.barrier()
