"""The table of all runs, its intervals and its figure, against numbers worked by hand."""

import json

import numpy as np
import pandas as pd
import pytest

from lab.runs import Run
from lab.show.overview import (
    ABOUT,
    PLAIN,
    RERANKED,
    SIZE,
    interval_rows,
    interval_text,
    overview_table,
    ranking_figure,
    summary_metrics,
)
from lab.show.tables import METRICS


def summary(mean: float, **more) -> dict:
    cmc = [mean + 0.01 * rank for rank in range(50)]
    counts = {"num_query": 12, "num_valid_query": 10, "num_gallery": 99}
    return {"mAP": mean, "mINP": mean / 2, "cmc": cmc} | counts | more


def interval(mean: float) -> pd.DataFrame:
    return pd.DataFrame({"mean": mean, "low": mean - 0.021, "high": mean + 0.034}, index=METRICS)


def make(folder, config: dict) -> Run:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return Run(folder)


@pytest.fixture
def pair(tmp_path) -> list[Run]:
    settings = {"fraction": 0.1, "fraction_of": "images"}
    tuned = {"stage": "finetune", "settings": settings, "init": {"weights": "/their/runs/pre"}}
    return [make(tmp_path / "a", tuned), make(tmp_path / "b", {"stage": "baseline"})]


FOUND = {("a", "x"): summary(0.5), ("a", "x-rerank"): summary(0.6), ("b", "x"): summary(0.7), ("b", "y"): summary(0.1)}


def test_both_rankings_of_a_run_stand_side_by_side_with_the_interval_beside_the_mean(pair):
    table = overview_table(pair, FOUND, {("a", "x"): interval(0.5)}, "mAP")
    assert table[ABOUT, "run"].tolist() == ["b", "a", "b"]
    row = table.iloc[1]
    assert row["mAP (%)", PLAIN] == pytest.approx(50)
    assert row["mAP (%)", RERANKED] == pytest.approx(60)
    assert row["rank-5 (%)", PLAIN] == pytest.approx(54)
    assert row["mINP (%)", RERANKED] == pytest.approx(30)
    assert row["mAP (%)", "95 % plain"] == "47.9–53.4"
    assert row["mAP (%)", "95 % re-ranked"] == ""
    assert (row[ABOUT, "initialised from"], row[ABOUT, "labels used"]) == ("pre", "10 % of images")
    assert (row[SIZE, "stage"], row[SIZE, "queries counted"], row[SIZE, "queries"]) == ("finetune", 10, 12)
    assert np.isnan(table.iloc[0]["mAP (%)", RERANKED])


def test_the_metric_that_was_asked_for_comes_first_sorts_and_has_the_intervals(pair):
    found = {("a", "x"): summary(0.5, cmc=[0.1] * 50), ("b", "x"): summary(0.4)}
    table = overview_table(pair, found, {}, "rank-1")
    assert table[ABOUT, "run"].tolist() == ["b", "a"]
    groups = list(dict.fromkeys(table.columns.get_level_values(0)))
    assert groups == ["", "rank-1 (%)", "mAP (%)", "rank-5 (%)", "rank-10 (%)", "mINP (%)", SIZE]
    assert list(table["rank-1 (%)"].columns) == ["plain", "95 % plain"]
    assert list(table["mAP (%)"].columns) == ["plain"]


def test_the_re_ranked_metric_can_sort_and_a_ranking_that_nobody_has_is_left_out(pair):
    assert overview_table(pair, FOUND, {}, best=RERANKED)[ABOUT, "run"].iloc[0] == "a"
    plain = {key: value for key, value in FOUND.items() if "rerank" not in key[1]}
    table = overview_table(pair, plain, {}, best=RERANKED)
    assert RERANKED not in table["mAP (%)"]
    assert table[ABOUT, "run"].tolist() == ["b", "a", "b"]
    only = {key: value for key, value in FOUND.items() if "rerank" in key[1]}
    assert overview_table(pair, only, {})["mAP (%)", RERANKED].tolist() == pytest.approx([60])
    assert not len(overview_table(pair, {}, {}))


def test_a_query_without_a_match_counts_where_the_settings_say_so():
    assert summary_metrics(summary(0.5))["queries counted"] == 10
    assert summary_metrics(summary(0.5, settings={"denominator": "all"}))["queries counted"] == 12
    assert summary_metrics(summary(0.5, cmc=[0.3, 0.4]))["rank-10"] == pytest.approx(40)


def test_no_interval_no_text():
    assert interval_text(None, "mAP") == ""
    assert interval_text(interval(np.nan), "mAP") == ""


def test_interval_rows_are_in_per_cent():
    rows = interval_rows({("a", "x"): interval(0.5), ("a", "x-rerank"): interval(0.6)})
    assert len(rows) == 2 * len(METRICS)
    assert rows["re-ranking"].tolist() == ["no"] * 5 + ["yes"] * 5
    assert rows.loc[5, ["mean", "low", "high"]].tolist() == pytest.approx([60, 57.9, 63.4])
    assert set(rows["data set"]) == {"x"}


def test_ranking_figure_has_a_line_per_run_and_a_mark_per_ranking():
    found = {("<b>", "x"): interval(0.5), ("<b>", "x-rerank"): interval(0.6), ("c", "x"): interval(0.4)}
    figure = ranking_figure(interval_rows(found), "mAP", "t")
    without, reranked = figure.data
    assert list(without.x) == pytest.approx([50, 40])
    assert list(reranked.x) == pytest.approx([60])
    assert list(without.error_x.array) == pytest.approx([3.4, 3.4])
    assert list(without.error_x.arrayminus) == pytest.approx([2.1, 2.1])
    assert without.marker.symbol != reranked.marker.symbol
    assert list(figure.layout.yaxis.ticktext) == ["&lt;b&gt;", "c"]
    assert figure.layout.xaxis.title.text == "mAP (%)"
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1], "the first run is on top"


def test_long_names_that_begin_alike_are_told_apart_in_the_ranking_figure():
    names = [f"finetune-tiny-synthetic-from-luperson-seed-{seed}" for seed in range(3)]
    figure = ranking_figure(interval_rows({(name, "x"): interval(0.5) for name in names}), "mAP", "t")
    shown = figure.layout.yaxis.ticktext
    assert [name[-1] for name in shown] == ["0", "1", "2"]
    assert all(len(name) < 34 for name in shown)
