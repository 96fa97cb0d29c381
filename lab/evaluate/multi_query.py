"""Multi-query: search with all crops of a person under one camera instead of one (Zheng et al., 2015).

Legend: Q queries, N crops of a pool, D feature size.
"""

from collections import defaultdict
from dataclasses import replace

import numpy as np

from lab.errors import InputError
from lab.runs import Features

POOLINGS = {"mean": np.mean, "max": np.max}
CHECKED = 10_000  # features whose length is looked at
TOLERANCE = 0.02  # bfloat16 rounds lengths by less
Key = tuple[int, int]  # pid and camid


def multi_query(query: Features, extra: Features | None, gallery: Features, pooling: str = "mean") -> Features:
    """The queries with the mean (or max) feature, at unit length, of all crops of their person under their camera.

    These crops come from `extra` (Market-1501 has hand-drawn boxes for it in gt_bbox/, with those of the queries among
    them), and where that is None from the query and gallery sets themselves. Nothing leaks then: such gallery crops are
    the ones that the protocol removes for that query, as they show the same person under the same camera (re-ranking and
    expansion come later, and there a pooled query is a neighbour of other queries too). A query whose person and camera
    are not in `extra` keeps its own feature, at unit length. Raises InputError for a pooling that does not exist and for
    features of another size.
    """
    check_pooling(pooling)
    pools = [query, gallery] if extra is None else [extra]
    sizes = sorted({part.values.shape[1] for part in (query, *pools)})
    if len(sizes) > 1:
        raise InputError(f"features to pool have {' and '.join(map(str, sizes))} values; extract them with one model")
    found = [_rows(pool, query) for pool in pools]
    values = np.empty(query.values.shape, dtype=np.float32)
    for row, key in enumerate(_keys(query)):
        crops = [pool.values[rows[key]] for pool, rows in zip(pools, found, strict=True) if key in rows]
        crops = crops or [query.values[[row]]]
        values[row] = POOLINGS[pooling](np.concatenate(crops).astype(np.float32, copy=False), axis=0)
    norm = np.linalg.norm(values, axis=1, keepdims=True)
    return replace(query, values=values / np.maximum(norm, 1e-12))


def count_crops(query: Features, extra: Features | None, gallery: Features) -> np.ndarray:
    """How many crops of its person and camera `multi_query` finds for each query: (Q,); 0 keeps the query's own."""
    found = [_rows(pool, query) for pool in ([query, gallery] if extra is None else [extra])]
    return np.array([sum(len(rows.get(key, ())) for rows in found) for key in _keys(query)])


def is_asked_for(crops, query) -> np.ndarray:
    """Which crops (N,) show a query's person under its camera; both are splits or features."""
    wanted = set(_keys(query))
    return np.array([key in wanted for key in _keys(crops)], dtype=bool)


def check_pooling(pooling: str) -> None:
    if pooling not in POOLINGS:
        raise InputError(f"multi-query pooling is '{pooling}'; choose one of {', '.join(POOLINGS)}")


def check_unit_length(gallery: Features) -> None:
    """Raise InputError for features of other lengths than the pooled queries have, unless only angles are compared."""
    length = np.linalg.norm(np.asarray(gallery.values[:CHECKED], dtype=np.float64), axis=1)
    if (np.abs(length - 1) > TOLERANCE).any():
        raise InputError(
            f"multi-query gives queries length 1, and gallery features have lengths from {length.min():.3g} to "
            f"{length.max():.3g}; use the cosine distance without re-ranking, or normalise the feature files"
        )


def _keys(crops) -> list[Key]:
    return list(zip(crops.pid.tolist(), crops.camid.tolist(), strict=True))


def _rows(pool: Features, query: Features) -> dict[Key, list[int]]:
    """For each query's person and camera the rows of the pool that show them."""
    keys, rows = _keys(pool), defaultdict(list)
    for row in np.flatnonzero(is_asked_for(pool, query)).tolist():
        rows[keys[row]].append(row)
    return dict(rows)
