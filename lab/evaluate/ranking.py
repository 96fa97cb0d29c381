"""The place of every true match in its query's rank list, and the first 50 entries, without ever holding Q x G.

A block of queries is compared with the gallery tile by tile. A tile's scores (larger is nearer) come from one matrix
product, whose last bits depend on how it was cut; so they only decide what is clear. What lies as close to a match as
the product errs is compared again, exactly, in float64, and equal distances are ordered by gallery position. Ranks
therefore do not depend on tiles, threads or the product's precision.

Legend: Q queries, G gallery crops, D feature size, B queries of one block, W gallery crops of one tile, P matches of a
block's queries, M of the query that has most of them, E edges per query.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lab.distributed import gather, largest, total
from lab.errors import InputError
from lab.evaluate.blocks import FeatureBlock, GivenBlock
from lab.evaluate.counting import count_above, find_between
from lab.evaluate.distance import MOST_ROWS, from_key, to_key
from lab.runs import RANKS

CROWD = 8  # a row in which more than one entry in eight is too close to call is compared exactly as a whole


class TooNarrow(Exception):  # noqa: N818 (not an error: the block is ranked again with a wider margin)
    """A score erred by more than was allowed for."""


@dataclass(frozen=True)
class Pairs:
    """The pairs of one block that show the same person: row in the block and column in the gallery, ordered so.

    The matches (P,) are to be found; the removed ones (same camera) are left out of the rank list.
    """

    removed_row: Tensor
    removed_column: Tensor
    match_row: Tensor
    match_column: Tensor


def rank_block(block: FeatureBlock | GivenBlock, pairs: Pairs) -> tuple[Tensor, Tensor, Tensor]:
    """The rank (P,) of each match (1 = nearest), and each query's first 50: index (B, 50) and distance.

    Index -1 and distance NaN pad rank lists that are shorter.
    """
    row, column = pairs.match_row, pairs.match_column
    score = None if block.whole else block.scores(row, column)
    above = torch.zeros(len(row), dtype=torch.int64, device=row.device)
    crowded = torch.zeros(len(block), dtype=torch.bool, device=row.device)
    first, narrow = FirstEntries(block, row.device), -1.0
    try:
        for start, tile in block.tiles():
            _remove(tile, pairs, start)
            score = tile[row, column] if score is None else score
            above += _count_nearer(block, tile, start, row, column, score, crowded)
            first.add(tile, start)
    except TooNarrow as found:
        narrow = found.args[0] if found.args[0] >= 0 else math.inf  # inf also for NaN
    narrow, block.error = largest(narrow, row.device), largest(block.error, row.device)
    if narrow == math.inf:
        raise InputError("distances between the features overflow float32; scale the features down")
    if narrow >= 0:
        block.error = max(4 * narrow, 2.0**-126)
        return rank_block(block, pairs)
    above, crowded = total(above), total(crowded.int()) > 0
    first.merge()
    index, distance, unclear = first.finish()
    redo = torch.nonzero(crowded | unclear).squeeze(1)
    if len(redo):
        above[torch.isin(row, redo)], index[redo], distance[redo] = _rank_exactly(block, pairs, redo)
    return above + 1, index, distance


def _remove(tile: Tensor, pairs: Pairs, start: int) -> None:
    here = (pairs.removed_column >= start) & (pairs.removed_column < start + tile.shape[1])
    tile[pairs.removed_row[here], pairs.removed_column[here] - start] = -torch.inf


def _count_nearer(
    block: FeatureBlock | GivenBlock,
    tile: Tensor,
    start: int,
    row: Tensor,
    column: Tensor,
    score: Tensor,
    crowded: Tensor,
) -> Tensor:
    """How many entries of the tile stand before each match (P,); rows with too many close ones are marked instead."""
    if not len(row):
        return row
    margin = 2 * block.error  # that of an entry and that of the match
    high = score + margin
    low = torch.nextafter(score - margin, score.new_tensor(-torch.inf))  # an entry at the edge is close
    count = torch.bincount(row, minlength=len(tile))
    slot = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
    edges = tile.new_full((len(tile), 2, int(count.max())), torch.inf)
    edges[row, 0, slot], edges[row, 1, slot] = high, low
    found = count_above(tile, edges.flatten(1)).view(edges.shape)
    above = found[row, 0, slot]
    here = (column >= start) & (column < start + tile.shape[1])
    close = found[row, 1, slot] - above - here.long()  # the match itself does not count
    if (close < 0).any():
        lost = close < 0
        raise TooNarrow(float((tile[row[lost], column[lost] - start] - score[lost]).abs().max()))
    crowd = torch.zeros_like(count).index_add_(0, row, close) > max(64, tile.shape[1] // CROWD)
    crowded |= crowd
    some = torch.nonzero((close > 0) & ~crowd[row]).squeeze(1)
    if len(some):
        above[some] += _count_close(block, tile, start, row[some], column[some], low[some], high[some])
    return above


def _count_close(
    block: FeatureBlock | GivenBlock, tile: Tensor, start: int, row: Tensor, column: Tensor, low: Tensor, high: Tensor
) -> Tensor:
    """Of the entries with scores in (low, high], too close to a match (P,) to call, how many stand before it."""
    which, place = find_between(tile, row, low, high)
    distance = block.exact(row[which], place + start)
    erred = float((block.distance(row[which], tile[row[which], place]) - distance).abs().max())
    if erred > 2 * block.error:
        raise TooNarrow(erred)
    before = to_key(distance, place + start) < to_key(block.exact(row, column), column)[which]
    return torch.bincount(which[before], minlength=len(row))


class FirstEntries:
    """The first entries of a block's rank lists, gathered from tile to tile."""

    def __init__(self, block: FeatureBlock | GivenBlock, device: torch.device):
        self.block = block
        self.score = torch.empty((len(block), 0), device=device)
        self.column = torch.empty((len(block), 0), dtype=torch.int64, device=device)
        self.dropped = torch.full((len(block),), -torch.inf, device=device)  # nothing that was left out scores more

    def add(self, tile: Tensor, start: int) -> None:
        score, place = tile.topk(min(self.block.kept, tile.shape[1]), dim=1)
        if tile.shape[1] > self.block.kept:
            self.dropped = torch.maximum(self.dropped, score[:, -1])
        self._join(score, place + start)

    def merge(self) -> None:
        """Take in what other processes found in their parts of the gallery."""
        score, column, dropped = gather(self.score), gather(self.column), gather(self.dropped.unsqueeze(1))
        if len(score) > 1:
            self.score, self.column = self.score[:, :0], self.column[:, :0]
            self.dropped = torch.cat(dropped, 1).amax(1)
            self._join(torch.cat(score, 1), torch.cat(column, 1))

    def _join(self, score: Tensor, column: Tensor) -> None:
        self.score, self.column = torch.cat([self.score, score], 1), torch.cat([self.column, column], 1)
        if self.score.shape[1] > self.block.kept:
            self.score, order = self.score.topk(self.block.kept, dim=1)
            self.column = self.column.gather(1, order)
            self.dropped = torch.maximum(self.dropped, self.score[:, -1])

    def finish(self) -> tuple[Tensor, Tensor, Tensor]:
        """Index (B, 50), distance (B, 50), and in which rows an entry that was left out might belong to the list."""
        margin = 2 * self.block.error
        score, order = self.score.sort(dim=1, descending=True)
        column = self.column.gather(1, order)
        last = score[:, min(RANKS, score.shape[1]) - 1]
        unclear = (self.dropped >= last - margin) & last.isfinite()
        row = torch.arange(len(score), device=score.device).unsqueeze(1).expand_as(score)
        distance = self.block.distance(row, score)
        # neighbours that are too close to call are compared exactly
        close = (score[:, :-1] - score[:, 1:] <= margin) & score[:, 1:].isfinite()
        close &= (score[:, :-1] >= (last - margin).unsqueeze(1)) & ~unclear.unsqueeze(1)
        close = torch.nn.functional.pad(close, (0, 1)) | torch.nn.functional.pad(close, (1, 0))
        if self.block.rough:  # a list shows distances in float32, whatever found its entries
            close |= (score >= last.unsqueeze(1)) & score.isfinite() & ~unclear.unsqueeze(1)
        if close.any():
            distance[close] = self.block.exact(row[close], column[close])
        return *_padded(to_key(distance, column).sort(dim=1).values[:, :RANKS]), unclear


def _rank_exactly(block: FeatureBlock | GivenBlock, pairs: Pairs, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count and list as above for some rows of the block, from exact distances alone: (P',), (R, 50), (R, 50)."""
    wanted = torch.isin(pairs.match_row, rows)
    row, column = pairs.match_row[wanted], pairs.match_column[wanted]
    own = to_key(block.exact(row, column), column) if len(row) else column
    above, lists = torch.zeros_like(own), []
    for part in rows.split(MOST_ROWS // 8):  # float64 and keys are larger than scores
        place = torch.full((len(block),), -1, device=rows.device)
        place[part] = torch.arange(len(part), device=rows.device)
        nearest = torch.empty((len(part), 0), dtype=torch.int64, device=rows.device)
        for start, distance in block.exact_tiles(part):
            key = to_key(distance, torch.arange(start, start + distance.shape[1], device=rows.device))
            removed, there = place[pairs.removed_row], pairs.removed_column - start
            here = (removed >= 0) & (there >= 0) & (there < key.shape[1])
            key[removed[here], there[here]] = torch.iinfo(torch.int64).max
            ordered = key.sort(dim=1).values
            for one, number in enumerate(part):
                mine = row == number
                above[mine] += torch.searchsorted(ordered[one], own[mine])
            nearest = torch.cat([nearest, ordered[:, :RANKS]], 1).sort(dim=1).values[:, :RANKS]
        lists.append(torch.cat(gather(nearest), 1).sort(dim=1).values[:, :RANKS])
    return total(above), *_padded(torch.cat(lists))


def _padded(key: Tensor) -> tuple[Tensor, Tensor]:
    """Keys in order -> index (B, 50) and distance (B, 50), without the removed entries, which stand last."""
    distance, index = from_key(key)
    empty = ~distance.isfinite()
    padding = (0, RANKS - key.shape[1])
    return (
        torch.nn.functional.pad(index.masked_fill(empty, -1), padding, value=-1),
        torch.nn.functional.pad(distance.masked_fill(empty, torch.nan), padding, value=torch.nan),
    )
