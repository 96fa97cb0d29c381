"""The page Training: curves of one and several runs, and the views, drawn live."""

import json

import pytest
from app_pages import open_page, pictures, words, write_csv
from make_demo import finetune_log, make_run, pretrain_log

from lab.data import load
from lab.pretrain.augment import RECIPES


@pytest.fixture
def two(three):
    """A pre-training beside the three evaluated runs."""
    folder = three / "pre"
    folder.mkdir()
    settings = {"queue_size": 1024, "batch_size": 128, "augmentation": "whole", "height": 64, "width": 32}
    (folder / "config.json").write_text(json.dumps({"stage": "pretrain", "settings": settings}))
    pretrain_log().to_csv(folder / "log.csv", index=False)
    return three


def spec(app) -> dict:
    return json.loads(app.get("plotly_chart")[0].proto.spec)


def test_the_chosen_runs_with_a_log_are_shown_over_their_epochs(two):
    app = open_page("training", run=["bad", "good"])
    assert not app.toggle(key="other_runs").value
    assert "No log.csv, so there are no curves of: bad" in words(app)
    assert spec(app)["layout"]["xaxis"]["title"]["text"] == "epoch"
    assert "Fine-tuning: accuracy" in words(app)


def test_accuracy_has_its_chance_line_and_steps_are_a_choice(two):
    app = open_page("training", trained="pre", over="steps")
    lines = {line["name"]: line for line in spec(app)["data"]}
    assert "chance" in lines
    assert spec(app)["layout"]["xaxis"]["title"]["text"] == "step"
    assert "1/(K + 1)" in words(app)


def test_the_queue_of_the_config_gives_the_chance_line_that_a_log_lacks(two):
    pretrain_log().drop(columns="chance_loss").to_csv(two / "pre" / "log.csv", index=False)
    names = {line["name"] for line in spec(open_page("training", trained="pre"))["data"]}
    assert {"chance: log(K + 1)", "chance"} <= names


def test_the_page_follows_the_sidebar(two):
    finetune_log().to_csv(two / "bad" / "log.csv", index=False)
    app = open_page("training", run=["bad", "good"])
    assert {line["name"] for line in spec(app)["data"]} == {"bad", "good"}
    assert "No log.csv" not in words(app)
    app.multiselect(key="run").set_value(["good", "middle"]).run()
    assert spec(app)["layout"]["title"]["text"] == "good"
    assert "no curves of: middle" in words(app)
    app.multiselect(key="run").set_value(["middle"]).run()
    assert not app.get("plotly_chart")
    assert "Choose at least one run that has a log.csv" in words(app)


def test_other_runs_than_those_of_the_sidebar_can_be_shown(two):
    app = open_page("training", run=["good"])
    app.toggle(key="other_runs").set_value(True).run()
    assert app.multiselect(key="trained").options == ["good", "pre"]
    assert app.multiselect(key="trained").value == ["good"]
    app.multiselect(key="trained").set_value(["pre"]).run()
    assert "Pre-training: the grey dashed lines" in words(app)
    assert app.toggle(key="other_runs").value
    app.toggle(key="other_runs").set_value(False).run()
    assert spec(app)["layout"]["title"]["text"] == "good"


def test_several_runs_are_compared(two):
    app = open_page("training", trained=["pre", "good"])
    assert {line["name"] for line in spec(app)["data"]} == {"pre", "good", "guessing"}
    assert len(app.get("download_button")) == 2


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "step,loss\n1,x\n2,3\n", "\x00\x01"])
def test_a_broken_log_leaves_the_other_one(two, content):
    (two / "good" / "log.csv").write_text(content)
    app = open_page("training", trained=["pre", "good"])
    assert spec(app)["data"]
    assert "1/(K + 1)" in words(app)  # said of the pre-training, which is still there


def test_no_log_says_what_writes_one_and_views_are_there_all_the_same(runs, market):
    make_run(runs / "only", load("market1501", market), 0.8)
    assert "lab pretrain --data" in words(open_page("training"))
    app = open_page("training", panel="views")
    assert len(pictures(app)) == 2


def test_no_chosen_run(two):
    app = open_page("training", other_runs="true")
    app.multiselect(key="trained").set_value([]).run()
    assert "at least one run" in words(app)
    assert not app.exception


def test_views_of_the_runs_own_recipe_and_of_the_crops_that_were_ranked(two):
    app = open_page("training", trained="pre", panel="views")
    assert app.selectbox(key="recipe").value == "whole"
    assert app.slider(key="box").value == RECIPES["whole"].crop_area
    assert app.slider(key="jitter").value == 0
    assert "64 × 32 pixels" in words(app)
    assert "Crops of good" in words(app)
    assert len(pictures(app)) == 2


def test_a_recipe_sets_the_sliders_and_they_can_be_moved_again(two):
    app = open_page("training", trained="pre", panel="views")
    before = pictures(app)[0].proto.imgs[0].url
    app.selectbox(key="recipe").set_value("moco").run()
    assert app.slider(key="jitter").value == RECIPES["moco"].color_jitter
    assert app.slider(key="erase").value == 0
    assert app.slider(key="box").value == RECIPES["moco"].crop_area
    changed = pictures(app)[0].proto.imgs[0].url
    assert changed != before
    app.slider(key="jitter").set_value(0.1).run()
    assert app.slider(key="jitter").value == 0.1
    assert pictures(app)[0].proto.imgs[0].url != changed
    assert not app.exception


def test_the_url_restores_the_knobs(two):
    knobs = {"recipe": "luperson", "jitter": "0.8", "erase": "1.0", "erased": "0.3", "view_seed": "7", "crop_seed": "2"}
    app = open_page("training", trained="pre", panel="views", box=["0.1", "0.5"], crops_of="gallery", **knobs)
    values = [app.slider(key=key).value for key in ("jitter", "erase", "erased", "box", "blur")]
    assert values == [0.8, 1.0, 0.3, (0.1, 0.5), 0.5]
    assert (app.number_input(key="view_seed").value, app.number_input(key="crop_seed").value) == (7, 2)
    assert app.selectbox(key="crops_of").value == "gallery"


def test_recipes_side_by_side(two):
    assert len(pictures(open_page("training", trained="pre", panel="views", augment="recipes side by side"))) == 1


def test_fine_tuning_has_knobs_of_its_own(two):
    app = open_page("training", trained="good", panel="views", shift="0", flip="0.0", wiped=["0.1", "0.2"])
    assert app.selectbox(key="augment").value == "fine-tuning"
    assert [app.slider(key=key).value for key in ("flip", "shift", "wipe", "wiped")] == [0, 0, 0.5, (0.1, 0.2)]
    assert len(pictures(app)) == 1


def test_drawn_people_where_no_picture_is_here(two):
    for file in two.glob("*/eval/*/queries.csv"):
        file.write_text(file.read_text().replace("/query/", "/gone/"))
    app = open_page("training", trained="pre", panel="views")
    assert "LAB_DATA" in words(app)
    assert len(pictures(app)) == 2


def test_a_pre_training_alone_shows_drawn_people(runs):
    (runs / "pre").mkdir()
    (runs / "pre" / "config.json").write_text(json.dumps({"stage": "pretrain", "settings": {}}))
    pretrain_log().to_csv(runs / "pre" / "log.csv", index=False)
    app = open_page("training", panel="views")
    assert "These people are drawn" in words(app)
    assert len(pictures(app)) == 2


def test_nonsense_in_the_settings_is_left_aside(two):
    settings = {"height": "tall", "width": -1, "augmentation": ["x"], "queue_size": "long", "batch_size": "many"}
    (two / "pre" / "config.json").write_text(json.dumps({"stage": "pretrain", "settings": settings}))
    for panel in ("curves", "views"):
        app = open_page("training", trained="pre", panel=panel)
        assert not app.error


def test_another_data_set_and_html_in_names(two, market):
    run = make_run(two / "<b>$x$", load("folder", write_csv(market, two)), 0.5, {"stage": "finetune"})
    finetune_log().to_csv(run.folder / "log.csv", index=False)
    for panel in ("curves", "views"):
        app = open_page("training", dataset="folder", trained="<b>$x$", panel=panel)
        assert app.multiselect(key="trained").value == ["<b>$x$"]
        assert not any("<b>" in element.value for kind in ("markdown", "caption", "info") for element in app.get(kind))
