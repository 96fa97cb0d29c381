"""Camera pairs against a slow oracle that ranks one camera's crops by hand, and small cases."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import InputError
from lab.evaluate.camera_pairs import CameraPairs, camera_pairs
from lab.evaluate.distance import distance_blocks
from lab.evaluate.metrics import evaluate_ranking
from lab.runs import Features


def make(values, pid, camid) -> Features:
    return Features(np.asarray(values), np.asarray(pid, np.int64), np.asarray(camid, np.int64), np.full(len(pid), ""))


def random_set(seed: int, queries=12, gallery=40, people=6, cameras=3, spread=4) -> tuple[Features, Features]:
    """Integer features in two dimensions: squared distances are exact and full of ties."""
    rng = np.random.default_rng(seed)

    def part(count):
        values = rng.integers(-spread, spread + 1, (count, 2)).astype(np.float32)
        return make(values, rng.integers(0, people, count), rng.integers(9, 9 + cameras, count))

    return part(queries), part(gallery)


def oracle(query: Features, gallery: Features, q: int, camid: int) -> tuple[float, int]:
    """AP and rank of the first match of one query among the crops of one gallery camera."""
    places = [g for g in range(len(gallery.pid)) if gallery.camid[g] == camid]
    if query.camid[q] == camid:
        places = [g for g in places if gallery.pid[g] != query.pid[q]]
    distance = {g: float(((query.values[q] - gallery.values[g]) ** 2).sum()) for g in places}
    ordered = sorted(places, key=lambda g: (distance[g], g))
    hits = [rank for rank, g in enumerate(ordered, 1) if gallery.pid[g] == query.pid[q]]
    if not hits:
        return float("nan"), 0
    return sum(found / rank for found, rank in enumerate(hits, 1)) / len(hits), hits[0]


def assert_equals_oracle(query: Features, gallery: Features, found: CameraPairs) -> None:
    assert found.gallery_camid.tolist() == sorted(set(gallery.camid.tolist()))
    assert found.query_camid.tolist() == query.camid.tolist()
    for place, camid in enumerate(found.gallery_camid):
        for q in range(len(query.pid)):
            ap, first = oracle(query, gallery, q, camid)
            assert found.ap[q, place] == pytest.approx(ap, nan_ok=True)
            assert found.first_match[q, place] == first


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    queries=st.integers(1, 8),
    gallery=st.integers(1, 40),
    people=st.integers(1, 9),
    cameras=st.integers(1, 6),
    spread=st.integers(0, 5),
    entries=st.integers(20, 400),
)
def test_equals_the_oracle_for_any_small_set(seed, queries, gallery, people, cameras, spread, entries):
    sets = random_set(seed, queries, gallery, people, cameras, spread)
    try:
        found = camera_pairs(*sets, "euclidean", memory_gb=entries * 12 / 1e9)
    except InputError:
        assert all(oracle(*sets, q, camid)[1] == 0 for q in range(queries) for camid in set(sets[1].camid))
        return
    assert_equals_oracle(*sets, found)


@pytest.mark.parametrize("sizes", [[12], [5, 7], [1] * 12])
def test_given_distances_are_cut_by_camera(sizes):
    query, gallery = random_set(7)
    whole = torch.cat(list(distance_blocks(query.values, gallery.values, "euclidean", memory_gb=1)))
    other = make(np.zeros((12, 3)), query.pid, query.camid), make(np.ones((40, 3)), gallery.pid, gallery.camid)
    assert_equals_oracle(query, gallery, camera_pairs(*other, blocks=whole.clone().split(sizes)))


def test_one_other_camera_is_the_usual_evaluation():
    query, gallery = random_set(3, cameras=1)
    gallery = make(gallery.values, gallery.pid, gallery.camid + 1)
    for ap in ("step", "trapezoid"):
        found, usual = (rank(query, gallery, "euclidean", ap) for rank in (camera_pairs, evaluate_ranking))
        np.testing.assert_array_equal(found.ap[:, 0], usual.ap)
        np.testing.assert_array_equal(found.first_match[:, 0], usual.first_match)


def test_features_that_stay_on_disk_are_ranked_the_same(tmp_path):
    query, gallery = random_set(6)
    gallery.save(tmp_path / "gallery.npz")
    on_disk = Features.load(tmp_path / "gallery.npz", on_disk=True)
    assert not isinstance(on_disk.values, np.ndarray)
    assert_equals_oracle(query, gallery, camera_pairs(query, on_disk, "euclidean", memory_gb=1e-6))


def by_hand() -> CameraPairs:
    """Five queries under cameras 1 and 2, two of which find nobody under camera 3."""
    nan = np.nan
    ap = [[nan, 0.5, 1.0], [nan, 1.0, 0.25], [nan, 0.1, nan], [0.2, nan, nan], [nan, nan, nan]]
    first = [[0, 2, 1], [0, 1, 4], [0, 7, 0], [5, 0, 0], [0, 0, 0]]
    return CameraPairs(np.array([1, 1, 1, 2, 2]), np.array([1, 2, 3]), np.array(ap), np.array(first))


def test_table_by_hand():
    table = by_hand().table()
    expected = pd.DataFrame(
        [
            (1, 2, 3, 1.6 / 3, 1 / 3, 2 / 3),
            (1, 3, 2, 0.625, 0.5, 1.0),
            (2, 1, 1, 0.2, 0.0, 1.0),
            (2, 3, 0, np.nan, np.nan, np.nan),
        ],
        columns=["query camid", "gallery camid", "queries", "mAP", "rank-1", "rank-5"],
    )
    pd.testing.assert_frame_equal(table, expected)


def test_matrix_has_every_camera_and_blanks_where_nothing_is_asked():
    matrix = by_hand().matrix("rank-1")
    assert matrix.index.tolist() == [1, 2]
    assert matrix.columns.tolist() == [1, 2, 3]
    np.testing.assert_allclose(matrix, [[np.nan, 1 / 3, 0.5], [0, np.nan, np.nan]])
    assert by_hand().matrix().loc[1, 3] == 0.625
    with pytest.raises(InputError, match="metric is 'mINP'; choose one of mAP, rank-1, rank-5"):
        by_hand().matrix("mINP")


def test_a_query_camera_with_nothing_but_itself_has_an_empty_row():
    found = CameraPairs(np.array([1, 2]), np.array([1]), np.array([[np.nan], [0.5]]), np.array([[0], [2]]))
    np.testing.assert_array_equal(found.matrix(), [[np.nan], [0.5]])
    assert found.table()["query camid"].tolist() == [2]


def test_saved_and_loaded_it_is_the_same_and_its_neighbours_stay(tmp_path):
    (tmp_path / "result.json").write_text("{}")
    by_hand().save(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"result.json", "cameras.npz", "cameras.csv"}
    loaded = CameraPairs.load(tmp_path)
    with np.load(tmp_path / "cameras.npz", allow_pickle=False) as arrays:
        assert set(arrays.files) == {"query_camid", "gallery_camid", "ap", "first_match"}
        for name in arrays.files:
            np.testing.assert_array_equal(arrays[name], getattr(by_hand(), name))
            np.testing.assert_array_equal(getattr(loaded, name), getattr(by_hand(), name))
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "cameras.csv"), by_hand().table())


def test_files_that_hold_something_else_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"cameras\.npz holds no camera pairs"):
        CameraPairs.load(tmp_path)
    (tmp_path / "cameras.npz").write_text("no npz")
    with pytest.raises(InputError, match="holds no camera pairs"):
        CameraPairs.load(tmp_path)
    arrays = vars(by_hand()) | {"ap": np.zeros((5, 2))}
    np.savez(tmp_path / "cameras.npz", **arrays)
    with pytest.raises(InputError, match=r"holds ap \(5, 2\) and first_match \(5, 3\); expected \(5, 3\)"):
        CameraPairs.load(tmp_path)


def test_bad_input_is_refused():
    query, gallery = random_set(0)
    with pytest.raises(InputError, match="choose one of"):
        camera_pairs(query, gallery, "city")
    with pytest.raises(InputError, match="another camid"):
        camera_pairs(make([[0.0]], [1], [1]), make([[0.0]], [1], [1]))
    with pytest.raises(ValueError, match="cover 2 queries of 12"):
        camera_pairs(query, gallery, blocks=[torch.zeros(2, 40)])
