"""Verification: do these two crops show the same person? Asked of all pairs of query and gallery at once.

A pair is *true* if it shows one person under two cameras and *false* if it shows two persons; one person under one camera
is left out, as in ranking. Pairs are counted by distance while tiles of distances come and go; error rates at all
thresholds are then read off the counts (`error_rates`).

Legend: Q queries, G gallery crops, B queries and W gallery crops of one tile, P pairs of one person in it, C cameras.
"""

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lab.errors import InputError
from lab.evaluate.distance import distance_tiles, matrix_products
from lab.evaluate.error_rates import BINS, COARSE_BINS, FPRS, PairCounts, Verification
from lab.evaluate.metrics import Protocol, check_features, check_names
from lab.runs import Features

PART = 1 << 23  # distances that are counted at a time
MOST_CAMERA_PAIRS = 2000  # then a pair of cameras and a fine bin still fit into 31 bits
BEYOND = 2  # bins past the largest distance: rounding may reach the first, only a wrong `largest` the second
FINE_PER_COARSE = BINS // COARSE_BINS
ROOM = COARSE_BINS + 2  # of a pair of cameras: distances up to 0 and beyond the largest fall outside the coarse bins


def verify(
    query: Features,
    gallery: Features,
    distance: str = "cosine",
    memory_gb: float = 0.25,
    device: str | torch.device = "cpu",
    progress: bool = False,
    blocks: Iterable[Tensor] | None = None,
    largest: float | None = None,
    fpr_levels: tuple[float, ...] = FPRS,
    cameras: bool = True,
) -> Verification:
    """Count all pairs by distance and say how often a threshold on the distance errs; Q x G is never held.

    `distance` is "cosine" (1 - cosine) or "euclidean" (squared). `blocks` gives other distances, for instance re-ranked
    ones: tensors (B, G) for consecutive queries, with `largest` as an upper bound of theirs (1 for re-ranked ones, but
    1 + lambda for the variant "jaccard"). `cameras` also keeps a coarse histogram for every pair of cameras, up to
    2,000 pairs. `memory_gb` bounds the distances that are held at a time, with their copies.

    Raises InputError for features that cannot be compared and when there is no true or no false pair.
    """
    counts = count_pairs(query, gallery, distance, memory_gb, device, progress, blocks, largest, cameras)
    return Verification.of(counts, fpr_levels)


def count_pairs(
    query: Features,
    gallery: Features,
    distance: str = "cosine",
    memory_gb: float = 0.25,
    device: str | torch.device = "cpu",
    progress: bool = False,
    blocks: Iterable[Tensor] | None = None,
    largest: float | None = None,
    cameras: bool = True,
) -> PairCounts:
    """How many true and false pairs lie at which distance; the parameters are those of `verify`."""
    check_names(distance, "step")
    check_features(query, gallery)
    if blocks is None:
        largest = largest_distance(query.values, gallery.values, distance)
        tiles = distance_tiles(query.values, gallery.values, distance, memory_gb, device)
    else:
        tiles = _numbered(blocks)
    if largest is None:
        raise ValueError("blocks of distances need `largest`, an upper bound of theirs")
    counter = PairCounter(query, gallery, largest, device, cameras)
    with (
        matrix_products("float32"),
        tqdm(total=counter.pairs, desc="pairs", unit_scale=True, disable=not progress) as bar,
    ):
        for row, column, tile in tiles:
            counter.add(row, column, tile)
            bar.update(tile.numel())
    return counter.counts()


class PairCounter:
    """Counts pairs by distance, tile by tile. `largest` bounds the distances from above.

    The bins' width is a power of two, so that dividing by it is exact: no pair falls to the wrong side of a threshold.
    """

    def __init__(
        self,
        query: Features,
        gallery: Features,
        largest: float,
        device: str | torch.device = "cpu",
        cameras: bool = True,
    ):
        self.protocol = Protocol(query, gallery, torch.device(device))
        self.pairs = len(query.pid) * len(gallery.pid)
        self.width = next_power_of_two(largest) / BINS
        self.query_camids, query_camera = np.unique(query.camid, return_inverse=True)
        self.gallery_camids, gallery_camera = np.unique(gallery.camid, return_inverse=True)
        self.cameras = len(self.query_camids), len(self.gallery_camids)
        self.by_camera = cameras and math.prod(self.cameras) <= MOST_CAMERA_PAIRS
        # added to a fine bin, these make it one of a long row that holds all pairs of cameras one after the other
        self.of_query, self.of_gallery = (
            torch.from_numpy(camera * size * ROOM * FINE_PER_COARSE).to(device, torch.int32)
            for camera, size in ((query_camera, self.cameras[1]), (gallery_camera, 1))
        )
        self.of_query += FINE_PER_COARSE - 1  # bin 0 stays in coarse bin 0, bins from 1 on begin coarse bin 1
        # used again for every part, as fresh memory is slower than all that is done in it
        self.scaled = torch.empty(0, device=device)
        self.bins, self.joint = (torch.empty(0, dtype=torch.int32, device=device) for _ in range(2))
        # numbers of all, true and removed pairs by bin
        self.fine = torch.zeros((3, BINS + 1 + BEYOND), dtype=torch.int64, device=device)
        room = math.prod(self.cameras) * ROOM if self.by_camera else 0
        self.coarse = torch.zeros((3, room), dtype=torch.int64, device=device)

    def add(self, row: int, column: int, tile: Tensor) -> None:
        """Count the distances (B, W) of queries from `row` on to gallery crops from `column` on; they stay as they are."""
        step = max(1, PART // tile.shape[1])
        for start in range(0, len(tile), step):
            self._add_part(row + start, column, tile[start : start + step])

    def watch(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Hand on blocks (B, G) for consecutive queries, counted: so that one pass serves ranking and verification."""
        for row, column, block in _numbered(blocks):
            self.add(row, column, block)
            yield block

    def counts(self) -> PairCounts:
        """What was counted. Raises InputError if there is no true or no false pair."""
        fine = self.fine.cpu().numpy().copy()
        if fine[0].sum() != self.pairs:
            raise ValueError(f"the blocks cover {fine[0].sum()} pairs of {self.pairs}")
        if fine[0, -1]:
            raise InputError(
                f"{fine[0, -1]} distances are larger than {self.width * BINS:g}; expected distances up to "
                "the largest one that was named: name a larger one, or extract the features again"
            )
        fine[:, BINS] += fine[:, BINS + 1]
        true, false = _true_and_false(fine[:, : BINS + 1])
        if not true.any() or not false.any():
            lacking = "one person under two cameras" if not true.any() else "two persons"
            raise InputError(
                f"no pair of query and gallery shows {lacking}; error rates need pairs of both kinds: check the pids "
                "and camids"
            )
        return PairCounts(true, false, self.width, *self._coarse(fine))

    def _coarse(self, fine: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """True and false pairs by coarse bin (C_q, C_g, H), and whose: camids (C_q,) and (C_g,), or -1 for all."""
        if not self.by_camera:
            coarse = fine[:, 1 : BINS + 1].reshape(3, 1, 1, COARSE_BINS, FINE_PER_COARSE).sum(axis=4)
            coarse[:, 0, 0, 0] += fine[:, 0]
            return *_true_and_false(coarse), np.array([-1]), np.array([-1])
        coarse = self.coarse.cpu().numpy().reshape(3, *self.cameras, ROOM).copy()
        coarse[..., 1] += coarse[..., 0]
        coarse[..., -2] += coarse[..., -1]
        return *_true_and_false(coarse[..., 1:-1]), self.query_camids, self.gallery_camids

    def _add_part(self, row: int, column: int, part: Tensor) -> None:
        """Count all pairs, and those of one person once more: they are few, the rest is false."""
        torch.mul(part.float(), 1 / self.width, out=self.scaled.resize_(part.shape))
        self.scaled.ceil_().clamp_(0, BINS + BEYOND)
        bins = self.bins.resize_(part.shape).copy_(self.scaled)
        kinds = [(self.fine, bins)]
        if self.by_camera:
            joint = torch.add(bins, self.of_query[row : row + len(part), None], out=self.joint.resize_(part.shape))
            joint.add_(self.of_gallery[column : column + part.shape[1]])
            kinds.append((self.coarse, joint.bitwise_right_shift_(FINE_PER_COARSE.bit_length() - 1)))
        pairs = self.protocol.pairs(row, row + len(part))
        chosen = [
            _inside(pairs.match_row, pairs.match_column, column, part),
            _inside(pairs.removed_row, pairs.removed_column, column, part),
        ]
        for counts, values in kinds:
            counts[0] += torch.bincount(values.flatten(), minlength=counts.shape[1])
            for place, found in enumerate(chosen, 1):
                one = torch.ones(len(found[0]), dtype=torch.int64, device=values.device)
                counts[place].index_add_(0, values[found], one)


def largest_distance(query: np.ndarray, gallery: np.ndarray, distance: str) -> float:
    """An upper bound of the distances: 2 for cosine, else the square of the two longest features end to end."""
    if distance == "cosine":
        return 2.0
    parts = (values[i : i + 4096] for values in (query, gallery) for i in range(0, len(values), 4096))
    return 4 * max(float(np.einsum("nd,nd->n", part, part, dtype=np.float64).max()) for part in parts)


def next_power_of_two(value: float) -> float:
    """The smallest power of two that is not below `value`."""
    fraction, exponent = math.frexp(max(value, 2.0**-60))
    return math.ldexp(1.0, exponent - (fraction == 0.5))


def _true_and_false(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of all, true and removed pairs (3, ...) -> those of true and of false ones."""
    return counts[1], counts[0] - counts[1] - counts[2]


def _inside(row: Tensor, column: Tensor, first: int, part: Tensor) -> tuple[Tensor, Tensor]:
    """Of pairs by row and gallery position, those in a part whose first gallery position is `first`: as its indices."""
    here = (column >= first) & (column < first + part.shape[1])
    return row[here], column[here] - first


def _numbered(blocks: Iterable[Tensor]) -> Iterator[tuple[int, int, Tensor]]:
    row = 0
    for block in blocks:
        yield row, 0, block
        row += len(block)
