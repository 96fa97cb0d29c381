"""CMC, AP and INP: metrics that read off the ranks of the true matches, which `ranking` counts.

Legend: Q queries, G gallery crops, N of either, D feature size, B queries of one block, P matches of all of them. A
*match* shows the query's person from another camera; the same person from the same camera is *removed* for
that query; everything else is a negative.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lab.data.splits import Split
from lab.errors import InputError
from lab.evaluate.blocks import GivenBlock, feature_blocks
from lab.evaluate.distance import DISTANCES, PRECISIONS, distance_blocks
from lab.evaluate.ranking import Pairs, rank_block
from lab.evaluate.single_shot import SingleShot
from lab.runs import RANKS, EvalResult, Features

AP_KINDS = ("step", "trapezoid")
DENOMINATORS = ("valid", "all")
GALLERY_SHOTS = ("all", "single")
CHECKED = 1 << 16  # features that are looked through at a time
LONGEST = 4e37  # squared length of a feature: four times that, the largest distance between two, fits into float32


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
    precision: str = "float32",
) -> EvalResult:
    """Rank the gallery for every query and compute CMC, AP and INP per query and in the mean.

    `distance` is "cosine" (1 - cosine) or "euclidean" (squared, on the values as they are); equal distances are
    ordered by gallery position. `ap` is "step" (mean of the precision at each hit) or "trapezoid" (mean of the
    precision before and at each hit). `blocks` gives other distances, for instance re-ranked ones: tensors (B, G) for
    consecutive queries. `memory_gb` bounds the distances that are held at a time, with their copies; ranks and metrics
    do not depend on it. Nor do they on `precision`, that of the matrix products: "float32", or on a GPU "tf32" or
    "bfloat16", which are faster there; what they cannot tell apart is compared again.

    Queries without a match have NaN; with `denominator` "valid" they count in no mean, with "all" they count as 0 in
    mAP, mINP and CMC. With `gallery_shot` "single" the CMC alone is another one: that of one random crop per gallery
    person, the mean over `repeats` draws (see `lab.evaluate.single_shot`), by float32 distances as they come.

    Started by torchrun, every process ranks its part of the gallery and all return the whole result.

    Raises InputError for features that cannot be compared and when no query at all has a match.
    """
    check_names(distance, ap, denominator, gallery_shot, precision)
    check_features(query, gallery)
    protocol, device = Protocol(query, gallery, torch.device(device)), torch.device(device)
    shots = SingleShot(query.pid, gallery.pid, repeats, seed) if gallery_shot == "single" else None
    if blocks is None:
        settings = (distance, memory_gb, device, precision, protocol.most_matches)
        ranked = feature_blocks(query.values, gallery.values, *settings)
        whole_rows = distance_blocks(query.values, gallery.values, distance, memory_gb, device) if shots else ()
    else:
        ranked, whole_rows = map(GivenBlock, blocks), None
    parts, start = [], 0
    with tqdm(total=len(query.pid), desc="rank", unit="query", disable=not progress) as bar:
        for block in ranked:
            pairs = protocol.pairs(start, start + len(block))
            rank, index, near = (values.cpu().numpy() for values in rank_block(block, pairs))
            scores = hit_metrics(rank, pairs.match_row.cpu().numpy(), len(block), ap)
            parts.append({"index": index.astype(np.int32), "distance": near, **scores})
            if shots and whole_rows is None:  # a block that was given is only valid now
                parts[-1]["shot_rank"] = shots.ranks(block.given, start, pairs.match_row, pairs.match_column)
            start += len(block)
            bar.update(len(block))
    if start != len(query.pid):
        raise ValueError(f"the blocks cover {start} queries of {len(query.pid)}")
    scores = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if shots and whole_rows is not None:
        scores["shot_rank"] = np.concatenate(list(_shot_ranks(shots, protocol, whole_rows)))
    return _collect(query, gallery, scores, denominator)


def _shot_ranks(shots: SingleShot, protocol: "Protocol", blocks: Iterable[Tensor]) -> Iterator[np.ndarray]:
    start = 0
    for block in blocks:
        pairs = protocol.pairs(start, start + len(block))
        yield shots.ranks(block, start, pairs.match_row, pairs.match_column)
        start += len(block)


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
        self.most_matches = max(1, int((self.last - self.first).max()))

    def pairs(self, start: int, stop: int) -> Pairs:
        """All pairs of queries start..stop with gallery crops of the same person, ordered by row, then column."""
        counts = (self.last - self.first)[start:stop]
        row = np.repeat(np.arange(stop - start), counts)
        within = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        column = self.order[self.first[start:stop][row] + within]
        match = self.gallery_camid[column] != self.query_camid[start:stop][row]
        parts = (row[~match], column[~match], row[match], column[match])
        return Pairs(*(torch.from_numpy(values).to(self.device) for values in parts))


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


def check_names(
    distance: str, ap: str, denominator: str = "valid", gallery_shot: str = "all", precision: str = "float32"
) -> None:
    """Raise InputError for a distance, a kind of AP, a denominator, a gallery or a precision that does not exist."""
    for name, value, known in (
        ("distance", distance, DISTANCES),
        ("ap", ap, AP_KINDS),
        ("denominator", denominator, DENOMINATORS),
        ("gallery_shot", gallery_shot, GALLERY_SHOTS),
        ("precision", precision, PRECISIONS),
    ):
        if value not in known:
            raise InputError(f"{name} is '{value}'; choose one of {', '.join(known)}")


def check_features(query: Features, gallery: Features) -> None:
    """Raise InputError unless both are non-empty, finite, free of junk, of one size, and some query has a match."""
    for name, features in (("query", query), ("gallery", gallery)):
        if not len(features.values) or not features.values.shape[1]:
            raise InputError(f"the {name} holds no features; expected at least one row and one value in it")
        bad = _not_finite(features.values)
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


def _not_finite(values) -> np.ndarray:
    """Rows of (N, D) features that hold NaN or infinity, or whose length overflows float32."""
    bad = []
    for start in range(0, len(values), CHECKED):
        part = values[start : start + CHECKED]
        # a sum is finite only if every summand is: one pass, no copy
        sums = np.einsum("nd,nd->n", part, part, dtype=np.float32, casting="same_kind")
        bad.append(start + np.flatnonzero(~(sums < LONGEST)))
    return np.concatenate(bad)


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
    scores["match"] = (gallery.pid[scores["index"]] == query.pid[:, None]) & (scores["index"] >= 0)
    valid = scores["first_match"] > 0
    count = valid.sum() if denominator == "valid" else len(valid)
    rank = scores.pop("shot_rank", scores["first_match"][:, None])[valid]  # (Q, repeats)
    curves = np.array([(rank <= k).sum(axis=0) for k in range(1, RANKS + 1)]) / count  # (50, repeats)
    return EvalResult(
        mAP=float(scores["ap"][valid].sum() / count),
        mINP=float(scores["inp"][valid].sum() / count),
        cmc=curves.mean(axis=1),
        cmc_std=curves.std(axis=1, ddof=1) if curves.shape[1] > 1 else None,
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
