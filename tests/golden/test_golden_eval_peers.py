"""eval_peers.json: what each program gets on the same features, and how far they agree among themselves."""

import numpy as np
import pytest
from golden_eval import EXACT, FLOAT32, RERANKED, ROWS, figures, load, one_thread, reranked, reranked_result

from lab.evaluate.metrics import evaluate_ranking

RERANKING = "re-ranking: [mAP,R1,mINP,max|dist - fastreid stable|]"
FIGURES = ("Rank-1", "Rank-5", "Rank-10", "mAP", "mINP")


@pytest.fixture(params=["market", "msmt", "cuhk"])
def data(request):
    with one_thread():
        yield load(request.param)


def rerank_figures(name: str, variant: str) -> list[float]:
    """mAP, R1, mINP, and how far the distances are from those of the default variant."""
    result = reranked_result(name, variant)
    return [result.mAP, result.cmc[0], result.mINP, np.abs(reranked(name, variant) - reranked(name)).max()]


def test_counts(data):
    result = evaluate_ranking(data.query, data.gallery)
    lonely = result.num_query - result.num_valid_query
    shape = [len(data.query.pid), len(data.with_junk.pid), data.query.values.shape[1]]
    assert shape == data.peers["shape"]
    assert lonely == data.peers["queries_without_valid_match"]
    assert result.num_gallery == len(data.with_junk.pid) - data.peers["junk"]


def test_fastreid_and_torchreid(data):
    result = evaluate_ranking(data.query, data.gallery, "euclidean")
    modes = data.peers["fastreid_sq: tie mode -> [mAP, R1, mINP, max|AP py-cy|, max|cmc py-cy|]"]
    mean_ap, rank_1, mean_inp, cython, _ = modes["stable"]
    data.close(
        "peers fastreid_sq stable", [result.mAP, result.cmc[0], result.mINP], [mean_ap, rank_1, mean_inp], FLOAT32
    )
    assert cython < 2e-7, "their own float32 scorer is no closer to their float64 one than ours is"
    apart = data.peers["torchreid - fastreid (stable) mAP, cmc; cython mAP"]
    assert apart[:2] == [0, 0]
    data.close("peers torchreid_sq cython mAP", [result.mAP], [mean_ap + apart[2]], 2 * FLOAT32)
    faiss = data.peers["cosine: mAP argsort(1-cos) stable vs faiss L2 search"]
    cosine = evaluate_ranking(data.query, data.gallery)
    data.close("peers cosine mAP by argsort and by faiss", [cosine.mAP] * 2, faiss[:2], EXACT)


def test_lup_moco_over_all_and_over_valid_queries(data):
    key = "lup_moco mAP default sort / stable (divides by ALL queries) / divided by valid / fastreid mAP"
    _, stable, valid, _ = data.peers[key]
    for denominator, expected in (("all", stable), ("valid", valid)):
        result = evaluate_ranking(data.query, data.gallery, "euclidean", "trapezoid", denominator=denominator)
        data.close(f"peers lup_moco mAP over {denominator} queries", [result.mAP], [expected], EXACT)
    rank_1 = data.peers["lup_moco R1, times nq/nvalid"]
    everyone = evaluate_ranking(data.query, data.gallery, "euclidean", denominator="all")
    share = everyone.num_valid_query / everyone.num_query
    tolerance = share * data.tie_spread()[0] + FLOAT32  # their order of ties is numpy's default
    data.close("peers lup_moco R1 (order of ties)", [everyone.cmc[0]], [rank_1[0]], tolerance)
    data.close("peers lup_moco R1 over valid queries", [everyone.cmc[0] / share], [rank_1[1]], tolerance / share)


def test_layumi_equals_lup_moco_but_for_ties(data):
    mean_ap, apart = data.peers["layumi mAP, max|AP - lup compute_mAP| on the same order"]
    result = evaluate_ranking(data.query, data.gallery, "cosine", "trapezoid", denominator="all")
    tolerance = EXACT if data.name != "market" else data.tie_spread()[3]
    assert apart < 1e-15 or data.name == "market"
    data.close("peers layumi mAP", [result.mAP], [mean_ap], tolerance)


def test_the_evaluator_s_rows_are_those_of_the_arrays(data):
    """So that what the files of the sets assert holds for these numbers too."""
    rows = data.peers["official ReidEvaluator"]
    names = data.arrays["evaluator_names"].tolist()
    assert list(rows) == names == list(ROWS)
    for name, values in zip(names, data.arrays["evaluator_R1_R5_R10_mAP_mINP"], strict=True):
        assert [rows[name][figure] for figure in FIGURES] == values.tolist()


def test_the_evaluator_on_the_reranking_gallery(data):
    plain, after = data.peers["rr gallery: official evaluator without / with re-ranking [R1,R5,R10,mAP,mINP]"]
    data.close("peers rr gallery: cosine", figures(evaluate_ranking(data.query, data.distinct)), plain, RERANKED)
    data.close("peers rr gallery: cosine_rerank", figures(reranked_result(data.name)), after, RERANKED)


@pytest.mark.parametrize(
    ("theirs", "variant"),
    [
        ("fastreid_cos_stable", "luperson"),
        ("zhun_ranklist_cos", "luperson"),
        ("torchreid_cos", "luperson"),
        ("layumi_(2-2cos)^2", "torchreid"),  # on unit features squared Euclid is 2 - 2 cosine, squared once more
        ("fastreid_euclid", "euclidean"),
        ("newer_fastreid_jaccard", "jaccard"),
    ],
)
def test_reranking_variants(data, theirs, variant):
    ours = rerank_figures(data.name, variant)
    data.close(f"peers re-ranking {theirs}", ours, data.peers[RERANKING][theirs], RERANKED)


def test_the_authors_half_precision_reranking(data):
    """Their program keeps features and distances in 16 bits: ours is as far from it as fast-reid's in 32 bits is."""
    half, full = (np.array(data.peers[RERANKING][name][:3]) for name in ("zhun_feature_fp16", "fastreid_euclid"))
    ours = rerank_figures(data.name, "euclidean")[:3]
    data.close("peers re-ranking zhun_feature_fp16 (16 bits)", ours, half, np.abs(half - full) + RERANKED)


def test_single_gallery_shot_of_one_seed(data):
    """Their draws of seed 0 are not ours; both lie within 4 standard deviations of the same mean, and so do their peers."""
    key = next(key for key in data.peers if key.startswith("cuhk03 metric"))
    mean, std, _, _, *others = data.peers[key]
    ours = evaluate_ranking(data.query, data.gallery, "euclidean", gallery_shot="single").cmc[0]
    data.close("peers cuhk03 R1 of seed 0 (4 std)", [ours], [mean], 4 * std)
    assert all(abs(value - mean) < 4 * std for value in others[:4])
