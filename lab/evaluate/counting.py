"""Counting the scores of a row above given edges, and finding those between two edges, among many thousands.

Legend: B rows, W scores of a row, E edges of a row, P chosen rows (one may be chosen several times).
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

FEW = 4  # intervals of one row that are quicker compared one by one
COMPARED = 1 << 26  # scores that a GPU compares at a time


def count_above(tile: Tensor, edges: Tensor) -> Tensor:
    """How many scores (B, W) of each row exceed each of its edges (B, E).

    On the CPU a sorted copy is searched: numpy's vectorised sort of plain values is about ten times faster than torch's
    sort with indices, and it releases the interpreter lock, so threads share the rows. On a GPU sorting is slow.
    """
    if tile.device.type == "cpu":
        return tile.shape[1] - torch.searchsorted(sort_rows(tile), edges, right=True)
    return file_between(tile, edges)


def file_between(tile: Tensor, edges: Tensor) -> Tensor:
    """The same by filing every score between two edges."""
    edges, order = edges.sort(dim=1)
    drawer = torch.searchsorted(edges, tile)  # how many edges lie below
    drawer += torch.arange(len(tile), device=tile.device).unsqueeze(1) * (edges.shape[1] + 1)
    filed = torch.bincount(drawer.flatten(), minlength=len(tile) * (edges.shape[1] + 1)).view(len(tile), -1)
    above = tile.shape[1] - filed.cumsum(1)[:, :-1]
    return torch.empty_like(above).scatter_(1, order, above)


def sort_rows(block: Tensor) -> Tensor:
    """A copy of a block on the CPU with every row in ascending order."""
    ordered = block.clone()
    parts = np.array_split(ordered.numpy(), torch.get_num_threads())
    with ThreadPoolExecutor(len(parts)) as pool:
        list(pool.map(lambda rows: rows.sort(axis=1), parts))
    return ordered


def find_between(tile: Tensor, row: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The entries of chosen rows (P,) with scores in (low, high]: which of the P, and the column.

    `row` ascends, and all intervals of one row have one width.
    """
    if tile.device.type != "cpu":
        return _find_by_comparing(tile, row, low, high)
    rows, first = np.unique(row.numpy(), return_index=True)
    parts = np.split(np.arange(len(row)), first[1:])
    score, low, high = tile.numpy(), low.numpy(), high.numpy()
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        found = list(pool.map(lambda i: find_in_row(score[rows[i]], low[parts[i]], high[parts[i]]), range(len(rows))))
    which = np.concatenate([parts[i][which] for i, (which, _) in enumerate(found)])
    return torch.from_numpy(which), torch.from_numpy(np.concatenate([place for _, place in found]))


def find_in_row(score: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of one row of scores (W,), the entries in intervals (low, high] of one width: which interval, and the column.

    A few intervals are compared one by one. For many, scores are first sorted out by a table of 2^16 drawers.
    """
    order = np.lexsort((high, low))  # by rounding two intervals may share one end only
    low, high = low[order], high[order]
    if len(low) <= FEW:
        place = np.flatnonzero(np.any([(score > a) & (score <= b) for a, b in zip(low, high, strict=True)], axis=0))
    else:
        place = np.flatnonzero(_drawers(low, high)(score))
    value = score[place]
    first, last = np.searchsorted(high, value), np.searchsorted(low, value)  # the intervals first..last hold the value
    count = np.maximum(last - first, 0)
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return order[np.repeat(first, count) + within], np.repeat(place, count)


def _drawers(low: np.ndarray, high: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A quick test that every score in one of the intervals passes, and few others."""
    last = 2**16 - 1
    scale = np.float32(last - 2) / max(high[-1] - low[0], np.float32(1e-30))  # finite: all may be equal

    def drawer(score: np.ndarray) -> np.ndarray:  # ascends with the score; 0 and 2^16 - 1 are outside
        numbers = (score - low[0]) * scale
        return np.clip(numbers + 1, 0, last, out=numbers).astype(np.uint16)

    ends = np.zeros(last + 2, np.int32)
    np.add.at(ends, drawer(low), 1)
    np.add.at(ends, drawer(high).astype(np.int64) + 1, -1)
    wanted = ends.cumsum() > 0
    return lambda score: wanted[drawer(score)]


def _find_by_comparing(tile: Tensor, row: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    which, place = [], []
    for part in torch.arange(len(row), device=row.device).split(max(1, COMPARED // tile.shape[1])):
        score = tile[row[part]]
        match, entry = torch.nonzero((score > low[part, None]) & (score <= high[part, None]), as_tuple=True)
        which.append(part[match])
        place.append(entry)
    return torch.cat(which), torch.cat(place)
