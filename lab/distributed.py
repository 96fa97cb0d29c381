"""Several processes that work on one job, as torchrun starts them; everything works unchanged in one process.

A process has a *rank* 0..n-1. Rank 0 writes and prints. Each computes on its GPU, or on the CPU where there is none.
"""

import inspect
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lab.errors import InputError

PATIENCE = timedelta(hours=6)  # one process may write or extract for hours while the others wait


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


def check_parts(groups: int, accumulate: int) -> None:
    """Raise InputError unless every process has as many of a batch's groups, and every part of its share too."""
    if groups % world_size():
        raise InputError(
            f"{groups} batch-norm groups cannot be shared by {world_size()} processes; give --bn-groups a multiple of "
            f"{world_size()}, or start fewer"
        )
    own = groups // world_size()
    if accumulate < 1 or own % accumulate:
        raise InputError(
            f"a share of {own} batch-norm groups cannot be gone through in {accumulate} equal parts; give --accumulate a "
            f"divisor of {own}, or more --bn-groups"
        )


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


def mean(values: Tensor) -> Tensor:
    """The mean of a tensor over all processes; it may be changed in place."""
    return total(values) / world_size() if world_size() > 1 else values


def any_of(flag: bool) -> bool:
    """Whether any process says so. It is exchanged between the CPUs: no GPU has to wait."""
    return largest(float(flag), torch.device("cpu")) > 0


def gather_rows(values: Tensor) -> Tensor:
    """(n, ...) of every process -> (n * processes, ...), rank after rank; all have one shape. No gradient flows."""
    if world_size() == 1:
        return values
    values = values.detach().contiguous()
    found = [torch.empty_like(values) for _ in range(world_size())]
    dist.all_gather(found, values)
    return torch.cat(found)


class _GatherWithGradient(torch.autograd.Function):
    @staticmethod
    def forward(context, values: Tensor) -> Tensor:
        context.rows = len(values)
        return gather_rows(values)

    @staticmethod
    def backward(context, gradient: Tensor) -> Tensor:
        start = rank() * context.rows
        return gradient[start : start + context.rows] * world_size()


def gather_with_gradient(values: Tensor) -> Tensor:
    """`gather_rows` for a loss over the whole batch that every process computes from the same rows.

    Each process has the whole gradient then and keeps that of its own rows, times the number of processes, as
    `parallel` takes the mean over processes: the weights get the gradient that one process would have computed. (The
    published code leaves out what a row contributes to other processes' anchors.)
    """
    return _GatherWithGradient.apply(values) if world_size() > 1 else values


def parallel(module: nn.Module, forward: Callable | None = None) -> Callable:
    """`module`, or its method `forward`, so that gradients become their mean over all processes in the backward pass.

    Each process computes on its own rows of a batch, as many as the others. Weights are made equal to those of rank 0
    first. What is frozen now is left out: call again when that changes.
    """
    if world_size() == 1:
        return forward or module
    part = module if forward is None else _Method(module, forward)
    # from here on batch statistics are each process's own; torch has renamed the setting that says so
    known = inspect.signature(DistributedDataParallel).parameters
    own_buffers = {"forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False}
    return DistributedDataParallel(part, gradient_as_bucket_view=True, **own_buffers)


class _Method(nn.Module):
    """A method of a module in the shape that DistributedDataParallel wants."""

    def __init__(self, module: nn.Module, method: Callable):
        super().__init__()
        self.module, self.method = module, method

    def forward(self, *arguments):
        return self.method(*arguments)


def postponed(call: Callable, more_to_come: bool) -> AbstractContextManager:
    """Within it, the backward pass of what `parallel` made keeps its gradients to itself: the last part sends the sum."""
    return call.no_sync() if more_to_come and isinstance(call, DistributedDataParallel) else nullcontext()


def as_first(module: nn.Module) -> nn.Module:
    """The module with the buffers of rank 0 in every process: batch norm's running statistics differ otherwise."""
    for buffer in module.buffers() if world_size() > 1 else ():
        dist.broadcast(buffer, 0)
    return module


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Gradients become their mean over all processes, where no `parallel` module sees to it."""
    if world_size() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = mean(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


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
