"""The page Overview: what it shows is what the evaluations say."""

import json

import numpy as np
import pytest
from app_pages import links, open_page, words, write_csv
from make_demo import make_run

from lab.data import load
from lab.data.readers import PUBLISHED_COUNTS
from lab.evaluate.compare import intervals
from lab.published import published_beside
from lab.runs import Run
from lab.show.overview import interval_text
from lab.show.tables import METRICS

DRAWS = 2000


def tables(app) -> list:
    return [table.value for table in app.dataframe]


def test_means_and_intervals_are_those_of_lab_evaluate(three):
    table = tables(open_page("overview"))[0].set_index(("", "run"))
    for name in ("good", "middle", "bad"):
        for ranking, ending in (("plain", ""), ("re-ranked", "-rerank")):
            result = Run(three / name).result(f"market1501{ending}")
            row, drawn = table.loc[name], intervals(result, DRAWS)
            assert row["mAP (%)", f"95 % {ranking}"] == interval_text(drawn, "mAP")
            for metric in METRICS:
                assert row[f"{metric} (%)", ranking] == pytest.approx(100 * drawn.loc[metric, "mean"])


def test_the_url_says_whose_intervals_are_shown(three):
    app = open_page("overview", interval="rank-5", rerank="true")
    table = tables(app)[0]
    assert ("rank-5 (%)", "95 % plain") in table.columns
    assert ("mAP (%)", "95 % plain") not in table.columns
    assert "2,000 bootstrap draws" in words(app)
    assert len(app.get("plotly_chart")) == 2


def test_one_run_without_a_config_says_nothing_about_itself(runs, market):
    make_run(runs / "only", load("market1501", market), 0.8)
    app = open_page("overview")
    assert "they hold results alone" in words(app)
    assert not app.error


def test_what_runs_are_is_shown_for_the_chosen_ones(three):
    facts = tables(open_page("overview", run=["good", "bad"]))[-1]
    assert list(facts.columns) == ["good", "bad"]
    assert facts.loc["image size (height × width)", "bad"] == "128 × 64 pixels"
    assert facts.loc["steps done"].tolist() == ["120", ""]


def test_published_figures_of_the_same_data_set_are_marked(three, monkeypatch):
    result = Run(three / "good").result("market1501")
    sizes = {"query": (result.num_query, 5, 3), "gallery": (result.num_gallery, 6, 3)}
    monkeypatch.setitem(PUBLISHED_COUNTS, "market1501", sizes)
    app = open_page("overview")
    said = words(app)
    assert "Published by others" in said
    assert "none was computed here" in said
    assert not app.warning
    expected = published_beside("market1501")
    expected = expected[expected["labels used"] == "all"]
    assert tables(app)[1]["mAP"].tolist() == expected["mAP"].tolist()


def test_published_figures_of_a_larger_test_set_are_not_to_be_compared(three):
    app = open_page("overview")
    assert "15 queries and 17 gallery crops, published 3,368 and 15,913" in app.warning[0].value
    assert "Published by others" not in words(app)


def test_published_figures_of_another_data_set_are_not_to_be_compared(three, market):
    make_run(three / "other", load("folder", write_csv(market, three)), 0.5)
    app = open_page("overview", dataset="folder")
    assert "another data set than folder" in app.warning[0].value


def test_the_url_says_which_published_figures_are_shown(three):
    assert set(tables(open_page("overview", labels="10 % of people"))[1]["mAP"]) == {53.1, 58.4, 64.6}
    assert "cannot be compared" in open_page("overview", published="msmt17").warning[0].value


def test_all_data_sets_are_one_choice_away(three, market):
    make_run(three / "other", load("folder", write_csv(market, three)), 0.5)
    assert len(tables(open_page("overview", dataset="market1501"))[0]) == 3
    table = tables(open_page("overview", all="true"))[0]
    assert len(table) == 4
    assert set(table["", "data set"]) == {"folder", "market1501"}


def test_runs_that_are_not_chosen_have_intervals_too_and_a_broken_one_is_named(three):
    (three / "bad" / "eval" / "market1501" / "ranks.npz").write_bytes(b"no zip")
    app = open_page("overview", run=["good"])
    assert any("bad" in error.value and "market1501" in error.value for error in app.error)
    table = tables(app)[0].set_index(("", "run"))
    assert table.loc["bad"]["mAP (%)", "95 % plain"] == ""
    assert table.loc["middle"]["mAP (%)", "95 % plain"]


@pytest.mark.parametrize("value", ["high", None, [1], {"a": 1}])
@pytest.mark.parametrize("key", ["mAP", "cmc", "num_query"])
def test_text_where_numbers_should_be_is_named(three, key, value):
    file = three / "bad" / "eval" / "market1501" / "result.json"
    file.write_text(
        json.dumps(json.loads(file.read_text()) | {key: ["high"] if key == "cmc" and value == [1] else value})
    )
    app = open_page("overview")
    assert "bad: evaluation market1501 cannot be shown" in words(app)
    assert tables(app)[0]["", "run"].tolist()[:2] == ["good", "middle"]


def test_a_run_without_a_single_match_has_no_interval(three):
    folder = three / "bad" / "eval" / "market1501"
    summary = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(summary | {"mAP": np.nan, "num_valid_query": 0}))
    lines = (folder / "queries.csv").read_text().splitlines()
    columns = lines[0].split(",")
    changed = {"ap": "", "inp": "", "first_match": "0"}
    rows = [dict(zip(columns, line.split(","), strict=True)) | changed for line in lines[1:]]
    (folder / "queries.csv").write_text("\n".join([lines[0], *(",".join(row[c] for c in columns) for row in rows)]))
    table = tables(open_page("overview"))[0].set_index(("", "run"))
    assert table.loc["bad"]["mAP (%)", "95 % plain"] == ""


def test_many_evaluations_show_all_rows(three, market):
    for number in range(4):
        make_run(three / f"more{number}", load("market1501", market), 1.0 + number)
    assert len(tables(open_page("overview"))[0]) == 7


def test_html_in_names_does_no_harm(runs, market):
    config = {"stage": "<i>x</i>", "settings": {"subset": "<b>s"}, "init": {"weights": "<script>"}}
    make_run(runs / "<b>$x$ [y](z)", load("market1501", market), 1.0, config)
    app = open_page("overview")
    assert not any("<b>" in element.value for kind in ("markdown", "caption", "info") for element in app.get(kind))
    assert tables(app)[0]["", "run"].tolist() == ["<b>$x$ [y](z)"]


def test_what_was_not_evaluated_gets_the_command(runs):
    (runs / "pre").mkdir()
    (runs / "pre" / "config.json").write_text(json.dumps({"stage": "pretrain"}))
    assert "lab evaluate --run RUN" in words(open_page("overview"))


def test_no_run_gives_the_command(runs):
    assert "lab demo --out demo" in words(open_page("overview"))


def test_links_hold_each_choice_once_and_the_chosen_runs(three):
    found = links(open_page("overview", run=["good", "bad"], rerank="true"))
    assert found["See how they learned"] == (
        "training", {"run": ["good", "bad"], "dataset": ["market1501"], "rerank": ["true"]}
    )  # fmt: skip
