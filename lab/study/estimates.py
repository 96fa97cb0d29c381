"""What runs with several seeds say about a claim: an effect, its error bar, and a verdict.

Two things could have been otherwise: the seed of a training, and the people who are searched. The error has a part for
each, and both are needed: seeds alone say nothing about other people, people alone nothing about another training.
Arms are paired: they share seeds (and so the labelled people of a small share) and queries. Degrees of freedom follow
Welch and Satterthwaite. Values are fractions.

Legend: S seeds, P people who are searched for.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

MARGIN = 0.01  # an effect below one point of mAP is taken as none
LEVEL = 0.95
MOST_SEEDS = 50  # beyond that nobody would run them
SUPPORTED, REFUTED, UNDECIDED = "supported", "not supported", "not decided"


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and queries with its standard error in two parts, and the interval of `level`.

    `sd_seeds` is the standard deviation between seeds (NaN with one), `se_people` the standard error that the choice of
    people gives, `df` the degrees of freedom of both together. With one seed there is no interval: low and high are NaN.
    """

    mean: float
    low: float
    high: float
    sd_seeds: float
    se_people: float
    df: float
    seeds: int
    people: int

    @property
    def se(self) -> float:
        return math.hypot(self.sd_seeds / math.sqrt(self.seeds), self.se_people)


@dataclass(frozen=True)
class Verdict:
    """`word` follows from the interval: above 0 SUPPORTED, else below MARGIN REFUTED, else UNDECIDED.

    `seeds_needed` is how many seeds would decide if mean and spread stayed as they are; None if it is decided, infinity
    if more seeds cannot decide it, because what is open is a matter of the people who are searched.
    """

    word: str
    seeds_needed: float | None


def estimate(sums: np.ndarray, count: np.ndarray, level: float = LEVEL) -> Estimate:
    """From each person's sum of AP for each seed (S, P), or a weighted sum of such, and their queries (P,).

    The mean over queries is taken for each seed; seeds are the sample for the one part of the error. For the other it is
    people, each with what all of their queries add to the mean over seeds: the standard error of a ratio of sums, with
    people as clusters (Cochran, Sampling Techniques, 1977, section 6.3). It agrees with the bootstrap of
    `lab.evaluate.statistics` and needs no draws.
    """
    means = sums.sum(axis=1) / count.sum()  # (S,)
    se_people = _cluster_error(sums.mean(axis=0), count)
    seeds, people = sums.shape
    sd = float(means.std(ddof=1)) if seeds > 1 else math.nan
    mean, df = float(means.mean()), _degrees_of_freedom(sd, se_people, seeds, people)
    found = Estimate(mean, math.nan, math.nan, sd, se_people, df, seeds, people)
    reach = _reach(found.se, df, level)
    return Estimate(mean, mean - reach, mean + reach, sd, se_people, df, seeds, people)


def decide(found: Estimate, level: float = LEVEL) -> Verdict:
    """The verdict on "this is above 0" from an estimate's interval, whose level has to be `level`."""
    if found.low > 0:
        return Verdict(SUPPORTED, None)
    if found.high < MARGIN:
        return Verdict(REFUTED, None)
    return Verdict(UNDECIDED, _seeds_needed(found, level))


def simultaneous(claims: int, level: float = LEVEL) -> float:
    """The level of each of several intervals that all hold together at `level` (Bonferroni)."""
    return 1 - (1 - level) / max(1, claims)


def _cluster_error(sums: np.ndarray, count: np.ndarray) -> float:
    """Standard error of sum(sums) / sum(count), both (P,), over the choice of people."""
    people = len(count)
    if people < 2:
        return math.nan
    residuals = sums - sums.sum() / count.sum() * count
    return math.sqrt(people / (people - 1) * float((residuals**2).sum())) / float(count.sum())


def _seeds_needed(found: Estimate, level: float) -> float:
    """The least number of seeds at which the interval around the same mean would decide; NaN with one seed."""
    if math.isnan(found.sd_seeds):
        return math.nan
    for seeds in range(found.seeds + 1, MOST_SEEDS + 1):
        se = math.hypot(found.sd_seeds / math.sqrt(seeds), found.se_people)
        df = _degrees_of_freedom(found.sd_seeds, found.se_people, seeds, found.people)
        reach = _reach(se, df, level)
        if found.mean - reach > 0 or found.mean + reach < MARGIN:
            return seeds
    return math.inf


def _reach(se: float, df: float, level: float) -> float:
    """Half the width of the interval; an error of 0 needs no degrees of freedom."""
    return 0.0 if se == 0 else se * float(student.ppf((1 + level) / 2, df))


def _degrees_of_freedom(sd_seeds: float, se_people: float, seeds: int, people: int) -> float:
    if seeds < 2 or people < 2:
        return math.nan
    parts = np.array([sd_seeds**2 / seeds, se_people**2])
    if not parts.any():
        return math.inf
    return float(parts.sum() ** 2 / (parts**2 / [seeds - 1, people - 1]).sum())
