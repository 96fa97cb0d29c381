"""eval_market.npz: a set with six cameras, distractors, junk, exact duplicates and many ties."""

import dataclasses

import numpy as np
from golden_eval import EXACT, FLOAT32, GoldenEval, reranked_result

from lab.evaluate.metrics import evaluate_ranking


class TestMarket(GoldenEval):
    name = "market"

    def test_junk_that_is_kept_counts_as_wrong(self, data):
        """Why junk is dropped: it would cost 4.6 points of mAP. Ours refuses pid -1, so that it gets another number."""
        pid = np.where(data.with_junk.pid == -1, 10**6, data.with_junk.pid)
        result = evaluate_ranking(data.query, dataclasses.replace(data.with_junk, pid=pid), "euclidean")
        data.close("fr_sq_stable_junk_kept_cmc50", result.cmc, data.arrays["fr_sq_stable_junk_kept_cmc50"], FLOAT32)
        key = "fr_sq_stable_junk_kept_mAP_mINP"
        data.close(key, [result.mAP, result.mINP], data.arrays[key], EXACT)

    def test_reranking_of_duplicates(self, data):
        """With ties by position as here; numpy's default order moves the published mAP by 2e-6, the reverse by nothing."""
        result = reranked_result("market", duplicates=True)
        ours, key = [result.mAP, result.cmc[0], result.mINP], "rr_with_ties_stable_default_reversed_mAP_R1_mINP"
        for order, theirs in zip(("stable", "default", "reversed"), data.arrays[key], strict=True):
            data.close(f"{key}: {order}", ours, theirs, 5e-6 if order == "default" else FLOAT32)
