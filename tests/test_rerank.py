"""Sparse re-ranking against a dense oracle written from the paper's formulas; the published outputs are in golden/."""

import numpy as np
import pytest
import torch

import lab.evaluate.rerank as rerank
from lab.errors import InputError
from lab.evaluate.rerank import k_nearest, rerank_blocks


def oracle(distance: np.ndarray, num_query: int, k1: int, k2: int, lambda_value: float) -> np.ndarray:
    """Zhong et al. (2017) with full matrices: sets of neighbours, one encoding per crop, Jaccard distance, blend."""
    distance = distance / distance.max(axis=1, keepdims=True)
    rank = np.argsort(distance, axis=1, kind="stable")
    count = len(distance)

    def reciprocal(p: int, k: int) -> set:
        return {int(g) for g in rank[p, : k + 1] if p in rank[g, : k + 1]}

    encoding = np.zeros((count, count))
    for p in range(count):
        close = reciprocal(p, k1)
        extended = set(close)
        for q in close:
            other = reciprocal(q, round(k1 / 2))
            if len(close & other) > 2 / 3 * len(other):
                extended |= other
        members = sorted(extended)
        weight = np.exp(-distance[p, members])
        encoding[p, members] = weight / weight.sum()
    encoding = np.stack([encoding[rank[p, :k2]].mean(axis=0) for p in range(count)])
    least = np.stack([np.minimum(row, encoding[num_query:]).sum(axis=1) for row in encoding[:num_query]])
    most = np.stack([np.maximum(row, encoding[num_query:]).sum(axis=1) for row in encoding[:num_query]])
    return (1 - least / most) * (1 - lambda_value) + distance[:num_query, num_query:] * lambda_value


def crowd(seed: int, queries=20, gallery=90, people=8, size=6) -> tuple[np.ndarray, np.ndarray]:
    """Unit features that cluster by person."""
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal((people, size))
    values = centre[rng.integers(0, people, queries + gallery)] + 0.8 * rng.standard_normal((queries + gallery, size))
    values = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)
    return values[:queries], values[queries:]


def run(query, gallery, **keywords) -> np.ndarray:
    return torch.cat(list(rerank_blocks(query, gallery, **keywords))).numpy()


@pytest.mark.parametrize(
    ("k1", "k2", "lambda_value"), [(20, 6, 0.3), (7, 3, 0.0), (10, 1, 0.5), (1, 1, 1.0), (5, 2, 0.2)]
)
def test_equals_the_dense_oracle(k1, k2, lambda_value):
    query, gallery = crowd(0)
    values = np.concatenate([query, gallery]).astype(np.float64)
    similarity = values @ values.T
    both = {"k1": k1, "k2": k2, "lambda_value": lambda_value}
    expected = oracle((1 - similarity) ** 2, len(query), **both)
    np.testing.assert_allclose(run(query, gallery, **both), expected, atol=1e-5)
    expected = oracle(np.maximum(2 - 2 * similarity, 0), len(query), **both)
    np.testing.assert_allclose(run(query, gallery, variant="euclidean", **both), expected, atol=1e-5)


def test_torchreid_variant_squares_the_squared_distance_of_raw_features():
    query, gallery = (4 * part for part in crowd(1))
    values = np.concatenate([query, gallery]).astype(np.float64)
    distance = ((values[:, None] - values) ** 2).sum(axis=2) ** 2
    expected = oracle(distance, len(query), 20, 6, 0.3)
    np.testing.assert_allclose(run(query, gallery, variant="torchreid"), expected, atol=1e-5)


@pytest.mark.parametrize("variant", list(rerank.VARIANTS))
def test_block_sizes_do_not_matter(variant, monkeypatch):
    query, gallery = crowd(2)
    whole = run(query, gallery, variant=variant)
    monkeypatch.setattr(rerank, "EDGE", 17)
    monkeypatch.setattr(rerank, "PAIRS", 100)
    np.testing.assert_allclose(run(query, gallery, variant=variant, memory_gb=1e-5), whole, atol=1e-5)


def test_neighbours_equal_a_stable_sort_with_ties(monkeypatch):
    monkeypatch.setattr(rerank, "EDGE", 16)
    values = torch.randint(-2, 3, (75, 3), generator=torch.manual_seed(0)).float()
    index, distance, furthest = k_nearest(values, 12, "euclidean")
    full = (values[:, None] - values).square().sum(2)
    expected = full.sort(dim=1, stable=True)
    assert torch.equal(index, expected.indices[:, :12])
    assert torch.equal(distance, expected.values[:, :12])
    assert torch.equal(furthest, full.amax(1))


@pytest.mark.parametrize(("queries", "gallery"), [(1, 1), (1, 5), (3, 2), (2, 15)])
def test_sets_smaller_than_the_neighbourhood(queries, gallery):
    query, gallery = crowd(3, queries, gallery)
    values = np.concatenate([query, gallery]).astype(np.float64)
    expected = oracle((1 - values @ values.T) ** 2, queries, 20, 6, 0.3)
    np.testing.assert_allclose(run(query, gallery), expected, atol=1e-5)


def test_equal_features_give_equal_finite_distances():
    same = np.ones((30, 4), np.float32)
    for variant in rerank.VARIANTS:
        distance = run(same[:5], same[5:], variant=variant)
        assert np.isfinite(distance).all()


@pytest.mark.parametrize("keywords", [{"variant": "mine"}, {"k1": 0}, {"k2": 0}, {"lambda_value": 1.5}])
def test_bad_parameters_are_explained(keywords):
    with pytest.raises(InputError, match=r"choose one of|expected k1 and k2"):
        next(rerank_blocks(*crowd(0), **keywords))
