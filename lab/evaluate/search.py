"""One query against a gallery, now: for an upload, for a gallery crop as the query, and to see what the protocol removes.

It needs numpy alone and reads the gallery slice by slice, so features may stay on disk. Legend: G gallery crops, D feature
size, k entries that are found.
"""

from dataclasses import dataclass

import numpy as np

from lab.errors import InputError
from lab.runs import Features

RIGHT, WRONG, REMOVED, UNKNOWN = "right", "wrong", "same camera", ""
SLICE = 2048  # gallery crops that are compared at a time
CLOSE = 1e-5  # float32 products err by less: what lies this near the last entry is compared again in float64


@dataclass(frozen=True, eq=False)
class Found:
    """The nearest gallery crops of one query, nearest first, equal distances by gallery position.

    `index` (k,) into the gallery, `distance` (k,) float32 = 1 - cosine, `kind` (k,): "right" (the query's person, another
    camera), "wrong", "same camera" (the query's person and camera, which the protocol removes), or "" where nobody
    said who the query shows. `rank` (k,) is 1-based and counts what the protocol keeps; 0 for what it removes.
    """

    index: np.ndarray
    distance: np.ndarray
    kind: np.ndarray
    rank: np.ndarray


def search(
    feature: np.ndarray,
    gallery: Features,
    pid: int | None = None,
    camid: int | None = None,
    top_k: int = 50,
    removed: bool = True,
    leave_out: int | None = None,
) -> Found:
    """The `top_k` gallery crops nearest to a feature (D,), in the order in which an evaluation ranks them.

    `pid` and `camid` say who the query shows and which camera saw it. `removed` False leaves out what the protocol
    removes; `leave_out` is a gallery crop that is the query itself. Raises InputError for a feature of another size or
    one that is not finite.
    """
    feature = np.asarray(feature, dtype=np.float32)
    size = gallery.values.shape[1]
    if feature.shape != (size,) or not np.isfinite(feature).all():
        found = f"a feature of shape {feature.shape}{'' if np.isfinite(feature).all() else ' with NaN or infinity'}"
        raise InputError(f"got {found}; the gallery's have {size} numbers: take a model and a gallery of one run")
    kind = _kinds(gallery, pid, camid)
    allowed = np.full(len(kind), True) if removed else kind != REMOVED
    if leave_out is not None:
        allowed[leave_out] = False
    near = _nearest(_unit(feature[None])[0], gallery, allowed, top_k)
    index, distance = near
    kept = kind[index] != REMOVED
    return Found(index, distance, kind[index], np.where(kept, kept.cumsum(), 0))


def _kinds(gallery: Features, pid: int | None, camid: int | None) -> np.ndarray:
    """What each gallery crop (G,) is for the query."""
    if pid is None:
        return np.full(len(gallery.pid), UNKNOWN, dtype="<U11")
    same = np.where(gallery.camid == camid, REMOVED, RIGHT)
    return np.where(gallery.pid == pid, same, WRONG)


def _nearest(feature: np.ndarray, gallery: Features, allowed: np.ndarray, top_k: int) -> tuple[np.ndarray, np.ndarray]:
    """Gallery positions and distances of the nearest allowed crops, ranked as `lab.evaluate.metrics` does.

    A float32 product finds the candidates. Their cosines are then summed in float64 and rounded to float32, so that
    they depend neither on the order of the sum nor on the slice.
    """
    count = len(allowed)
    slices = [(start, min(start + SLICE, count)) for start in range(0, count, SLICE)]
    rough = np.concatenate([_unit(gallery.values[start:stop]) @ feature for start, stop in slices] or [np.empty(0)])
    rough[~allowed] = -np.inf
    top_k = min(top_k, int(allowed.sum()))
    if top_k < 1:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    last = np.partition(rough, count - top_k)[count - top_k]
    candidates = np.flatnonzero(rough >= last - CLOSE)
    cosine = _unit(gallery.values[candidates]).astype(np.float64) @ feature.astype(np.float64)
    distance = 1 - cosine.astype(np.float32)
    order = np.argsort(distance, kind="stable")[:top_k]
    return candidates[order], distance[order]


def _unit(values: np.ndarray) -> np.ndarray:
    """Rows (N, D) as float32 of length 1; one that has it already, as those of our models, stays as it is."""
    values = np.asarray(values, dtype=np.float32)
    norm = np.linalg.norm(values, axis=1, keepdims=True)
    has_it = np.abs(norm - 1) < 1e-6
    return values if has_it.all() else values / np.where(has_it, 1, np.maximum(norm, 1e-12))
