"""Decisions at a threshold against an oracle that looks at every pair, and cases worked out by hand."""

import subprocess
import sys

import numpy as np
import pytest
from test_verification import crossing, oracle, random_set, share

from lab.errors import InputError
from lab.evaluate.error_rates import COARSE_BINS, PairCounts, Verification
from lab.evaluate.thresholds import at_fpr, camera_error_rates, decide, rate_matrix
from lab.evaluate.verification import verify


def made_up(true: dict[int, int], false: dict[int, int]) -> Verification:
    """Pairs of one pair of cameras by coarse bin, which is 1/256 wide, each at the bin's upper edge."""
    fine, coarse = np.zeros((2, 2 * COARSE_BINS + 1), np.int64), np.zeros((2, 1, 1, COARSE_BINS), np.int64)
    for kind, counts in enumerate((true, false)):
        for place, count in counts.items():
            fine[kind, 2 * (place + 1)] = coarse[kind, 0, 0, place] = count
    return Verification.of(PairCounts(*fine, 1 / COARSE_BINS, *coarse, np.array([1]), np.array([2])))


def test_thresholds_need_no_torch():
    code = "import sys, lab.evaluate.thresholds; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("seed", range(5))
def test_decisions_count_every_pair(seed):
    query, gallery = random_set(seed)
    pairs = oracle(query, gallery)
    found = verify(query, gallery, "euclidean")
    for threshold in found.roc_threshold[1::7]:
        decision = decide(found, threshold)
        accepted = [sum(distance <= threshold for distance, *_ in kind) for kind in pairs]
        assert (decision.true_accepted, decision.false_accepted) == tuple(accepted)
        assert (decision.true_refused, decision.false_refused) == tuple(
            len(kind) - number for kind, number in zip(pairs, accepted, strict=True)
        )
        assert (decision.tpr, decision.fpr) == pytest.approx([share(kind, threshold) for kind in pairs])


def test_what_a_threshold_means_for_one_query_by_hand():
    decision = decide(made_up({10: 30, 30: 10}, {20: 100, 40: 900}), 25 / 256)
    assert (decision.true_accepted, decision.true_refused) == (30, 10)
    assert (decision.false_accepted, decision.false_refused) == (100, 900)
    assert decision.for_one_query(20) == {
        "true_accepted": 1.5, "true_refused": 0.5, "false_accepted": 5.0, "false_refused": 45.0
    }  # fmt: skip


@pytest.mark.parametrize("level", [0.0, 0.01, 0.07, 0.5, 1.0])
def test_at_a_level_of_fpr_the_largest_tpr_is_reached(level):
    query, gallery = random_set(3, queries=20, gallery=60)
    true, false = oracle(query, gallery)
    decision = at_fpr(verify(query, gallery, "euclidean"), level)
    thresholds = [-1.0, *sorted({pair[0] for pair in true + false})]
    assert decision.tpr == pytest.approx(max(share(true, at) for at in thresholds if share(false, at) <= level))
    assert decision.fpr <= level + 1e-12


def test_stored_levels_are_read_off_as_they_are_stored():
    found = verify(*random_set(1), "euclidean")
    for level, tpr, threshold in zip(found.fpr_levels, found.tpr_at_fpr, found.thresholds, strict=True):
        decision = at_fpr(found, level)
        assert (decision.tpr, decision.threshold) == pytest.approx((tpr, threshold))


def test_a_level_that_is_no_share_is_refused():
    with pytest.raises(InputError, match=r"the level of FPR is 5; expected a share in 0..1"):
        at_fpr(verify(*random_set(1), "euclidean"), 5)


@pytest.mark.parametrize("seed", range(6))
def test_rates_of_a_pair_of_cameras_lie_between_low_and_high(seed):
    query, gallery = random_set(seed, queries=20, gallery=60)
    true, false = oracle(query, gallery)
    found = verify(query, gallery, "euclidean")
    for threshold in (0.0, 7.3, 18.0, float(found.edges[40])):
        rates = camera_error_rates(found, threshold).set_index(["query_camid", "gallery_camid"])
        for cameras, row in rates.iterrows():
            kinds = [[pair for pair in kind if pair[1:] == cameras] for kind in (true, false)]
            assert (row["true_pairs"], row["false_pairs"]) == tuple(map(len, kinds))
            for name, kind in zip(("tpr", "fpr"), kinds, strict=True):
                if kind:
                    assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
                    assert row[f"{name}_low"] - 1e-12 <= share(kind, threshold) <= row[f"{name}_high"] + 1e-12
                else:
                    assert np.isnan(row[[name, f"{name}_low", f"{name}_high"]].astype(float)).all()
            if not all(kinds):
                assert np.isnan(row["eer"])
                continue
            at = [-1.0, *sorted({pair[0] for kind in kinds for pair in kind})]
            exact = crossing([(share(kinds[1], one), share(kinds[0], one)) for one in at])
            assert row["eer_low"] - 1e-9 <= exact <= row["eer_high"] + 1e-9
            assert row["eer_low"] - 1e-12 <= row["eer"] <= row["eer_high"] + 1e-12


def test_equal_error_of_a_bin_is_no_more_exact_than_the_bin():
    (row,) = camera_error_rates(made_up({10: 60, 11: 40}, {11: 20, 12: 80}), 11.5 / 256).to_dict("records")
    # at the edge 11/256 no false pair is accepted and 40 % of the true are refused, at 12/256 it is 20 % and none
    assert (row["eer_low"], row["eer_high"]) == pytest.approx((0.0, 0.2))
    assert row["eer"] == pytest.approx(0.4 / 3)  # 0.2 x = 0.4 - 0.4 x
    assert (row["tpr_low"], row["tpr"], row["tpr_high"]) == pytest.approx((0.6, 0.8, 1.0))
    assert (row["fpr_low"], row["fpr"], row["fpr_high"]) == pytest.approx((0.0, 0.1, 0.2))


def test_at_the_edge_of_a_bin_nothing_is_in_doubt():
    (row,) = camera_error_rates(made_up({10: 60, 11: 40}, {11: 20, 12: 80}), 12 / 256).to_dict("records")
    assert row["tpr_low"] == row["tpr"] == row["tpr_high"] == 1
    assert row["fpr_low"] == row["fpr"] == row["fpr_high"] == pytest.approx(0.2)


def test_matrix_has_query_cameras_as_rows():
    query, gallery = random_set(2)
    rates = camera_error_rates(verify(query, gallery, "euclidean"), 4.0)
    matrix = rate_matrix(rates, "fpr")
    assert matrix.index.tolist() == sorted(set(query.camid.tolist()))
    assert matrix.columns.tolist() == sorted(set(gallery.camid.tolist()))
    row = rates.iloc[1]
    assert matrix.loc[row["query_camid"], row["gallery_camid"]] == row["fpr"]
    assert np.isnan(np.diag(rate_matrix(rates, "eer"))).all(), "a camera with itself has no true pairs"
    with pytest.raises(InputError, match="rate is 'roc'; choose one of eer, tpr, fpr"):
        rate_matrix(rates, "roc")
