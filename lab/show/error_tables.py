"""Error rates as tables that can be read and saved: what one threshold decides, and what runs reach at a level of FPR."""

import math
from collections.abc import Mapping

import pandas as pd

from lab.evaluate.error_rates import Verification
from lab.evaluate.thresholds import Decision, at_fpr


def decision_table(decision: Decision) -> pd.DataFrame:
    """Two rows: pairs of the same person and of two persons; how many are accepted and refused, and in per cent."""
    rows = []
    for name, accepted, refused, rate in (
        ("same person", decision.true_accepted, decision.true_refused, decision.tpr),
        ("two persons", decision.false_accepted, decision.false_refused, decision.fpr),
    ):
        shares = {"accepted %": 100 * rate, "refused %": 100 * (1 - rate)}
        rows.append({"pairs of": name, "accepted": accepted, "refused": refused, **shares})
    return pd.DataFrame(rows)[["pairs of", "accepted", "accepted %", "refused", "refused %"]]


def operating_table(verifications: Mapping[str, Verification], level: float) -> pd.DataFrame:
    """One row per run: TPR, FPR and threshold if an FPR of `level` (0..1) is allowed, and its equal errors; in per cent.

    Columns: run, "TPR (%)", "FPR (%)", threshold, "equal error (%)", "equal at" (the threshold of equal errors).
    """
    rows = []
    for name, found in verifications.items():
        decision = at_fpr(found, level)
        rates = {"TPR (%)": 100 * decision.tpr, "FPR (%)": 100 * decision.fpr, "threshold": decision.threshold}
        rows.append({"run": name, **rates, "equal error (%)": 100 * found.eer, "equal at": found.eer_threshold})
    return pd.DataFrame(rows)


def percent(value: float) -> str:
    """Per cent with one decimal, or with as many as tell a small share from 0 and a large one from 100."""
    nearest = min(abs(value), abs(100 - value))
    digits = 1 if nearest >= 0.1 or nearest == 0 else -math.floor(math.log10(nearest))
    return f"{value:.{min(digits, 9)}f} %"
