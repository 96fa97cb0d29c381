"""Evaluation as it is usually written, to measure the lab's against: numpy, full matrices, loops over rows.

Both functions take unit features. Legend: Q queries, G gallery crops, N = Q + G.
"""

import numpy as np

from lab.runs import RANKS, Features


def rank(query: Features, gallery: Features) -> dict[str, np.ndarray]:
    """CMC (50,), mAP and mINP by sorting every row of the distances: the protocol of Market-1501, AP by steps.

    Holds the distances (Q, G) float32 and their order (Q, G) int64.
    """
    distance = 1 - np.asarray(query.values) @ np.asarray(gallery.values).T
    order = np.argsort(distance, axis=1)
    cmcs, aps, inps = [], [], []
    for q, nearest in enumerate(order):
        same = gallery.pid[nearest] == query.pid[q]
        removed = same & (gallery.camid[nearest] == query.camid[q])
        hit = same[~removed]
        if not hit.any():
            continue
        found = hit.cumsum()
        cmcs.append(np.pad(found, (0, RANKS), mode="edge")[:RANKS] > 0)
        ranks = np.flatnonzero(hit) + 1
        aps.append((np.arange(1, len(ranks) + 1) / ranks).mean())
        inps.append(len(ranks) / ranks[-1])
    return {"cmc": np.mean(cmcs, axis=0), "mAP": np.mean(aps), "mINP": np.mean(inps)}


def rerank(query: np.ndarray, gallery: np.ndarray, k1: int = 20, k2: int = 6, lambda_value: float = 0.3) -> np.ndarray:
    """Re-ranked distances (Q, G) as published (Zhong et al., CVPR 2017), with LUPerson's (1 - cosine)^2 / row maximum.

    Holds the distances, the encodings and their mean as (N, N) float32, and the order of all neighbours (N, N) int64.
    """
    values = np.concatenate([query, gallery])
    count, half = len(values), round(k1 / 2)
    distance = values @ values.T
    np.subtract(1, distance, out=distance)
    np.multiply(distance, distance, out=distance)
    distance /= distance.max(axis=1, keepdims=True)
    near = np.argpartition(distance, range(1, k1 + 1), axis=1)  # the first k1 + 1 in order, the others in any
    code = np.zeros((count, count), np.float32)
    for p in range(count):
        close = reciprocal(near, p, k1)
        members = [close]
        for q in close:
            other = reciprocal(near, q, half)
            if 3 * np.isin(other, close).sum() > 2 * len(other):
                members.append(other)
        member = np.unique(np.concatenate(members))
        weight = np.exp(-distance[p, member])
        code[p, member] = weight / weight.sum()
    distance = distance[: len(query), len(query) :].copy()
    if k2 > 1:
        mean = np.zeros_like(code)
        for p in range(count):
            mean[p] = code[near[p, :k2]].mean(axis=0)
        code = mean
    del near
    has = [np.flatnonzero(code[len(query) :, member]) for member in range(count)]
    for q in range(len(query)):
        least = np.zeros(len(gallery), np.float32)
        for member in np.flatnonzero(code[q]):
            rows = has[member]
            least[rows] += np.minimum(code[q, member], code[len(query) + rows, member])
        distance[q] = lambda_value * distance[q] + (1 - lambda_value) * (1 - least / (2 - least))
    return distance


def reciprocal(near: np.ndarray, p: int, k: int) -> np.ndarray:
    """Of the crop `p` and its `k` nearest, those that have `p` among theirs."""
    mine = near[p, : k + 1]
    return mine[(near[mine, : k + 1] == p).any(axis=1)]
