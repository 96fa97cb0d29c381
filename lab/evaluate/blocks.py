"""A block of queries against the gallery: scores tile by tile, and exact distances of chosen pairs.

A score is larger the nearer two crops are: the cosine, or q . g - |g|^2 / 2 for the Euclidean distance. Scores come from
one matrix product and err by its rounding. How far is measured on some pairs of every tile and allowed for eightfold.

Legend: B queries of the block, G gallery crops, W of one tile, D feature size, P pairs, R chosen rows of the block.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from lab.distributed import largest, share
from lab.errors import InputError
from lab.evaluate.distance import PAIR_BYTES, Rows, exact_block, exact_pairs, multiply, tile_shape
from lab.runs import RANKS

# nearest entries that are kept of each tile: the first 50, and room for those that are too close to the 50th
KEPT = {"float32": RANKS + 14, "tf32": 4 * RANKS, "bfloat16": 10 * RANKS}
SAMPLED = 32  # pairs of a tile, and as many nearest ones, that the error of its scores is measured on
SAFETY = 8  # standard deviations of that error: more than the largest among 10^13 pairs


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
            self.error = max(self.error, self._measure_error(out, start, gallery))
            yield start, out

    def scores(self, row: Tensor, column: Tensor) -> Tensor:
        """Scores (P,) of chosen pairs, better than a tile's."""
        return self._by_pairs(self._exact_scores, row, column).float()

    def distance(self, row: Tensor, score: Tensor) -> Tensor:
        """What scores mean as distances; `row` says whose they are."""
        return (self.length[row] - 2 * score).clamp(min=0) if self.euclidean else 1 - score

    def exact(self, row: Tensor, column: Tensor) -> Tensor:
        """Distances (P,) of chosen pairs, exact to the last bit of float32."""
        return self._by_pairs(partial(exact_pairs, distance=self.name), row, column)

    def exact_tiles(self, rows: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Column of the first entry, and exact distances (R, W) of some queries of the block."""
        step = max(1, 8 * PAIR_BYTES // (8 * self.query.shape[1]))
        for first, last in self.slices:
            for start in range(first, last, step):
                gallery = self.gallery.slice(start, min(start + step, last))
                yield start, exact_block(self.query[rows], gallery, self.name)

    def _by_pairs(self, function: Callable[[Tensor, Tensor], Tensor], row: Tensor, column: Tensor) -> Tensor:
        step = max(1, PAIR_BYTES // (8 * self.query.shape[1]))
        parts = zip(row.split(step), column.split(step), strict=True)
        return torch.cat([function(self.query[r], self.gallery.take(c)) for r, c in parts])

    def _exact_scores(self, a: Tensor, b: Tensor) -> Tensor:
        a, b = a.double(), b.double()
        return torch.linalg.vecdot(a, b) - (b.square().sum(1) / 2 if self.euclidean else 0)

    def _measure_error(self, score: Tensor, start: int, gallery: Tensor) -> float:
        """How far scores may be from exact ones, from pairs all over the tile and from the nearest ones of some rows.

        Exact distances are rounded to float32, which may make equal what scores still tell apart: that comes on top.
        """
        rows = torch.arange(0, len(score), -(-len(score) // SAMPLED), device=score.device)
        each = min(-(-SAMPLED // len(rows)), score.shape[1])  # pairs of every row
        anywhere = torch.arange(len(rows) * each, device=score.device) * 7919 % score.shape[1]
        worst, row = 0.0, rows.repeat_interleave(each)
        for column in (anywhere, score[rows].topk(each, dim=1).indices.flatten()):
            erred = score[row, column] - self._exact_scores(self.query[row], gallery[column])
            worst = max(worst, float(erred.square().mean().sqrt()))
        rounding = 2.0**-23
        if self.euclidean:
            most = self.length.max().sqrt() + self.gallery.squares(start, gallery).max().sqrt()
            rounding = 2.0**-24 * float(most) ** 2
        return SAFETY * worst + rounding


class GivenBlock:
    """Distances that were made elsewhere, such as re-ranked ones: (B, G), compared as they are."""

    def __init__(self, distances: Tensor):
        distances = distances.float()
        if not distances.isfinite().all():
            raise InputError(
                "distances hold NaN or infinite values; the features are too large or broken: scale them down"
            )
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
    rows = int(-largest(-rows, device))  # processes may have different room, and exchange blocks of one size
    buffer = torch.empty(rows * columns, device=device)
    for start in range(0, len(query), rows):
        part = query.slice(start, min(start + rows, len(query)))
        yield FeatureBlock(part, gallery, distance, precision, columns, buffer)
