"""What arrives at each step of pre-training: two views of every crop of a batch, and what is left to do with them.

Which crops a batch holds, in which order its keys are encoded and what its views look like follows from the seed and
the step alone. So a run can go on at any step, with any number of processes and of workers that read for them.
Legend: B crops in the batch of the whole job, R processes, h x w pixels of a view.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lab.data.crops import Crops
from lab.errors import InputError
from lab.pretrain.augment import Draws, Views, chances

VIEW_Q, VIEW_K, ORDER, EPOCH = range(4)  # what random numbers are for; each has a sequence of its own


class Request(NamedTuple):
    """A batch of the whole job: the step it is for, and its crops (B,)."""

    step: int
    crops: np.ndarray


class ViewBatch(NamedTuple):
    """One process's share of a batch, as `lab.pretrain.augment.finish` takes it.

    `view_q` (B/R, 3, h, w) uint8 shows this process's crops of the batch, `view_k` those that stand in its part of
    `order` (B,): position j of all keys shows crop order[j] of the batch. So shuffled batch norm (MoCo, section 3.3)
    costs no exchange of images between processes.
    """

    view_q: Tensor
    view_k: Tensor
    draws_q: Draws
    draws_k: Draws
    order: Tensor  # int64


class ViewBatches(Dataset):
    """The batches that are requested; PyTorch's DataLoader asks for each with one call (`__getitems__`).

    `crops` gives arrays of pixels (H, W, 3) uint8, with `views.places` (H, W, 4). Keys are encoded in a random order if
    `shuffle`, else in that of the batch. This process is number `rank` of `world_size`.
    """

    def __init__(self, crops: Crops, views: Views, seed: int, shuffle: bool = True, rank: int = 0, world_size: int = 1):
        self.crops, self.views, self.seed, self.shuffle = crops, views, seed, shuffle
        self.rank, self.world_size = rank, world_size

    def __getitems__(self, request: Request) -> ViewBatch:
        size = len(request.crops)
        order = np.arange(size)
        shuffled = numbers(self.seed, ORDER, request.step).permutation(size) if self.shuffle else order
        rows = [self._own(order), self._own(shuffled)]  # of the batch: those that view_q shows, and view_k
        chance = [
            chances(numbers(self.seed, view, request.step), size)[own]
            for view, own in zip((VIEW_Q, VIEW_K), rows, strict=True)
        ]
        views = [self.views.empty(len(own)) for own in rows]
        positions = [dict(zip(own.tolist(), range(len(own)), strict=True)) for own in rows]
        for row in sorted(positions[0].keys() | positions[1].keys()):  # each crop is read once, for one view or both
            crop, _ = self.crops[request.crops[row]]
            for view in (VIEW_Q, VIEW_K):
                if (position := positions[view].get(row)) is not None:
                    views[view][position] = self.views.cut(crop, chance[view][position])
        return ViewBatch(*views, *map(self.views.draw, chance), torch.from_numpy(shuffled))

    def _own(self, rows: np.ndarray) -> np.ndarray:
        """This process's part of the rows of a batch; the parts follow one another."""
        if len(rows) % self.world_size:
            raise InputError(
                f"a batch of {len(rows)} cannot be shared equally by {self.world_size} processes; give --batch-size a "
                "multiple of their number"
            )
        return np.split(rows, self.world_size)[self.rank]


def requests(count: int, batch_size: int, seed: int, first_step: int, steps: int) -> Iterator[Request]:
    """The batches of steps first_step..steps - 1 from `count` crops, at least batch_size of them.

    In every epoch all crops come in a new order, and the last few, which fill no batch, are left out.
    """
    steps_per_epoch = count // batch_size
    for step in range(first_step, steps):
        epoch, position = divmod(step, steps_per_epoch)
        if step == first_step or position == 0:
            order = np.arange(count, dtype=np.int32)  # half the memory; an index has room for two thousand million
            numbers(seed, EPOCH, epoch).shuffle(order)
        yield Request(step, order[position * batch_size : (position + 1) * batch_size])


def numbers(seed: int, purpose: int, number: int) -> np.random.Generator:
    """Random numbers for one purpose at one step (or epoch): the same whenever they are asked for."""
    return np.random.default_rng((seed, purpose, number))
