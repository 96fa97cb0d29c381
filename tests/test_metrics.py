"""Ranking and metrics against a slow oracle and hand-worked cases; the published outputs are in golden/."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import InputError
from lab.evaluate.counting import sort_rows
from lab.evaluate.distance import distance_blocks, from_key, nearest_keys, to_key
from lab.evaluate.metrics import evaluate_ranking
from lab.runs import Features


def make(values, pid, camid) -> Features:
    values = np.asarray(values)
    path = np.array([f"{i}.jpg" for i in range(len(values))])
    return Features(values, np.asarray(pid, np.int64), np.asarray(camid, np.int64), path)


def blocks(*rows) -> list[torch.Tensor]:
    return [torch.tensor(rows, dtype=torch.float32)]


def line(pids, camids) -> Features:
    """A gallery whose entry i lies at distance i from the origin."""
    return make(np.sqrt(np.arange(len(pids), dtype=np.float32))[:, None], pids, camids)


ORIGIN = np.zeros((1, 1), np.float32)


def oracle(query: Features, gallery: Features, ap: str) -> dict:
    """Squared Euclid in float64, one query, one gallery entry and one hit at a time."""
    aps, inps, firsts, lists = [], [], [], []
    for q in range(len(query.pid)):
        candidates = []
        for g in range(len(gallery.pid)):
            if gallery.pid[g] == query.pid[q] and gallery.camid[g] == query.camid[q]:
                continue
            gap = [float(a) - float(b) for a, b in zip(query.values[q], gallery.values[g], strict=True)]
            candidates.append((sum(x * x for x in gap), g))
        candidates.sort()
        hits = [rank for rank, (_, g) in enumerate(candidates, 1) if gallery.pid[g] == query.pid[q]]
        lists.append([g for _, g in candidates])
        if not hits:
            aps.append(float("nan")), inps.append(float("nan")), firsts.append(0)
            continue
        precisions = []
        for found, rank in enumerate(hits, 1):
            before = (found - 1) / (rank - 1) if rank > 1 else 1.0
            precisions.append(found / rank if ap == "step" else (found / rank + before) / 2)
        aps.append(sum(precisions) / len(hits)), inps.append(len(hits) / hits[-1]), firsts.append(hits[0])
    valid = [first for first in firsts if first]
    cmc = [sum(first <= rank for first in valid) / len(valid) for rank in range(1, 51)] if valid else None
    return {"ap": aps, "inp": inps, "first_match": firsts, "lists": lists, "cmc": cmc}


def random_set(seed: int, queries=12, gallery=40, people=6, cameras=3, spread=4) -> tuple[Features, Features]:
    """Integer features in two dimensions: exact in float32 and full of ties."""
    rng = np.random.default_rng(seed)

    def part(count):
        values = rng.integers(-spread, spread + 1, (count, 2)).astype(np.float32)
        return make(values, rng.integers(0, people, count), rng.integers(9, 9 + cameras, count))

    return part(queries), part(gallery)


def assert_equals_oracle(query: Features, gallery: Features, ap: str, memory_gb: float) -> None:
    expected = oracle(query, gallery, ap)
    if expected["cmc"] is None:
        with pytest.raises(InputError, match="another camid"):
            evaluate_ranking(query, gallery, "euclidean", ap, memory_gb=memory_gb)
        return
    result = evaluate_ranking(query, gallery, "euclidean", ap, memory_gb=memory_gb)
    np.testing.assert_allclose(result.ap, expected["ap"], atol=1e-12)
    np.testing.assert_allclose(result.inp, expected["inp"], atol=1e-12)
    np.testing.assert_array_equal(result.first_match, expected["first_match"])
    np.testing.assert_allclose(result.cmc, expected["cmc"], atol=1e-12)
    assert result.mAP == pytest.approx(np.nanmean(expected["ap"]))
    for q, wanted in enumerate(expected["lists"]):
        kept = result.index[q][result.index[q] >= 0]
        assert kept.tolist() == wanted[:50]
        same = gallery.pid[kept] == query.pid[q]
        np.testing.assert_array_equal(result.match[q, : len(kept)], same)
        assert not result.match[q, len(kept) :].any()
        assert np.isnan(result.distance[q, len(kept) :]).all()


@pytest.mark.parametrize("ap", ["step", "trapezoid"])
@pytest.mark.parametrize("seed", range(6))
def test_equals_the_slow_oracle(seed, ap):
    assert_equals_oracle(*random_set(seed), ap, memory_gb=0.25)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    queries=st.integers(1, 8),
    gallery=st.integers(1, 70),
    people=st.integers(1, 9),
    cameras=st.integers(1, 12),
    spread=st.integers(0, 5),  # 0: all crops are the same
    rows=st.integers(1, 8),
)
def test_equals_the_oracle_for_any_small_set_and_block_size(seed, queries, gallery, people, cameras, spread, rows):
    sets = random_set(seed, queries, gallery, people, cameras, spread)
    assert_equals_oracle(*sets, "step", memory_gb=rows * 12 * gallery / 1e9)


def test_perfect_ranking():
    result = evaluate_ranking(make(ORIGIN, [7], [1]), line([7, 7, 3, 4], [2, 3, 1, 2]), "euclidean")
    assert (result.mAP, result.mINP, result.cmc[0]) == (1.0, 1.0, 1.0)
    assert result.first_match.tolist() == [1]


def test_imperfect_ranking():
    gallery = line([3, 7, 4, 7], [1, 2, 1, 3])  # hits at ranks 2 and 4
    step = evaluate_ranking(make(ORIGIN, [7], [1]), gallery, "euclidean")
    assert step.ap.tolist() == [(1 / 2 + 2 / 4) / 2]
    assert step.inp.tolist() == [2 / 4]
    assert step.cmc[:3].tolist() == [0, 1, 1]
    trapezoid = evaluate_ranking(make(ORIGIN, [7], [1]), gallery, "euclidean", ap="trapezoid")
    # before the hit at rank 2 the precision is 0 / 1, before the one at rank 4 it is 1 / 3
    assert trapezoid.ap[0] == pytest.approx(((0 / 1 + 1 / 2) / 2 + (1 / 3 + 2 / 4) / 2) / 2)


def test_worst_ranking():
    result = evaluate_ranking(make(ORIGIN, [7], [1]), line([1, 2, 3, 4, 7], [2] * 5), "euclidean")
    assert result.ap.tolist() == [1 / 5]
    assert result.inp.tolist() == [1 / 5]
    assert result.cmc[3] == 0
    assert result.cmc[4] == 1
    assert result.cmc[49] == 1


def test_same_camera_is_removed_and_other_people_of_that_camera_stay():
    gallery = line([7, 3, 7], [1, 1, 2])
    result = evaluate_ranking(make(ORIGIN, [7], [1]), gallery, "euclidean")
    assert result.index[0, :3].tolist() == [1, 2, -1]
    assert result.match[0, :3].tolist() == [False, True, False]
    assert result.first_match.tolist() == [2]


def test_queries_without_a_match_are_nan_and_count_in_no_mean():
    query = make(np.zeros((3, 1), np.float32), [7, 8, 9], [1, 1, 1])
    result = evaluate_ranking(query, line([7, 8], [2, 1]), "euclidean")  # 8 only from its own camera, 9 not at all
    assert result.num_query == 3
    assert result.num_valid_query == 1
    assert np.isnan(result.ap).tolist() == [False, True, True]
    assert result.first_match.tolist() == [1, 0, 0]
    assert result.mAP == 1.0
    assert result.cmc[0] == 1.0
    assert result.index[1, :2].tolist() == [0, -1]


def test_queries_without_a_match_count_as_0_over_all_queries():
    query = make(np.zeros((4, 1), np.float32), [7, 8, 9, 3], [1, 1, 1, 1])
    gallery = line([7, 8, 3], [2, 1, 2])  # 7 at rank 1, 3 at rank 3; 8 only from its own camera, 9 not at all
    result = evaluate_ranking(query, gallery, "euclidean", denominator="all")
    assert (result.mAP, result.mINP) == pytest.approx([(1 + 1 / 3) / 4] * 2)
    assert result.cmc[[0, 1, 2, 49]].tolist() == [1 / 4, 1 / 4, 2 / 4, 2 / 4]
    assert np.isnan(result.ap).tolist() == np.isnan(result.inp).tolist() == [False, True, True, False]
    assert (result.num_query, result.num_valid_query) == (4, 2)


@pytest.mark.parametrize("ap", ["step", "trapezoid"])
def test_the_denominator_scales_every_mean_by_the_share_of_answerable_queries(ap):
    for seed in range(4):
        sets = random_set(seed, gallery=15, people=12)
        valid, over_all = (evaluate_ranking(*sets, "euclidean", ap, denominator=name) for name in ("valid", "all"))
        share = valid.num_valid_query / valid.num_query
        assert share < 1
        np.testing.assert_allclose(over_all.cmc, share * valid.cmc, atol=1e-12)
        assert (over_all.mAP, over_all.mINP) == pytest.approx((share * valid.mAP, share * valid.mINP))
        np.testing.assert_array_equal(over_all.ap, valid.ap)


def test_equal_distances_are_ordered_by_gallery_position():
    query = make(ORIGIN, [7], [1])
    gallery = make(np.ones((60, 1), np.float32), [*range(100, 130), 7, *range(200, 229)], [2] * 60)
    result = evaluate_ranking(query, gallery, "euclidean")
    assert result.first_match.tolist() == [31]
    assert result.index[0].tolist() == list(range(50))


def test_ties_between_two_matches_give_them_two_ranks():
    result = evaluate_ranking(make(ORIGIN, [7], [1]), make(np.ones((3, 1)), [7, 3, 7], [2, 2, 3]), "euclidean")
    assert result.ap.tolist() == [(1 / 1 + 2 / 3) / 2]


def test_pids_beyond_32_bits_and_two_digit_cameras():
    big = 2**31 + 5
    query = make(ORIGIN, [big], [1])
    gallery = line([5, big, big], [12, 1, 12])  # 5 is big modulo 2^31; camera 12 is not camera 1
    result = evaluate_ranking(query, gallery, "euclidean")
    assert result.first_match.tolist() == [2]
    assert result.index[0, :3].tolist() == [0, 2, -1]


def test_one_query_and_one_gallery_crop():
    result = evaluate_ranking(make([[1.0, 0.0]], [1], [1]), make([[0.0, 1.0]], [1], [2]))
    assert result.mAP == 1.0
    assert result.distance[0, 0] == 1.0
    assert result.cmc.shape == (50,)


def test_cosine_ignores_the_length_of_features():
    rng = np.random.default_rng(0)
    values, pid, camid = rng.standard_normal((30, 8)), rng.integers(0, 4, 30), rng.integers(0, 3, 30)
    query, gallery = make(values[:6], pid[:6], camid[:6]), make(values[6:], pid[6:], camid[6:])
    longer = make(values[6:] * rng.uniform(0.5, 2, (24, 1)), pid[6:], camid[6:])
    np.testing.assert_array_equal(evaluate_ranking(query, gallery).index, evaluate_ranking(query, longer).index)


def test_half_precision_features_are_taken():
    query, gallery = random_set(3)
    halves = [make(part.values.astype(np.float16), part.pid, part.camid) for part in (query, gallery)]
    full, half = evaluate_ranking(query, gallery, "euclidean"), evaluate_ranking(*halves, "euclidean")
    np.testing.assert_array_equal(full.ap, half.ap)


def test_other_distances_come_as_blocks():
    query = make(np.zeros((2, 1)), [1, 2], [1, 1])
    gallery = make(np.zeros((2, 1)), [1, 2], [2, 2])
    given_blocks = [*blocks([0.5, 0.1]), *blocks([0.5, -0.1])]
    result = evaluate_ranking(query, gallery, blocks=given_blocks)
    assert result.first_match.tolist() == [2, 1]
    with pytest.raises(ValueError, match="cover 1 queries of 2"):
        evaluate_ranking(query, gallery, blocks=blocks([0.5, 0.1]))


def test_blocks_stay_under_the_memory_budget():
    rng = np.random.default_rng(0)
    query, gallery = rng.standard_normal((100, 4)), rng.standard_normal((1000, 4))
    sizes = [len(block) for block in distance_blocks(query, gallery, memory_gb=1e-4)]
    assert sum(sizes) == 100
    assert max(sizes) * 1000 * 4 * 3 <= 1e5


def test_keys_order_by_distance_then_position():
    values = torch.tensor([-1.5, -0.0, 0.0, 1e-30, 2.0, torch.inf])
    keys = to_key(values, torch.arange(6))
    assert keys.sort().values.tolist() == keys.tolist()
    value, column = from_key(keys)
    assert value.tolist() == values.abs().mul(values.sign()).tolist()
    assert column.tolist() == [0, 1, 2, 3, 4, 5]


def test_nearest_equals_a_stable_sort():
    block = torch.randint(0, 5, (40, 90), generator=torch.manual_seed(0)).float()
    value, column = block.sort(dim=1, stable=True)
    found = from_key(nearest_keys(block, 20).sort(dim=1).values)
    assert torch.equal(found[0], value[:, :20])
    assert torch.equal(found[1], column[:, :20])
    assert torch.equal(sort_rows(block), value)


@pytest.mark.parametrize(
    ("query", "gallery", "words"),
    [
        (make(np.zeros((2, 3)), [1, 1], [1, 1]), make(np.zeros((2, 4)), [1, 1], [2, 2]), "3 values and gallery .* 4"),
        (make(np.zeros((2, 3)), [1, 1], [1, 1]), make(np.zeros((0, 3)), [], []), "gallery holds no features"),
        (make([[1.0], [np.nan], [np.inf]], [1, 1, 1], [1, 1, 1]), line([1], [2]), r"2 of 3 query .*rows 1, 2"),
        (make(ORIGIN, [1], [1]), line([1, -1], [2, 2]), "1 junk"),
        (make(ORIGIN, [1], [1]), line([1, 1], [1, 1]), "another camid.*same camera is removed"),
    ],
)
def test_bad_input_is_explained(query, gallery, words):
    with pytest.raises(InputError, match=words):
        evaluate_ranking(query, gallery, "euclidean")


def test_unknown_names_are_refused():
    for keywords in ({"distance": "city"}, {"ap": "smooth"}, {"denominator": "some"}, {"gallery_shot": "double"}):
        with pytest.raises(InputError, match="choose one of"):
            evaluate_ranking(*random_set(0), **keywords)
