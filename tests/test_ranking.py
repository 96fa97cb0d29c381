"""The chunked ranking engine: nothing it returns may depend on tiles, order of work, precision or number of processes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lab.evaluate.ranking as ranking
from lab.errors import InputError
from lab.evaluate.blocks import FeatureBlock
from lab.evaluate.counting import _find_by_comparing, count_above, file_between, find_in_row
from lab.evaluate.distance import Rows, distance_blocks, distance_tiles, exact_block, exact_pairs, prepare, tile_shape
from lab.evaluate.metrics import evaluate_ranking
from lab.evaluate.ranking import TooNarrow
from lab.evaluate.rerank import rerank_blocks
from lab.runs import EvalResult, Features

CPU = torch.device("cpu")
PRECISIONS = ("float32", "tf32", "bfloat16")
METRICS = ("mAP", "mINP", "cmc", "ap", "inp", "first_match")
LISTS = ("index", "match")


def make(values, pid, camid) -> Features:
    values = np.asarray(values)
    return Features(values, np.asarray(pid, np.int64), np.asarray(camid, np.int64), np.full(len(values), ""))


def take(features: Features, rows) -> Features:
    return make(features.values[rows], features.pid[rows], features.camid[rows])


def crowd(seed: int, queries=40, gallery=300, size=24, people=12, spread=1.0) -> tuple[Features, Features]:
    """Features of people; every tenth gallery crop is a copy of another one, every fifth query a copy of a gallery crop.

    A small `spread` puts all of them so close together that float32 products cannot tell many distances apart.
    """
    rng = np.random.default_rng(seed)
    count = queries + gallery
    pid, camid = rng.integers(0, people, count), rng.integers(1, 5, count)
    values = rng.standard_normal((people, size))[pid] + 1.5 * rng.standard_normal((count, size))
    values = (rng.standard_normal(size) + spread * values).astype(np.float32)
    copies = np.arange(queries, count, 10)
    values[copies] = values[rng.permutation(np.arange(queries, count))[: len(copies)]]
    shown = np.arange(0, queries, 5)[: len(copies)]
    values[shown] = values[copies[: len(shown)]]
    return make(values[:queries], pid[:queries], camid[:queries]), make(
        values[queries:], pid[queries:], camid[queries:]
    )


def oracle(query: Features, gallery: Features, distance: str) -> tuple[list[list[int]], list[float]]:
    """Rank lists and APs from a stable sort of all distances, each computed on its own in float64."""
    lists, aps = [], []
    a, b = (prepare(part.values, distance).double().numpy() for part in (query, gallery))
    for q in range(len(a)):
        if distance == "cosine":
            far = np.float32(1) - np.array([(a[q] * row).sum() for row in b]).astype(np.float32)
        else:
            far = np.array([((a[q] - row) ** 2).sum() for row in b]).astype(np.float32)
        removed = (gallery.pid == query.pid[q]) & (gallery.camid == query.camid[q])
        order = [g for g in np.argsort(far, kind="stable") if not removed[g]]
        hits = np.flatnonzero(gallery.pid[order] == query.pid[q]) + 1
        lists.append(order[:50])
        aps.append(np.mean(np.arange(1, len(hits) + 1) / hits) if len(hits) else np.nan)
    return lists, aps


def assert_same(one: EvalResult, other: EvalResult, names=(*METRICS, *LISTS), gap=5e-7) -> None:
    for name in names:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    if "index" in names:
        np.testing.assert_allclose(one.distance, other.distance, rtol=2e-6, atol=gap)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-6, 0.0])
def test_equals_distances_computed_one_by_one(distance, spread):
    query, gallery = crowd(1, spread=spread)
    lists, aps = oracle(query, gallery, distance)
    for memory_gb, precision in ((0.25, "float32"), (2e-5, "float32"), (0.25, "bfloat16"), (1e-4, "tf32")):
        result = evaluate_ranking(query, gallery, distance, memory_gb=memory_gb, precision=precision)
        assert result.index.tolist() == lists
        np.testing.assert_allclose(result.ap, aps, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    queries=st.integers(1, 30),
    gallery=st.integers(1, 150),
    people=st.integers(1, 9),
    spread=st.sampled_from([1.0, 1e-3, 1e-5, 0.0]),
    entries=st.integers(1, 3000),
    precision=st.sampled_from(PRECISIONS),
    distance=st.sampled_from(["cosine", "euclidean"]),
)
def test_neither_tiles_nor_precision_change_anything(
    seed, queries, gallery, people, spread, entries, precision, distance
):
    sets = crowd(seed, queries, gallery, 16, people, spread)
    try:
        whole = evaluate_ranking(*sets, distance)
    except InputError:
        return  # no query has a match; told elsewhere
    cut = evaluate_ranking(*sets, distance, memory_gb=entries * 12 / 1e9, precision=precision)
    assert_same(whole, cut, gap=5e-7 if distance == "cosine" else 2e-4)


def test_the_order_of_the_gallery_does_not_matter_without_ties():
    query, gallery = crowd(3, queries=30, gallery=200)
    distinct = np.unique(gallery.values, axis=0, return_index=True)[1]
    gallery = take(gallery, distinct)
    order = np.random.default_rng(0).permutation(len(distinct))
    one, other = evaluate_ranking(query, gallery), evaluate_ranking(query, take(gallery, order))
    assert_same(one, other, METRICS)
    listed = one.index >= 0
    np.testing.assert_array_equal(one.index[listed], order[other.index[listed]])


def test_a_gallery_beside_itself_gives_every_entry_twice():
    query, gallery = crowd(4, queries=20, gallery=120)
    gallery = take(gallery, np.sort(np.unique(gallery.values, axis=0, return_index=True)[1]))
    count = len(gallery.pid)
    twice = take(gallery, np.r_[np.arange(count), np.arange(count)])
    one = evaluate_ranking(query, gallery)
    for memory_gb in (0.25, 2e-5):  # an entry and its copy lie in one tile, and in different ones
        both = evaluate_ranking(query, twice, memory_gb=memory_gb)
        np.testing.assert_array_equal(both.index[:, 0:50:2], one.index[:, :25])
        np.testing.assert_array_equal(both.index[:, 1:50:2], one.index[:, :25] + count)
        np.testing.assert_array_equal(both.first_match, np.where(one.first_match > 0, 2 * one.first_match - 1, 0))
        # all 2m matches are found at twice the rank of the last one
        np.testing.assert_allclose(both.inp, one.inp, atol=1e-12)


def test_all_equal_features_are_ranked_by_position():
    gallery = make(np.full((5000, 4), 0.3, np.float32), np.arange(5000) % 100, np.full(5000, 2))
    query = make(np.full((3, 4), 0.3, np.float32), [0, 7, 99], [1, 1, 1])
    for memory_gb in (0.25, 1e-4):
        result = evaluate_ranking(query, gallery, memory_gb=memory_gb)
        assert result.first_match.tolist() == [1, 8, 100]
        assert result.index[2].tolist() == list(range(50))
        np.testing.assert_allclose(result.ap[1], np.mean(np.arange(1, 51) / (8 + 100 * np.arange(50))), atol=1e-12)


def test_a_product_that_errs_more_than_was_allowed_is_noticed(monkeypatch):
    """The error is taken for too small: close entries show that it is not, and the block is ranked again."""
    query, gallery = crowd(5, spread=1e-2)
    expected = evaluate_ranking(query, gallery)
    monkeypatch.setattr(FeatureBlock, "_measure_error", lambda *_: 1e-8)
    widened = []

    def noticing(*arguments):
        try:
            return close(*arguments)
        except TooNarrow as found:
            widened.append(found.args[0])
            raise

    close = ranking._count_close
    monkeypatch.setattr(ranking, "_count_close", noticing)
    assert_same(expected, evaluate_ranking(query, gallery))
    assert widened


def test_error_allowed_for_is_well_above_the_error_made():
    query, gallery = crowd(6, queries=200, gallery=3000, size=512)
    for precision in PRECISIONS:
        for distance in ("cosine", "euclidean"):
            rows = Rows(gallery.values, distance, CPU, 1.0)
            part = prepare(query.values, distance)
            block = FeatureBlock(part, rows, distance, precision, 3000, torch.empty(200 * 3000))
            ((_, score),) = block.tiles()
            exact = part.double() @ rows.kept.double().T
            exact -= 0 if distance == "cosine" else rows.kept.double().square().sum(1) / 2
            assert (score - exact).abs().max() < block.error / 1.5
            assert block.error < (1e-5 if precision == "float32" else 0.05) * float(exact.abs().max())


def test_exact_distances_do_not_depend_on_what_they_are_computed_with():
    rng = np.random.default_rng(7)
    a, b = (torch.from_numpy(rng.standard_normal((n, 300)).astype(np.float32)) for n in (5, 70))
    a[0] = b[3]
    for distance in ("cosine", "euclidean"):
        block = exact_block(a, b, distance)
        row, column = torch.arange(5).repeat_interleave(70), torch.arange(70).repeat(5)
        assert torch.equal(exact_pairs(a[row], b[column], distance).view(5, 70), block)


@pytest.mark.parametrize("queries", [1, 40])
@pytest.mark.parametrize(
    ("distance", "size", "scale"),
    [
        ("cosine", 2048, 1),  # cosines near 0: 1 - cosine rounds away what they differ in
        ("euclidean", 64, 1000),  # queries far from the gallery: distances round away what scores differ in
        ("euclidean", 128, 0.001),
    ],
)
def test_distances_that_rounding_makes_equal_are_ties(distance, size, scale, queries):
    rng = np.random.default_rng(10)
    values = rng.standard_normal((queries + 2000, size)).astype(np.float32)
    values[:queries] *= scale
    pid, camid = rng.integers(0, 20, len(values)), rng.integers(1, 4, len(values))
    query, gallery = (make(values[part], pid[part], camid[part]) for part in (slice(queries), slice(queries, None)))
    lists, aps = oracle(query, gallery, distance)
    for precision in PRECISIONS:
        result = evaluate_ranking(query, gallery, distance, precision=precision)
        assert result.index.tolist() == lists
        np.testing.assert_allclose(result.ap, aps, atol=1e-12)


def test_whole_numbers_too_large_for_float32_are_rounded_alike_everywhere():
    rng = np.random.default_rng(11)
    values = rng.integers(0, 256, (420, 2048)).astype(np.float32)  # squared distances about 2e7, beyond 2^24
    pid, camid = rng.integers(0, 9, 420), rng.integers(1, 4, 420)
    query, gallery = make(values[:20], pid[:20], camid[:20]), make(values[20:], pid[20:], camid[20:])
    assert torch.equal(
        exact_block(torch.from_numpy(values[:3]), torch.from_numpy(values[20:]), "euclidean")[1],
        exact_pairs(torch.from_numpy(values[[1] * 400]), torch.from_numpy(values[20:]), "euclidean"),
    )
    lists, aps = oracle(query, gallery, "euclidean")
    for precision in PRECISIONS:
        result = evaluate_ranking(query, gallery, "euclidean", precision=precision)
        assert result.index.tolist() == lists
        np.testing.assert_allclose(result.ap, aps, atol=1e-12)


def test_distances_from_elsewhere_have_to_be_finite():
    query, gallery = crowd(0)
    for broken in (np.nan, np.inf):
        block = torch.zeros(40, 300)
        block[3, 7] = broken
        with pytest.raises(InputError, match="distances hold NaN or infinite values"):
            evaluate_ranking(query, gallery, blocks=[block])


def test_scores_above_edges_are_counted_by_sorting_and_by_filing_alike():
    score = torch.randint(-5, 6, (7, 90), generator=torch.manual_seed(0)).float()
    edges = torch.randint(-7, 8, (7, 11), generator=torch.manual_seed(1)).float()
    expected = (score.unsqueeze(1) > edges.unsqueeze(2)).sum(2)
    assert torch.equal(count_above(score, edges), expected)
    assert torch.equal(file_between(score, edges), expected)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("spread", [1.0, 1e-3, 0.0])
@pytest.mark.parametrize("intervals", [1, 4, 5, 200])
def test_entries_between_edges_are_found(spread, intervals):
    rng = np.random.default_rng(intervals)
    score = (spread * rng.standard_normal(3000) + 0.3).astype(np.float32)
    score[::50] = -np.inf
    for width in (0, 1e-6, 1e-2):
        centre = score[rng.integers(1, 50, intervals)]
        low, high = np.nextafter(centre - np.float32(width), np.float32(-np.inf)), centre + np.float32(width)
        expected = [(i, g) for i in range(intervals) for g in np.flatnonzero((score > low[i]) & (score <= high[i]))]
        which, place = find_in_row(score, low, high)
        assert sorted(zip(which.tolist(), place.tolist(), strict=True)) == expected
        parts = (
            torch.from_numpy(score)[None],
            torch.zeros(intervals, dtype=torch.int64),
            *map(torch.from_numpy, (low, high)),
        )
        which, place = _find_by_comparing(*parts)
        assert list(zip(which.tolist(), place.tolist(), strict=True)) == expected


def test_intervals_that_share_one_end_by_rounding_are_both_searched():
    one = np.float32
    low, high = np.array([0.25, 0.25], one), np.array([np.nextafter(one(0.5), one(1)), 0.5], one)
    which, place = find_in_row(high.copy(), low, high)
    assert sorted(zip(which.tolist(), place.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 1)]


def test_tiles_fit_the_budget_and_cover_every_pair_once():
    rng = np.random.default_rng(8)
    query, gallery = (rng.standard_normal((n, 6)).astype(np.float32) for n in (70, 333))
    whole = torch.cat(list(distance_blocks(query, gallery)))
    for entries in (100, 5000, 10**6):
        memory_gb = entries * 12 / 1e9
        rows, columns = tile_shape(70, Rows(gallery, "cosine", CPU, 1.0), memory_gb)
        assert rows * columns <= max(entries, rows)
        seen = torch.zeros(70, 333)
        for row, column, block in distance_tiles(query, gallery, memory_gb=memory_gb):
            part = (slice(row, row + len(block)), slice(column, column + block.shape[1]))
            seen[part] += 1
            torch.testing.assert_close(block, whole[part])
        assert (seen == 1).all()


def test_a_gallery_that_is_read_slice_by_slice_is_not_read_as_a_whole_for_a_few_queries():
    gallery = Rows(np.zeros((10**6, 100), np.float16), "cosine", CPU, memory_gb=0.05)
    assert gallery.kept is None
    rows, columns = tile_shape(3, gallery, 0.05)
    assert (rows, columns * 100 * 4 * 2 < 0.05e9) == (3, True)


def test_one_person_with_very_many_matches_makes_blocks_smaller():
    gallery = Rows(np.zeros((10**5, 2), np.float32), "euclidean", CPU, 1.0)
    usual, many = tile_shape(1000, gallery, 0.25), tile_shape(1000, gallery, 0.25, most_matches=10**5)
    assert many[0] < usual[0]
    assert many[0] * 2 * 10**5 * 4 < 0.25e9


def test_features_are_prepared_alike_whole_and_in_slices():
    rng = np.random.default_rng(9)
    values = rng.standard_normal((50, 9)).astype(np.float32)
    values[:20] /= np.linalg.norm(values[:20], axis=1, keepdims=True)  # some have length 1 already
    whole = prepare(values, "cosine")
    rows = Rows(values, "cosine", CPU, memory_gb=0)
    assert rows.kept is None
    assert torch.equal(torch.cat([rows.slice(0, 17), rows.slice(17, 50)]), whole)
    assert torch.equal(rows.take(torch.tensor([30, 2])), whole[[30, 2]])
    assert torch.equal(whole[:20], torch.from_numpy(values[:20]))


def test_an_unknown_precision_is_refused():
    with pytest.raises(InputError, match="precision is 'float8'; choose one of float32, tf32, bfloat16"):
        evaluate_ranking(*crowd(0), precision="float8")


PROCESS = """
import sys
import numpy as np, torch
sys.path.insert(0, sys.argv[1])
from test_ranking import crowd
from lab.distributed import is_first, processes
from lab.evaluate.metrics import evaluate_ranking
from lab.evaluate.rerank import rerank_blocks
torch.set_num_threads(1)
with processes():
    for name, sets in (("plain", crowd(11)), ("close", crowd(11, spread=1e-6)), ("few", crowd(12, 5, 3, people=2))):
        for way in ("rank", "rerank"):
            blocks = rerank_blocks(sets[0].values, sets[1].values) if way == "rerank" else None
            result = evaluate_ranking(*sets, blocks=blocks, memory_gb=1e-4)
            if is_first():
                lists = {key: getattr(result, key) for key in ("index", "distance", "ap", "cmc", "first_match")}
                np.savez(f"{sys.argv[2]}/{name}-{way}.npz", **lists)
"""


def test_two_processes_rank_as_one_does(tmp_path):
    (tmp_path / "program.py").write_text(PROCESS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    tests = str(Path(__file__).parent)
    done = subprocess.run(
        [*command, str(tmp_path / "program.py"), tests, str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for name, sets in (("plain", crowd(11)), ("close", crowd(11, spread=1e-6)), ("few", crowd(12, 5, 3, people=2))):
        for way in ("rank", "rerank"):
            blocks = rerank_blocks(sets[0].values, sets[1].values) if way == "rerank" else None
            one = evaluate_ranking(*sets, blocks=blocks)
            with np.load(tmp_path / f"{name}-{way}.npz") as two:
                for key in ("index", "ap", "cmc", "first_match"):
                    np.testing.assert_array_equal(getattr(one, key), two[key], err_msg=f"{name} {way} {key}")
                np.testing.assert_allclose(one.distance, two["distance"], atol=5e-7)
