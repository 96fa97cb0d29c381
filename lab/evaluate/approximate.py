"""Approximate search: an index answers in a fraction of the exact ranking's time, and says how much it missed.

An inverted file ("ivf") sorts the gallery into cells around k-means centres and compares a query with the nearest cells
only (Sivic and Zisserman, ICCV 2003). A graph ("hnsw") links every crop to near ones and walks from crop to crop
(Malkov and Yashunin, 2018). Both come from faiss, which is installed with `pip install luperson-lab[faiss]` and imported
only when a search is asked for. The index holds the gallery in memory as float32: what is saved is time, not memory.

AP and INP need the ranks of *all* matches, which a short list does not have, so none is computed here: what a list of
50 gives is its recall against the exact list, and CMC.

Legend: Q queries, G gallery crops, D feature size, K entries that are searched for, L cells.
"""

import time
from dataclasses import dataclass, field

import numpy as np
import torch

from lab.errors import InputError
from lab.evaluate.metrics import check_features, check_names, count_matches, evaluate_ranking
from lab.runs import RANKS, EvalResult, Features

INDEXES = ("ivf", "hnsw")
PER_CELL = 39  # crops that faiss wants for each k-means centre; more cells than that allows are not made
SLICE = 1 << 26  # bytes of the gallery that are added at a time
ENTRIES = 1 << 22  # entries of rank lists, searched at a time, before the removed ones are left out


@dataclass(frozen=True, eq=False)
class Approximate:
    """What an index found: `index` (Q, 50) int32 into the gallery, `distance` (Q, 50) float32, `match` (Q, 50) bool.

    Entries that the protocol removes (same pid and camid as the query) are left out; -1, NaN and False pad lists that
    came out shorter. `valid` (Q,) says which queries have a match in the gallery at all, `settings` how the index was
    made.
    """

    index: np.ndarray
    distance: np.ndarray
    match: np.ndarray
    valid: np.ndarray
    seconds_build: float
    seconds_search: float
    settings: dict = field(default_factory=dict)

    def cmc(self) -> np.ndarray:
        """Share of the valid queries whose list shows a match among the first k, for k = 1..50."""
        return np.logical_or.accumulate(self.match[self.valid], axis=1).mean(axis=0)


def approximate_search(
    query: Features,
    gallery: Features,
    distance: str = "cosine",
    index: str = "ivf",
    nlist: int | None = None,
    nprobe: int = 16,
    links: int = 32,
    breadth: int = 128,
    seed: int = 0,
) -> Approximate:
    """Put the gallery into an index and search it for the first 50 entries of every query.

    `distance` is "cosine" or "euclidean" (squared). "ivf" has `nlist` cells (None: 4 times the square root of the
    gallery, at most one for 39 crops), of which the `nprobe` nearest are searched; its centres are trained on a sample
    drawn with `seed`. "hnsw" gives every crop `links` links and keeps `breadth` candidates in sight while it searches; built
    by several threads, it comes out a little different every time. The gallery may stay on disk, from where it is read slice by
    slice. Raises InputError if faiss is missing, for numbers out of range and for features that cannot be compared.
    """
    faiss = import_faiss()
    check_names(distance, "step")
    check_settings(index, nlist, nprobe, links, breadth)
    check_features(query, gallery)
    faiss.omp_set_num_threads(torch.get_num_threads())
    begin = time.perf_counter()
    if index == "ivf":
        found, settings = _make_ivf(faiss, gallery.values, distance, nlist, nprobe, seed)
    else:
        found, settings = _make_hnsw(faiss, gallery.values.shape[1], distance, links, breadth)
    for part in _slices(gallery.values):
        found.add(_prepared(gallery.values[part], distance))
    built = time.perf_counter()
    lists = _search(found, query, gallery, distance)
    return Approximate(
        *lists,
        valid=count_matches(query, gallery) > 0,
        seconds_build=built - begin,
        seconds_search=time.perf_counter() - built,
        settings={"index": index, "distance": distance, **settings, "faiss": faiss.__version__},
    )


def recall(approximate: np.ndarray, exact: np.ndarray, k: int) -> float:
    """Share of the exact first `k` that are among the approximate first `k`, the mean over queries.

    (Q, 50) rank lists, -1 pads; queries whose exact list is empty do not count. Where the k-th and the next entry are
    equally far, another choice than the exact list's counts as missed.
    """
    if len(approximate) != len(exact) or not len(exact):
        raise InputError(
            f"recall got {len(approximate)} approximate and {len(exact)} exact lists; give one of each kind"
        )
    row = np.arange(len(exact), dtype=np.int64)[:, None] << 32
    wanted = exact[:, :k] >= 0
    hit = np.isin(row + exact[:, :k], (row + approximate[:, :k])[approximate[:, :k] >= 0]) & wanted
    count = wanted.sum(axis=1)
    return float((hit.sum(axis=1)[count > 0] / count[count > 0]).mean()) if count.any() else float("nan")


def report(found: Approximate, exact: EvalResult, rows: np.ndarray | None = None) -> dict:
    """Recall at 1, 10 and 50, rank-k of both lists, seconds and settings, as result.json keeps them.

    `exact` is the exact result for the same queries, or for those numbered `rows` (see `exact_sample`).
    """
    lists = found.index if rows is None else found.index[rows]
    cmc = found.cmc()
    return {
        "recall": {str(k): recall(lists, exact.index, k) for k in (1, 10, RANKS)},
        "recall_of_queries": len(lists),
        "cmc": [float(value) for value in cmc],
        "settings": found.settings,
        "seconds_build": found.seconds_build,
        "seconds_search": found.seconds_search,
    }


def exact_sample(
    query: Features, gallery: Features, count: int, distance: str = "cosine", seed: int = 0, **keywords
) -> tuple[np.ndarray, EvalResult]:
    """The exact result of `count` random queries that have a match, and their numbers: to measure recall at less cost.

    `keywords` go to `evaluate_ranking`.
    """
    answerable = np.flatnonzero(count_matches(query, gallery))
    if count < 1 or not len(answerable):
        raise InputError(
            f"{count} of {len(answerable)} queries with a match were to be ranked exactly; expected at least one"
        )
    rows = np.sort(np.random.default_rng(seed).choice(answerable, min(count, len(answerable)), replace=False))
    some = Features(query.values[rows], query.pid[rows], query.camid[rows], query.path[rows])
    return rows, evaluate_ranking(some, gallery, distance=distance, **keywords)


def import_faiss():
    """The faiss module, or an InputError that says how to install it."""
    try:
        import faiss
    except ImportError as error:
        raise InputError(
            f"approximate search needs faiss, which cannot be imported ({error}); install it with: "
            "pip install faiss-cpu"
        ) from error
    return faiss


def check_settings(index: str, nlist: int | None, nprobe: int, links: int, breadth: int) -> None:
    """Raise InputError for an index that does not exist and for numbers out of range."""
    if index not in INDEXES:
        raise InputError(f"the index is '{index}'; choose one of {', '.join(INDEXES)}")
    if min(nprobe, breadth, 1 if nlist is None else nlist) < 1 or links < 2:
        raise InputError(
            f"the index got nlist {nlist}, nprobe {nprobe}, links {links}, breadth {breadth}; expected nlist, nprobe "
            "and breadth from 1 and links from 2 on"
        )


def _make_ivf(faiss, values, distance: str, nlist: int | None, nprobe: int, seed: int) -> tuple[object, dict]:
    """An inverted file whose cells are trained and empty, and its settings."""
    count, size = values.shape
    nlist = min(nlist or round(4 * count**0.5), max(1, count // PER_CELL))
    nprobe = min(nprobe, nlist)
    metric = _metric(faiss, distance)
    coarse = faiss.IndexFlat(size, metric)
    found = faiss.IndexIVFFlat(coarse, size, nlist, metric)
    found.nprobe, found.cp.seed, found.cp.min_points_per_centroid = nprobe, seed, 1
    found.cp.spherical = distance == "cosine"
    sample = np.random.default_rng(seed).choice(count, min(count, PER_CELL * nlist), replace=False)
    found.train(_prepared(values[np.sort(sample)], distance))
    return found, {"nlist": nlist, "nprobe": nprobe, "trained_on": len(sample), "seed": seed}


def _make_hnsw(faiss, size: int, distance: str, links: int, breadth: int) -> tuple[object, dict]:
    """An empty graph, and its settings."""
    found = faiss.IndexHNSWFlat(size, links, _metric(faiss, distance))
    found.hnsw.efSearch, found.hnsw.efConstruction = breadth, 2 * links
    return found, {"links": links, "breadth": breadth}


def _metric(faiss, distance: str) -> int:
    return faiss.METRIC_INNER_PRODUCT if distance == "cosine" else faiss.METRIC_L2


def _prepared(values: np.ndarray, distance: str) -> np.ndarray:
    """(N, D) as float32, of unit length for the cosine distance."""
    values = np.ascontiguousarray(values, dtype=np.float32)
    if distance == "cosine":
        values = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    return values


def _slices(values) -> list[slice]:
    step = max(1, SLICE // (4 * values.shape[1]))
    return [slice(start, start + step) for start in range(0, len(values), step)]


def _search(found, query: Features, gallery: Features, distance: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first 50 entries of every query without the removed ones: index, distance and match, (Q, 50) each."""
    removed = _count_removed(query, gallery)
    total = len(query.pid)
    index = np.full((total, RANKS), -1, np.int32)
    far = np.full((total, RANKS), np.nan, np.float32)
    match = np.zeros((total, RANKS), bool)
    order = np.argsort(-removed, kind="stable")  # queries that lose many entries are searched for together
    while len(order):
        searched = RANKS + int(removed[order[0]])
        part, order = np.split(order, [max(1, ENTRIES // searched)])
        score, entry = found.search(_prepared(query.values[part], distance), min(searched, len(gallery.pid)))
        score = 1 - score if distance == "cosine" else score
        same = (entry >= 0) & (gallery.pid[entry] == query.pid[part, None])
        off = (entry < 0) | (same & (gallery.camid[entry] == query.camid[part, None]))
        kept = np.argsort(off, axis=1, kind="stable")[:, :RANKS]
        off = np.take_along_axis(off, kept, 1)
        width = kept.shape[1]
        index[part, :width] = np.where(off, -1, np.take_along_axis(entry, kept, 1))
        far[part, :width] = np.where(off, np.nan, np.take_along_axis(score, kept, 1))
        match[part, :width] = np.take_along_axis(same, kept, 1) & ~off
    return index, far, match


def _count_removed(query: Features, gallery: Features) -> np.ndarray:
    """How many gallery crops show each query's person from the query's own camera: (Q,)."""
    pairs = [np.stack([features.pid, features.camid], axis=1) for features in (query, gallery)]
    kind = np.unique(np.concatenate(pairs), axis=0, return_inverse=True)[1].reshape(-1)
    return np.bincount(kind[len(query.pid) :], minlength=kind.max() + 1)[kind[: len(query.pid)]]
