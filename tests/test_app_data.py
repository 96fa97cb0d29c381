"""The page of data: counts of the test set and the training set, and a look at unlabelled images wherever they lie."""

import json
from pathlib import Path

import pytest
from app_pages import links, open_page, pictures, words, write_csv
from make_demo import make_run
from test_data_overview import PLACES, make_folder

from lab.data import load
from lab.data.importing import import_images
from lab.runs import Run
from lab.show.data import parts_of, parts_table, per_camera

PAGE = "data"
STORE, TRAIN = "unlabelled images", "training data"


def make_pretrain(folder: Path, **data) -> None:
    """A pre-training run that was never evaluated."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"stage": "pretrain", "settings": {}, "data": data or None}))


def charts(app) -> list[dict]:
    return [json.loads(element.proto.spec) for element in app.get("plotly_chart")]


@pytest.fixture
def store(tmp_path) -> Path:
    import_images(make_folder(tmp_path / "images"), tmp_path / "store")
    return tmp_path / "store"


def test_the_test_set_is_counted_as_the_result_has_it(three):
    app = open_page(PAGE)
    result = Run(three / "good").result("market1501")
    assert app.dataframe[0].value.to_dict() == parts_table(parts_of(result), result).to_dict()
    assert app.dataframe[0].value["distractors (pid 0)"].tolist() == [0, 2]
    cameras = charts(app)[0]
    assert [bar["name"] for bar in cameras["data"]] == ["query", "gallery"]
    assert cameras["data"][0]["text"] == [str(count) for count in per_camera(parts_of(result))["query"]]
    assert len(pictures(app)) == 1
    assert not app.error


def test_one_person_by_camera_from_the_url(three):
    app = open_page(PAGE, identity="22", data_run="bad")
    assert app.selectbox(key="identity").value == "22"
    assert app.selectbox(key="data_run").value == "bad"
    assert "A row for each camera" in words(app)
    assert "0" not in app.selectbox(key="identity").options  # distractors are no person
    page, choices = links(app)["Who is found for these queries?"]
    assert page == "rank_lists"
    assert choices["pid"] == ["22"]


def test_training_data_is_read_when_it_is_asked_for(three, market):
    app = open_page(PAGE, part=TRAIN)
    assert "market1501" in words(app)
    assert not app.dataframe
    app.toggle(key="read").set_value(True).run()
    table = app.dataframe[0].value.set_index("part")
    assert table.loc["train", ["crops", "identities", "cameras"]].tolist() == [48, 8, 3]
    assert table.loc["gallery", ["identities", "distractors (pid 0)"]].tolist() == [5, 2]
    assert "junk" in words(app)
    assert not app.error


def test_training_data_lies_where_the_run_says(runs, market):
    config = {"stage": "finetune", "settings": {}, "data": {"dataset": "market1501", "root": str(market)}}
    run = make_run(runs / "only", load("market1501", market), 0.8, config)
    for file in run.folder.glob("eval/*/*.csv"):
        file.write_text(file.read_text().replace(str(market), "/gone"))
    assert open_page(PAGE, part=TRAIN, read="true").dataframe[0].value["crops"].tolist() == [48, 15, 17]
    config["data"]["root"] = "/gone"
    (run.folder / "config.json").write_text(json.dumps(config))
    assert "LAB_DATA=DIR lab app" in words(open_page(PAGE, part=TRAIN, read="true"))


def test_training_data_that_cannot_be_read_is_named(runs, market, tmp_path):
    config = {"stage": "finetune", "settings": {}, "data": {"dataset": "msmt17", "root": str(tmp_path)}}
    make_run(runs / "only", load("market1501", market), 0.8, config)
    app = open_page(PAGE, part=TRAIN, read="true")
    assert len(app.error) == 1
    assert not app.dataframe


@pytest.mark.parametrize(
    "data", [None, [], "x", {"folders": "x"}, {"folders": [1, None, "", "\x00", "/nowhere"]}, {"root": 3}]
)
def test_strange_configs_lead_nowhere(runs, data):
    (runs / "odd").mkdir()
    (runs / "odd" / "config.json").write_text(json.dumps({"stage": "pretrain", "settings": {}, "data": data}))
    app = open_page(PAGE)
    assert app.text_input(key="store").value == ""
    assert "lab data import FOLDER --out STORE" in words(app)


def test_the_store_of_a_pretraining_run_is_shown_though_nothing_was_evaluated(runs, store):
    make_pretrain(runs / "pre", folders=[str(store)], images=10)
    app = open_page(PAGE)
    assert app.segmented_control(key="part").value == STORE
    assert app.text_input(key="store").value == str(store)
    assert [(metric.label, metric.value) for metric in app.metric][2:] == [
        ("countries", "2"),
        ("cities", "3"),
        ("videos", "4"),
    ]
    sizes, places = charts(app)
    assert [bar["name"] for bar in sizes["data"]] == ["height", "width"]
    assert places["data"][0]["y"] == ["de", "at"]
    assert len(pictures(app)) == 1
    assert len(app.dataframe[0].value) == 10
    assert "lab evaluate" in words(open_page(PAGE, part="test data"))


def test_places_by_city_and_video_from_the_url(runs, store):
    make_pretrain(runs / "pre")
    bars = charts(open_page(PAGE, part=STORE, store=str(store), level="city"))[1]["data"][0]
    assert bars["y"] == ["bonn, de", "wien, at", "ulm, de"]
    bars = charts(open_page(PAGE, part=STORE, store=str(store), level="video"))[1]["data"][0]
    assert set(bars["y"]) == {", ".join(reversed(place.split("/"))) for place in PLACES}


def test_a_folder_of_images_can_be_typed(runs, market):
    make_pretrain(runs / "pre")
    app = open_page(PAGE)
    app.text_input(key="store").set_value(str(market / "bounding_box_train")).run()
    assert not app.error
    assert app.metric[0].value == "48"
    assert "one video or folder" in words(app)
    assert app.dataframe[0].value["pid"].between(2, 9).all()


@pytest.mark.parametrize("place", ["/nowhere", "\x00", "<b>$x$", "x" * 5000, "README.md"])
def test_a_place_that_is_none_is_one_sentence(runs, place):
    make_pretrain(runs / "pre")
    app = open_page(PAGE, part=STORE)
    app.text_input(key="store").set_value(place).run()
    assert not app.exception
    assert len(app.error) == 1
    assert not any("<b>" in element.value for element in app.error)


def test_a_broken_store_is_one_sentence(runs, store):
    make_pretrain(runs / "pre", folders=[str(store)])
    (store / "index.parquet").write_bytes(b"PAR1 and nothing more")
    app = open_page(PAGE)
    assert "index.parquet" in app.error[0].value.replace("\\", "")
    (store / "lmdb/data.mdb").write_bytes(b"no LMDB")
    assert len(open_page(PAGE).error) == 1


def test_images_of_a_store_that_cannot_be_read_are_counted(runs, tmp_path):
    make_folder(tmp_path / "images", {"a": 3})
    (tmp_path / "images/a/x.jpg").write_bytes(b"broken")
    make_pretrain(runs / "pre", folders=[str(tmp_path / "images")])
    app = open_page(PAGE)
    assert "1 of 4 images" in app.warning[0].value
    assert len(pictures(app)) == 1


def test_known_stores_are_offered(runs, store, tmp_path):
    make_pretrain(runs / "pre", folders=[str(store), str(tmp_path / "images")])
    app = open_page(PAGE)
    app.pills(key="known stores").set_value(str(tmp_path / "images")).run()
    assert app.text_input(key="store").value == str(tmp_path / "images")
    assert not app.exception


def test_nothing_to_look_at(runs):
    assert "lab demo --out demo" in words(open_page(PAGE))


def test_a_run_of_another_data_set(three, market):
    make_run(three / "other", load("folder", write_csv(market, three)), 0.5)
    app = open_page(PAGE, dataset="folder")
    assert app.dataframe[0].value["crops"].tolist() == [15, 17]


def test_a_result_that_does_not_know_its_gallery(runs, market):
    run = make_run(runs / "only", load("market1501", market), 0.8)
    for file in run.folder.glob("eval/*/gallery.csv"):
        file.unlink()
    app = open_page(PAGE)
    assert app.dataframe[0].value["part"].tolist() == ["query"]
    assert "gallery.csv" in words(app)


def test_images_that_are_gone_and_names_with_html(runs, market):
    run = make_run(runs / "<b>$x$", load("market1501", market), 0.8)
    for file in run.folder.glob("eval/*/*.csv"):
        file.write_text(file.read_text().replace(str(market), "/<b>gone"))
    for part, drawn in (("test data", 1), (TRAIN, 0)):
        app = open_page(PAGE, part=part)
        assert len(pictures(app)) == drawn
        for kind in ("markdown", "caption", "info", "error"):
            assert not any("<b>" in element.value for element in app.get(kind))


def test_a_broken_run_is_named_and_the_others_are_shown(three):
    (three / "bad" / "eval/market1501/ranks.npz").unlink()
    app = open_page(PAGE)
    assert app.error
    assert len(app.dataframe[0].value) == 2
