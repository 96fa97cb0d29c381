"""Approximate search: what is found, what is missed and said to be missed; the exact ranking is the oracle."""

import json
import subprocess
import sys

import numpy as np
import pytest

import lab.evaluate.approximate as module
from lab.errors import InputError
from lab.evaluate.approximate import Approximate, approximate_search, exact_sample, recall, report
from lab.evaluate.metrics import evaluate_ranking
from lab.runs import Features


@pytest.fixture
def faiss():
    return pytest.importorskip("faiss", reason="faiss is not installed: pip install faiss-cpu")


def crowd(seed: int, count: int, people: int = 20, cameras: int = 3, size: int = 8) -> Features:
    """Crops that cluster by person, of different lengths."""
    rng = np.random.default_rng(seed)
    pid, camid = rng.integers(0, people, count), rng.integers(0, cameras, count)
    values = np.random.default_rng(0).standard_normal((people, size))[pid] + 0.7 * rng.standard_normal((count, size))
    values *= rng.uniform(0.5, 2, (count, 1))
    return Features(values.astype(np.float32), pid, camid, np.full(count, ""))


def test_recall_by_hand():
    exact = np.array([[4, 2, 7, 1], [3, 5, -1, -1], [-1, -1, -1, -1]])
    approximate = np.array([[2, 4, 9, 7], [5, -1, -1, -1], [0, 1, 2, 3]])
    assert recall(approximate, exact, 1) == 0  # first: 2 for 4; second: 5 for 3; the third has no exact list
    assert recall(approximate, exact, 2) == (2 / 2 + 1 / 2) / 2
    assert recall(approximate, exact, 3) == (2 / 3 + 1 / 2) / 2
    assert recall(approximate, exact, 50) == (3 / 4 + 1 / 2) / 2
    assert recall(exact, exact, 4) == 1
    assert np.isnan(recall(exact[2:], exact[2:], 1))
    with pytest.raises(InputError, match="3 approximate and 2 exact lists"):
        recall(approximate, exact[:2], 1)


def test_cmc_by_hand():
    match = np.zeros((4, 50), bool)
    match[0, 0] = match[1, 2] = match[1, 5] = True  # the third has a match that was not found, the fourth has none
    found = Approximate(match * 0, match * 0.0, match, np.array([True, True, True, False]), 0, 0)
    np.testing.assert_allclose(found.cmc()[[0, 1, 2, 49]], [1 / 3, 1 / 3, 2 / 3, 2 / 3])


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("entries", [1, 1 << 22])
def test_all_cells_give_the_exact_lists(faiss, distance, entries, monkeypatch):
    monkeypatch.setattr(module, "ENTRIES", entries)  # one query at a time, or all
    monkeypatch.setattr(module, "SLICE", 1000)
    query, gallery = crowd(1, 30), crowd(2, 600, people=3)  # about 67 crops of each person from each camera are removed
    found = approximate_search(query, gallery, distance, nlist=7, nprobe=7)
    exact = evaluate_ranking(query, gallery, distance)
    np.testing.assert_array_equal(found.index, exact.index)
    np.testing.assert_allclose(found.distance, exact.distance, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(found.match, exact.match)
    np.testing.assert_array_equal(found.valid, exact.first_match > 0)
    np.testing.assert_allclose(found.cmc(), exact.cmc)
    assert (found.index.dtype, found.distance.dtype) == (np.int32, np.float32)
    assert found.settings["nlist"] == 7


def test_fewer_cells_find_less_and_the_recall_says_so(faiss):
    query, gallery = crowd(1, 40), crowd(2, 2000)
    exact = evaluate_ranking(query, gallery)
    found = {nprobe: approximate_search(query, gallery, nlist=40, nprobe=nprobe, seed=3) for nprobe in (1, 4, 40)}
    recalls = [report(one, exact)["recall"]["50"] for one in found.values()]
    assert 0.1 < recalls[0] < recalls[1] < recalls[2] == 1
    again = approximate_search(query, gallery, nlist=40, nprobe=4, seed=3)
    np.testing.assert_array_equal(again.index, found[4].index)
    slow = np.mean([len(set(a) & set(e)) / 50 for a, e in zip(found[4].index, exact.index, strict=True)])
    np.testing.assert_allclose(recalls[1], slow)
    assert json.loads(json.dumps(report(found[4], exact)))["settings"] == {
        "index": "ivf", "distance": "cosine", "nlist": 40, "nprobe": 4, "trained_on": 1560, "seed": 3,
        "faiss": faiss.__version__,
    }  # fmt: skip


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_a_graph_finds_nearly_all(faiss, distance):
    query, gallery = crowd(1, 40), crowd(2, 2000)
    found = approximate_search(query, gallery, distance, index="hnsw", breadth=200)
    assert report(found, evaluate_ranking(query, gallery, distance))["recall"]["50"] > 0.97
    assert found.settings["links"] == 32


def test_recall_may_be_measured_on_some_queries(faiss):
    query, gallery = crowd(1, 40), crowd(2, 800)
    query.pid[:10] = 999  # nobody's person: no match
    found = approximate_search(query, gallery, nprobe=3)
    rows, exact = exact_sample(query, gallery, 12, seed=5)
    assert len(rows) == 12
    assert rows.min() >= 10
    full = evaluate_ranking(query, gallery)
    np.testing.assert_array_equal(exact.index, full.index[rows])
    told = report(found, exact, rows)
    assert told["recall_of_queries"] == 12
    assert told["recall"]["10"] == recall(found.index[rows], full.index[rows], 10)
    with pytest.raises(InputError, match="0 of 30 queries"):
        exact_sample(query, gallery, 0)


def test_a_gallery_on_disk_gives_the_same(faiss, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SLICE", 1000)
    query, gallery = crowd(1, 20), crowd(2, 500)
    gallery.save(tmp_path / "gallery.npz")
    there = Features.load(tmp_path / "gallery.npz", on_disk=True)
    a, b = (approximate_search(query, one, nprobe=2) for one in (gallery, there))
    np.testing.assert_array_equal(a.index, b.index)


def test_a_gallery_smaller_than_a_list_is_padded(faiss):
    query, gallery = crowd(1, 20, people=4), crowd(2, 30, people=4)
    for index in ("ivf", "hnsw"):
        found = approximate_search(query, gallery, index=index)
        exact = evaluate_ranking(query, gallery)
        np.testing.assert_array_equal(found.index, exact.index)
        np.testing.assert_array_equal(np.isnan(found.distance), found.index == -1)


@pytest.mark.parametrize("keywords", [{"index": "tree"}, {"nprobe": 0}, {"nlist": 0}, {"links": 1}, {"breadth": 0}])
def test_bad_settings_are_explained(faiss, keywords):
    with pytest.raises(InputError, match=r"choose one of ivf, hnsw|expected nlist, nprobe"):
        approximate_search(crowd(1, 5), crowd(2, 60), **keywords)


def test_a_missing_faiss_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match="install it with: pip install faiss-cpu"):
        approximate_search(crowd(1, 5), crowd(2, 60))


def test_faiss_is_imported_for_a_search_only():
    code = "import sys, lab.evaluate.approximate; sys.exit('faiss' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
