"""Single-gallery-shot CMC against every possible draw of a small gallery; the published outputs are in golden/."""

import itertools

import numpy as np
import pytest
import torch

from lab.errors import InputError
from lab.evaluate.distance import distance_blocks
from lab.evaluate.metrics import evaluate_ranking
from lab.evaluate.single_shot import SingleShot
from lab.runs import Features


def make(values, pid, camid) -> Features:
    values = np.asarray(values, np.float32).reshape(len(pid), -1)
    return Features(values, np.asarray(pid, np.int64), np.asarray(camid, np.int64), np.full(len(pid), ""))


def line(pids, camids, places=None) -> Features:
    """A gallery whose entry i lies at squared distance i (or `places[i]`) from the origin, where the queries are."""
    return make(np.sqrt(places if places is not None else np.arange(len(pids))), pids, camids)


def at_origin(pids, camids) -> Features:
    return make(np.zeros(len(pids)), pids, camids)


def possible_ranks(query: Features, gallery: Features, number: int) -> list[int]:
    """The rank of the match in each of the equally likely draws, one gallery entry at a time."""
    distance = ((gallery.values - query.values[number]) ** 2).sum(axis=1)
    same = gallery.pid == query.pid[number]
    counts = ~(same & (gallery.camid == query.camid[number]))
    people = [np.flatnonzero((gallery.pid == pid) & counts) for pid in np.unique(gallery.pid)]
    if not (same & counts).any():
        return []
    ranks = []
    for draw in itertools.product(*(entries for entries in people if len(entries))):
        order = sorted(draw, key=lambda entry: (distance[entry], entry))
        ranks.append(1 + next(i for i, entry in enumerate(order) if same[entry]))
    return ranks


def small_set(seed: int) -> tuple[Features, Features]:
    """Few whole-number places, so that many distances tie."""
    rng = np.random.default_rng(seed)
    query = make(rng.integers(0, 4, 6), rng.integers(0, 5, 6), rng.integers(0, 2, 6))
    return query, make(rng.integers(0, 4, 12), rng.integers(0, 5, 12), rng.integers(0, 2, 12))


def single(query: Features, gallery: Features, **keywords):
    return evaluate_ranking(query, gallery, "euclidean", gallery_shot="single", **keywords)


def test_by_hand():
    # of person 7 the crop at rank 2 or 4 is drawn, of 3 the one at rank 1 or 3, of 4 the only one
    result = single(at_origin([7], [1]), line([3, 7, 3, 7, 4], [1, 2, 1, 2, 1]), repeats=20000)
    # before the first crop of 7 stands one of 3 in half of the draws; before the second always, and 4 never
    np.testing.assert_allclose(result.cmc[:3], [0.25, 1, 1], atol=0.015)
    assert result.ap.tolist() == [0.5]  # of the full list
    assert result.inp.tolist() == [0.5]
    assert result.first_match.tolist() == [2]


def test_one_crop_per_person_leaves_nothing_to_draw():
    query, gallery = at_origin([7, 4], [1, 1]), line([3, 7, 4], [2, 2, 2])
    np.testing.assert_array_equal(single(query, gallery).cmc, evaluate_ranking(query, gallery, "euclidean").cmc)


def test_the_same_camera_is_removed_before_the_draw():
    result = single(at_origin([7], [1]), line([7, 3, 7, 7], [1, 1, 1, 2]), repeats=50)
    assert result.cmc[:2].tolist() == [0, 1]  # always the crop from camera 2, behind person 3


def test_ties_are_ordered_by_gallery_position():
    query = at_origin([7], [1])
    behind = single(query, line([3, 3, 7, 5], [2] * 4, [1, 1, 1, 1]), repeats=20)
    before = single(query, line([7, 7, 3, 5], [2] * 4, [1, 1, 1, 1]), repeats=20)
    assert (behind.cmc[0], behind.cmc[1], before.cmc[0]) == (0, 1, 1)


@pytest.mark.parametrize("seed", range(4))
def test_the_mean_over_many_draws_is_that_over_all_possible_ones(seed):
    query, gallery = small_set(seed)
    repeats = 4000
    result = single(query, gallery, repeats=repeats, seed=seed)
    possible = [np.array(ranks) for q in range(len(query.pid)) if (ranks := possible_ranks(query, gallery, q))]
    for k in range(1, 51):
        chance = np.array([(ranks <= k).mean() for ranks in possible])
        error = np.sqrt((chance * (1 - chance)).sum() / repeats) / len(chance)
        assert abs(result.cmc[k - 1] - chance.mean()) <= 4 * error + 1e-12


def test_every_seed_gives_possible_draws_and_all_seeds_give_all():
    query, gallery = small_set(0)
    block = torch.cat(list(distance_blocks(query.values, gallery.values, "euclidean")))
    same, seen = query.pid[:, None] == gallery.pid, query.camid[:, None] == gallery.camid
    row, column = (torch.from_numpy(values) for values in np.nonzero(same & ~seen))
    found = [set() for _ in query.pid]
    for seed in range(300):
        ranks = SingleShot(query.pid, gallery.pid, repeats=1, seed=seed).ranks(block, 0, row, column)
        for ranks_found, rank in zip(found, ranks[:, 0].tolist(), strict=True):
            ranks_found.add(rank)
    assert found == [set(possible_ranks(query, gallery, number)) or {0} for number in range(len(query.pid))]


def test_draws_are_uniform_and_one_of_each_person():
    gallery_pid = np.array([5, 9, 5, 2, 9, 9])
    drawn = SingleShot(np.array([9]), gallery_pid, repeats=6000, seed=3).draw(0, np.array([1, 5]))
    np.testing.assert_array_equal(gallery_pid[drawn], np.tile([2, 5, 9], (6000, 1)))
    share = np.bincount(drawn.ravel(), minlength=6) / 6000
    np.testing.assert_allclose(share, [0.5, 0.5, 0.5, 1, 0, 0.5], atol=0.03)


def test_blocks_and_steps_do_not_matter_and_the_seed_does(monkeypatch):
    rng = np.random.default_rng(0)
    query = make(rng.standard_normal((40, 3)), rng.integers(0, 8, 40), rng.integers(0, 3, 40))
    gallery = make(rng.standard_normal((90, 3)), rng.integers(0, 9, 90), rng.integers(0, 3, 90))
    whole = single(query, gallery)
    assert whole.num_valid_query == 40
    assert whole.cmc[0] != single(query, gallery, seed=1).cmc[0]
    np.testing.assert_array_equal(single(query, gallery, memory_gb=7 * 12 * 90 / 1e9).cmc, whole.cmc)
    monkeypatch.setattr("lab.evaluate.single_shot.DRAWS", 200)
    np.testing.assert_array_equal(single(query, gallery).cmc, whole.cmc)
    np.testing.assert_array_equal(whole.ap, evaluate_ranking(query, gallery, "euclidean").ap)


def test_queries_without_a_match_count_by_the_denominator():
    query, gallery = at_origin([7, 8, 9, 7], [1, 1, 1, 1]), line([7, 8], [2, 1])
    assert single(query, gallery).cmc[0] == 1
    assert single(query, gallery, denominator="all").cmc[0] == 0.5


def test_a_block_may_hold_no_query_with_a_match():
    query, gallery = at_origin([1, 2, 7], [1, 1, 1]), line([7, 8], [2, 1])
    assert single(query, gallery, memory_gb=1e-9).cmc[0] == 1


@pytest.mark.parametrize("keywords", [{"repeats": 0}, {"seed": -1}])
def test_numbers_out_of_range_are_explained(keywords):
    with pytest.raises(InputError, match="expected repeats from 1, a seed from 0 on"):
        single(at_origin([7], [1]), line([7], [2]), **keywords)
