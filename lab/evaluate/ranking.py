"""The place of every true match in its query's rank list, and the first 50 entries, without ever holding Q x G.

A block of queries is compared with the gallery tile by tile. A tile's scores (larger is nearer) come from one matrix
product, whose last bits depend on how it was cut; so they only decide what is clear. What lies as close to a match as
the product errs is compared again, exactly, in float64, and equal distances are ordered by gallery position. Ranks
therefore do not depend on tiles, threads, device or the product's precision. How far the product errs is measured on
some pairs of every tile, and allowed for eightfold.

Legend: Q queries, G gallery crops, D feature size, B queries of one block, W gallery crops of one tile, P matches of a
block's queries, M of the query that has most of them, E edges per query.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lab.distributed import gather, largest, share, total
from lab.evaluate.distance import (
    MOST_ROWS,
    PAIR_BYTES,
    Rows,
    exact_block,
    exact_pairs,
    from_key,
    multiply,
    tile_shape,
    to_key,
)
from lab.runs import RANKS

KEPT = {
    "float32": RANKS + 14,
    "tf32": 4 * RANKS,
    "bfloat16": 10 * RANKS,
}  # of each tile: those too close to the 50th too
CROWD = 8  # a row in which more than one entry in eight is too close to call is compared exactly as a whole


SAMPLED = 32  # pairs of a tile, and as many nearest ones, that the error of its scores is measured on
SAFETY = 8  # standard deviations of that error: more than the largest among 10^13 pairs
FEW = 4  # intervals of one row that are quicker compared one by one
COMPARED = 1 << 26  # scores that a GPU compares at a time


class TooNarrow(Exception):  # noqa: N818 (not an error: the block is ranked again with a wider margin)
    """A score erred by more than was allowed for."""


@dataclass(frozen=True)
class Pairs:
    """The pairs of one block that show the same person: `row` in the block, `column` in the gallery, ordered so.

    `match` (P,) of them are to be found; the removed ones (same camera) are left out of the rank list.
    """

    row: Tensor
    column: Tensor
    match_row: Tensor
    match_column: Tensor


class FeatureBlock:
    """Some queries against the gallery: scores by matrix product tile by tile, distances exactly for chosen pairs."""

    def __init__(self, query: Tensor, gallery: Rows, distance: str, precision: str, columns: int, buffer: Tensor):
        self.query, self.gallery, self.buffer = query, gallery, buffer
        self.euclidean, self.name, self.precision = distance == "euclidean", distance, precision
        first, last = share(len(gallery))  # the whole gallery, unless several processes share it
        self.slices = [(start, min(start + columns, last)) for start in range(first, last, columns)]
        self.whole = self.slices == [(0, len(gallery))]  # one tile holds all the scores
        self.kept, self.rough = KEPT[precision], precision != "float32"
        self.length = torch.einsum("bd,bd->b", query, query)
        self.error = 0.0  # of a score, at most

    def __len__(self) -> int:
        return len(self.query)

    def tiles(self) -> Iterator[tuple[int, Tensor]]:
        """Column of the first entry, and scores (B, W), which may be changed until the next tile is asked for."""
        for start, stop in self.slices:
            gallery = self.gallery.slice(start, stop)
            out = self.buffer[: len(self) * (stop - start)].view(len(self), -1)
            multiply(self.query, gallery, out, self.precision)
            if self.euclidean:
                out.sub_(self.gallery.squares(start, gallery) / 2)
            self.error = max(self.error, self._measure_error(out, gallery))
            yield start, out

    def scores(self, row: Tensor, column: Tensor) -> Tensor:
        """Scores (P,) of chosen pairs: at least as good as a tile's."""
        distance = self.exact(row, column).double()
        return ((self.length[row] - distance) / 2 if self.euclidean else 1 - distance).float()

    def distance(self, row: Tensor, score: Tensor) -> Tensor:
        """What scores mean as distances; `row` says whose they are."""
        return (self.length[row] - 2 * score).clamp(min=0) if self.euclidean else 1 - score

    def exact(self, row: Tensor, column: Tensor) -> Tensor:
        """Distances (P,) of chosen pairs, exact to the last bit of float32."""
        step = max(1, PAIR_BYTES // (8 * self.query.shape[1]))
        parts = zip(row.split(step), column.split(step), strict=True)
        return torch.cat([exact_pairs(self.query[r], self.gallery.take(c), self.name) for r, c in parts])

    def exact_tiles(self, rows: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Column of the first entry, and exact distances (R, W) of some queries of the block."""
        step = max(1, 8 * PAIR_BYTES // (8 * self.query.shape[1]))
        for first, last in self.slices:
            for start in range(first, last, step):
                gallery = self.gallery.slice(start, min(start + step, last))
                yield start, exact_block(self.query[rows], gallery, self.name)

    def _measure_error(self, score: Tensor, gallery: Tensor) -> float:
        """How far scores may be from exact ones, from pairs all over the tile and from the nearest ones of some rows."""
        rows = torch.arange(0, len(score), -(-len(score) // SAMPLED), device=score.device)
        anywhere = torch.arange(len(rows), device=score.device) * 7919 % score.shape[1]
        worst = 0.0
        for column in (anywhere, score[rows].argmax(1)):
            a, b = self.query[rows].double(), gallery[column].double()
            exact = torch.linalg.vecdot(a, b) - (b.square().sum(1) / 2 if self.euclidean else 0)
            erred = (score[rows, column] - exact).square().mean().sqrt()
            worst = max(worst, SAFETY * float(erred) + 2.0**-23 * float(exact.abs().max()))
        return worst


class GivenBlock:
    """Distances that were made elsewhere, such as re-ranked ones: (B, G), compared as they are."""

    def __init__(self, distances: Tensor):
        self.given = distances
        self.first, self.last = share(distances.shape[1])
        self.whole = self.last - self.first == distances.shape[1]
        self.kept, self.rough, self.error = KEPT["float32"], False, 0.0

    def __len__(self) -> int:
        return len(self.given)

    def tiles(self) -> Iterator[tuple[int, Tensor]]:
        yield self.first, -self.given[:, self.first : self.last]

    def scores(self, row: Tensor, column: Tensor) -> Tensor:
        return -self.given[row, column]

    def distance(self, row: Tensor, score: Tensor) -> Tensor:
        return -score

    def exact(self, row: Tensor, column: Tensor) -> Tensor:
        return self.given[row, column]

    def exact_tiles(self, rows: Tensor) -> Iterator[tuple[int, Tensor]]:
        yield self.first, self.given[rows, self.first : self.last]


def feature_blocks(
    query: np.ndarray,
    gallery: np.ndarray,
    distance: str,
    memory_gb: float,
    device: torch.device,
    precision: str,
    most_matches: int,
) -> Iterator[FeatureBlock]:
    """Consecutive queries against the gallery. Either may stay on disk; `memory_gb` bounds a tile with its copies."""
    query, gallery = (Rows(values, distance, device, memory_gb) for values in (query, gallery))
    rows, columns = tile_shape(len(query), gallery, memory_gb, most_matches)
    buffer = torch.empty(rows * columns, device=device)
    for start in range(0, len(query), rows):
        part = query.slice(start, min(start + rows, len(query)))
        yield FeatureBlock(part, gallery, distance, precision, columns, buffer)


def rank_block(block: FeatureBlock | GivenBlock, pairs: Pairs) -> tuple[Tensor, Tensor, Tensor]:
    """The rank (P,) of each match (1 = nearest), and each query's first 50: index (B, 50) and distance.

    Index -1 and distance NaN pad rank lists that are shorter.
    """
    row, column = pairs.match_row, pairs.match_column
    score = None if block.whole else block.scores(row, column)
    above = torch.zeros(len(row), dtype=torch.int64, device=row.device)
    crowded = torch.zeros(len(block), dtype=torch.bool, device=row.device)
    first, narrow = FirstEntries(block, row.device), 0.0
    try:
        for start, tile in block.tiles():
            _remove(tile, pairs, start)
            score = tile[row, column] if score is None else score
            above += _count_nearer(block, tile, start, row, column, score, crowded)
            first.add(tile, start)
    except TooNarrow as found:
        narrow = found.args[0]
    narrow, block.error = largest(narrow, row.device), largest(block.error, row.device)
    if narrow:
        block.error = 4 * narrow
        return rank_block(block, pairs)
    above, crowded = total(above), total(crowded.int()) > 0
    first.merge()
    index, distance, unclear = first.finish()
    redo = torch.nonzero(crowded | unclear).squeeze(1)
    if len(redo):
        above[torch.isin(row, redo)], index[redo], distance[redo] = _rank_exactly(block, pairs, redo)
    return above + 1, index, distance


def _remove(tile: Tensor, pairs: Pairs, start: int) -> None:
    here = (pairs.column >= start) & (pairs.column < start + tile.shape[1])
    tile[pairs.row[here], pairs.column[here] - start] = -torch.inf


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
    order = np.argsort(low)
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
            here = (pairs.column >= start) & (pairs.column < start + key.shape[1]) & (place[pairs.row] >= 0)
            key[place[pairs.row[here]], pairs.column[here] - start] = torch.iinfo(torch.int64).max
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
