"""Ranking the gallery for every query, and the metrics that read off the ranks of the true matches.

The gallery is ranked exactly, in blocks of queries: a block of distances is computed, the ranks of its true matches
are counted, its first 50 entries are kept, and the block is forgotten. Nothing of size Q x G is ever held.

Legend: Q queries, G gallery crops, D feature size, B queries of one block, M matches of the query that has most of
them. A *match* shows the query's person from another camera; the same person from the same camera is *removed* for
that query; everything else is a negative.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lab.data.splits import Split
from lab.errors import InputError
from lab.evaluate.single_shot import SingleShot
from lab.runs import RANKS, EvalResult, Features

DISTANCES = ("cosine", "euclidean")
AP_KINDS = ("step", "trapezoid")
DENOMINATORS = ("valid", "all")
GALLERY_SHOTS = ("all", "single")
COPIES = 3  # a block of distances, its sorted copy and a mask are alive at the same time
MOST_ROWS = 512  # larger blocks do not make the matrix product faster


def evaluate_ranking(
    query: Features,
    gallery: Features,
    distance: str = "cosine",
    ap: str = "step",
    blocks: Iterable[Tensor] | None = None,
    memory_gb: float = 0.25,
    device: str | torch.device = "cpu",
    progress: bool = False,
    denominator: str = "valid",
    gallery_shot: str = "all",
    repeats: int = 10,
    seed: int = 0,
) -> EvalResult:
    """Rank the gallery for every query and compute CMC, AP and INP per query and in the mean.

    `distance` is "cosine" (1 - cosine) or "euclidean" (squared, on the values as they are); equal distances are
    ordered by gallery position. `ap` is "step" (mean of the precision at each hit) or "trapezoid" (mean of the
    precision before and at each hit). `blocks` gives other distances, for instance re-ranked ones: tensors (B, G) for
    consecutive queries. `memory_gb` bounds one block with its copies.

    Queries without a match have NaN; with `denominator` "valid" they count in no mean, with "all" they count as 0 in
    mAP, mINP and CMC. With `gallery_shot` "single" the CMC alone is another one: that of one random crop per gallery
    person, the mean over `repeats` draws (see `lab.evaluate.single_shot`).

    Raises InputError for features that cannot be compared and when no query at all has a match.
    """
    check_names(distance, ap, denominator, gallery_shot)
    check_features(query, gallery)
    if blocks is None:
        blocks = distance_blocks(query.values, gallery.values, distance, memory_gb, device)
    protocol = Protocol(query, gallery, torch.device(device))
    shots = SingleShot(query.pid, gallery.pid, repeats, seed) if gallery_shot == "single" else None
    parts, start = [], 0
    with tqdm(total=len(query.pid), desc="rank", unit="query", disable=not progress) as bar:
        for block in blocks:
            row, column, match = protocol.pairs(start, start + len(block))
            parts.append(score_block(block, row, column, match, ap))
            if shots is not None:
                parts[-1]["shot_rank"] = shots.ranks(block, start, row[match], column[match])
            start += len(block)
            bar.update(len(block))
    if start != len(query.pid):
        raise ValueError(f"the blocks cover {start} queries of {len(query.pid)}")
    scores = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return _collect(query, gallery, scores, denominator)


def distance_blocks(
    query: np.ndarray,
    gallery: np.ndarray,
    distance: str = "cosine",
    memory_gb: float = 0.25,
    device: str | torch.device = "cpu",
) -> Iterator[Tensor]:
    """Yield the distances of consecutive queries to the whole gallery: tensors (B, G) float32.

    A block is valid until the next one is asked for (the memory is used again).
    """
    query, gallery = prepare(query, distance, device), prepare(gallery, distance, device)
    rows = int(np.clip(memory_gb * 1e9 / (4 * COPIES * len(gallery)), 1, min(MOST_ROWS, len(query))))
    buffer = torch.empty(rows, len(gallery), device=device)
    for start in range(0, len(query), rows):
        part = query[start : start + rows]
        yield pairwise(part, gallery, distance, out=buffer[: len(part)])


def prepare(values: np.ndarray, distance: str, device: str | torch.device = "cpu") -> Tensor:
    """(N, D) features as a float32 tensor; unit norm for the cosine distance (copied only if they are not yet)."""
    values = torch.from_numpy(np.require(values, np.float32, "CW")).to(device)
    return unit(values) if distance == "cosine" else values


def unit(values: Tensor) -> Tensor:
    """The same directions with length 1; features that have it already are not copied."""
    norm = torch.linalg.vector_norm(values, dim=1, keepdim=True)
    return values if ((norm - 1).abs() < 1e-6).all() else values / norm.clamp(min=1e-12)


def pairwise(a: Tensor, b: Tensor, distance: str, out: Tensor | None = None) -> Tensor:
    """Distances (A, B) between prepared features (A, D) and (B, D)."""
    product = torch.mm(a, b.T, out=out)
    if distance == "cosine":
        return torch.sub(torch.ones((), device=a.device), product, out=product)
    product.mul_(-2).add_(a.square().sum(1, keepdim=True)).add_(b.square().sum(1))
    return product.clamp_(min=0)


class Protocol:
    """Who counts for whom: for any queries, the positions of their matches and of the entries to remove."""

    def __init__(self, query: Features, gallery: Features, device: torch.device):
        self.device = device
        self.query_pid, self.query_camid = query.pid, query.camid
        self.gallery_camid = gallery.camid
        self.order = np.argsort(gallery.pid, kind="stable")  # the gallery crops of one person lie side by side here
        pids = gallery.pid[self.order]
        self.first = np.searchsorted(pids, query.pid, side="left")
        self.last = np.searchsorted(pids, query.pid, side="right")

    def pairs(self, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        """For queries start..stop: row (P,) in the block, column (P,) in the gallery, and whether it is a match.

        All pairs of the same person, ordered by row, then column; those that are no match are to be removed.
        """
        counts = (self.last - self.first)[start:stop]
        row = np.repeat(np.arange(stop - start), counts)
        within = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        column = self.order[self.first[start:stop][row] + within]
        match = self.gallery_camid[column] != self.query_camid[start:stop][row]
        return tuple(torch.from_numpy(values).to(self.device) for values in (row, column, match))


def score_block(block: Tensor, row: Tensor, column: Tensor, match: Tensor, ap: str) -> dict[str, np.ndarray]:
    """Score the queries of one block (B, G) of distances, which is changed: removed entries become infinite."""
    block[row[~match], column[~match]] = torch.inf
    row, column = row[match], column[match]
    rank = count_ranks(block, row, column)
    index, distance = first_ranks(block)
    is_match = torch.zeros(index.shape, dtype=torch.bool, device=block.device)
    seen = rank <= RANKS
    is_match[row[seen], rank[seen] - 1] = True
    lists = {"index": index.int(), "distance": distance, "match": is_match}
    return {name: values.cpu().numpy() for name, values in lists.items()} | hit_metrics(
        rank.cpu().numpy(), row.cpu().numpy(), len(block), ap
    )


def count_ranks(block: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """The rank (P,) of each match (1 = nearest) in its row of the block.

    rank = 1 + nearer entries + equally near entries at an earlier position. A row is sorted by value only, which
    costs a fraction of an argsort; the matches are then found in it by bisection. Positions are needed for ties alone.
    """
    count = torch.bincount(row, minlength=len(block))
    slot = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
    near = torch.full((len(block), max(1, int(count.max()))), torch.inf, device=block.device)  # (B, M)
    near[row, slot] = block[row, column]
    ordered = sort_rows(block)
    below = torch.searchsorted(ordered, near, side="left")[row, slot]
    equal = torch.searchsorted(ordered, near, side="right")[row, slot] - below  # at least 1: the match itself
    tied = torch.nonzero(equal > 1).squeeze(1)
    position = torch.arange(block.shape[1], device=block.device)
    for part in tied.split(max(1, len(block) // 2)):  # so that `same` stays smaller than the block
        same = block[row[part]] == near[row[part], slot[part]].unsqueeze(1)
        below[part] += (same & (position < column[part].unsqueeze(1))).sum(1)
    return below + 1


def sort_rows(block: Tensor) -> Tensor:
    """A copy of the block with every row in ascending order.

    On the CPU by numpy, whose vectorised sort of plain values is about ten times faster than torch's sort with
    indices; it releases the interpreter lock, so threads share the rows.
    """
    if block.device.type != "cpu":
        return block.sort(dim=1).values
    ordered = block.clone()
    parts = np.array_split(ordered.numpy(), torch.get_num_threads())
    with ThreadPoolExecutor(len(parts)) as pool:
        list(pool.map(lambda rows: rows.sort(axis=1), parts))
    return ordered


def first_ranks(block: Tensor, count: int = RANKS) -> tuple[Tensor, Tensor]:
    """The nearest `count` entries of each row: index (B, count) and distance, equal distances by position.

    Infinite entries are left out; short rows are padded with -1 and NaN.
    """
    distance, index = nearest(block, min(count, block.shape[1]))
    empty = distance.isinf()
    index, distance = index.masked_fill(empty, -1), distance.masked_fill(empty, torch.nan)
    padding = (0, count - index.shape[1])
    return (
        torch.nn.functional.pad(index, padding, value=-1),
        torch.nn.functional.pad(distance, padding, value=torch.nan),
    )


def nearest(block: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` smallest values of each row in order, and their columns; equal values are ordered by column."""
    return from_key(nearest_keys(block, count).sort(dim=1).values)


def nearest_keys(block: Tensor, count: int) -> Tensor:
    """The `count` smallest values of each row with their columns, as keys (B, count) in no particular order."""
    value, column = block.topk(min(count + 1, block.shape[1]), dim=1, largest=False)
    if block.shape[1] > count:
        # topk takes any of the values that equal the last one: rows where some are left over are sorted in full
        unclear = torch.nonzero(value[:, count - 1] == value[:, count]).squeeze(1)
        for part in unclear.split(64):
            values, columns = block[part].sort(dim=1, stable=True)
            value[part], column[part] = values[:, : count + 1], columns[:, : count + 1]
    return to_key(value[:, :count], column[:, :count])


def to_key(value: Tensor, column: Tensor) -> Tensor:
    """Distance and column as one int64: keys compare like (value, column), so that one sort orders by both."""
    bits = (value + 0.0).view(torch.int32)  # + 0.0 makes -0 and 0 the same bits
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # a negative float's bits grow as the value falls
    return (ordered.long() << 32) | column


def from_key(key: Tensor) -> tuple[Tensor, Tensor]:
    """Keys -> value and column."""
    ordered = (key >> 32).int()
    return torch.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered).view(torch.float32), key & 0xFFFFFFFF


def hit_metrics(rank: np.ndarray, row: np.ndarray, rows: int, ap: str = "step") -> dict[str, np.ndarray]:
    """AP, INP and rank of the first match per query, from the ranks (P,) of the matches of `rows` queries.

    With hits at ranks r_1 < ... < r_m the precision at hit i is i / r_i; INP is m / r_m (Ye et al., 2021).
    NaN and 0 for a query without a match.
    """
    order = np.lexsort((rank, row))
    row, rank = row[order], rank[order]
    count = np.bincount(row, minlength=rows)
    end = np.cumsum(count)
    hit = np.arange(1, len(row) + 1) - (end - count)[row]  # i = 1..m within each query
    precision = hit / rank
    if ap == "trapezoid":
        precision = (precision + np.where(rank > 1, (hit - 1) / np.maximum(rank - 1, 1), 1.0)) / 2
    has = count > 0
    scores = {"ap": np.full(rows, np.nan), "inp": np.full(rows, np.nan), "first_match": np.zeros(rows, np.int64)}
    scores["ap"][has] = np.bincount(row, weights=precision, minlength=rows)[has] / count[has]
    scores["inp"][has] = count[has] / rank[end[has] - 1]
    scores["first_match"][has] = rank[(end - count)[has]]
    return scores


def check_names(distance: str, ap: str, denominator: str = "valid", gallery_shot: str = "all") -> None:
    """Raise InputError for a distance, a kind of AP, a denominator or a kind of gallery that does not exist."""
    for name, value, known in (
        ("distance", distance, DISTANCES),
        ("ap", ap, AP_KINDS),
        ("denominator", denominator, DENOMINATORS),
        ("gallery_shot", gallery_shot, GALLERY_SHOTS),
    ):
        if value not in known:
            raise InputError(f"{name} is '{value}'; choose one of {', '.join(known)}")


def check_features(query: Features, gallery: Features) -> None:
    """Raise InputError unless both are non-empty, finite, free of junk, of one size, and some query has a match."""
    for name, features in (("query", query), ("gallery", gallery)):
        if not len(features.values):
            raise InputError(f"the {name} holds no features; expected at least one row")
        # a sum is finite only if every summand is: one pass, no copy (overflow of float32 counts as well)
        sums = np.einsum("nd,nd->n", features.values, features.values, dtype=np.float32, casting="same_kind")
        bad = np.flatnonzero(~np.isfinite(sums))
        if len(bad):
            rows = ", ".join(map(str, bad[:10])) + (", …" if len(bad) > 10 else "")
            raise InputError(
                f"{len(bad)} of {len(features.values)} {name} features hold NaN, infinite or overflowing values "
                f"(rows {rows}); extract them again"
            )
        if (features.pid == -1).any():
            raise InputError(f"the {name} holds {(features.pid == -1).sum()} junk crops (pid -1); drop them first")
    if query.values.shape[1] != gallery.values.shape[1]:
        raise InputError(
            f"query features have {query.values.shape[1]} values and gallery features {gallery.values.shape[1]}; "
            "both must come from the same model"
        )
    check_matches(query, gallery)


def check_matches(query: Split | Features, gallery: Split | Features) -> None:
    """Raise InputError if no query at all has a match; needs no features, so it can be asked before they are made."""
    if not count_matches(query, gallery).any():
        raise InputError(
            f"none of the {len(query.pid)} queries has a match among the {len(gallery.pid)} gallery crops; a match "
            "shows the same pid from another camid (the same camera is removed): check the pids and camids"
        )


def count_matches(query: Split | Features, gallery: Split | Features) -> np.ndarray:
    """How many gallery crops show each query's person from another camera: (Q,)."""

    def count(values: np.ndarray) -> np.ndarray:
        ordered = np.sort(values[len(query.pid) :])
        wanted = values[: len(query.pid)]
        return np.searchsorted(ordered, wanted, side="right") - np.searchsorted(ordered, wanted, side="left")

    person = np.unique(np.concatenate([query.pid, gallery.pid]), return_inverse=True)[1]
    camera = np.unique(np.concatenate([query.camid, gallery.camid]), return_inverse=True)[1]
    return count(person) - count(person * (camera.max() + 1) + camera)


def _collect(query: Features, gallery: Features, scores: dict[str, np.ndarray], denominator: str) -> EvalResult:
    valid = scores["first_match"] > 0
    count = valid.sum() if denominator == "valid" else len(valid)
    rank = scores.pop("shot_rank", scores["first_match"][:, None])[valid]  # (Q, repeats)
    return EvalResult(
        mAP=float(scores["ap"][valid].sum() / count),
        mINP=float(scores["inp"][valid].sum() / count),
        cmc=np.array([(rank <= k).mean(axis=1).sum() for k in range(1, RANKS + 1)]) / count,
        num_query=len(query.pid),
        num_valid_query=int(valid.sum()),
        num_gallery=len(gallery.pid),
        path=query.path,
        pid=query.pid,
        camid=query.camid,
        **scores,
        gallery_path=gallery.path,
        gallery_pid=gallery.pid,
        gallery_camid=gallery.camid,
    )
