"""Query expansion by hand and against its formula; the published outputs are in golden/."""

import numpy as np
import pytest

from lab.errors import InputError
from lab.evaluate.expansion import query_expansion


def test_average_query_expansion_by_hand():
    query, gallery = np.array([[1.0, 0.0]]), np.array([[0.9, 0.1], [0.0, 3.0], [0.1, 2.0]])
    new_query, new_gallery = query_expansion(query, gallery, k=2, alpha=0)
    np.testing.assert_allclose(new_query, [[0.95, 0.05]], atol=1e-6)
    np.testing.assert_allclose(new_gallery, [[0.95, 0.05], [0.05, 2.5], [0.05, 2.5]], atol=1e-6)


@pytest.mark.parametrize("times", [1, 2])
def test_alpha_query_expansion_weighs_by_similarity_and_keeps_lengths(times):
    values = np.random.default_rng(4).standard_normal((110, 6)) + 1
    expected = values
    for _ in range(times):
        unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
        similarity = unit @ unit.T
        order = np.argsort(-similarity, axis=1, kind="stable")[:, :5]
        new = [(similarity[i, near, None] ** 3 * expected[near]).mean(axis=0) for i, near in enumerate(order)]
        expected = np.array(new)
    found = np.concatenate(query_expansion(values[:20], values[20:], times=times))
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_fewer_crops_than_neighbours():
    query, gallery = query_expansion(np.array([[1.0, 0.0]]), np.array([[1.0, 0.0]]), k=5)
    np.testing.assert_allclose(np.concatenate([query, gallery]), [[1, 0], [1, 0]], atol=1e-6)


@pytest.mark.parametrize("keywords", [{"k": 0}, {"times": 0}, {"alpha": -1}, {"alpha": np.nan}])
def test_numbers_out_of_range_are_explained(keywords):
    with pytest.raises(InputError, match="expected k and times from 1, alpha from 0 on"):
        query_expansion(np.ones((1, 2)), np.ones((1, 2)), **keywords)
