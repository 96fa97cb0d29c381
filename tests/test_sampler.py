"""The identity sampler against its stated rules, worked out by hand on small label lists."""

from itertools import islice

import numpy as np
import pytest

from lab.errors import InputError
from lab.finetune.sampler import IdentitySampler


def batches(labels, count, ids=2, images=3, seed=0):
    return list(islice(IdentitySampler(np.asarray(labels), ids, images, seed), count))


def test_a_batch_is_different_people_one_after_another():
    labels = np.repeat([7, 3, 9, 5], [6, 8, 5, 12])
    for batch in batches(labels, 40, ids=3, images=4):
        people = labels[batch].reshape(3, 4)
        assert (people == people[:, :1]).all()
        assert len(set(people[:, 0])) == 3


def test_crops_are_used_once_per_cycle_and_the_rest_is_dropped():
    # 2 people x 7 crops in batches of 2 x 3: a cycle has two batches, and one crop of each person is left over
    labels = np.repeat([0, 1], 7)
    stream = batches(labels, 20)
    for first, second in zip(stream[0::2], stream[1::2], strict=True):
        for person in (0, 1):
            used = [crop for crop in (*first, *second) if labels[crop] == person]
            assert len(used) == len(set(used)) == 6
    assert {crop for batch in stream for crop in batch} == set(range(14))


def test_people_with_few_crops_are_filled_up_with_repeats():
    labels = np.array([0, 1, 1, 1, 1, 1, 1])
    for batch in batches(labels, 10):
        people = labels[batch]
        assert (people == 0).sum() == 3
        assert set(batch[people == 0]) == {0}
        assert len(set(batch[people == 1])) == 3


def test_filling_up_draws_with_replacement():
    # 3 crops for 4 places: at least one is repeated, and now and then one of them is missing
    labels = np.repeat([0, 1], 3)
    distinct = [len(set(batch[labels[batch] == 0])) for batch in batches(labels, 200, images=4)]
    assert set(distinct) >= {2, 3}


def test_a_cycle_ends_when_too_few_people_are_left():
    # A has crops for 5 draws, B and C for one: after the batch that uses up the second person nobody but A (or A and
    # the third) is left. Per cycle the number of batches is 1 (B, C first) or 2 (A with B, A with C); never more.
    labels = np.repeat([0, 1, 2], [15, 3, 3])
    draws_of_a = 0
    for batch in batches(labels, 600):
        draws_of_a += (labels[batch] == 0).any()
    # the first batch of a cycle holds A with probability 2/3, a second one exists exactly then and holds A
    # expected share: (2/3 * 2 batches with A) / (1/3 * 1 + 2/3 * 2 batches) = 0.8
    assert abs(draws_of_a / 600 - 0.8) < 0.05


def test_everybody_is_drawn_about_equally_often():
    labels = np.repeat(np.arange(10), 6)
    people = np.concatenate([labels[batch].reshape(2, 3)[:, 0] for batch in batches(labels, 1000)])
    counts = np.bincount(people)
    assert counts.min() > 180
    assert counts.max() < 220


def test_the_stream_is_a_function_of_the_seed():
    labels = np.repeat(np.arange(5), 7)
    assert np.array_equal(batches(labels, 30, seed=3), batches(labels, 30, seed=3))
    assert not np.array_equal(batches(labels, 30, seed=3), batches(labels, 30, seed=4))


def test_fewer_people_than_a_batch_needs():
    with pytest.raises(InputError, match="has 3 identities, and a batch needs 4"):
        IdentitySampler(np.repeat([0, 1, 2], 20), ids_per_batch=4)
    with pytest.raises(InputError, match="no triplets"):
        IdentitySampler(np.repeat([0, 1, 2], 20), ids_per_batch=1)
