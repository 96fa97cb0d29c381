"""Comparing runs: intervals and tests against slow loops and simulated people, refusals, breakdowns, the command."""

import dataclasses
import itertools
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from make_demo import tiny_result
from test_cli import lab, refused

from lab.errors import InputError
from lab.evaluate import statistics
from lab.evaluate.breakdown import (
    break_down,
    camera_breakdown,
    camera_matrices,
    camera_pair_breakdown,
    failure_groups,
    most_changed,
    per_query_table,
)
from lab.evaluate.camera_pairs import CameraPairs
from lab.evaluate.comparable import align, check_comparable, choose, relative_names
from lab.evaluate.compare import METRICS, compare, intervals, paired
from lab.evaluate.evaluate import evaluate_features
from lab.evaluate.metrics import evaluate_ranking
from lab.evaluate.settings import EvaluateConfig
from lab.runs import EvalResult, Features, Run

DRAWS = 300
CONFIG = EvaluateConfig(num_workers=0, device="cpu")
PER_QUERY = ("path", "pid", "camid", "ap", "inp", "first_match", "index", "distance", "match")


def crops(noise: float, seed: int = 0, people: int = 25, root: str = "/data") -> tuple[Features, Features]:
    """A query under camera 1 to 3 and gallery crops of each person, 6 distractors; seed and noise are the model's."""
    pid = np.repeat(np.arange(1, people + 1), 3)
    camid = np.tile([1, 2, 3], people)
    rng, centre = np.random.default_rng(seed), np.random.default_rng(99).standard_normal((people + 1, 8))
    query_pid, query_camid = np.append(pid, people), np.append(camid, 1)  # the last person has one query more
    gallery_pid, gallery_camid = np.append(pid, [0] * 6), np.append(camid, [1, 2, 3] * 2)
    keep = ~((gallery_pid == 3) & (gallery_camid > 1))  # the query of person 3 by camera 1 has no match
    gallery_pid, gallery_camid = gallery_pid[keep], gallery_camid[keep]
    made = []
    for part, pids, camids in (("query", query_pid, query_camid), ("gallery", gallery_pid, gallery_camid)):
        values = centre[pids] + noise * rng.standard_normal((len(pids), 8))
        path = np.array(
            [f"{root}/{part}/{p:04d}_c{c}_{i}.jpg" for i, (p, c) in enumerate(zip(pids, camids, strict=True))]
        )
        made.append(Features(values.astype(np.float32), pids, camids, path))
    return tuple(made)


def evaluated(noise: float, seed: int = 0, settings: dict | None = None, **protocol) -> EvalResult:
    facts = {"dataset": "people", "ap": "step", "removed": "same pid and same camid", "distance": "cosine"}
    result = evaluate_ranking(*crops(noise, seed), **protocol)
    return dataclasses.replace(result, settings=facts | protocol | (settings or {}))


def reordered(result: EvalResult, order: np.ndarray) -> EvalResult:
    return dataclasses.replace(result, **{name: getattr(result, name)[order] for name in PER_QUERY})


@pytest.fixture(scope="module")
def good() -> EvalResult:
    return evaluated(0.7, seed=1)


@pytest.fixture(scope="module")
def bad() -> EvalResult:
    return evaluated(1.2, seed=2)


def values_by_hand(result: EvalResult, over_all: bool = False) -> list[list[dict]]:
    """For each person, the values of each query that counts, by plain loops."""
    people = {}
    for i, pid in enumerate(result.pid):
        first = result.first_match[i]
        if first == 0 and not over_all:
            continue
        row = {f"rank-{k}": float(0 < first <= k) for k in (1, 5, 10)}
        row |= {"mAP": result.ap[i] if first else 0.0, "mINP": result.inp[i] if first else 0.0}
        people.setdefault(pid, []).append(row)
    return [people[pid] for pid in sorted(people)]


def drawn_means(people: list[list[dict]], metric: str) -> np.ndarray:
    """The mean over the queries of the people of each draw, person by person; the draws are those of the module."""
    means = []
    for counts in np.concatenate(list(statistics.draw_counts(len(people), DRAWS, 5))):
        rows = [row for person, count in zip(people, counts, strict=True) for _ in range(int(count)) for row in person]
        means.append(sum(row[metric] for row in rows) / len(rows))
    return np.array(means)


@pytest.mark.parametrize("denominator", ["valid", "all"])
def test_intervals_are_those_of_people_drawn_one_by_one(denominator):
    result = evaluated(1.0, denominator=denominator)
    people = values_by_hand(result, over_all=denominator == "all")
    table = intervals(result, DRAWS, seed=5)
    assert list(table.index) == list(METRICS)
    stated = {"mAP": result.mAP, "mINP": result.mINP} | {f"rank-{k}": result.cmc[k - 1] for k in (1, 5, 10)}
    for metric in METRICS:
        assert table.loc[metric, "mean"] == pytest.approx(stated[metric])
        expected = np.percentile(drawn_means(people, metric), [2.5, 97.5])
        np.testing.assert_allclose(table.loc[metric, ["low", "high"]].astype(float), expected, atol=1e-12)


def test_paired_interval_draws_the_same_people_for_both(good, bad):
    for metric in ("mAP", "rank-1"):
        pair = paired(bad, good, metric, DRAWS, seed=5)
        drawn = [drawn_means(values_by_hand(result), metric) for result in (good, bad)]
        np.testing.assert_allclose([pair.low, pair.high], np.percentile(drawn[0] - drawn[1], [2.5, 97.5]), atol=1e-12)
        assert pair.difference == pytest.approx(pair.mean_b - pair.mean_a)
    assert pair.difference == pytest.approx(good.cmc[0] - bad.cmc[0])


def test_a_difference_that_is_there_is_found(good, bad):
    pair = paired(bad, good, names=("bad", "good"))
    assert pair.low > 0
    assert pair.p_value < 0.01
    assert pair.sentence().startswith("good is better than bad by ")
    other = paired(good, bad, names=("good", "bad"))
    assert other.difference == -pair.difference
    assert other.p_value == pair.p_value
    assert other.sentence() == pair.sentence()


def test_equal_runs_differ_by_nothing(good):
    for metric in ("mAP", "rank-1"):
        pair = paired(good, good, metric, DRAWS)
        assert (pair.difference, pair.low, pair.high, pair.p_value) == (0, 0, 0, 1)
        assert pair.sentence() == f"undecided: B - A is +0.0 points of {metric} (95 % interval 0.0..0.0, p = 1.0000)"


def test_every_pair_of_three_runs_is_tested_and_of_four_each_against_the_first(good, bad):
    runs = {"a": bad, "b": good, "c": evaluated(1.2, seed=7)}
    comparison = compare(runs, draws=DRAWS)
    assert [(p.a, p.b) for p in comparison.pairs if p.metric == "mAP"] == [("a", "b"), ("a", "c"), ("b", "c")]
    for metric in ("mAP", "rank-1"):
        pairs = [pair for pair in comparison.pairs if pair.metric == metric]
        assert {pair.tests for pair in pairs} == {3}
        np.testing.assert_allclose([p.p_holm for p in pairs], statistics.holm(np.array([p.p_value for p in pairs])))
        alone = paired(good, runs["c"], metric, DRAWS)
        assert dataclasses.replace(alone, a="b", b="c", p_holm=0, tests=0) == dataclasses.replace(
            pairs[2], p_holm=0, tests=0
        )
    assert "p after Holm's correction = " in comparison.pairs[0].sentence()
    four = compare(runs | {"d": good}, draws=DRAWS)
    assert [(p.a, p.b) for p in four.pairs if p.metric == "mAP"] == [("a", "b"), ("a", "c"), ("a", "d")]
    assert compare({"a": good}, draws=DRAWS).pairs == []


def test_the_same_seed_gives_the_same_numbers(good, bad):
    first, again, other = (compare({"a": good, "b": bad}, draws=DRAWS, seed=seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first.table, again.table)
    assert first.pairs == again.pairs
    assert first.pairs[0].low != other.pairs[0].low


def test_single_gallery_shot_ranks_have_no_interval():
    protocol = {"gallery_shot": "single", "repeats": 4, "seed": 7}
    runs = {"a": evaluated(0.7, **protocol), "b": evaluated(1.2, **protocol)}
    comparison = compare(runs, draws=DRAWS)
    table = comparison.table.set_index(["run", "metric"])
    assert table.loc[("a", "rank-1"), "mean"] == runs["a"].cmc[0]
    assert table.loc[("a", "rank-10"), "mean"] == runs["a"].cmc[9]
    assert table.loc[("a", ["rank-1", "rank-5", "rank-10"]), ["low", "high"]].isna().all(axis=None)
    assert table.loc[("a", ["mAP", "mINP"]), ["low", "high"]].notna().all(axis=None)
    mean_ap, rank1 = comparison.pairs
    assert mean_ap.p_value < 1
    assert np.isnan([rank1.low, rank1.high, rank1.p_value]).all()
    assert rank1.difference == pytest.approx(runs["b"].cmc[0] - runs["a"].cmc[0])
    assert "neither interval nor test" in rank1.sentence()
    assert any("neither interval nor test" in note for note in comparison.notes)


def test_too_few_draws_or_people_are_said(good):
    for wrong in ({"draws": 99}, {"seed": -1}):
        with pytest.raises(InputError, match="expected draws from 100, a seed from 0 on"):
            intervals(good, **wrong)
    with pytest.raises(InputError, match="no paired test of 'mINP'; choose one of mAP, rank-1"):
        paired(good, good, "mINP")
    few = dataclasses.replace(evaluate_ranking(*crops(1.0, people=5)), settings=good.settings)
    assert any("5 people only" in note for note in compare({"a": few}, draws=DRAWS).notes)


def test_results_of_other_order_and_place_are_comparable(good, bad):
    moved = {part: np.char.replace(getattr(bad, part), "/data/", "C:\\market\\") for part in ("path", "gallery_path")}
    moved = {part: np.char.replace(names, "/", "\\") for part, names in moved.items()}
    order = np.random.default_rng(0).permutation(len(bad.pid))
    other = reordered(dataclasses.replace(bad, **moved), order)
    assert check_comparable(good, other) == []
    back = align(good, other)
    np.testing.assert_array_equal(back.ap, bad.ap)
    np.testing.assert_array_equal(back.index, bad.index)
    assert paired(good, other, draws=DRAWS) == paired(good, bad, draws=DRAWS)


def test_a_gallery_in_another_order_is_the_same_gallery(good):
    turned = {name: getattr(good, name)[::-1] for name in ("gallery_path", "gallery_pid", "gallery_camid")}
    assert check_comparable(good, dataclasses.replace(good, **turned)) == []


def test_relative_names():
    names = ["/data/query/a/1.jpg", "/data/query/ab.jpg"]
    assert relative_names(names).tolist() == ["a/1.jpg", "ab.jpg"]
    assert relative_names([name.replace("/", "\\") for name in names]).tolist() == ["a/1.jpg", "ab.jpg"]
    assert relative_names(["query/ab.jpg"]).tolist() == ["ab.jpg"]
    assert relative_names(["x.jpg", "y.jpg"]).tolist() == ["x.jpg", "y.jpg"]


def changed(result: EvalResult, name: str, place: int, value) -> EvalResult:
    values = getattr(result, name).copy()
    values[place] = value
    return dataclasses.replace(result, **{name: values})


def without_query(result: EvalResult, number: int) -> EvalResult:
    return reordered(result, np.delete(np.arange(len(result.pid)), number))


REFUSALS = {
    "number of queries is 76 in A and 75 in B": lambda r: without_query(r, 4),
    r"file of a query is 0002_c2_4.jpg \(and 0 more\) in A and z.jpg": lambda r: changed(
        r, "path", 4, "/data/query/z.jpg"
    ),
    "pid of query .*0002_c2_4.jpg is 2 in A and 9 in B": lambda r: changed(r, "pid", 4, 9),
    "camid of query .*0002_c2_4.jpg is 2 in A and 9 in B": lambda r: changed(r, "camid", 4, 9),
    "number of gallery crops is 79 in A and 80 in B": lambda r: dataclasses.replace(r, num_gallery=80),
    "file of a gallery crop": lambda r: changed(r, "gallery_path", 4, "/data/gallery/z.jpg"),
    "pid of gallery crop .*0002_c2_4.jpg is 2 in A and 9 in B": lambda r: changed(r, "gallery_pid", 4, 9),
    "camid of gallery crop .*0002_c2_4.jpg is 2 in A and 9 in B": lambda r: changed(r, "gallery_camid", 4, 9),
    "valid match of query .*0002_c2_4.jpg is one in A and none in B": lambda r: changed(r, "first_match", 4, 0),
}


@pytest.mark.parametrize("sentence", REFUSALS)
def test_other_crops_are_refused_by_name(good, bad, sentence):
    other = REFUSALS[sentence](bad)
    with pytest.raises(InputError, match=f"A and B cannot be compared: {sentence}.*evaluate both in the same way"):
        check_comparable(good, other)
    with pytest.raises(InputError, match="cannot be compared"):
        compare({"x": good, "y": other}, draws=DRAWS)


@pytest.mark.parametrize(
    ("field", "a", "b"),
    [
        ("ap", "step", "trapezoid"),
        ("denominator", "valid", "all"),
        ("gallery_shot", "all", "single"),
        ("repeats", 10, 4),
        ("seed", 0, 7),
        ("removed", "same pid and same camid", "nothing"),
        ("multi_query", None, "mean"),
    ],
)
def test_another_protocol_is_refused_by_name(good, field, a, b):
    one, two = (dataclasses.replace(good, settings=good.settings | {field: value}) for value in (a, b))
    for first, second in ((one, two), (two, one)):
        with pytest.raises(InputError, match=f"A and B cannot be compared: {field} is "):
            check_comparable(first, second)
    assert check_comparable(two, two) == []


def test_what_a_result_leaves_unsaid_is_what_it_usually_means(good):
    said = dataclasses.replace(good, settings=good.settings | {"denominator": "valid", "gallery_shot": "all"})
    assert check_comparable(good, said) == []
    over_all = dataclasses.replace(good, settings=good.settings | {"denominator": "all"})
    with pytest.raises(InputError, match="denominator is valid in A and all in B"):
        check_comparable(good, over_all)


def test_another_method_is_noted(good, bad):
    one = dataclasses.replace(good, settings=good.settings | {"height": 128, "torch": "2"})
    settings = {"distance": None, "rerank": {"k1": 20, "lambda": 0.3}, "height": 256, "flip": True, "amp": "off"}
    other = dataclasses.replace(bad, settings=bad.settings | settings | {"torch": "3"})
    expected = {"distance: a cosine, b none", "rerank: a none, b k1 20 lambda 0.3", "height: a 128, b 256"}
    assert set(check_comparable(one, other, ("a", "b"))) == expected | {"flip: a none, b True"}


def test_names_of_a_data_set_matter_only_where_crops_cannot_be_compared(good, bad):
    other = dataclasses.replace(bad, settings=bad.settings | {"dataset": "features", "junk_dropped": {"query": 2}})
    here = dataclasses.replace(good, settings=good.settings | {"junk_dropped": {"query": 0}})
    assert check_comparable(here, other) == [
        "dataset: A people, B features, of the same crops",
        "junk_dropped: A query 0, B query 2, of the same crops",
    ]
    unknown = dataclasses.replace(other, gallery_path=None, gallery_pid=None, gallery_camid=None)
    with pytest.raises(InputError, match="dataset is people in A and features in B"):
        check_comparable(here, unknown)
    with pytest.raises(InputError, match="dataset is people in A and features in B"):
        check_comparable(here, without_query(other, 0))


@pytest.mark.parametrize("settings", [{}, None])
def test_results_from_elsewhere_are_compared_with_notes(good, bad, settings):
    nothing = dict.fromkeys(("gallery_path", "gallery_pid", "gallery_camid"))
    other = dataclasses.replace(bad, settings=settings, path=np.full(len(bad.path), ""), mAP=bad.mAP + 0.01, **nothing)
    notes = compare({"ours": good, "theirs": other}, draws=DRAWS).notes
    assert notes[:3] == [
        "the files of the queries are not known: they were matched by their order, pid and camid",
        "a gallery is not known crop by crop: only the number of crops could be compared",
        "theirs does not say its ap, removed, dataset: taken to be as in the others",
    ]
    assert notes[-1].startswith(f"theirs states an mAP of {100 * other.mAP:.1f} %")
    expected = paired(good, bad, draws=DRAWS, names=("ours", "theirs"))
    assert compare({"ours": good, "theirs": other}, draws=DRAWS).pairs[0] == expected
    with pytest.raises(InputError, match="pid of query"):
        check_comparable(good, reordered(other, np.arange(len(bad.pid))[::-1]))


def test_a_match_without_ap_is_refused(good):
    with pytest.raises(InputError, match="0001_c3_2.jpg has a match but no AP"):
        intervals(changed(good, "ap", 2, np.nan), DRAWS)


def hand_made(firsts: list[int], top: list[int], aps: list[float]) -> EvalResult:
    """Five queries of persons 1 to 5 under camera 1; gallery crop 0 is a distractor, 1 by camera 1, 2 by camera 2."""
    count = len(firsts)
    index = np.full((count, 50), -1, np.int32)
    index[:, 0] = top
    facts = {
        "path": np.array([f"q/{i}.jpg" for i in range(count)]),
        "pid": np.arange(1, count + 1),
        "camid": np.full(count, 1),
    }
    facts |= {"ap": np.array(aps), "inp": np.array(aps), "first_match": np.array(firsts), "index": index}
    facts |= {"distance": np.zeros((count, 50)), "match": index == -2, "num_query": count, "num_gallery": 3}
    return tiny_result(
        **facts, gallery_pid=np.array([0, 90, 91]), gallery_camid=np.array([2, 1, 2]), settings={"dataset": "hand"}
    )


A = hand_made([1, 1, 2, 7, 0], [2, 2, 0, 1, 2], [1.0, 0.8, 0.5, 0.3, np.nan])
B = hand_made([1, 4, 1, 60, 0], [2, 1, 2, 2, 2], [0.9, 0.25, 1.0, 0.15, np.nan])


def test_failure_groups_by_hand():
    table = failure_groups(A, B)
    found = {(row.by, row.run, row.group): (row.queries, row.ap_a, row.ap_b) for row in table.itertuples()}
    outcome = {group: values for (by, run, group), values in found.items() if by == "at rank 1"}
    assert {group: values[0] for group, values in outcome.items()} == dict.fromkeys(outcome, 1)
    assert list(outcome) == [
        "right in both", "right in A only", "right in B only", "wrong in both", "no match in the gallery"
    ]  # fmt: skip
    assert outcome["right in A only"] == (1, 0.8, 0.25)
    assert outcome["wrong in both"] == (1, 0.3, 0.15)
    assert np.isnan(outcome["no match in the gallery"][1])
    depth = {(run, group): values[0] for (by, run, group), values in found.items() if by == "first right crop"}
    wrong = {"A": {"rank 2 to 5": 1, "rank 6 to 10": 1}, "B": {"rank 2 to 5": 1, "beyond rank 50": 1}}
    groups = ("rank 2 to 5", "rank 6 to 10", "rank 11 to 50", "beyond rank 50")
    assert depth == {(run, group): wrong[run].get(group, 0) for run in "AB" for group in groups}
    instead = {(run, group): values[0] for (by, run, group), values in found.items() if by == "at rank 1 instead"}
    assert instead == {
        ("A", "distractor"): 1, ("A", "other person, own camera"): 1, ("A", "other person, other camera"): 0,
        ("B", "distractor"): 0, ("B", "other person, own camera"): 1, ("B", "other person, other camera"): 1,
    }  # fmt: skip
    assert found["first right crop", "B", "rank 2 to 5"][1:] == (0.8, 0.25)
    assert table["share"].tolist() == [count / 5 for count in table["queries"]]


def test_pid_0_is_no_distractor_where_queries_ask_for_it():
    asked = [dataclasses.replace(result, pid=result.pid - 1) for result in (A, B)]
    table = failure_groups(*asked)
    assert "distractor" not in set(table["group"])
    assert table.loc[table["group"].str.startswith("other person"), "queries"].sum() == 4
    unknown = [
        dataclasses.replace(result, gallery_pid=None, gallery_camid=None, gallery_path=None) for result in (A, B)
    ]
    assert set(failure_groups(*unknown)["by"]) == {"at rank 1", "first right crop"}


def test_groups_of_a_real_ranking_add_up(good, bad):
    table = failure_groups(good, bad)
    total = len(good.pid)
    pd.testing.assert_frame_equal(failure_groups(good, reordered(bad, np.arange(total)[::-1])), table)
    assert table.loc[table["by"] == "at rank 1", "queries"].sum() == total
    for run, result in (("A", good), ("B", bad)):
        wrong = (result.first_match > 1).sum()
        for by in ("first right crop", "at rank 1 instead"):
            assert table.loc[(table["by"] == by) & (table["run"] == run), "queries"].sum() == wrong


def test_per_query_table_is_in_one_order_and_counts_lonely_queries_as_the_mean_does(good, bad):
    order = np.random.default_rng(0).permutation(len(bad.pid))
    table = per_query_table(good, reordered(bad, order))
    np.testing.assert_array_equal(table["ap_b"], bad.ap)
    np.testing.assert_array_equal(table["path"], good.path)
    lonely = good.first_match == 0
    assert lonely.sum() == 1
    assert (table["outcome"] == "no match in the gallery").tolist() == lonely.tolist()
    assert table.loc[lonely, ["ap_a", "gain"]].isna().all(axis=None)
    over_all = [dataclasses.replace(one, settings=one.settings | {"denominator": "all"}) for one in (good, bad)]
    assert per_query_table(*over_all).loc[lonely, ["ap_a", "ap_b", "gain"]].eq(0).all(axis=None)


def test_what_changed_most_by_hand():
    gained, lost = most_changed(per_query_table(A, B), 5)
    assert gained["path"].tolist() == ["q/2.jpg"]
    assert lost["path"].tolist() == ["q/1.jpg", "q/3.jpg", "q/0.jpg"]
    assert most_changed(per_query_table(A, B), 2)[1]["path"].tolist() == ["q/1.jpg", "q/3.jpg"]


@pytest.mark.parametrize("denominator", ["valid", "all"])
def test_camera_breakdown_against_a_loop(denominator):
    a, b = (evaluated(noise, denominator=denominator) for noise in (0.7, 1.2))
    order = np.random.default_rng(0).permutation(len(b.pid))
    table = camera_breakdown(a, reordered(b, order)).set_index("camid")
    for camid in (1, 2, 3):
        rows = [i for i in range(len(a.pid)) if a.camid[i] == camid and (a.first_match[i] > 0 or denominator == "all")]
        means = [np.mean([result.ap[i] if result.first_match[i] else 0 for i in rows]) for result in (a, b)]
        assert table.loc[camid, "queries"] == len(rows)
        np.testing.assert_allclose(table.loc[camid, ["map_a", "map_b"]].astype(float), means)
        assert table.loc[camid, "difference"] == pytest.approx(means[1] - means[0])
        assert table.loc[camid, "rank1_b"] == pytest.approx(np.mean([b.first_match[i] == 1 for i in rows]))


def write_cameras(folder, result: EvalResult, seed: int) -> CameraPairs:
    """cameras.npz with made-up AP: a third of the queries has no match under a camera."""
    rng = np.random.default_rng(seed)
    ap = rng.random((len(result.pid), 3))
    ap[np.random.default_rng(1).random(ap.shape) < 0.3] = np.nan
    first = np.where(np.isnan(ap), 0, 1)
    arrays = {"query_camid": result.camid, "gallery_camid": np.array([1, 2, 3]), "ap": ap, "first_match": first}
    np.savez(folder / "cameras.npz", **arrays)
    return CameraPairs(**arrays)


def test_camera_pairs_against_a_loop(good, bad, tmp_path):
    cameras = write_cameras(tmp_path, good, 2), write_cameras(tmp_path, bad, 3)
    table = camera_pair_breakdown(good, bad, *cameras).set_index(["query_camid", "gallery_camid"])
    for query_camid, column in itertools.product((1, 2, 3), range(3)):
        rows = [i for i in range(len(good.pid)) if good.camid[i] == query_camid and cameras[0].ap[i, column] >= 0]
        means = [np.mean([one.ap[i, column] for i in rows]) for one in cameras]
        row = table.loc[(query_camid, column + 1)]
        assert row["queries"] == len(rows)
        np.testing.assert_allclose(row[["map_a", "map_b"]].astype(float), means)
    order = np.random.default_rng(0).permutation(len(bad.pid))
    turned = dataclasses.replace(cameras[1], ap=cameras[1].ap[order])
    again = camera_pair_breakdown(good, reordered(bad, order), cameras[0], turned)
    pd.testing.assert_frame_equal(again, table.reset_index())
    with pytest.raises(InputError, match="is of 75 queries and the result beside it of 76"):
        camera_pair_breakdown(good, bad, cameras[0], dataclasses.replace(cameras[1], ap=cameras[1].ap[1:]))
    with pytest.raises(InputError, match="of other gallery cameras"):
        camera_pair_breakdown(good, bad, cameras[0], dataclasses.replace(cameras[1], gallery_camid=np.array([1, 2, 4])))


def test_matrices_of_two_runs_and_their_difference(good, bad, tmp_path):
    cameras = write_cameras(tmp_path, good, 2), write_cameras(tmp_path, bad, 3)
    before, now, difference = camera_matrices(good, bad, *cameras)
    table = camera_pair_breakdown(good, bad, *cameras)
    for row in table.itertuples():
        cell = row.query_camid, row.gallery_camid
        if row.query_camid != row.gallery_camid:
            assert (before.loc[cell], now.loc[cell]) == pytest.approx((row.map_a, row.map_b))
            assert difference.loc[cell] == pytest.approx(row.difference)
    assert camera_matrices(good, bad, *cameras, "rank-1")[0].equals(cameras[0].matrix("rank-1"))
    with pytest.raises(InputError, match="of other gallery cameras"):
        camera_matrices(good, bad, cameras[0], dataclasses.replace(cameras[1], gallery_camid=np.array([1, 2, 4])))


def test_cameras_are_read_where_both_runs_have_them(good, bad, tmp_path):
    comparison = compare({"a": good, "b": bad}, draws=DRAWS)
    folders = {name: tmp_path / name for name in "ab"}
    for folder in folders.values():
        folder.mkdir()
    write_cameras(folders["a"], good, 2)
    assert break_down(comparison, folders)[0].camera_pairs is None
    write_cameras(folders["b"], bad, 3)
    assert len(break_down(comparison, folders)[0].camera_pairs) == 9
    np.savez(folders["b"] / "cameras.npz", ap=np.zeros(3))
    with pytest.raises(InputError, match="cameras.npz holds no camera pairs"):
        break_down(comparison, folders)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs with a plain and a re-ranked evaluation, and one of another data set."""
    folder = tmp_path_factory.mktemp("runs")
    for name, noise in (("weak", 1.3), ("strong", 0.7)):
        for config in (CONFIG, dataclasses.replace(CONFIG, rerank=True, k1=4, k2=2)):
            evaluate_features(Run(folder / name), "people", *crops(noise), config, progress=False)
    evaluate_features(Run(folder / "other"), "others", *crops(1.0, people=9), CONFIG, progress=False)
    return folder


def test_evaluations_that_all_runs_have_are_chosen(runs):
    weak, strong, other = (runs / name for name in ("weak", "strong", "other"))
    chosen = choose([weak, strong])
    assert [one.evaluation for one in chosen] == ["people", "people-rerank"]
    assert chosen[0].folders == {"weak": weak / "eval" / "people", "strong": strong / "eval" / "people"}
    assert [one.evaluation for one in choose([weak, strong], "people")] == ["people"]
    (explicit,) = choose([f"{weak}:people", f"{weak}:people-rerank", strong], "people")
    assert list(explicit.results) == ["weak:people", "weak:people-rerank", "strong:people"]
    assert explicit.evaluation == "people, people-rerank"
    with pytest.raises(InputError, match=r"in common \(.*weak: people, people-rerank; .*other: others\)"):
        choose([weak, other])
    with pytest.raises(InputError, match="has no evaluation 'cats'; choose one of people, people-rerank"):
        choose([weak], "cats")
    with pytest.raises(InputError, match="which evaluation of .*strong is meant"):
        choose([f"{weak}:people", strong])
    with pytest.raises(InputError, match="weak was given twice"):
        choose([weak, strong, f"{weak}/"])


def test_runs_of_one_name_are_told_apart_by_their_folders(runs, tmp_path):
    other = tmp_path / "weak"
    evaluate_features(Run(other), "people", *crops(1.0), CONFIG, progress=False)
    (chosen,) = choose([runs / "weak", other])
    assert list(chosen.results) == [f"{runs.name}/weak", f"{tmp_path.name}/weak"]


def test_the_command_prints_tables_and_what_they_mean(runs, capsys):
    code, out, _ = lab(capsys, "compare", runs / "weak", runs / "strong", "--draws", DRAWS)
    assert code == 0
    strong = Run(runs / "strong").result("people")
    assert "people: 75 queries of 25 people" in out
    assert f"{100 * strong.mAP:.1f} (" in out
    assert out.count("strong is better than weak by ") >= 2
    assert "A = weak, B = strong; shares of all 76 queries" in out
    assert "people-rerank: 75 queries of 25 people" in out
    explicit = [f"{runs / 'weak'}:people", f"{runs / 'weak'}:people-rerank"]
    code, out, _ = lab(capsys, "compare", *explicit, "--draws", DRAWS)
    assert code == 0
    assert "note: rerank: weak:people none, weak:people-rerank variant luperson k1 4 k2 2 lambda 0.3" in out


def test_the_command_writes_fractions_beside_one_another(runs, capsys, tmp_path):
    out = tmp_path / "new" / "table.csv"
    assert lab(capsys, "compare", runs / "weak", runs / "strong", "--draws", DRAWS, "--out", out)[0] == 0
    files = {file.name: pd.read_csv(file) for file in out.parent.iterdir()}
    assert set(files) == {
        "table.csv", "table-pairs.csv", "table-queries.csv", "table-failures.csv", "table-cameras.csv"
    }  # fmt: skip
    means = files["table.csv"].set_index(["evaluation", "run", "metric"])["mean"]
    for name in ("weak", "strong"):
        for evaluation in ("people", "people-rerank"):
            assert means[evaluation, name, "mAP"] == pytest.approx(Run(runs / name).result(evaluation).mAP)
    pairs = files["table-pairs.csv"]
    assert list(pairs["metric"]) == ["mAP", "rank-1"] * 2
    queries = files["table-queries.csv"]
    assert len(queries) == 2 * 76
    plain = queries[queries["evaluation"] == "people"]
    np.testing.assert_allclose(plain["ap_b"], Run(runs / "strong").result("people").ap)
    one = tmp_path / "one.csv"
    assert lab(capsys, "compare", runs / "weak", "--draws", DRAWS, "--out", one)[0] == 0
    assert [file.name for file in tmp_path.glob("*.csv")] == ["one.csv"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("", "no run was given"),
        ("{runs}/nowhere", "no run at"),
        ("{runs}/weak {runs}/other", "no evaluation in common"),
        ("{runs}/weak:people {runs}/other:others", "dataset is people in weak:people and others in other:others"),
        ("{runs}/weak {runs}/strong --eval cats", "has no evaluation 'cats'"),
        ("{runs}/weak --draws 5", "expected draws from 100"),
        ("{runs}/weak --out {tmp}/table.txt", "ends in .csv"),
        ("{runs}/weak --draws 100 --out {tmp}/file/table.csv", "cannot write"),
    ],
)
def test_bad_input_is_one_sentence(arguments, sentence, runs, capsys, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    assert sentence in refused(capsys, "compare", *arguments.format(runs=runs, tmp=tmp_path).split())
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_the_comparison_needs_no_torch():
    code = "import sys, lab.evaluate.breakdown, lab.show.comparison; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
