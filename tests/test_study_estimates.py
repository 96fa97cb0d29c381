"""Error bars and verdicts of studies: hand-worked, against textbook formulas, and by how often an interval is right."""

import math

import numpy as np
import pytest
from scipy.stats import t as student
from scipy.stats import ttest_1samp

from lab.evaluate.statistics import bootstrap_means
from lab.study.estimates import (
    MARGIN,
    REFUTED,
    SUPPORTED,
    UNDECIDED,
    Estimate,
    Verdict,
    both,
    decide,
    estimate,
    simultaneous,
)


def test_a_mean_goes_over_queries_and_then_over_seeds():
    sums = np.array([[1.0, 0.5], [2.0, 0.0]])  # two seeds, two people with three and one queries
    found = estimate(sums, np.array([3, 1]))
    assert found.mean == pytest.approx((1.5 / 4 + 2 / 4) / 2)
    assert found.sd_seeds == pytest.approx(np.std([1.5 / 4, 2 / 4], ddof=1))
    assert (found.seeds, found.people) == (2, 2)


def test_where_people_do_not_matter_it_is_students_t_over_seeds():
    values = np.array([0.1, 0.16, 0.13, 0.3])
    found = estimate(np.repeat(values[:, None], 50, axis=1), np.ones(50))
    interval = ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.se_people == pytest.approx(0, abs=1e-12)
    assert found.df == pytest.approx(3)


def test_where_seeds_do_not_matter_it_is_the_standard_error_over_people():
    values = np.random.default_rng(0).normal(0.3, 0.2, 200)
    found = estimate(np.tile(values, (3, 1)), np.ones(200))
    assert found.sd_seeds == 0
    assert found.se_people == pytest.approx(values.std(ddof=1) / math.sqrt(200))
    assert found.df == pytest.approx(199)
    reach = student.ppf(0.975, 199) * found.se_people
    assert (found.low, found.high) == pytest.approx((values.mean() - reach, values.mean() + reach))


def test_the_error_over_people_is_that_of_drawing_them_again_and_again():
    random = np.random.default_rng(5)
    count = random.integers(1, 7, 80)
    sums = count * random.random(80)
    draws = bootstrap_means(sums[:, None], count, 20_000)
    assert estimate(sums[None], count).se_people == pytest.approx(draws.std(), rel=0.03)


def test_both_parts_add_as_squares_and_degrees_of_freedom_follow_welch_and_satterthwaite():
    sums = np.random.default_rng(1).normal(size=(4, 30)) + np.arange(4)[:, None]
    found = estimate(sums, np.ones(30))
    seeds, people = found.sd_seeds**2 / 4, found.se_people**2
    assert found.se == pytest.approx(math.sqrt(seeds + people))
    assert found.df == pytest.approx((seeds + people) ** 2 / (seeds**2 / 3 + people**2 / 29))
    assert found.high - found.mean == pytest.approx(student.ppf(0.975, found.df) * found.se)


def test_an_interval_holds_the_truth_nineteen_times_in_twenty():
    """People and seeds are drawn anew 400 times, with a person's own reaction to a seed: 95 % have to hold the truth."""
    random, held = np.random.default_rng(2), 0
    for _ in range(400):
        seeds, people = random.normal(0, 0.03, (4, 1)), random.normal(0, 0.15, 25)
        found = estimate(0.1 + seeds + people + random.normal(0, 0.1, (4, 25)), np.ones(25))
        held += found.low <= 0.1 <= found.high
    assert 0.93 <= held / 400 <= 1.0
    assert held < 400  # an interval that is never wrong is too wide to say anything


def test_one_seed_gives_no_interval_and_decides_nothing():
    found = estimate(np.array([[0.5, 0.7, 0.6]]), np.ones(3))
    assert found.mean == pytest.approx(0.6)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    verdict = decide(found)
    assert verdict.word == UNDECIDED
    assert math.isnan(verdict.seeds_needed)


def made(mean: float, low: float, high: float, sd: float = 0.02, se_people: float = 0.001) -> Estimate:
    return Estimate(mean, low, high, sd, se_people, 3.0, 4, 100)


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.001, 0.2, SUPPORTED),
        (-0.001, 0.2, UNDECIDED),
        (-0.2, MARGIN - 1e-6, REFUTED),
        (-0.2, MARGIN, UNDECIDED),
        (-0.2, -0.1, REFUTED),
        (0.001, MARGIN / 2, SUPPORTED),  # small, and there all the same
    ],
)
def test_the_word_follows_from_the_interval(low, high, word):
    verdict = decide(made((low + high) / 2, low, high))
    assert verdict.word == word
    assert (verdict.seeds_needed is None) == (word != UNDECIDED)


def test_the_seeds_needed_are_the_fewest_that_decide():
    found = made(0.03, -0.002, 0.062)
    needed = decide(found).seeds_needed

    def reach(seeds: int) -> float:
        parts = np.array([0.02**2 / seeds, 0.001**2])
        df = parts.sum() ** 2 / (parts**2 / [seeds - 1, 99]).sum()
        return student.ppf(0.975, df) * math.sqrt(parts.sum())

    assert 0.03 - reach(needed) > 0
    assert needed == 5 or 0.03 - reach(needed - 1) <= 0


def test_more_seeds_cannot_decide_what_depends_on_the_people():
    assert decide(made(0.03, -0.1, 0.16, sd=0.001, se_people=0.06)).seeds_needed == math.inf


def test_a_gain_that_is_not_there_cannot_shrink():
    yes, no, open_ = Verdict(SUPPORTED, None), Verdict(REFUTED, None), Verdict(UNDECIDED, 7)
    assert both(yes, yes) == yes
    assert both(yes, no) == both(open_, no) == both(no, open_) == no
    assert both(yes, open_) == open_
    assert both(Verdict(UNDECIDED, 9), open_) == Verdict(UNDECIDED, 9)


def test_several_intervals_hold_together():
    assert simultaneous(1) == pytest.approx(0.95)
    assert simultaneous(5) == pytest.approx(0.99)
