"""The page that compares two runs: what it says is what lab.evaluate finds, and a click leads to the rank lists."""

import base64
import dataclasses
import json
import shutil

import numpy as np
import pytest
from app_pages import left_for, links, open_page, words, write_csv
from make_demo import make_run

from lab.data import load
from lab.evaluate.breakdown import most_changed, per_query_table
from lab.evaluate.camera_pairs import CameraPairs
from lab.evaluate.compare import compare
from lab.runs import Run


def results(folder, *names, evaluation="market1501"):
    return [Run(folder / name).result(evaluation) for name in names]


def said(app) -> str:
    return words(app).replace("\\", "")


def chart(app, number: int = 0) -> dict:
    return json.loads(app.get("plotly_chart")[number].proto.spec)


def test_an_empty_folder_names_the_commands(runs):
    assert "lab demo --out demo" in words(open_page("compare"))


def test_one_run_asks_for_a_second(runs, market):
    run = make_run(runs / "only", load("market1501", market), 0.8)
    app = open_page("compare")
    assert "it takes two" in said(app)
    assert "lab evaluate --run RUN --dataset market1501 --root DIR" in words(app)
    assert app.selectbox(key="run_b").value == "only (re-ranked)", "a run can be set against itself re-ranked"
    shutil.rmtree(run.folder / "eval" / "market1501-rerank")
    assert "it takes two" in said(open_page("compare"))


def test_the_verdict_is_that_of_the_lab(three):
    app = open_page("compare")
    a, b = results(three, "good", "middle")
    found = compare({"good": a, "middle": b}, draws=10_000)
    assert found.pairs[0].sentence()[1:] in app.subheader[0].value.replace("\\", "")
    assert found.pairs[1].sentence()[1:] in said(app)
    assert "10,000 bootstrap draws" in said(app)
    row = app.dataframe[0].value.set_index("metric").loc["mAP"]
    mean, low, high = 100 * found.table.loc[0, ["mean", "low", "high"]]
    assert row["A"] == f"{mean:.1f} ({low:.1f}..{high:.1f})"


def test_the_first_two_chosen_runs_are_compared_and_others_may_be(three):
    app = open_page("compare", run=["bad", "good"])
    assert [app.selectbox(key=key).value for key in ("run_a", "run_b")] == ["bad", "good"]
    assert "middle" in app.selectbox(key="run_a").options
    assert "good (re-ranked)" in app.selectbox(key="run_b").options
    assert open_page("compare", run=["middle"]).selectbox(key="run_a").value == "middle"


def test_the_url_says_which_two_and_swapping_turns_them_round(three):
    app = open_page("compare", run_a="middle", run_b="bad", where="kinds of error")
    assert [app.selectbox(key=key).value for key in ("run_a", "run_b")] == ["middle", "bad"]
    assert app.get("button_group")[0].value == "kinds of error"
    before = app.dataframe[0].value["difference"].iloc[0]
    app.button(key="swap").click().run()
    assert [app.selectbox(key=key).value for key in ("run_a", "run_b")] == ["bad", "middle"]
    assert app.dataframe[0].value["difference"].iloc[0] != before
    assert not app.exception


def test_names_in_the_url_that_are_not_there_are_forgotten(three):
    app = open_page("compare", run_a="gone", open="99 · pid 1 · cam 1", where="nowhere", changed="7")
    assert app.selectbox(key="run_a").value == "good"


def test_a_run_against_itself_is_refused(three):
    assert "the same" in said(open_page("compare", run_a="bad", run_b="bad"))


def test_a_run_against_itself_re_ranked(three):
    app = open_page("compare", run_a="bad", run_b="bad (re-ranked)")
    a, b = results(three, "bad")[0], results(three, "bad", evaluation="market1501-rerank")[0]
    assert f"{100 * (b.mAP - a.mAP):+.1f}" in app.dataframe[0].value["difference"].iloc[0]
    other = open_page("compare", rerank="true")
    assert "bad (not re-ranked)" in other.selectbox(key="run_b").options


def test_the_scatter_has_every_query_and_the_tables_those_that_changed_most(three):
    app = open_page("compare", run_a="good", run_b="bad")
    queries = per_query_table(*results(three, "good", "bad"))
    assert sum(count(trace["x"]) for trace in chart(app)["data"]) == len(queries)
    lost = app.dataframe[-1].value
    assert lost["query"].tolist() == most_changed(queries)[1].index.tolist()
    assert lost["gain"].tolist() == pytest.approx((100 * most_changed(queries)[1]["gain"]).tolist())
    assert all(picture.startswith("data:image/jpeg;base64,") for picture in lost["crop"])


def count(values) -> int:
    """How many numbers a plotly array holds, which may be packed."""
    if isinstance(values, dict):
        return len(base64.b64decode(values["bdata"])) // np.dtype(values["dtype"]).itemsize
    return len(values)


def test_a_clicked_point_opens_its_rank_lists(three):
    app = open_page("compare", run_a="bad", run_b="middle")
    app.session_state["bad-middle-market1501-queries"] = {"selection": {"points": [{"customdata": 7}]}}
    app.run()
    assert not app.exception
    page, choices = left_for(app)
    assert page == "rank_lists"
    assert choices["query"][0].startswith("7 ·")
    assert choices["run"] == ["bad", "middle"]


def test_several_points_are_listed(three):
    app = open_page("compare")
    app.session_state["good-middle-market1501-queries"] = {
        "selection": {"points": [{"customdata": [3]}, {"customdata": [5]}, {}]}
    }
    app.run()
    assert app.dataframe[1].value["query"].tolist() == [3, 5]


def test_a_row_of_a_table_opens_its_rank_lists(three):
    app = open_page("compare", run_a="good", run_b="bad", rerank="true")
    query = app.dataframe[-1].value["query"].iloc[1]
    app.session_state["lost rows"] = {"selection": {"rows": [1], "columns": []}}
    app.run()
    page, choices = left_for(app)
    assert page == "rank_lists"
    assert choices["query"][0].startswith(f"{query} ·")
    assert choices["run"] == ["good", "bad"]
    assert choices["rerank"] == ["true"]


def test_a_page_that_the_browser_had_kept_does_not_leave_again(three):
    app = open_page("compare", run_a="good", run_b="bad")
    app.session_state["lost rows"] = {"selection": {"rows": [1], "columns": []}}
    app.run()
    assert left_for(app)
    assert "Notebook 08" not in words(app)
    app.run()
    assert left_for(app) is None
    assert "Notebook 08" in words(app)  # the page is shown to its end
    app.session_state["lost rows"] = {"selection": {"rows": [0], "columns": []}}
    app.run()
    assert left_for(app)


def test_a_query_can_be_opened_without_a_mouse(three):
    result = results(three, "good")[0]
    label = f"4 · pid {result.pid[4]} · cam {result.camid[4]}"
    app = open_page("compare", open=label)
    assert app.selectbox(key="open").value == label
    page, choices = links(app)["Open its rank lists"]
    assert page == "rank_lists"
    assert choices["query"] == [label]
    assert f"AP {100 * result.ap[4]:.1f} %" in said(app)


def test_kinds_of_error_are_counted(three):
    app = open_page("compare", run_a="good", run_b="bad", where="kinds of error")
    a, b = results(three, "good", "bad")
    table = app.dataframe[1].value.set_index("at rank 1")["queries"]
    assert table["right in good only"] == ((a.first_match == 1) & (b.first_match > 1)).sum()
    page, choices = links(app)["Those right in good, wrong in bad"]
    assert page == "rank_lists"
    assert choices["outcome"] == ["right in good, wrong in bad"]


def test_matrices_of_cameras_and_their_difference(two):
    app = open_page("compare", where="cameras", measure="rank-5")
    matrices = [CameraPairs.load(two / name / "eval" / "market1501").matrix("rank-5") for name in ("good", "bad")]
    titles = [chart(app, number)["layout"]["title"]["text"] for number in range(3)]
    assert titles == ["A: good, rank-5", "B: bad, rank-5", "B - A, rank-5"]
    cells = np.array(chart(app, 2)["data"][0]["text"])
    points = 100 * (matrices[1] - matrices[0]).to_numpy()
    assert cells[0][1] == f"{points[0][1]:+.1f}"
    assert cells[0][0] == ""


def test_without_figures_by_camera_the_command_is_named(three):
    app = open_page("compare", where="cameras")
    assert "--cameras" in said(app)
    assert "--rerank --cameras" in said(open_page("compare", where="cameras", rerank="true"))
    assert len(app.get("plotly_chart")) == 1


def test_broken_figures_by_camera_are_named(two):
    np.savez(two / "bad" / "eval" / "market1501" / "cameras.npz", ap=np.zeros(3))
    assert "cameras.npz of market1501 cannot be shown" in said(open_page("compare", where="cameras"))
    good = CameraPairs.load(two / "good" / "eval" / "market1501")
    fewer = {"query_camid": good.query_camid[1:], "ap": good.ap[1:], "first_match": good.first_match[1:]}
    dataclasses.replace(good, **fewer).save(two / "bad" / "eval" / "market1501")
    app = open_page("compare", where="cameras")
    assert "expected both of one evaluation" in said(app)


def test_other_queries_cannot_be_compared_and_the_page_says_why(three, market):
    data = load("market1501", market)
    fewer = type(data.query)(*(getattr(data.query, name)[1:] for name in ("path", "pid", "camid")))
    make_run(three / "fewer", dataclasses.replace(data, query=fewer), 1.0)
    app = open_page("compare", run_a="good", run_b="fewer")
    assert "good and fewer cannot be compared: number of queries is 15 in good and 14 in fewer" in said(app)
    assert app.error


@pytest.mark.parametrize("damage", ["missing", "shape", "text"])
def test_a_broken_run_is_named(three, damage):
    folder = three / "bad" / "eval" / "market1501"
    if damage == "missing":
        (folder / "ranks.npz").unlink()
    elif damage == "shape":
        np.savez(folder / "ranks.npz", index=np.zeros((2, 3), int), distance=np.zeros((2, 3)), match=np.zeros((2, 3)))
    else:
        file = folder / "queries.csv"
        file.write_text(file.read_text().replace("0.", "zero."))
    app = open_page("compare", run_a="good", run_b="bad")
    assert app.error
    assert "bad" in said(app)


def test_images_that_are_gone_leave_the_page_standing(three):
    for file in three.glob("*/eval/*/*.csv"):
        file.write_text(file.read_text().replace("bounding_box_test", "gone").replace("/query/", "/gone/"))
    assert open_page("compare").dataframe[-1].value["crop"].iloc[0].startswith("data:image/jpeg")


def test_a_run_of_another_data_set_is_not_offered(three, market):
    make_run(three / "other", load("folder", write_csv(market, three)), 0.5)
    assert "other" not in open_page("compare", dataset="market1501").selectbox(key="run_a").options
    assert "it takes two" in said(open_page("compare", dataset="folder"))


def test_names_from_files_are_shown_as_they_are(runs, market):
    for name, noise in (("<b>$x$ [y](z)", 0.5), ("<i>*other*", 2.0)):
        make_run(runs / name, load("market1501", market), noise)
    for where in ("query by query", "kinds of error", "cameras"):
        app = open_page("compare", where=where)
        for kind in ("markdown", "caption", "info", "error", "subheader"):
            assert not any("<b>" in element.value or "<i>" in element.value for element in app.get(kind))
        for number in range(len(app.get("plotly_chart"))):
            assert "<b>" not in json.dumps(chart(app, number)["layout"])
