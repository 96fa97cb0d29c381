"""eval_{market,msmt,cuhk}.npz: numbers of true and false pairs, quantiles of their distances, TPR at an FPR."""

import numpy as np
import pytest
from golden_eval import EXACT, load, one_thread

from lab.evaluate.error_rates import PairCounts, Verification
from lab.evaluate.verification import count_pairs

FPRS = (1e-4, 1e-3, 1e-2)
ROUNDING = 1e-6  # of float32 distances, ours and theirs


@pytest.fixture(params=["market", "msmt", "cuhk"], scope="module")
def data(request):
    return load(request.param)


@pytest.fixture(scope="module")
def counts(data) -> PairCounts:
    with one_thread():
        return count_pairs(data.query, data.gallery, memory_gb=1e-3)


def test_numbers_of_pairs(data, counts):
    ours = [counts.true.sum(), counts.false.sum()]
    data.close("roc_n_same_n_different", ours, data.arrays["roc_n_same_n_different"], 0)


def test_quantiles_of_distances(data, counts):
    tolerance = counts.width / 2 + ROUNDING
    for key, ours in zip(("same", "different"), counts.quantiles(np.linspace(0, 1, 101)), strict=True):
        key = f"roc_{key}_distance_quantiles"
        data.close(f"{key} (half a bin)", ours, data.arrays[key], tolerance)


def test_tpr_at_the_corner_of_the_curve_that_is_nearest_to_an_fpr(data, counts):
    """The stored figure is the TPR at the corner whose FPR is nearest, at the lower end where the curve rises there."""
    key = "verification_TPR_at_FPR_1e-4_1e-3_1e-2"
    false, true = (np.concatenate([[0], part.cumsum()]) for part in (counts.false, counts.true))
    step = np.flatnonzero(np.diff(false + true)) + 1
    false, true = (np.concatenate([[0], part[step]]) for part in (false, true))
    corner = np.concatenate([[True], (np.diff(false, 2) != 0) | (np.diff(true, 2) != 0), [True]])
    fpr, tpr = false[corner] / false[-1], true[corner] / true[-1]
    ours = [tpr[np.abs(fpr - level).argmin()] for level in FPRS]
    data.close(f"{key} (nearest corner)", ours, data.arrays[key], EXACT)


def test_tpr_at_fpr(data, counts):
    """Ours is the largest TPR whose FPR does not exceed the level: counted here from all distances in float64.

    It lies within the few pairs that the nearest corner is away.
    """
    query, gallery = (
        part.values / np.linalg.norm(part.values.astype(np.float64), axis=1, keepdims=True)
        for part in (data.query, data.gallery)
    )
    distance = 1 - query @ gallery.T
    same, camera = (
        getattr(data.query, name)[:, None] == getattr(data.gallery, name)[None] for name in ("pid", "camid")
    )
    true, false = np.sort(distance[same & ~camera]), np.sort(distance[~same])
    found = Verification.of(counts, FPRS)
    expected = [(true < false[int(level * len(false))]).mean() for level in FPRS]
    data.close("TPR at FPR, from all distances", found.tpr_at_fpr, expected, EXACT)
    stored = data.arrays["verification_TPR_at_FPR_1e-4_1e-3_1e-2"]
    data.close("verification_TPR_at_FPR (not nearest but not above)", found.tpr_at_fpr, stored, 6.5 / len(true))
