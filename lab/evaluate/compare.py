"""Runs beside one another: means with confidence intervals, and paired tests of their differences.

    intervals(result)                     mAP, rank-1 … of one result, each with its interval
    paired(a, b, "mAP")                   difference of two results, its interval and p-value
    compare({"name": result, …})          both for several results, which have to be comparable

How people are drawn and swapped is `lab.evaluate.statistics`, what is comparable `lab.evaluate.comparable`, where two
results differ `lab.evaluate.breakdown`. No torch, so that the explorer can use all of it. Everything is a fraction.

Legend: Q queries, P people, B draws, R results, M metrics.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from lab.errors import InputError
from lab.evaluate.comparable import align, check_comparable
from lab.evaluate.statistics import DRAWS, bootstrap_means, holm, interval, sign_flip_test, sum_by_person
from lab.runs import EvalResult

METRICS = ("mAP", "rank-1", "rank-5", "rank-10", "mINP")
RANKS_OF = {"rank-1": 1, "rank-5": 5, "rank-10": 10}
TESTED = ("mAP", "rank-1")
EVERY_PAIR = 3  # runs up to which every pair is tested; of more, each against the first
FEW_PEOPLE = 20
ALPHA = 0.05  # p below which a run is called better


@dataclass(frozen=True)
class Paired:
    """Run `b` against run `a` in one metric: `difference` = b - a with its 95 % interval, and two p-values.

    `p_value` is that of the sign-flip test; `p_holm` is corrected for the `tests` pairs that were tested in the same
    metric. `exact`: all flips were tried, not a random choice. Interval and p-values are NaN where a metric has no value
    for each query.
    """

    a: str
    b: str
    metric: str
    mean_a: float
    mean_b: float
    difference: float
    low: float
    high: float
    p_value: float
    p_holm: float
    tests: int
    exact: bool
    queries: int
    people: int

    def sentence(self, alpha: float = ALPHA) -> str:
        """What a reader may conclude: which run is better and by how much, or that it is undecided."""
        label = "p after Holm's correction" if self.tests > 1 else "p"
        p = f"{label} = {self.p_holm:.4f}" if self.p_holm >= 5e-5 else f"{label} < 0.0001"
        low, difference, high = (100 * value for value in (self.low, self.difference, self.high))
        what = f"{self.b} - {self.a} is {difference:+z.1f} points of {self.metric}"
        if np.isnan(self.p_holm):
            return f"{what}; it has no value for each query, so there is neither interval nor test"
        if self.p_holm >= alpha:
            return f"undecided: {what} (95 % interval {low:z.1f}..{high:z.1f}, {p})"
        better, worse = (self.b, self.a) if difference > 0 else (self.a, self.b)
        if difference < 0:
            low, difference, high = -high, -difference, -low
        what = f"{better} is better than {worse} by {difference:.1f} points of {self.metric}"
        return f"{what} (95 % interval {low:z.1f}..{high:z.1f}, {p})"


@dataclass(frozen=True, eq=False)
class Comparison:
    """Comparable results of several runs, queries in the same order, and what was found.

    `table` has one row per run and metric: run, metric, mean, low, high, queries, people. `notes` say in what the
    methods differ and what could not be checked.
    """

    evaluation: str
    results: dict[str, EvalResult]
    table: pd.DataFrame
    pairs: list[Paired]
    notes: list[str]
    draws: int
    seed: int

    def pair_table(self) -> pd.DataFrame:
        return pd.DataFrame(self.pairs, columns=list(Paired.__dataclass_fields__))


def intervals(result: EvalResult, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """mean, low and high of every metric, from a bootstrap of whole people; NaN where there is nothing to draw from.

    That is rank-k of a single-gallery-shot result: its CMC is a mean of other draws, with no value for each query.
    """
    table = compare({"": result}, draws=draws, seed=seed).table
    return table.set_index("metric")[["mean", "low", "high"]].rename_axis(None)


def paired(
    a: EvalResult,
    b: EvalResult,
    metric: str = "mAP",
    draws: int = DRAWS,
    seed: int = 0,
    names: tuple[str, str] = ("A", "B"),
) -> Paired:
    """`b` against `a` on the same queries; InputError if they are not comparable or the metric is not tested."""
    if metric not in TESTED:
        raise InputError(f"there is no paired test of '{metric}'; choose one of {', '.join(TESTED)}")
    pairs = compare(dict(zip(names, (a, b), strict=True)), draws=draws, seed=seed).pairs
    return next(pair for pair in pairs if pair.metric == metric)


def compare(results: Mapping[str, EvalResult], evaluation: str = "", draws: int = DRAWS, seed: int = 0) -> Comparison:
    """Compare results by name: every pair of up to three, of more each against the first.

    All draws are shared by all runs. Raises InputError where `check_comparable` does.
    """
    names, first = list(results), next(iter(results.values()))
    notes = [note for a, b in combinations(names, 2) for note in check_comparable(results[a], results[b], (a, b))]
    results = {name: align(first, result) for name, result in results.items()}
    values = {name: query_values(result) for name, result in results.items()}
    counted = counted_queries(first)
    sums, count = sum_by_person(first.pid[counted], np.hstack([value[counted] for value in values.values()]))
    means = bootstrap_means(sums, count, draws, seed).reshape(draws, len(names), len(METRICS))
    if len(count) < FEW_PEOPLE:
        notes.append(f"the queries show {len(count)} people only: intervals from so few are too narrow")
    if np.isnan(means[..., METRICS.index("rank-1")]).any():
        notes.append("rank-k is single-gallery-shot, with no value for each query: it has neither interval nor test")
    rows, stated = [], []
    for number, name in enumerate(names):
        mean, (low, high) = _means(results[name], values[name][counted]), interval(means[:, number])
        stated.append(mean)
        notes += _stored_otherwise(name, results[name], mean)
        columns = {"metric": METRICS, "mean": mean, "low": low, "high": high}
        rows.append(pd.DataFrame({"run": name, **columns, "queries": int(count.sum()), "people": len(count)}))
    pairs = _pairs(names, np.array(stated), sums.reshape(-1, len(names), len(METRICS)), count, means, draws, seed)
    notes = list(dict.fromkeys(notes))
    return Comparison(evaluation, results, pd.concat(rows, ignore_index=True), pairs, notes, draws, seed)


def query_values(result: EvalResult) -> np.ndarray:
    """What each query adds to the means (Q, M): its AP, whether it is right within rank k, its INP.

    A query without a match has 0 everywhere (whether it counts is for `counted_queries` to say). rank-k is NaN for a
    single-gallery-shot result.
    """
    first = result.first_match
    single = isinstance(result.settings, dict) and result.settings.get("gallery_shot") == "single"
    within = {name: np.where(single, np.nan, (first > 0) & (first <= k)) for name, k in RANKS_OF.items()}
    columns = within | {"mAP": np.where(first > 0, result.ap, 0), "mINP": np.where(first > 0, result.inp, 0)}
    if np.isnan(columns["mAP"]).any():
        row = int(np.flatnonzero(np.isnan(columns["mAP"]))[0])
        raise InputError(f"query {result.path[row] or row} has a match but no AP; write both or neither in queries.csv")
    return np.column_stack([columns[name] for name in METRICS]).astype(np.float64)


def counted_queries(result: EvalResult) -> np.ndarray:
    """Which queries the means go over (Q,): those with a match, or all with "denominator" "all"."""
    over_all = isinstance(result.settings, dict) and result.settings.get("denominator") == "all"
    counted = np.full(len(result.pid), True) if over_all else result.first_match > 0
    if not counted.any():
        raise InputError("no query has a match in the gallery, so there is nothing to compare; evaluate the run again")
    return counted


def _pairs(
    names: list[str], mean: np.ndarray, sums: np.ndarray, count: np.ndarray, means: np.ndarray, draws: int, seed: int
) -> list[Paired]:
    """Paired tests from means (R, M), sums (P, R, M), counts (P,) and bootstrap means (B, R, M)."""
    pairs = [(a, b) for a, b in combinations(range(len(names)), 2) if a == 0 or len(names) <= EVERY_PAIR]
    found = []
    for metric in TESTED if pairs else ():
        m = METRICS.index(metric)
        p, exact = sign_flip_test(np.column_stack([sums[:, b, m] - sums[:, a, m] for a, b in pairs]), draws, seed)
        for (a, b), one, corrected, every in zip(pairs, p, holm(p), exact, strict=True):
            low, high = interval(means[:, b, m] - means[:, a, m])
            test = {"p_value": one, "p_holm": corrected, "tests": len(pairs), "exact": bool(every)}
            values = (mean[a, m], mean[b, m], mean[b, m] - mean[a, m], low, high)
            size = {"queries": int(count.sum()), "people": len(count)}
            found.append(Paired(names[a], names[b], metric, *map(float, values), **test, **size))
    return found


def _means(result: EvalResult, values: np.ndarray) -> np.ndarray:
    """Means (M,) of the counted queries; where they have no values (single-gallery-shot rank-k), those of the CMC."""
    mean = values.mean(axis=0)
    for name, k in RANKS_OF.items():
        place = METRICS.index(name)
        if np.isnan(mean[place]) and len(result.cmc):
            mean[place] = result.cmc[min(k, len(result.cmc)) - 1]
    return mean


def _stored_otherwise(name: str, result: EvalResult, mean: np.ndarray) -> list[str]:
    """A note if the mAP in result.json is not the mean of queries.csv, as may happen with results made elsewhere."""
    if abs(result.mAP - mean[0]) < 5e-4:
        return []
    return [
        f"{name} states an mAP of {100 * result.mAP:.1f} %, and its queries have {100 * mean[0]:.1f} % in the mean, "
        "which is what is compared"
    ]
