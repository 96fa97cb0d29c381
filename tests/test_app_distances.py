"""The page on distances and thresholds: its numbers are those of lab.evaluate, at any threshold and for any cameras."""

import json

import numpy as np
import pytest
from app_pages import open_page, words, write_csv
from make_demo import make_run

from lab.data import load
from lab.evaluate.error_rates import Verification
from lab.evaluate.thresholds import at_fpr, camera_error_rates, decide, rate_matrix
from lab.runs import Run


def load_pairs(folder, name: str = "good", evaluation: str = "market1501") -> Verification:
    return Verification.load(folder / name / "eval" / evaluation / "verification.npz")


def said(app) -> str:
    return words(app).replace("\\", "")


def chart(app) -> dict:
    return json.loads(app.get("plotly_chart")[0].proto.spec)


def test_an_empty_folder_names_the_commands(runs):
    assert "lab demo --out demo" in words(open_page("distances"))


@pytest.mark.parametrize("kind", ["run", "baseline", "features"])
def test_without_distances_the_command_for_this_run_is_named(three, kind):
    good = three / "good"
    if kind == "run":
        (good / "checkpoint.pt").write_bytes(b"")
    elif kind == "baseline":
        (good / "config.json").write_text('{"stage": "baseline", "settings": {"baseline": "histogram"}}')
    command = {
        "run": f"--run {good} --dataset market1501 --root DIR",
        "baseline": f"--baseline histogram --out {good} --dataset market1501 --root DIR",
        "features": f"--query-features Q.npz --gallery-features G.npz --out {good} --name market1501",
    }[kind]
    app = open_page("distances")
    assert f"lab evaluate {command} --verification" in words(app)
    assert not app.get("plotly_chart")
    assert f"lab evaluate {command} --rerank --verification" in words(open_page("distances", rerank="true"))


def test_the_threshold_starts_at_equal_errors_and_decides_all_pairs(two):
    app = open_page("distances")
    found = load_pairs(two)
    assert app.slider(key="threshold").value == pytest.approx(found.eer_threshold)
    assert f"Equal error rate **{100 * found.eer:.1f} %**" in said(app)
    decision = decide(found, found.eer_threshold)
    table = app.dataframe[0].value
    assert table["accepted"].tolist() == [decision.true_accepted, decision.false_accepted]
    assert table["refused"].tolist() == [decision.true_refused, decision.false_refused]


def test_the_url_says_threshold_run_and_cameras(two):
    app = open_page("distances", distances_run="bad", threshold="0.5", qcam="1", gcam="2")
    found = load_pairs(two, "bad")
    decision = decide(found, 0.5)
    assert app.dataframe[0].value["accepted"].tolist() == [decision.true_accepted, decision.false_accepted]
    strangers = decision.false_accepted / Run(two / "bad").result("market1501").num_query
    assert f"about **{strangers:.1f} strangers would be accepted**" in said(app)
    assert "of 17 gallery crops" in said(app)
    drawn = chart(app)
    true, false = found.histogram(1, 2)
    assert {trace["name"] for trace in drawn["data"]} == {
        f"two persons: {false.sum()} pairs", f"same person, two cameras: {true.sum()} pairs"
    }  # fmt: skip
    assert any(shape["x0"] == 0.5 for shape in drawn["layout"]["shapes"])


def test_a_camera_with_itself_has_no_true_pairs_and_the_page_says_so(two):
    assert "no pair of the same person" in said(open_page("distances", qcam="1", gcam="1"))


def test_another_run_starts_at_its_own_equal_errors(two):
    app = open_page("distances", threshold="0.5")
    app.selectbox(key="distances_run").set_value("bad").run()
    assert app.slider(key="threshold").value == pytest.approx(load_pairs(two, "bad").eer_threshold)


@pytest.mark.parametrize("value", ["77", "-3", "x", "nan"])
def test_a_threshold_out_of_range_is_forgotten(two, value):
    found = load_pairs(two)
    assert open_page("distances", threshold=value).slider(key="threshold").value == pytest.approx(found.eer_threshold)


def test_cameras_in_the_url_that_are_not_there_are_forgotten(two):
    assert open_page("distances", qcam="9", gcam="x").selectbox(key="qcam").value == "all"


def test_roc_of_all_runs_with_what_they_reach_at_an_fpr(two):
    app = open_page("distances", errors="all thresholds (ROC)", fpr="5")
    table = app.dataframe[0].value.set_index("run")
    for name in ("good", "bad"):
        reached = at_fpr(load_pairs(two, name), 0.05)
        assert table.loc[name, "TPR (%)"] == pytest.approx(100 * reached.tpr)
        assert table.loc[name, "threshold"] == pytest.approx(reached.threshold)
    names = [trace.get("name", "") for trace in chart(app)["data"]]
    assert any(name.startswith("bad (equal error") for name in names)


def test_the_fpr_that_is_allowed_sets_the_threshold_of_every_view(two):
    strict = at_fpr(load_pairs(two), 0.05).threshold
    for view in ("one threshold", "all thresholds (ROC)", "cameras"):
        app = open_page("distances", errors=view)
        app.number_input(key="fpr").set_value(5.0).run()
        assert app.button(key="take").label == f"Use threshold {strict:.3f}"
        app.button(key="take").click().run()
        assert app.slider(key="threshold").value == pytest.approx(strict, abs=0.01)
        assert not app.exception


@pytest.mark.parametrize(
    ("rate", "column"),
    [("equal error rate", "eer"), ("TPR at the threshold", "tpr"), ("FPR at the threshold", "fpr")],
)
def test_error_rates_by_camera(two, rate, column):
    app = open_page("distances", errors="cameras", rate=rate, threshold="0.5")
    matrix = rate_matrix(camera_error_rates(load_pairs(two), 0.5), column)
    cells = np.array(chart(app)["data"][0]["text"])
    assert cells[0][1] == f"{100 * matrix.iloc[0, 1]:.1f}"
    assert "points or better" in said(app)


def test_re_ranked_distances_are_said_to_be_others(two):
    app = open_page("distances", rerank="true")
    assert "after re-ranking" in said(app)
    assert app.slider(key="threshold").value == pytest.approx(
        load_pairs(two, "good", "market1501-rerank").eer_threshold
    )
    assert "after re-ranking" not in said(open_page("distances"))


def test_a_run_without_distances_stands_beside_one_that_has_them(two):
    (two / "bad" / "eval" / "market1501" / "verification.npz").unlink()
    app = open_page("distances")
    assert app.selectbox(key="distances_run").options == ["good"]
    assert "bad has no distances of pairs" in said(app)


@pytest.mark.parametrize("content", [b"", b"no npz", None])
def test_a_broken_file_is_named(two, content):
    file = two / "good" / "eval" / "market1501" / "verification.npz"
    if content is None:
        np.savez(file, eer=0.1)
    else:
        file.write_bytes(content)
    app = open_page("distances")
    assert "good: verification.npz of market1501 cannot be shown" in said(app)
    assert app.selectbox(key="distances_run").options == ["bad"]


@pytest.mark.parametrize("name", ["true", "edges", "roc_tpr", "query_camids", "eer"])
def test_a_file_of_a_wrong_shape_is_named(two, name):
    file = two / "good" / "eval" / "market1501" / "verification.npz"
    with np.load(file) as arrays:
        content = dict(arrays)
    np.savez(file, **content | {name: np.zeros((2, 2))})
    for errors in ("one threshold", "all thresholds (ROC)", "cameras"):
        app = open_page("distances", errors=errors)
        assert "good: verification.npz of market1501" in said(app)


def test_text_where_numbers_should_be_is_named(two):
    file = two / "good" / "eval" / "market1501" / "verification.npz"
    with np.load(file) as arrays:
        content = dict(arrays)
    np.savez(file, **content | {"roc_tpr": np.full(len(content["roc_tpr"]), "x")})
    assert "good: verification.npz of market1501" in said(open_page("distances"))


def test_a_run_of_another_data_set_has_its_own_command(two, market):
    make_run(two / "other", load("folder", write_csv(market, two)), 0.5)
    app = open_page("distances", dataset="folder")
    assert "--name folder" in words(app)
    assert len(open_page("distances", dataset="market1501").get("plotly_chart")) == 1


def test_names_from_files_are_shown_as_they_are(two):
    (two / "good").rename(two / "<b>$x$ [y](z)")
    for errors in ("one threshold", "all thresholds (ROC)", "cameras"):
        app = open_page("distances", errors=errors)
        for kind in ("markdown", "caption", "info", "error", "subheader"):
            assert not any("<b>" in element.value for element in app.get(kind))
        drawn = chart(app)
        assert "<b>" not in json.dumps(drawn["layout"]["title"])
        assert not any("<b>" in trace.get("name", "") for trace in drawn["data"])
