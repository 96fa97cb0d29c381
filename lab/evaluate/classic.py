"""The classic CUHK03 protocol as a whole: one figure is the mean over its 20 splits, and it has a spread."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd

from lab.data import load
from lab.data.readers import CLASSIC, SPLITS
from lab.data.splits import ReidDataset
from lab.errors import InputError
from lab.evaluate.domains import trained_on
from lab.runs import EvalResult, Run


def evaluate_classic(
    run: Run, evaluate: Callable[[ReidDataset], EvalResult], name: str, root: str | Path
) -> list[EvalResult]:
    """Evaluate one model on the test people of each of the 20 splits; `spread` gives their mean.

    `evaluate` ranks one data set, as `functools.partial(evaluate_run, run, model)` does. This is for a model that never
    saw CUHK03: who tests in one split trains in most others, so a model trained on one is evaluated on that one alone,
    and the published figure is the mean over 20 trainings. Raises InputError for such a model and for other data sets.
    """
    check_classic(name)
    learnt = trained_on(run)
    if learnt.startswith("cuhk03"):
        raise InputError(
            f"{run.name} was trained on {learnt}, where most people train who are searched in the {SPLITS} splits; expected a "
            "model that never saw CUHK03: evaluate this one on the split that it was trained on"
        )
    return [evaluate(load(name, root, split=split)) for split in range(SPLITS)]


def check_classic(name: str) -> None:
    """Raise InputError for a data set that has only one split into training and test."""
    if name not in CLASSIC:
        raise InputError(
            f"{name} has one split into training and test, and all splits were asked for; only {' and '.join(CLASSIC)} "
            f"have {SPLITS}: leave the split out"
        )


def spread(results: Iterable[EvalResult]) -> pd.DataFrame:
    """Mean and standard deviation (n - 1) of several results, such as those of splits or of seeds; fractions 0..1.

    Rows mean and std, columns mAP, rank-1, rank-5, rank-10 and mINP. std is NaN for a single result.
    """
    rows = [
        {
            "mAP": result.mAP,
            **{f"rank-{k}": float(result.cmc[min(k, len(result.cmc)) - 1]) for k in (1, 5, 10)},
            "mINP": result.mINP,
        }
        for result in results
    ]
    if not rows:
        raise InputError("there is no result to take the mean of; expected at least one")
    return pd.DataFrame(rows).agg(["mean", "std"])
