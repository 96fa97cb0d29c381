"""One query against a gallery: as the evaluation ranks it, and by hand."""

import numpy as np
import pytest

from lab.errors import InputError
from lab.evaluate.metrics import evaluate_ranking
from lab.evaluate.search import search
from lab.runs import Features


def features(count: int, rng: np.random.Generator, people: int = 20) -> Features:
    values = rng.standard_normal((count, 32)).astype(np.float32)
    pid, camid = rng.integers(1, people, count), rng.integers(1, 4, count)
    return Features(values, pid, camid, np.array([f"{number}.jpg" for number in range(count)]))


def by_hand() -> Features:
    """Four crops at cosines 0.6, 1, 0.6 and 0 to the first axis."""
    values = np.array([[0.6, 0.8], [2, 0], [0.6, -0.8], [0, 1]], np.float32)
    return Features(values, np.array([7, 7, 8, 7]), np.array([2, 1, 1, 3]), np.array(list("abcd")))


def test_kinds_and_ranks_by_hand():
    found = search(np.array([3.0, 0.0]), by_hand(), pid=7, camid=1)
    assert found.index.tolist() == [1, 0, 2, 3]  # 0 and 2 are equally near: gallery order
    assert found.kind.tolist() == ["same camera", "right", "wrong", "right"]
    assert found.rank.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(found.distance, [0, 0.4, 0.4, 1], atol=1e-7)


def test_what_the_protocol_removes_is_left_out_on_demand():
    found = search(np.array([1.0, 0.0]), by_hand(), pid=7, camid=1, removed=False)
    assert found.index.tolist() == [0, 2, 3]
    assert found.rank.tolist() == [1, 2, 3]


def test_gallery_crop_as_query_does_not_find_itself():
    found = search(by_hand().values[0], by_hand(), pid=7, camid=2, leave_out=0)
    assert 0 not in found.index
    assert len(found.index) == 3


def test_without_a_person_nothing_is_right_or_wrong():
    found = search(np.array([1.0, 0.0]), by_hand(), top_k=2)
    assert found.kind.tolist() == ["", ""]
    assert found.rank.tolist() == [1, 2]


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_ranks_as_the_evaluation_does(seed, unit):
    rng = np.random.default_rng(seed)
    query, gallery = features(30, rng), features(3000, rng)
    if unit:
        for part in (query, gallery):
            part.values[:] /= np.linalg.norm(part.values, axis=1, keepdims=True)
    gallery.values[1::7] = gallery.values[::7][: len(gallery.values[1::7])]  # equal distances
    result = evaluate_ranking(query, gallery)
    for number in range(30):
        found = search(query.values[number], gallery, query.pid[number], query.camid[number], removed=False)
        assert found.index.tolist() == result.index[number].tolist()
        # the evaluation keeps float32 products where they decide nothing
        np.testing.assert_allclose(found.distance, result.distance[number], atol=1e-6, rtol=0)
        assert (found.kind == "right").tolist() == result.match[number].tolist()


def test_features_on_disk_give_the_same(tmp_path):
    rng = np.random.default_rng(0)
    gallery = features(5000, rng)
    gallery.save(tmp_path / "g.npz")
    stored = Features.load(tmp_path / "g.npz", on_disk=True)
    query = rng.standard_normal(32)
    here, there = (search(query, part, 3, 1) for part in (gallery, stored))
    assert here.index.tolist() == there.index.tolist()
    np.testing.assert_array_equal(here.distance, there.distance)


@pytest.mark.parametrize(
    "feature", [np.ones(3), np.array([np.nan, 1.0]), np.ones((1, 2))], ids=["size", "nan", "two-dimensional"]
)
def test_feature_that_cannot_be_compared_is_refused(feature):
    with pytest.raises(InputError, match="2 numbers"):
        search(feature, by_hand())


def test_empty_gallery_finds_nothing():
    empty = Features(np.empty((0, 2), np.float32), np.empty(0, int), np.empty(0, int), np.empty(0, str))
    assert len(search(np.ones(2), empty).index) == 0
