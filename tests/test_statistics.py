"""Bootstrap of people and sign flips: against enumeration, worked by hand, and as often right as they say."""

import itertools

import numpy as np
import pytest

from lab.evaluate import statistics


def test_draws_are_of_as_many_people_as_there_are_and_in_blocks_of_any_size(monkeypatch):
    monkeypatch.setattr(statistics, "CELLS", 64)
    counts = np.concatenate(list(statistics.draw_counts(7, 4000, 0)))
    assert counts.shape == (4000, 7)
    assert (counts.sum(axis=1) == 7).all()
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.06)  # 4 standard errors of a binomial (7, 1/7)
    np.testing.assert_allclose(counts.var(axis=0), 6 / 7, atol=0.09)


def test_p_of_up_to_12_people_is_the_share_of_all_flips_as_far_from_0():
    rng = np.random.default_rng(3)
    differences = np.column_stack([rng.standard_normal(12) + 0.5, rng.integers(-2, 3, 12)])
    p, exact = statistics.sign_flip_test(np.vstack([differences, np.zeros((30, 2))]))
    assert exact.all()
    for column, found in zip(differences.T, p, strict=True):
        flips = [
            sum(s * d for s, d in zip(signs, column, strict=True)) for signs in itertools.product((-1, 1), repeat=12)
        ]
        assert found == np.mean([abs(flip) >= abs(column.sum()) - 1e-9 for flip in flips])


def test_p_by_hand():
    # of the 8 flips of (1, 2, 3), 6 and -6 alone are as far from 0 as 6; of (1, 1, -1): all
    p, _ = statistics.sign_flip_test(np.array([[1.0, 1], [2, 1], [3, -1]]))
    assert p.tolist() == [2 / 8, 1]


def test_random_flips_agree_with_all_of_them(monkeypatch):
    rng = np.random.default_rng(4)
    differences = rng.normal([0, 0.3, 0.7], 1, (11, 3))
    expected, _ = statistics.sign_flip_test(differences)
    monkeypatch.setattr(statistics, "EXACT", 0)
    p, exact = statistics.sign_flip_test(differences, 20_000, 0)
    assert not exact.any()
    np.testing.assert_allclose(p, expected, atol=0.015)  # 4 standard errors at most
    large = statistics.sign_flip_test(np.ones((40, 1)), 999, 0)[0]
    assert large == pytest.approx(1 / 1000)  # no flip is as far: the smallest p that 999 draws can give


def test_holm_by_hand():
    np.testing.assert_allclose(statistics.holm(np.array([0.03, 0.01, 0.04])), [0.06, 0.03, 0.06])
    np.testing.assert_allclose(statistics.holm(np.array([0.6, 0.9])), [1, 1])
    np.testing.assert_allclose(statistics.holm(np.array([0.2])), [0.2])


def simulate(rng, people: int, effect: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Queries of people of whom each has a level of their own: pid (Q,) and values (Q, 1) around `effect`."""
    pid = np.repeat(np.arange(people), rng.integers(2, 7, people))
    return pid, (effect + rng.standard_normal(people)[pid] + 0.5 * rng.standard_normal(len(pid)))[:, None]


def test_intervals_of_people_hold_the_truth_as_often_as_they_say_and_those_of_queries_do_not():
    rng, held, held_queries = np.random.default_rng(0), 0, 0
    for seed in range(300):
        pid, values = simulate(rng, people=40, effect=0.3)
        for unit in (pid, np.arange(len(pid))):
            low, high = statistics.interval(
                statistics.bootstrap_means(*statistics.sum_by_person(unit, values), 300, seed)
            )
            inside = low[0] <= 0.3 <= high[0]
            held, held_queries = (held + inside, held_queries) if unit is pid else (held, held_queries + inside)
    assert 0.90 < held / 300 < 0.98  # 95 % within 4 standard errors of 300 trials
    assert held_queries / 300 < 0.80


def test_without_a_difference_one_test_in_twenty_rejects():
    rng, rejected = np.random.default_rng(1), 0
    for seed in range(400):
        pid, values = simulate(rng, people=20)
        sums, _ = statistics.sum_by_person(pid, values)
        rejected += statistics.sign_flip_test(sums, 199, seed)[0][0] <= 0.05
    assert 0.015 < rejected / 400 < 0.095  # 5 % within 4 standard errors of 400 trials
