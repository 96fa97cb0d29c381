"""From a data set to batches on the device, without the device having to wait."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lab.errors import InputError
from lab.training.interrupts import only_the_parent_stops


def load_batches(dataset: Dataset, requests: Iterable, num_workers: int, device: torch.device) -> Iterator:
    """`dataset[request]` for every request, in order; `num_workers` processes work ahead, 0 does it in this one.

    A data set answers a request with a whole batch (`__getitems__`): tensors, in named tuples or alone. What is on its
    way to a GPU lies in pinned memory. Raises InputError for what the data set refuses; what torch says about a process
    that died is explained by `lab.training.health.explained`.
    """
    loader = DataLoader(
        dataset,
        batch_sampler=requests,
        num_workers=num_workers,
        collate_fn=_as_it_is,
        pin_memory=device.type == "cuda",
        worker_init_fn=only_the_parent_stops,
        generator=torch.Generator(),  # whose numbers nobody uses: the global one stays as it is
    )
    try:
        yield from loader
    except InputError as error:  # a worker's comes with its traceback, at the end of which is the sentence
        raise InputError(str(error).rstrip().rpartition("InputError: ")[2]) from error


def to_device(batches: Iterable, device: torch.device) -> Iterator:
    """The batches on the device; a GPU gets the next one while it computes with this one."""
    if device.type != "cuda":
        yield from batches
        return
    beside = torch.cuda.Stream(device)
    waiting = None
    for batch in batches:
        with torch.cuda.stream(beside):
            coming = _each(batch, lambda tensor: tensor.to(device, non_blocking=True)), beside.record_event()
        if waiting is not None:
            yield _arrived(*waiting, device)
        waiting = coming
    if waiting is not None:
        yield _arrived(*waiting, device)


def _arrived(batch, copied: torch.cuda.Event, device: torch.device):
    """A batch whose copy the computing stream waits for, and whose memory stays until that stream is done with it."""
    computing = torch.cuda.current_stream(device)
    computing.wait_event(copied)
    return _each(batch, lambda tensor: tensor.record_stream(computing) or tensor)


def _each(value, change):
    """A batch with every tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple):
        parts = [_each(part, change) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def _as_it_is(batch):
    return batch
