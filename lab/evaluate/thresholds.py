"""What a threshold on the distance decides: over all pairs, for one query, and for each pair of cameras.

A pair is *accepted* as the same person if its distance is at most the threshold (`error_rates`, which also says what is
stored). No torch, so that stored figures can be shown without it. Legend: H coarse bins, C_q and C_g cameras of queries
and gallery.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from lab.errors import InputError
from lab.evaluate.error_rates import Verification, equal_error

ALL_CAMERAS = -1  # the camid of histograms that were not kept by camera
RATES = ("eer", "tpr", "fpr")


@dataclass(frozen=True)
class Decision:
    """How many pairs a threshold accepts and refuses, and the two rates: `tpr` of true pairs, `fpr` of false ones."""

    threshold: float
    tpr: float
    fpr: float
    true_accepted: int
    true_refused: int
    false_accepted: int
    false_refused: int

    def for_one_query(self, queries: int) -> dict[str, float]:
        """The same numbers for a query in the mean: accepted and refused crops of the person and of strangers."""
        names = ("true_accepted", "true_refused", "false_accepted", "false_refused")
        return {name: getattr(self, name) / max(1, queries) for name in names}


def decide(found: Verification, threshold: float) -> Decision:
    """What a threshold does to all pairs, to the exactness of the stored curve (`Verification`)."""
    fpr, tpr = (float(rate) for rate in found.rates(threshold))
    true, false = round(tpr * found.true_pairs), round(fpr * found.false_pairs)
    return Decision(float(threshold), tpr, fpr, true, found.true_pairs - true, false, found.false_pairs - false)


def at_fpr(found: Verification, level: float) -> Decision:
    """The smallest threshold with the largest TPR whose FPR is at most `level` (0..1), on the stored curve.

    The curve is thinned, so that a TPR may be up to 1/300 too small where `level` is none of the stored ones.
    """
    if not 0 <= level <= 1:
        raise InputError(f"the level of FPR is {level:g}; expected a share in 0..1")
    last = int(np.searchsorted(found.roc_fpr, level, side="right")) - 1
    return decide(found, found.roc_threshold[np.searchsorted(found.roc_tpr, found.roc_tpr[last], side="left")])


def camera_error_rates(found: Verification, threshold: float) -> pd.DataFrame:
    """Equal error rate, and TPR and FPR at a threshold, for each pair of a query and a gallery camera.

    Columns: query_camid, gallery_camid, true_pairs, false_pairs; `eer`, `tpr`, `fpr`, each with `_low` and `_high`;
    `eer_threshold`. Where a histogram's bin is cut, pairs are taken to be spread evenly in it: the rates of the pairs
    themselves lie between low and high. NaN where there are no pairs of a kind, as true ones of a camera with itself.
    """
    rows = []
    for q, query_camid in enumerate(found.query_camids):
        for g, gallery_camid in enumerate(found.gallery_camids):
            counts = {"true_pairs": int(found.true[q, g].sum()), "false_pairs": int(found.false[q, g].sum())}
            tpr, fpr = (_shares(kind[q, g]) for kind in (found.true, found.false))
            rates = _equal(found.edges, fpr, tpr) | _at("tpr", found.edges, tpr, threshold)
            rates |= _at("fpr", found.edges, fpr, threshold)
            rows.append({"query_camid": int(query_camid), "gallery_camid": int(gallery_camid), **counts, **rates})
    return pd.DataFrame(rows)


def rate_matrix(rates: pd.DataFrame, rate: str = "eer") -> pd.DataFrame:
    """One column of `camera_error_rates` with a row per query camera and a column per gallery camera."""
    if rate not in RATES:
        raise InputError(f"rate is '{rate}'; choose one of {', '.join(RATES)}")
    return rates.pivot(index="query_camid", columns="gallery_camid", values=rate)


def _shares(counts: np.ndarray) -> np.ndarray:
    """The share of pairs up to each edge (H + 1,), from counts (H,); NaN without a pair."""
    total = counts.sum()
    return np.concatenate([[0], counts.cumsum()]) / total if total else np.full(len(counts) + 1, np.nan)


def _equal(edges: np.ndarray, fpr: np.ndarray, tpr: np.ndarray) -> dict[str, float]:
    """The equal error rate of curves (H + 1,), its threshold, and between what the bin that it falls into leaves it."""
    if np.isnan(fpr + tpr).any():
        return dict.fromkeys(("eer", "eer_low", "eer_high", "eer_threshold"), np.nan)
    eer, at = equal_error(edges, fpr, tpr)
    after = int(np.argmax(fpr + tpr >= 1))
    low, high = max(fpr[after - 1], 1 - tpr[after]), min(fpr[after], 1 - tpr[after - 1])
    return {"eer": eer, "eer_low": float(low), "eer_high": float(high), "eer_threshold": at}


def _at(name: str, edges: np.ndarray, shares: np.ndarray, threshold: float) -> dict[str, float]:
    """The share at a threshold, and those at the edges of its bin; the first bin also holds distances of 0."""
    low = int(np.clip(np.searchsorted(edges, threshold, side="right") - 1, 0, len(edges) - 1))
    whole = low > 0 and edges[low] == threshold
    high = low if whole else min(low + 1, len(edges) - 1)
    if threshold < edges[0]:
        low = high = 0
    value = np.interp(threshold, edges, shares)
    return {name: float(value), f"{name}_low": float(shares[low]), f"{name}_high": float(shares[high])}
