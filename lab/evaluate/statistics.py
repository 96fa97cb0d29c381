"""How far a mean over queries can be trusted: bootstrap intervals and permutation tests in which whole people move.

The queries of one person are not independent of one another: who is hard to find is hard to find from several cameras.
So people are drawn, not queries, and a person brings all of their queries along. This is the cluster bootstrap
(Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8; Cameron, Gelbach and Miller,
Bootstrap-Based Improvements for Inference with Clustered Errors, 2008). Drawing queries gives intervals that are too
narrow. What is covered is the choice of people; other seeds of a training would need other runs.

Legend: Q queries, P people (identities), B draws, K columns: metrics, runs, or both.
"""

from collections.abc import Iterator

import numpy as np

from lab.errors import InputError

DRAWS = 10_000
LEVEL = 0.95
EXACT = 12  # people up to whom all 2^P sign flips are tried
FEW_DRAWS = 100  # less do not say where the outer 2.5 % begin
CELLS = 1 << 21  # entries of a (draws, people) matrix that are held at a time
BOOTSTRAP, FLIPS = 0, 1  # streams of random numbers below one seed


def sum_by_person(pid: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sum of each person's rows (P, K) and how many they are (P,), from pid (Q,) and values (Q, K)."""
    people, person, count = np.unique(pid, return_inverse=True, return_counts=True)
    sums = np.zeros((len(people), values.shape[1]))
    np.add.at(sums, person, values)
    return sums, count


def bootstrap_means(sums: np.ndarray, count: np.ndarray, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Means over the queries of people drawn with replacement: (B, K), from sums (P, K) and counts (P,).

    A draw is a row of counts (how often each person was drawn), so all draws are one matrix product; columns share
    their draws, which is what makes differences of columns paired.
    """
    columns = np.column_stack([sums, count])
    totals = np.concatenate([drawn @ columns for drawn in draw_counts(len(count), draws, seed)])
    return totals[:, :-1] / totals[:, -1:]


def draw_counts(people: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """How often each of P people is drawn in P draws with replacement: blocks (b, P) of float64, B rows in all."""
    check_draws(draws, seed)
    rng = np.random.default_rng([seed, BOOTSTRAP])
    for rows in _blocks(people, draws):
        drawn = rng.integers(people, size=(rows, people)) + people * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * people).reshape(rows, people).astype(np.float64)


def interval(samples: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """The percentile interval of bootstrap samples (B, K): low and high (2, K)."""
    return np.quantile(samples, [(1 - level) / 2, (1 + level) / 2], axis=0)


def sign_flip_test(differences: np.ndarray, draws: int = DRAWS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided p-values (K,) of paired sums of differences (P, K), and whether they are exact (K,).

    If two runs are equally good, it is chance which of them each person's results belong to: the runs are swapped for
    whole people, in other words the signs of the differences are flipped. p is the share of flips whose sum is as far
    from 0 as the one that was seen: among all flips if at most 12 people differ (people who do not differ change
    nothing), else (1 + flips as far) / (1 + draws) among `draws` random ones. A column with NaN has p NaN.
    """
    check_draws(draws, seed)
    p, exact = np.full(differences.shape[1], np.nan), np.zeros(differences.shape[1], bool)
    for k, column in enumerate(differences.T):
        if np.isfinite(column).all() and np.count_nonzero(column) <= EXACT:
            flipped = _all_flips(np.count_nonzero(column)) @ column[column != 0]
            p[k], exact[k] = _as_far(flipped, column).mean(), True
    rest = np.flatnonzero(np.isnan(p) & np.isfinite(differences).all(axis=0))
    if len(rest):
        p[rest] = (1 + _count_as_far(differences[:, rest], draws, seed)) / (1 + draws)
    return p, exact


def _count_as_far(differences: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """How many of `draws` random flips are as far from 0 as what was seen, for each column (K,)."""
    rng = np.random.default_rng([seed, FLIPS])
    count = np.zeros(differences.shape[1], np.int64)
    for rows in _blocks(len(differences), draws):
        signs = 2.0 * rng.integers(0, 2, size=(rows, len(differences)), dtype=np.int8) - 1
        flipped = signs @ differences
        count += [_as_far(*pair).sum() for pair in zip(flipped.T, differences.T, strict=True)]
    return count


def _as_far(flipped: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Which sums are as far from 0 as the column's own; what differs by rounding alone is as far."""
    return np.abs(flipped) >= abs(column.sum()) - 1e-9 * np.abs(column).sum()


def _all_flips(people: int) -> np.ndarray:
    """Every combination of signs: (2^P, P) of -1 and 1."""
    return 1.0 - 2 * (np.arange(1 << people)[:, None] >> np.arange(people) & 1)


def holm(p: np.ndarray) -> np.ndarray:
    """p-values of several tests, corrected so that one false alarm among all is as unlikely as p says (Holm, 1979)."""
    order = np.argsort(p)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1, np.maximum.accumulate(np.arange(len(p), 0, -1) * np.asarray(p)[order]))
    return corrected


def check_draws(draws: int, seed: int) -> None:
    """Raise InputError for a number of draws or a seed out of range."""
    if draws < FEW_DRAWS or seed < 0:
        raise InputError(f"got {draws} draws and seed {seed}; expected draws from {FEW_DRAWS}, a seed from 0 on")


def _blocks(people: int, draws: int) -> Iterator[int]:
    rows = max(1, CELLS // max(1, people))
    for start in range(0, draws, rows):
        yield min(rows, draws - start)
