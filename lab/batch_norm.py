"""Batch norm over parts of a batch, as published training had it: each GPU normalised its own part with its own statistics.

One device does the same by going through the parts one after the other.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def in_groups(model: nn.Module, forward: Callable[[Tensor], object], parts: Sequence[Tensor]) -> list:
    """`forward` of every part of a batch, each normalised with its own statistics (in training mode).

    The running statistics of `model` follow the first part alone: those of rank 0 are what published checkpoints hold.
    """
    results = [forward(parts[0])]
    with statistics_kept(model):
        results += [forward(part) for part in parts[1:]]
    return results


@contextmanager
def statistics_kept(model: nn.Module) -> Iterator[None]:
    """Batch norms in training mode go on normalising with the batch and leave their running statistics as they are."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    learning = [norm for norm in norms if norm.training and norm.track_running_stats]
    for norm in learning:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in learning:
            norm.track_running_stats = True
