"""What a comparison looks like: text, figures and tables, from two results of five queries that were worked by hand."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from test_compare import A, B, write_cameras

from lab.evaluate.breakdown import break_down, per_query_table
from lab.evaluate.compare import METRICS, compare
from lab.show.comparison import (
    ap_scatter,
    comparison_tables,
    describe_breakdown,
    describe_comparison,
    interval_figure,
    means_table,
    p_text,
)


@pytest.fixture(scope="module")
def comparison():
    return compare({"first": A, "<b>": B}, "hand", draws=100)


def line_of(text: str, start: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"{start} "))
    return line.removeprefix(start).split()


def test_means_are_in_per_cent_with_their_intervals(comparison):
    text = describe_comparison(comparison)
    assert text.startswith("hand: 4 queries of 4 people, in %, with the 95 % interval of 100 bootstrap draws")
    words = line_of(text, "first")
    assert words[::2] == ["65.0", "50.0", "75.0", "100.0", "65.0"]  # mAP of 1, 0.8, 0.5, 0.3; rank-1, 5, 10; mINP
    low, high = comparison.table.loc[0, ["low", "high"]]
    assert words[1] == f"({100 * low:.1f}..{100 * high:.1f})"
    assert "note: the queries show 4 people only" in text


def test_differences_are_in_points_with_their_sign_and_p(comparison):
    words = line_of(describe_comparison(comparison), "<b> - first")
    assert (words[0], words[2]) == (
        "-7.5",
        "0.6250",
    )  # (0.9 + 0.25 + 1 + 0.15) / 4 - 0.65; 10 of 16 flips of -0.1, -0.55, 0.5, -0.15
    assert (words[3], words[5]) == ("+0.0", "1.0000")
    assert "undecided: <b> - first is -7.5 points of mAP" in describe_comparison(comparison)


def test_means_of_two_runs_are_text_with_intervals_and_p(comparison):
    table = means_table(comparison).set_index("metric")
    pair = comparison.pairs[0]
    assert table.loc["mAP", "A"].startswith("65.0 (")
    assert table.loc["mAP", "difference"] == f"-7.5 ({100 * pair.low:+.1f}..{100 * pair.high:+.1f})"
    assert table.loc["mAP", "p"] == "0.6250"
    assert table.loc["rank-5", "p"] == "not tested"
    assert "(" not in table.loc["rank-5", "difference"]
    assert table.index.tolist() == list(METRICS)
    assert [p_text(p) for p in (1e-5, 0.04, float("nan"))] == ["< 0.0001", "0.0400", "-"]


def test_holm_is_named_where_several_pairs_are_tested(comparison):
    three = compare({"first": A, "second": B, "third": B}, "hand", draws=100)
    text = describe_comparison(three)
    assert "after Holm's correction for 3 pairs" in text
    assert "mAP p (Holm)" in text
    assert "Holm" not in describe_comparison(comparison)


def test_breakdown_names_groups_cameras_and_queries(comparison, tmp_path):
    (detail,) = break_down(comparison)
    text = describe_breakdown(detail)
    assert text.startswith("A = first, B = <b>; shares of all 5 queries, AP in %")
    assert line_of(text, "right in A only") == ["1", "20.0", "80.0", "25.0"]
    assert line_of(text, "no match in the gallery") == ["1", "20.0", "-", "-"]
    assert line_of(text, "beyond rank 50") == ["0", "0.0", "1", "20.0"]
    assert line_of(text, "distractor") == ["1", "20.0", "0", "0.0"]
    assert line_of(text, "2.jpg") == ["3", "1", "50.0", "100.0", "+50.0", "2", "1"]
    assert "camera of the query (rows)" not in text
    folders = {name: tmp_path / name for name in ("first", "<b>")}
    for number, (name, folder) in enumerate(folders.items()):
        folder.mkdir()
        write_cameras(folder, comparison.results[name], number)
    assert "camera of the query (rows)" in describe_breakdown(break_down(comparison, folders)[0])


def test_a_breakdown_of_equal_runs_says_that_nothing_changed():
    text = describe_breakdown(break_down(compare({"x": A, "y": A}, draws=100))[0])
    assert "no query gained in B" in text
    assert "no query lost in B" in text


def test_what_is_not_known_is_a_dash():
    single = {"settings": {"gallery_shot": "single"}, "gallery_pid": None, "gallery_camid": None, "gallery_path": None}
    runs = {name: dataclasses.replace(result, **single) for name, result in (("a", A), ("b", B))}
    comparison = compare(runs, draws=100)
    assert line_of(describe_comparison(comparison), "b - a")[3:] == ["+0.0", "-"]
    text = describe_breakdown(break_down(comparison)[0])
    assert "at rank 1 instead" not in text
    assert "nan" not in text + describe_comparison(comparison)


def test_tables_to_save_say_which_pair_they_are_of(comparison):
    tables = comparison_tables([comparison, comparison], [break_down(comparison)] * 2)
    assert list(tables) == ["", "pairs", "queries", "failures", "cameras"]
    for name, table in tables.items():
        assert (table["evaluation"] == "hand").all()
        if name:
            assert (table["a"] + table["b"] == "first<b>").all()
    assert len(tables["queries"]) == 10
    assert tables[""]["mean"].max() <= 1


def test_interval_figure_has_a_dot_with_its_interval_for_each_run_and_metric(comparison):
    figure = interval_figure(comparison.table)
    assert [trace.name for trace in figure.data] == ["first", "&lt;b&gt;"]
    for trace, (_, rows) in zip(figure.data, comparison.table.groupby("run", sort=False), strict=True):
        np.testing.assert_allclose(trace.y, 100 * rows["mean"])
        np.testing.assert_allclose(trace.y + trace.error_y.array, 100 * rows["high"])
        np.testing.assert_allclose(trace.y - trace.error_y.arrayminus, 100 * rows["low"])
    assert figure.data[0].marker.symbol != figure.data[1].marker.symbol
    assert list(figure.layout.xaxis.ticktext) == list(METRICS)
    assert (np.abs(figure.data[1].x - np.arange(5)) < 0.5).all()
    both = pd.concat([comparison.table.assign(evaluation=name) for name in ("hand", "<hand>")])
    panels = interval_figure(both)
    assert len(panels.data) == 4
    assert [trace.showlegend for trace in panels.data] == [True, False, True, False]
    assert [note.text for note in panels.layout.annotations] == ["hand", "&lt;hand&gt;"]


def test_ap_scatter_counts_both_sides_of_the_diagonal():
    figure = ap_scatter(per_query_table(A, B), ("first", "<b>"))
    assert [trace.name for trace in figure.data] == [
        "better in first: 3", "better in &lt;b&gt;: 1", "the same in both: 0"
    ]  # fmt: skip
    above = figure.data[1]
    assert (above.x.tolist(), above.y.tolist(), above.customdata.tolist()) == ([50], [100], [2])
    assert above.text[0] == "2.jpg"
    assert figure.layout.xaxis.title.text == "AP in first (%)"
    assert figure.layout.yaxis.title.text == "AP in &lt;b&gt; (%)"
