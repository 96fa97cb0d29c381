"""k-reciprocal re-ranking (Zhong et al., CVPR 2017) on sparse neighbourhoods.

Two crops are alike if they have the same neighbours. Each crop is encoded by its k-reciprocal neighbours, the encodings
are compared (Jaccard distance), and the result is blended with the original distance. The published programs hold
several matrices of (Q + G) x (Q + G); here every crop keeps a short list, and distances are made block by block.

Legend: Q queries, G gallery crops, N = Q + G, D feature size, K length of a neighbour list (the crop itself included),
E entries of all encodings, B queries of one block. A crop's number: queries 0..Q-1, then gallery Q..N-1.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lab.distributed import gather, rank, world_size
from lab.errors import InputError
from lab.evaluate.distance import MOST_ROWS, from_key, nearest_keys, pairwise, prepare

EDGE = 4096  # crops on one side of a square block of distances
PAIRS = 1 << 20  # pairs of encoding entries that are compared at a time


@dataclass(frozen=True)
class Variant:
    """How one family of programs re-ranks; they differ in the original distance more than in the method."""

    distance: str  # "cosine": 1 - cosine, "euclidean": squared Euclid on the values as they are
    squared: bool  # the distance is squared before use
    scaled: bool  # each row is divided by its largest distance
    with_self: bool  # the crop itself comes on top of its k1 neighbours
    weight: float = 1.0  # factor on the distance in the weights exp(-distance)


VARIANTS = {
    # (1 - cosine)^2 / row maximum: fast-reid of 2020, which gave LUPerson's published re-ranked figures
    "luperson": Variant("cosine", squared=True, scaled=True, with_self=True),
    # squared Euclid / row maximum: the authors' own programs
    "euclidean": Variant("euclidean", squared=False, scaled=True, with_self=True),
    # the squared Euclidean distance squared once more, / row maximum: torchreid
    "torchreid": Variant("euclidean", squared=True, scaled=True, with_self=True),
    # newer fast-reid: weights from squared Euclid on unit vectors, blended with an unscaled 1 - cosine
    "jaccard": Variant("cosine", squared=False, scaled=False, with_self=False, weight=2.0),
}


@dataclass(frozen=True)
class Encoding:
    """A sparse (N, N) matrix by rows: row i holds `weight` at `member`, from start[i] to start[i + 1]."""

    start: Tensor  # (N + 1,)
    member: Tensor  # (E,)
    weight: Tensor  # (E,)

    def rows(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The entries of the given rows: for each the position in `index`, and its place in member and weight."""
        return expand(self.start[index], self.start[index + 1] - self.start[index])


def rerank_blocks(
    query: np.ndarray,
    gallery: np.ndarray,
    variant: str = "luperson",
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    memory_gb: float = 0.25,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> Iterator[Tensor]:
    """Yield the re-ranked distances of consecutive queries to the whole gallery: tensors (B, G) float32.

    `k1` neighbours make a neighbourhood, `k2` encodings are averaged, and the result is
    (1 - lambda_value) * Jaccard + lambda_value * original. Raises InputError for an unknown variant and for
    parameters out of range.
    """
    check_parameters(variant, k1, k2, lambda_value)
    how = VARIANTS[variant]
    values = torch.cat([prepare(query, how.distance, device), prepare(gallery, how.distance, device)])
    count = min(k1 + how.with_self, len(values))
    near, distance, furthest = k_nearest(values, count, how.distance, progress)
    if how.squared:
        distance, furthest = distance.square(), furthest.square()
    half = min(round(k1 / 2) + 1, count)
    code = encode(values, near, distance, furthest, half, how)
    code = average(code, near[:, : min(k2, count)]) if k2 > 1 else code
    yield from _blend(values, len(query), code, furthest, lambda_value, how, memory_gb)


def largest_reranked(variant: str, lambda_value: float) -> float:
    """What no re-ranked distance of this variant exceeds."""
    return 1.0 if VARIANTS[variant].scaled else 1 + lambda_value  # unscaled, 1 - cosine reaches 2


def check_parameters(variant: str, k1: int, k2: int, lambda_value: float) -> None:
    """Raise InputError for a variant that does not exist and for numbers out of range."""
    if variant not in VARIANTS:
        raise InputError(f"re-ranking variant is '{variant}'; choose one of {', '.join(VARIANTS)}")
    if k1 < 1 or k2 < 1 or not 0 <= lambda_value <= 1:
        raise InputError(
            f"re-ranking got k1 {k1}, k2 {k2}, lambda {lambda_value}; expected k1 and k2 from 1 on, lambda in 0..1"
        )


def k_nearest(values: Tensor, count: int, distance: str, progress: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """The `count` nearest crops of every crop: index (N, count), distance (N, count), and the largest distance (N,).

    `values` are prepared features, `distance` is "cosine" or "euclidean"; equal distances are ordered by position.
    Every block of distances serves its rows and, turned over, its columns: half the work of the full product.
    Processes that torchrun started share the blocks.
    """
    total = len(values)
    keys = torch.full((total, count), torch.iinfo(torch.int64).max, device=values.device)
    furthest = torch.zeros(total, device=values.device)

    def merge(block: Tensor, row: int, column: int) -> None:
        rows = slice(row, row + len(block))
        found = nearest_keys(block, min(count, block.shape[1])) + column
        keys[rows] = torch.cat([keys[rows], found], 1).topk(count, dim=1, largest=False, sorted=False).values
        furthest[rows] = torch.maximum(furthest[rows], block.amax(1))

    pairs = [(row, column) for row in range(0, total, EDGE) for column in range(row, total, EDGE)]
    for row, column in tqdm(pairs[rank() :: world_size()], desc="neighbours", unit="block", disable=not progress):
        # rounding makes 1 - cosine of equal vectors slightly negative
        block = pairwise(values[row : row + EDGE], values[column : column + EDGE], distance).clamp_(min=0)
        merge(block, row, column)
        if column > row:
            merge(block.T.contiguous(), column, row)
    keys = torch.cat(gather(keys), 1).sort(dim=1).values[:, :count]
    furthest = torch.cat(gather(furthest.unsqueeze(1)), 1).amax(1)
    nearest_distance, index = from_key(keys)
    return index, nearest_distance, furthest


def encode(values: Tensor, near: Tensor, distance: Tensor, furthest: Tensor, half: int, how: Variant) -> Encoding:
    """Encode each crop by its expanded k-reciprocal neighbours, weights exp(-distance) with sum 1 (paper, 3.2, 3.3)."""
    total, count = near.shape
    mutual, mutual_half = reciprocal(near), reciprocal(near[:, :half])
    rows, members, weights = [], [], []
    step = max(1, PAIRS // (count * half))
    for start in range(0, total, step):
        chunk = slice(start, start + step)
        key = torch.unique(expanded_neighbours(near, mutual, mutual_half, chunk))  # sorted by row, then member
        weight = torch.full((len(key),), torch.nan, device=near.device)
        listed = torch.arange(start, start + len(near[chunk]), device=near.device).unsqueeze(1) * total + near[chunk]
        place = torch.searchsorted(key, listed).clamp(max=len(key) - 1)
        found = key[place] == listed
        weight[place[found]] = distance[chunk][found]
        rows.append(key // total)
        members.append(key % total)
        weights.append(weight)
    row, member, weight = torch.cat(rows), torch.cat(members), torch.cat(weights)
    weight = _fill_distances(values, row, member, weight, how)
    if how.scaled:
        weight = weight / _positive(furthest)[row]
    weight = torch.exp(-how.weight * weight)
    norm = torch.zeros(total, device=near.device).index_add_(0, row, weight)
    return Encoding(starts(torch.bincount(row, minlength=total)), member, weight / norm[row])


def reciprocal(near: Tensor) -> Tensor:
    """Which neighbours have the crop among theirs: (N, K) bool."""
    mutual = torch.empty(near.shape, dtype=torch.bool, device=near.device)
    step = max(1, 4 * PAIRS // near.shape[1] ** 2)
    for start in range(0, len(near), step):
        own = torch.arange(start, min(start + step, len(near)), device=near.device)
        mutual[own] = (near[near[own]] == own.view(-1, 1, 1)).any(2)
    return mutual


def expanded_neighbours(near: Tensor, mutual: Tensor, mutual_half: Tensor, chunk: slice) -> Tensor:
    """R*(p, k1) of some crops p, as keys p * N + member; a member may be named more than once.

    The reciprocal neighbours, and for each of them its own half-size reciprocal set if more than two thirds of that
    set are reciprocal neighbours already (paper, eq. 2).
    """
    total, half = len(near), mutual_half.shape[1]
    own = near[chunk].masked_fill(~mutual[chunk], total).sort(dim=1).values  # (R, K), `total` where not reciprocal
    theirs = near[near[chunk], :half]  # (R, K, H)
    in_theirs = mutual_half[near[chunk]]
    place = torch.searchsorted(own, theirs.flatten(1)).clamp(max=own.shape[1] - 1)
    common = (own.gather(1, place).view_as(theirs) == theirs) & in_theirs
    accepted = (3 * common.sum(2) > 2 * in_theirs.sum(2)) & mutual[chunk]
    first = torch.arange(total, device=near.device)[chunk] * total
    return torch.cat(
        [
            (first.view(-1, 1) + near[chunk])[mutual[chunk]],
            (first.view(-1, 1, 1) + theirs)[in_theirs & accepted.unsqueeze(2)],
        ]
    )


def average(code: Encoding, near: Tensor) -> Encoding:
    """Local query expansion: each encoding becomes the mean over its first k2 neighbours' encodings (paper, 3.4)."""
    total, k2 = near.shape
    sizes, members, weights = [], [], []
    step = max(1, PAIRS // (k2 * max(1, len(code.member) // total)))
    for start in range(0, total, step):
        part = near[start : start + step]
        source, place = code.rows(part.flatten())
        key = source // k2 * total + code.member[place]  # (row, member) as one number
        key, inverse = torch.unique(key, return_inverse=True)
        weights.append(torch.zeros(len(key), device=near.device).index_add_(0, inverse, code.weight[place]) / k2)
        members.append(key % total)
        sizes.append(torch.bincount(key // total, minlength=len(part)))
    return Encoding(starts(torch.cat(sizes)), torch.cat(members), torch.cat(weights))


def jaccard(code: Encoding, queries: Tensor, index: Encoding, num_gallery: int) -> Tensor:
    """Jaccard distances (B, G) of some queries to the gallery: 1 - sum(min) / (2 - sum(min)).

    `index` is the gallery's part of the code by member ("which gallery crops have this member"), so that only
    encodings that share a member are touched. All encodings sum to 1, therefore sum(max) = 2 - sum(min) (paper, eq. 9).
    """
    shared = torch.zeros(len(queries) * num_gallery, device=queries.device)
    row, place = code.rows(queries)
    member, weight = code.member[place], code.weight[place]
    work = (index.start[member + 1] - index.start[member]).cumsum(0)
    cuts = torch.searchsorted(work, torch.arange(PAIRS, int(work[-1]) + PAIRS, PAIRS, device=work.device)) + 1
    for first, last in zip([0, *cuts.tolist()], cuts.tolist(), strict=False):
        part = slice(first, last)
        source, entry = index.rows(member[part])
        least = torch.minimum(weight[part][source], index.weight[entry])
        shared.index_add_(0, row[part][source] * num_gallery + index.member[entry], least)
    shared = shared.view(len(queries), num_gallery)
    return 1 - shared / (2 - shared)


def gallery_index(code: Encoding, num_query: int) -> Encoding:
    """Turn the gallery's encodings over: for each member, the gallery positions that have it and their weights."""
    total = len(code.start) - 1
    size = code.start[num_query + 1 :] - code.start[num_query:-1]
    position = torch.repeat_interleave(torch.arange(total - num_query, device=size.device), size)
    first = int(code.start[num_query])
    member, order = code.member[first:].sort(stable=True)
    return Encoding(starts(torch.bincount(member, minlength=total)), position[order], code.weight[first:][order])


def expand(start: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Concatenate ranges: for each element of [start_i, start_i + size_i) the i it belongs to, and the element."""
    source = torch.repeat_interleave(torch.arange(len(size), device=size.device), size)
    shift = start - (size.cumsum(0) - size)
    return source, shift[source] + torch.arange(len(source), device=size.device)


def starts(size: Tensor) -> Tensor:
    """Row sizes -> row starts, with the total at the end."""
    return torch.cat([size.new_zeros(1), size.cumsum(0)])


def _fill_distances(values: Tensor, row: Tensor, member: Tensor, distance: Tensor, how: Variant) -> Tensor:
    """Compute the distances that no neighbour list holds (NaN)."""
    missing = torch.nonzero(distance.isnan()).squeeze(1)
    for part in missing.split(EDGE):
        a, b = values[row[part]], values[member[part]]
        found = (1 - torch.linalg.vecdot(a, b)).clamp(min=0) if how.distance == "cosine" else (a - b).square().sum(1)
        distance[part] = found.square() if how.squared else found
    return distance


def _positive(furthest: Tensor) -> Tensor:
    return furthest.clamp(min=torch.finfo(torch.float32).tiny)  # all crops equal: 0 / tiny is 0, not NaN


def _blend(
    values: Tensor,
    num_query: int,
    code: Encoding,
    furthest: Tensor,
    lambda_value: float,
    how: Variant,
    memory_gb: float,
) -> Iterator[Tensor]:
    num_gallery = len(values) - num_query
    index = gallery_index(code, num_query)
    rows = int(np.clip(memory_gb * 1e9 / (16 * num_gallery), 1, MOST_ROWS))
    for start in range(0, num_query, rows):
        queries = torch.arange(start, min(start + rows, num_query), device=values.device)
        first = pairwise(values[queries], values[num_query:], how.distance).clamp_(min=0)
        if how.squared:
            first.square_()
        if how.scaled:
            first /= _positive(furthest)[queries].unsqueeze(1)
        yield torch.lerp(jaccard(code, queries, index, num_gallery), first, lambda_value)
