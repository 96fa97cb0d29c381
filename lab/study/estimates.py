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
MOST_SEEDS = 1000  # beyond that nobody would run them
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
    if not even 1,000 would, because what is open is a matter of the people who are searched.
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
    mean = float(means.mean())
    if seeds < 2 or people < 2:
        return Estimate(mean, math.nan, math.nan, math.nan, se_people, math.nan, seeds, people)
    sd = float(means.std(ddof=1))
    parts = sd**2 / seeds, se_people**2
    reach, df = float(_reach(*parts, seeds, people, level)), float(_degrees_of_freedom(*parts, seeds, people))
    return Estimate(mean, mean - reach, mean + reach, sd, se_people, df, seeds, people)


def decide(found: Estimate, level: float = LEVEL) -> Verdict:
    """The verdict on "this is above 0" from an estimate's interval, whose level has to be `level`."""
    if found.low > 0:
        return Verdict(SUPPORTED, None)
    if found.high < MARGIN:
        return Verdict(REFUTED, None)
    return Verdict(UNDECIDED, _seeds_needed(found, level))


def both(claim: Verdict, presupposed: Verdict) -> Verdict:
    """The verdict on a claim that means something only if another holds as well."""
    words = [REFUTED, UNDECIDED, SUPPORTED]
    word = min(claim.word, presupposed.word, key=words.index)
    needed = [one.seeds_needed for one in (claim, presupposed) if one.seeds_needed is not None]
    return Verdict(word, max(needed) if word == UNDECIDED else None)


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
    seeds = np.arange(found.seeds + 1, MOST_SEEDS + 1)
    reach = _reach(found.sd_seeds**2 / seeds, found.se_people**2, seeds, found.people, level)
    decided = seeds[(found.mean - reach > 0) | (found.mean + reach < MARGIN)]
    return float(decided[0]) if len(decided) else math.inf


def _reach(of_seeds, of_people, seeds, people: int, level: float):
    """Half the width of the interval from both parts of the variance of the mean; each argument but the last may be (N,)."""
    return np.sqrt(of_seeds + of_people) * student.ppf(
        (1 + level) / 2, _degrees_of_freedom(of_seeds, of_people, seeds, people)
    )


def _degrees_of_freedom(of_seeds, of_people, seeds, people: int):
    """Welch and Satterthwaite's, infinite where nothing varies."""
    squares = of_seeds**2 / (seeds - 1) + of_people**2 / (people - 1)
    return np.where(squares > 0, (of_seeds + of_people) ** 2 / np.where(squares > 0, squares, 1), math.inf)
