"""Where two runs differ, drawn and listed: compared with the five queries that test_compare worked by hand."""

import dataclasses

import numpy as np
import pytest
from test_compare import A, B

from lab.evaluate.breakdown import camera_breakdown, failure_groups, most_changed, per_query_table
from lab.show.figures import CROSS, TICK
from lab.show.two_runs import camera_bars, changed_table, failure_figure, outcome_table

FAILURES = failure_groups(A, B)


def test_outcomes_are_counted_and_named_by_run():
    table = outcome_table(FAILURES, ("first", "second"))
    groups = dict(zip(table["at rank 1"], table["queries"], strict=True))
    right = A.first_match == 1, B.first_match == 1
    assert groups["right in both"] == (right[0] & right[1]).sum()
    assert groups["right in first only"] == (right[0] & ~right[1]).sum() > 0
    assert groups["right in second only"] == (~right[0] & right[1]).sum()
    assert table["share"].sum() == pytest.approx(100)
    only = (right[0] & ~right[1]).nonzero()[0]
    row = table[table["at rank 1"] == "right in first only"].iloc[0]
    assert (row["A"], row["B"]) == pytest.approx((100 * A.ap[only].mean(), 100 * B.ap[only].mean()))


def test_failure_bars_are_those_of_the_groups_and_count_queries():
    figure = failure_figure(FAILURES, ("first", "<b>"), "title")
    rows = FAILURES[(FAILURES["by"] == "first right crop") & (FAILURES["run"] == "B")]
    second = next(bar for bar in figure.data if bar.name == "&lt;b&gt;")
    assert list(second.x) == pytest.approx((100 * rows["share"]).tolist())
    assert list(second.customdata) == rows["queries"].tolist()
    assert list(second.text) == [str(count) for count in rows["queries"]]
    assert figure.data[0].marker.pattern.shape != second.marker.pattern.shape
    assert "%" in figure.layout.xaxis.title.text


def test_failure_bars_do_without_a_known_gallery():
    unknown = [dataclasses.replace(one, gallery_path=None, gallery_pid=None, gallery_camid=None) for one in (A, B)]
    figure = failure_figure(failure_groups(*unknown), ("a", "b"))
    assert len(figure.data) == 2
    assert [note.text for note in figure.layout.annotations] == ["where the first right crop stands"]


def test_camera_bars_are_in_per_cent():
    cameras = camera_breakdown(A, B)
    first, second = camera_bars(cameras, ("first", "<b>")).data
    assert list(first.y) == pytest.approx((100 * cameras["map_a"]).tolist())
    assert list(second.y) == pytest.approx((100 * cameras["map_b"]).tolist())
    assert list(first.x) == [str(camid) for camid in cameras["camid"]]
    assert second.name == "&lt;b&gt;"


def test_changed_queries_name_the_crops_at_rank_1():
    rows = most_changed(per_query_table(A, B))[1]
    table = changed_table(rows, A, B)
    query = int(rows.index[0])
    first = table.iloc[0]
    assert first["query"] == query
    assert first["gain"] == pytest.approx(100 * (B.ap[query] - A.ap[query]))
    assert (first["A"], first["B"]) == pytest.approx((100 * A.ap[query], 100 * B.ap[query]))
    for side, result in (("A", A), ("B", B)):
        rank = int(result.first_match[query])
        assert first[f"first {side}"] == f"{TICK if rank == 1 else CROSS} {rank}"
    empty = dataclasses.replace(B, index=np.full_like(B.index, -1), gallery_path=None)
    assert changed_table(rows, A, empty)["path B"].tolist() == [""] * len(rows)
    known = dataclasses.replace(A, gallery_path=np.array([f"{i}.jpg" for i in range(A.index.max() + 1)]))
    assert changed_table(rows, known, B)["path A"].iloc[0] == f"{A.index[query, 0]}.jpg"
