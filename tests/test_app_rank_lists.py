"""The page of rank lists: filters, lists that are computed now, and gallery crops as queries."""

import numpy as np
import pytest
from app_pages import open_page, pictures, words
from make_demo import features

from lab.data import load
from lab.evaluate.metrics import evaluate_ranking
from lab.evaluate.rerank import rerank_blocks
from lab.evaluate.search import search
from lab.runs import Run


def store_features(folder, market, noise: float) -> Run:
    """The features that make_run's result is of, stored as an evaluation stores them."""
    dataset, run, rng = load("market1501", market), Run(folder), np.random.default_rng(1)
    for part in ("query", "gallery"):
        run.save_features("market1501", part, features(getattr(dataset, part), noise, rng))
    return run


def options(app) -> list[int]:
    return [int(option.split(" ")[0]) for option in app.selectbox(key="query").options]


def tables(app):
    """The lists as tables, whose switches were turned on."""
    for toggle in [toggle for toggle in app.toggle if (toggle.key or "").startswith("table-")]:
        toggle.set_value(True)
    app.run()
    assert not app.exception
    return [frame.value for frame in app.dataframe if "match" in frame.value]


def test_filters_leave_what_they_say(three):
    result = Run(three / "bad").result("market1501")
    app = open_page("rank_lists", run=["bad"], cam="2", ap=["0", "40"])
    wanted = (result.camid == 2) & (100 * result.ap <= 40)
    assert options(app) == np.flatnonzero(wanted).tolist()
    assert 0 < wanted.sum() < len(wanted)


def test_right_in_one_wrong_in_the_other(three):
    good, bad = (Run(three / name).result("market1501") for name in ("good", "bad"))
    app = open_page("rank_lists", run=["good", "bad"], outcome="right in good, wrong in bad")
    assert options(app) == np.flatnonzero((good.first_match == 1) & (bad.first_match > 1)).tolist()


def test_filter_that_leaves_nothing_says_so(three):
    app = open_page("rank_lists", run=["good"], outcome="wrong at rank 1", ap=["99", "100"])
    assert "Take a filter away" in words(app)


def test_best_first_and_shuffled(three):
    result = Run(three / "bad").result("market1501")
    best = options(open_page("rank_lists", run=["bad"], queries="best AP first"))
    assert (np.diff(result.ap[best]) <= 0).all()
    shuffled = options(open_page("rank_lists", run=["bad"], queries="shuffled"))
    assert sorted(shuffled) == sorted(best) != shuffled


def test_thumbnail_takes_its_query(three):
    app = open_page("rank_lists", run=["bad"])
    app.button(key="tile 3").click().run()
    assert app.selectbox(key="query").value.startswith("3 ·")
    without = open_page("rank_lists", run=["bad"], thumbnails="false")
    assert not [button for button in without.button if (button.key or "").startswith("tile")]


def test_filter_that_drops_the_chosen_query_takes_the_first_that_is_left(three):
    app = open_page("rank_lists", run=["bad"])
    right = Run(three / "bad").result("market1501").first_match == 1
    app.selectbox(key="query").set_value(app.selectbox(key="query").options[int(np.flatnonzero(right)[0])]).run()
    app.selectbox(key="outcome").set_value("wrong at rank 1").run()
    left = app.selectbox(key="query").options
    assert app.selectbox(key="query").value == left[0]
    app.button(key="arrow_forward").click().run()
    assert not app.exception
    assert app.selectbox(key="query").value == left[1]


def test_another_query_takes_the_place_of_a_gallery_crop(three, market):
    store_features(three / "good", market, 0.6)
    app = open_page("rank_lists", run=["good"], crop="4")
    app.button(key="arrow_forward").click().run()
    assert app.number_input(key="crop").value is None
    assert "gallery crop" not in pictures(app)[0].proto.imgs[0].alt


def test_stored_list_needs_no_features(three):
    app = open_page("rank_lists", run=["good"])
    assert not (three / "good" / "features").exists()
    assert len(pictures(app)) == 1
    result = Run(three / "good").result("market1501")
    assert tables(app)[0]["gallery index"].tolist() == result.index[0][result.index[0] >= 0].tolist()


def test_same_camera_crops_are_shown_on_demand(three, market):
    run = store_features(three / "good", market, 0.6)
    app = open_page("rank_lists", run=["good"], removed="true")
    table = tables(app)[0]
    assert "same camera" in set(table["match"])
    result, gallery = run.result("market1501"), run.features("market1501", "gallery")
    query = run.features("market1501", "query").values[0]
    assert table["gallery index"].tolist() == search(query, gallery, result.pid[0], result.camid[0], 10).index.tolist()
    kept = table[table["match"] != "same camera"]["gallery index"].tolist()
    assert kept == result.index[0][: len(kept)].tolist()


def test_reranking_now_is_that_of_the_package(three, market):
    run = store_features(three / "middle", market, 1.2)
    app = open_page("rank_lists", run=["middle"], live="true", k1="4", k2="2")
    query, gallery = (run.features("market1501", part) for part in ("query", "gallery"))
    wanted = evaluate_ranking(
        query, gallery, blocks=rerank_blocks(query.values, gallery.values, k1=4, k2=2, lambda_value=0.3)
    )
    assert f"mAP {100 * wanted.mAP:.1f} %" in pictures(app)[0].proto.imgs[0].alt
    found = tables(app)[0]
    assert found["gallery index"].tolist() == wanted.index[0][wanted.index[0] >= 0].tolist()
    np.testing.assert_allclose(found["distance"], wanted.distance[0][wanted.index[0] >= 0], atol=1e-6)


@pytest.mark.parametrize("switch", [{"removed": "true"}, {"live": "true"}, {"crop": "2"}])
def test_what_needs_features_names_the_command(three, switch):
    app = open_page("rank_lists", run=["good"], **switch)
    assert "lab evaluate" in words(app).replace("\\", "")
    assert len(pictures(app)) == (0 if "crop" in switch else 1)


def test_gallery_crop_as_query(three, market):
    run = store_features(three / "good", market, 0.6)
    app = open_page("rank_lists", run=["good"], crop="4")
    gallery = run.features("market1501", "gallery")
    wanted = search(gallery.values[4], gallery, gallery.pid[4], gallery.camid[4], 10, False, leave_out=4)
    assert tables(app)[0]["gallery index"].tolist() == wanted.index.tolist()
    assert "gallery crop 4 as the query" in pictures(app)[0].proto.imgs[0].alt


def test_crop_of_a_list_becomes_the_query(three, market):
    run = store_features(three / "good", market, 0.6)
    app = open_page("rank_lists", run=["good"])
    app.selectbox(key="use good").set_value(1).run()
    assert not app.exception
    assert app.number_input(key="crop").value == run.result("market1501").index[0][1]
    assert app.selectbox(key="use good").value is None


def test_features_of_other_queries_are_refused(three, market):
    run = store_features(three / "good", market, 0.6)
    part = run.features("market1501", "query")
    run.save_features("market1501", "query", type(part)(part.values[::-1], part.pid, part.camid, part.path[::-1]))
    app = open_page("rank_lists", run=["good"], removed="true")
    assert "not those of the evaluated queries" in words(app)
    assert len(pictures(app)) == 1
