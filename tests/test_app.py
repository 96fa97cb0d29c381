"""The explorer, page by page: with nothing to show, with one and several runs, and with folders that are broken."""

import json
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from app_pages import downloads, open_page, pictures, words, write_csv
from make_demo import finetune_log, make_checkpoint, make_run, pretrain_log

from lab.data import load
from lab.runs import Run

PAGES = ("overview", "rank_lists", "attention", "training")


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
    assert table["", "run"].tolist() == ["good", "middle", "bad"]
    assert table["mAP (%)", "plain"].iloc[0] == pytest.approx(100 * Run(three / "good").result("market1501").mAP)


def test_reranked_figures_stand_beside_the_plain_ones(three):
    row = open_page("overview").dataframe[0].value.iloc[0]
    for ranking, name in (("plain", "market1501"), ("re-ranked", "market1501-rerank")):
        assert row["mAP (%)", ranking] == pytest.approx(100 * Run(three / "good").result(name).mAP)
    assert row["mAP (%)", "plain"] != row["mAP (%)", "re-ranked"]


def test_rank_lists_of_three_runs(three):
    app = open_page("rank_lists")
    assert len(pictures(app)) == 3
    assert len(app.get("download_button")) == 9


@pytest.mark.parametrize(
    ("page", "choices", "names"),
    [
        ("overview", {}, "(all-runs-market1501|good-bad-market1501-rerank|published-market1501|good-bad)"),
        ("rank_lists", {}, "(good|bad|good-bad)-market1501-rerank"),
        ("compare", {}, "good-bad-market1501-rerank"),
        ("compare", {"where": "cameras"}, "good-bad-market1501-rerank"),
        ("distances", {}, "good-market1501-rerank"),
        ("distances", {"errors": "all thresholds (ROC)"}, "good-bad-market1501-rerank"),
        ("training", {}, "good"),
        ("training", {"panel": "views"}, "good"),
        ("data", {}, "good-market1501-rerank"),
    ],
)
def test_names_of_downloads_say_runs_evaluation_and_what_it_is(two, page, choices, names):
    finetune_log().to_csv(two / "good" / "log.csv", index=False)
    found = downloads(open_page(page, run=["good", "bad"], rerank="true", **choices))
    assert found
    for name in found:
        assert re.fullmatch(rf"{names}-[a-z0-9].*", name), name


def test_many_runs_are_counted_in_the_name_of_a_file(three, market):
    make_run(three / "fourth", load("market1501", market), 2.0)
    assert "4-runs-market1501-cmc" in downloads(open_page("overview", run=["good", "middle", "bad", "fourth"]))


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
    app = open_page("rank_lists", run=["bad"], outcome="wrong at rank 1")
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
    assert app.dataframe[0].value["", "run"].tolist() == ["other"]
    assert open_page("rank_lists", dataset="folder").multiselect(key="run").value == ["other"]


def test_runs_in_the_address_decide_the_data_set(three, market):
    make_run(three / "other", load("folder", write_csv(market, three)), 0.5)
    assert open_page("rank_lists", run=["other"]).selectbox(key="dataset").value == "folder"
    assert open_page("rank_lists", run=["good", "bad"]).selectbox(key="dataset").value == "market1501"
    assert open_page("rank_lists").selectbox(key="dataset").value == "market1501"  # has most runs


def test_another_data_set_shows_its_own_runs(three, market):
    make_run(three / "other", load("folder", write_csv(market, three)), 0.5)
    app = open_page("rank_lists", run=["good"])
    app.selectbox(key="dataset").set_value("folder").run()
    assert app.multiselect(key="run").value == ["other"]
    assert len(pictures(app)) == 1


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


@pytest.mark.parametrize(
    ("content", "kind", "says"),
    [
        ("", "info", "has no row yet"),
        ("a,b\n1,2\n", "error", "no column"),
        ("\x00\x01", "info", "has no row yet"),
        ("step,loss\n1,x\n2,3\n", "plotly_chart", ""),  # what is no number is a gap in the curve
    ],
)
def test_broken_log_is_named(three, content, kind, says):
    (three / "good" / "log.csv").write_text(content)
    app = open_page("training")
    found = app.get(kind)
    assert found
    assert not says or any("good" in message.value and says in message.value for message in found)


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
    assert app.multiselect(key="trained").value == ["pre"]
    assert len(app.get("plotly_chart")) == 1


def test_names_from_files_are_shown_as_they_are(runs, market):
    make_run(runs / "<b>$x$ [y](z)", load("market1501", market), 1.0)
    (runs / "*bad*").mkdir()
    (runs / "*bad*" / "config.json").write_text("{")
    for page in PAGES:
        app = open_page(page)
        for kind in ("markdown", "caption", "info", "error", "success"):
            assert not any("<b>" in element.value for element in app.get(kind))


@pytest.mark.parametrize(
    "name", ["config.json", "log.csv", "eval/market1501/queries.csv", "eval/market1501/result.json"]
)
def test_link_out_of_the_folder_is_named_and_not_followed(three, tmp_path, name):
    secret = tmp_path / "secret.txt"
    secret.write_text("step,loss,password\n1,2,hunter2\n")
    file = three / "bad" / name
    file.unlink(missing_ok=True)
    file.symlink_to(secret)
    for page in ("overview", "rank_lists", "training"):
        said = words(open_page(page))
        assert "leads out of the run's folder" in said
        assert "hunter2" not in said
        assert "password" not in said


def test_endless_file_is_refused_before_it_is_read(three):
    file = three / "bad" / "eval" / "market1501" / "ranks.npz"
    file.unlink()
    file.symlink_to("/dev/zero")
    assert "bad: evaluation market1501 cannot be shown" in words(open_page("rank_lists"))


def test_run_folder_may_be_a_link_itself(runs, tmp_path, market):
    make_run(tmp_path / "elsewhere" / "far", load("market1501", market), 0.8)
    (runs / "far").symlink_to(tmp_path / "elsewhere" / "far")
    assert len(pictures(open_page("rank_lists"))) == 1


def test_huge_image_is_a_grey_tile(three, tmp_path):
    huge = tmp_path / "huge.png"
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    huge.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)))
    for file in three.glob("*/eval/*/queries.csv"):
        table = pd.read_csv(file)
        table["path"] = str(huge)
        table.to_csv(file, index=False)
    assert len(pictures(open_page("rank_lists", run=["good"]))) == 1
