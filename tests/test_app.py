"""The explorer, page by page: with nothing to show, with one and several runs, and with folders that are broken."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from make_demo import finetune_log, make_checkpoint, make_run, pretrain_log
from streamlit.testing.v1 import AppTest

from lab.data import load
from lab.runs import Run

EXPLORER = Path(__file__).parent.parent / "apps" / "explorer.py"
PAGES = ("overview", "rank_lists", "attention", "training")
FINETUNED = {"stage": "finetune", "settings": {"height": 128, "width": 64, "fraction": 1.0}, "init": None}


@pytest.fixture(autouse=True)
def keep_main_module(monkeypatch):
    """AppTest leaves the app behind as the process's main module, which later tests' worker processes would import."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    """An empty folder of runs that the explorer looks at."""
    folder = tmp_path / "runs"
    folder.mkdir()
    monkeypatch.setenv("LAB_RUNS", str(folder))
    monkeypatch.delenv("LAB_DATA", raising=False)
    return folder


@pytest.fixture
def three(runs, market) -> Path:
    """Three evaluated runs, from nearly right to nearly random; the first has a log."""
    dataset = load("market1501", market)
    for name, noise in {"good": 0.6, "middle": 1.2, "bad": 5.0}.items():
        make_run(runs / name, dataset, noise, FINETUNED)
    finetune_log().to_csv(runs / "good" / "log.csv", index=False)
    return runs


def open_page(page: str, **query) -> AppTest:
    app = AppTest.from_file(str(EXPLORER), default_timeout=120)
    app.query_params.update(query)
    app.run()
    if page != "overview":
        app.switch_page(f"views/{page}.py").run()
    assert not app.exception, f"{page}: {app.exception}"
    return app


def words(app: AppTest) -> str:
    """All that a page says, in one string."""
    kinds = ("title", "subheader", "markdown", "caption", "text", "info", "error", "success", "code", "warning")
    return "\n".join(element.value for kind in kinds for element in app.get(kind))


def pictures(app: AppTest) -> list:
    return app.get("image")


def test_empty_folder_names_the_two_commands(runs):
    said = words(open_page("overview"))
    assert "lab demo --out demo" in said
    assert "lab app demo/runs" in said


def test_folder_that_is_not_there_names_the_two_commands(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_RUNS", str(tmp_path / "nowhere"))
    assert "lab demo --out demo" in words(open_page("overview"))


def test_one_run_on_every_page(runs, market):
    make_run(runs / "only", load("market1501", market), 0.8)
    for page in PAGES:
        app = open_page(page)
        assert not app.error
    assert len(pictures(open_page("rank_lists"))) == 1
    assert "fine-tuned model" in words(open_page("attention"))
    assert "log.csv" in words(open_page("training"))


def test_overview_lists_all_runs_best_first(three):
    table = open_page("overview").dataframe[0].value
    assert table["run"].tolist() == ["good", "middle", "bad"]
    assert table["mAP"].iloc[0] == pytest.approx(100 * Run(three / "good").result("market1501").mAP)


def test_reranked_figures_are_one_choice_away(three):
    plain, reranked = (open_page("overview", **query).dataframe[0].value for query in ({}, {"rerank": "true"}))
    assert reranked["mAP"].iloc[0] == pytest.approx(100 * Run(three / "good").result("market1501-rerank").mAP)
    assert plain["mAP"].iloc[0] != reranked["mAP"].iloc[0]
    assert len(open_page("overview", all="true").dataframe[0].value) == 6


def test_rank_lists_of_three_runs(three):
    app = open_page("rank_lists")
    assert len(pictures(app)) == 3
    assert len(app.get("download_button")) == 6


def test_runs_are_chosen_in_the_url(three):
    app = open_page("rank_lists", run=["bad"])
    assert app.multiselect(key="run").value == ["bad"]
    assert len(pictures(app)) == 1


def test_worst_query_comes_first(three):
    app = open_page("rank_lists", run=["bad"], queries="worst AP first")
    result = Run(three / "bad").result("market1501")
    worst = int(app.selectbox(key="query").value.split(" ")[0])
    assert result.ap[worst] == np.nanmin(result.ap)


def test_a_new_list_of_queries_starts_at_its_top(three):
    app = open_page("rank_lists", run=["bad"])
    app.selectbox(key="queries").set_value("worst AP first").run()
    assert app.selectbox(key="query").value == app.selectbox(key="query").options[0]


def test_wrong_at_rank_one_lists_only_those(three):
    app = open_page("rank_lists", run=["bad"], queries="wrong at rank 1")
    chosen = [int(option.split(" ")[0]) for option in app.selectbox(key="query").options]
    assert chosen == np.flatnonzero(Run(three / "bad").result("market1501").first_match > 1).tolist()


def test_queries_of_one_person(three):
    app = open_page("rank_lists", queries="one person")
    app.selectbox(key="pid").set_value(22).run()
    assert {option.split(" ")[3] for option in app.selectbox(key="query").options} == {"22"}
    assert not app.exception


def test_next_and_previous_query(three):
    app = open_page("rank_lists")
    options = app.selectbox(key="query").options
    app.button(key="arrow_forward").click().run()
    assert app.selectbox(key="query").value == options[1]
    app.button(key="arrow_back").click().run()
    app.button(key="arrow_back").click().run()
    assert app.selectbox(key="query").value == options[-1]


def test_a_run_of_another_data_set_is_a_choice(three, market):
    make_run(three / "other", load("folder", write_csv(market, three)), 0.5)
    app = open_page("overview", dataset="folder")
    assert app.dataframe[0].value["run"].tolist() == ["other"]
    assert open_page("rank_lists", dataset="folder").multiselect(key="run").value == ["other"]


def write_csv(market: Path, out: Path) -> Path:
    data = load("market1501", market)
    lines = ["path,pid,camid,split"]
    for name in ("train", "query", "gallery"):
        split = getattr(data, name)
        rows = zip(split.path, split.pid, split.camid, strict=True)
        lines += [f"{path},{pid},{camid},{name}" for path, pid, camid in rows]
    file = out.parent / "data.csv"
    file.write_text("\n".join(lines))
    return file


def break_config(run: Path) -> None:
    (run / "config.json").write_text("{")


def break_config_kind(run: Path) -> None:
    (run / "config.json").write_text("[1, 2]")


def remove_ranks(run: Path) -> None:
    (run / "eval" / "market1501" / "ranks.npz").unlink()


def cut_ranks(run: Path) -> None:
    file = run / "eval" / "market1501" / "ranks.npz"
    file.write_bytes(file.read_bytes()[:500])


def shorten_ranks(run: Path) -> None:
    file = run / "eval" / "market1501" / "ranks.npz"
    with np.load(file) as arrays:
        content = {name: arrays[name][:-1] for name in arrays.files}
    np.savez(file, **content)


def point_outside_the_gallery(run: Path) -> None:
    file = run / "eval" / "market1501" / "ranks.npz"
    with np.load(file) as arrays:
        content = dict(arrays)
    np.savez(file, **content | {"index": content["index"] + 1000})


def empty_queries(run: Path) -> None:
    (run / "eval" / "market1501" / "queries.csv").write_text("")


def strange_summary(run: Path) -> None:
    (run / "eval" / "market1501" / "result.json").write_text("[]")


BREAKS = (
    break_config,
    break_config_kind,
    remove_ranks,
    cut_ranks,
    shorten_ranks,
    point_outside_the_gallery,
    empty_queries,
    strange_summary,
)


@pytest.mark.parametrize("damage", BREAKS, ids=[damage.__name__ for damage in BREAKS])
def test_broken_run_is_named_and_the_others_are_shown(three, damage):
    damage(three / "bad")
    app = open_page("rank_lists")
    assert app.error
    assert "bad:" in words(app)
    assert len(pictures(app)) == 2


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "step,loss\n1,x\n2,3\n", "\x00\x01"])
def test_broken_log_is_named(three, content):
    (three / "good" / "log.csv").write_text(content)
    app = open_page("training")
    assert "good" in words(app) or app.selectbox(key="trained").value == "good"


def test_images_that_are_gone_leave_the_pages_standing(three):
    for name in ("good", "middle", "bad"):
        for file in (three / name).glob("eval/*/*.csv"):
            file.write_text(file.read_text().replace("bounding_box_test", "gone").replace("/query/", "/gone/"))
    assert len(pictures(open_page("rank_lists"))) == 3
    make_checkpoint(three / "good")
    assert "LAB_DATA" in words(open_page("attention"))


def test_images_are_looked_for_under_lab_data(three, market, monkeypatch):
    for file in (three / "good").glob("eval/*/*.csv"):
        file.write_text(file.read_text().replace(str(market), "/their/disk"))
    make_checkpoint(three / "good")
    monkeypatch.setenv("LAB_DATA", str(market))
    assert len(pictures(open_page("attention", run=["good"]))) == 1


def test_attention_of_a_query_and_of_a_pair(three):
    make_checkpoint(three / "good")
    assert len(pictures(open_page("attention"))) == 1
    pair = open_page("attention", explain="a pair", rank="2")
    assert len(pictures(pair)) == 2
    assert "rank 2" in words(pair)


def test_checkpoint_that_cannot_be_read_is_named(three):
    (three / "good" / "checkpoint.pt").write_bytes(b"no checkpoint")
    app = open_page("attention")
    assert any("good" in error.value for error in app.error)


def test_pretraining_without_evaluation_has_curves(runs):
    (runs / "pre").mkdir()
    (runs / "pre" / "config.json").write_text(json.dumps({"stage": "pretrain", "settings": {}}))
    pretrain_log().to_csv(runs / "pre" / "log.csv", index=False)
    assert "lab evaluate" in words(open_page("overview"))
    app = open_page("training")
    assert app.selectbox(key="trained").value == "pre"
    assert len(app.get("plotly_chart")) == 1


def test_names_from_files_are_shown_as_they_are(runs, market):
    make_run(runs / "<b>$x$ [y](z)", load("market1501", market), 1.0)
    (runs / "*bad*").mkdir()
    (runs / "*bad*" / "config.json").write_text("{")
    for page in PAGES:
        app = open_page(page)
        for kind in ("markdown", "caption", "info", "error", "success"):
            assert not any("<b>" in element.value for element in app.get(kind))
