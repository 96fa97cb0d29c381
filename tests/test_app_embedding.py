"""The page of embedding maps: what is on them, what they are kept in, and where a selection leads."""

import json
from pathlib import Path

import numpy as np
import pytest
from app_pages import links, open_page, pictures, words, write_csv
from make_demo import features, make_run

from lab.data import load
from lab.runs import Features, Run
from lab.show.embedding import pca

PAGE = "embedding"


def store(run: Path, dataset, noise: float = 0.8) -> Run:
    """A run with an evaluation and the features that it is of."""
    made = make_run(run, dataset, noise)
    rng = np.random.default_rng(1)
    for part in ("query", "gallery"):
        made.save_features(dataset.name, part, features(getattr(dataset, part), noise, rng))
    return made


@pytest.fixture
def dataset(market):
    return load("market1501", market)


@pytest.fixture
def run(runs, dataset) -> Run:
    return store(runs / "only", dataset)


def chart(app) -> dict:
    """The map of a page as plotly has it."""
    (found,) = app.get("plotly_chart")
    return json.loads(found.proto.spec)


def maps(run: Run) -> list[str]:
    return sorted(file.name for file in run.folder.glob("maps/*"))


def select(app, *numbers: int):
    """Select points of the map as a reader would."""
    points = [{"customdata": [number, 1, 1, "query", "", ""]} for number in numbers]
    app.session_state["only-market1501-map-both-PCA-1000-0"] = {"selection": {"points": points}}
    return app.run()


def test_a_pca_of_all_crops_with_the_share_of_the_variance(run):
    app = open_page(PAGE)
    values = np.concatenate([run.features("market1501", part).values for part in ("query", "gallery")])
    points, share = pca(values)
    figure = chart(app)
    drawn = {custom[0]: (x, y) for trace in figure["data"] for custom, x, y in zip(*read(trace), strict=True)}
    assert np.allclose([drawn[number] for number in range(len(points))], points, atol=1e-5)
    assert f"{100 * share[0]:.1f} % of the variance" in figure["layout"]["xaxis"]["title"]["text"]
    assert f"All {len(points)} crops" in words(app)
    assert maps(run) == ["market1501-both-pca-1000-0.npz"]


def read(trace: dict) -> tuple:
    """customdata, x and y of a trace; plotly packs arrays of numbers."""
    import base64

    def unpack(values):
        if isinstance(values, dict):
            return np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"])
        return values

    return trace["customdata"], unpack(trace["x"]), unpack(trace["y"])


def test_a_stored_map_is_read_and_a_stale_or_broken_one_is_made_anew(run, dataset):
    open_page(PAGE)
    file = run.folder / "maps" / "market1501-both-pca-1000-0.npz"
    before = file.stat().st_mtime_ns
    assert not open_page(PAGE).error
    assert file.stat().st_mtime_ns == before
    file.write_bytes(b"broken")
    run.save_features("market1501", "query", features(dataset.query, 3.0, np.random.default_rng(5)))
    assert not open_page(PAGE).error
    with np.load(file) as arrays:
        assert arrays["points"].shape == (len(dataset.query) + len(dataset.gallery), 2)


def test_what_is_stored_is_what_is_shown(run):
    """A map that says it is of these features is believed: it is not computed a second time."""
    import streamlit as st

    open_page(PAGE)
    file = run.folder / "maps" / "market1501-both-pca-1000-0.npz"
    with np.load(file) as arrays:
        content = dict(arrays)
    np.savez(file, **content | {"points": np.full_like(content["points"], 42)})
    st.cache_resource.clear()
    assert set(read(chart(open_page(PAGE))["data"][0])[1]) == {42}


def test_a_run_that_cannot_be_written_still_has_a_map(run):
    (run.folder / "maps").write_text("in the way")
    app = open_page(PAGE)
    assert len(app.get("plotly_chart")) == 1
    assert "not kept in the run folder" in words(app)


def test_tsne_is_a_choice_in_the_url_and_kept(run):
    app = open_page(PAGE, map="t-SNE", crops="queries", colour="camera")
    assert app.session_state["map"] == "t-SNE"
    assert maps(run) == ["market1501-query-t-sne-1000-0.npz"]
    figure = chart(app)
    assert "no unit" in figure["layout"]["xaxis"]["title"]["text"]
    assert [trace["name"] for trace in figure["data"]] == ["camera 1", "camera 2", "camera 3"]


def test_people_in_colour_are_those_of_the_url(run):
    figure = chart(open_page(PAGE, who=["21", "23"]))
    assert [trace["name"] for trace in figure["data"] if trace["showlegend"]] == ["person 21", "person 23"]


def test_queries_are_coloured_by_the_ap_of_the_result(run):
    figure = chart(open_page(PAGE, colour="AP"))
    shown = [trace for trace in figure["data"] if not isinstance(trace["marker"]["color"], str)]
    assert shown[0]["marker"]["color"] == pytest.approx((100 * run.result("market1501").ap).tolist())
    gallery = open_page(PAGE, colour="AP", crops="gallery")
    assert gallery.session_state["colour"] == "person"


def test_reranked_rankings_share_the_features(run):
    app = open_page(PAGE, rerank="true", colour="AP")
    shown = [trace for trace in chart(app)["data"] if not isinstance(trace["marker"]["color"], str)]
    assert shown[0]["marker"]["color"] == pytest.approx((100 * run.result("market1501-rerank").ap).tolist())
    assert maps(run) == ["market1501-both-pca-1000-0.npz"]


def test_selected_points_show_their_crops_and_lead_to_rank_lists(run):
    app = select(open_page(PAGE), 0, 3, 20)
    assert app.text_input(key="points").value == "0, 3, 20"
    assert len(pictures(app)) == 1
    assert app.dataframe[0].value.index.tolist() == [0, 3, 20]
    result = run.result("market1501")
    for query in (0, 3):
        assert f"Rank list of query {query} · pid {result.pid[query]} · cam {result.camid[query]}" in links(app)
    assert not any("query 20 " in label for label in links(app))
    app = select(app, 5)
    assert app.text_input(key="points").value == "5"


def test_points_of_the_url_are_shown_and_stay_when_the_map_changes(run):
    app = open_page(PAGE, points="3, 7-9, 9999")
    assert app.dataframe[0].value.index.tolist() == [3, 7, 8, 9]
    chosen = [
        custom[0]
        for trace in chart(app)["data"]
        for custom in np.array(trace["customdata"], object)[trace["selectedpoints"]]
    ]
    assert sorted(chosen) == [3, 7, 8, 9]
    app.segmented_control(key="colour").set_value("camera").run()
    assert app.dataframe[0].value.index.tolist() == [3, 7, 8, 9]
    app.text_input(key="points").set_value("<b>none").run()
    assert not app.dataframe
    assert "No point of this map" in words(app)
    assert not any("<b>" in element.value for element in app.get("info"))


def test_a_large_set_is_shown_by_whole_people(runs, dataset):
    big = [np.repeat(getattr(dataset.gallery, name), 60) for name in ("path", "pid", "camid")]
    run = store(runs / "only", dataset)
    values = np.random.default_rng(0).standard_normal((len(big[0]), 16)).astype(np.float32)
    run.save_features("market1501", "gallery", Features(values, big[1], big[2], big[0]))
    app = open_page(PAGE, map_size="500", map_seed="2")
    assert "without distractors" in words(app)
    assert maps(run) == ["market1501-both-pca-500-2.npz"]
    with np.load(run.folder / "maps" / maps(run)[0]) as arrays:
        row = arrays["row"]
    pid = np.concatenate([dataset.query.pid, big[1]])
    assert len(row) <= 500
    assert set(np.flatnonzero(np.isin(pid, pid[row])).tolist()) == set(row.tolist())


def test_without_features_the_command_is_named(three):
    app = open_page(PAGE)
    assert not app.get("plotly_chart")
    assert "holds no features" in words(app)
    assert "lab evaluate --run RUN --dataset market1501 --root DIR" in words(app)
    (three / "good" / "checkpoint.pt").write_bytes(b"x")
    assert f"lab evaluate --run {three / 'good'} --dataset market1501" in words(open_page(PAGE, run=["good"]))


def test_one_of_three_runs_is_mapped(three, dataset):
    for name in ("good", "bad"):
        store(three / name, dataset)
    app = open_page(PAGE, map_run="bad")
    assert app.selectbox(key="map_run").value == "bad"
    assert maps(Run(three / "bad"))
    assert not maps(Run(three / "good"))


def test_a_run_of_another_data_set(run, runs, market):
    store(runs / "other", load("folder", write_csv(market, runs)))
    app = open_page(PAGE, dataset="folder", who=["99999"])
    assert maps(Run(runs / "other")) == ["folder-both-pca-1000-0.npz"]
    assert "folder" in chart(app)["layout"]["title"]["text"]


def test_nothing_to_look_at(runs):
    assert "lab demo --out demo" in words(open_page(PAGE))


def too_few(run: Run) -> None:
    for part in ("query", "gallery"):
        run.save_features(
            "market1501", part, Features(np.zeros((1, 16), np.float32), *[np.array([1])] * 2, np.array([""]))
        )


def not_finite(run: Run) -> None:
    found = run.features("market1501", "query")
    run.save_features("market1501", "query", Features(found.values * np.nan, found.pid, found.camid, found.path))


def other_sizes(run: Run) -> None:
    found = run.features("market1501", "query")
    run.save_features("market1501", "query", Features(found.values[:, :5], found.pid, found.camid, found.path))


def cut(run: Run) -> None:
    file = run.folder / "features" / "market1501-gallery.npz"
    file.write_bytes(file.read_bytes()[:300])


def of_text(run: Run) -> None:
    np.savez(run.folder / "features" / "market1501-query.npz", values=np.array([["a"]]), pid=[1], camid=[1])


@pytest.mark.parametrize("damage", [too_few, not_finite, other_sizes, cut, of_text])
def test_features_that_make_no_map_are_named(run, damage):
    damage(run)
    app = open_page(PAGE)
    assert not app.get("plotly_chart")
    assert any("only" in element.value for element in [*app.error, *app.info])
    assert not maps(run)


def test_images_that_are_gone_are_grey_tiles(runs, dataset, tmp_path):
    run = store(runs / "only", dataset)
    for part in ("query", "gallery"):
        found = run.features("market1501", part)
        gone = np.array([f"/gone/<b>{number}.jpg" for number in range(len(found.pid))])
        run.save_features("market1501", part, Features(found.values, found.pid, found.camid, gone))
    app = open_page(PAGE, points="0-5")
    assert len(pictures(app)) == 1
    assert app.session_state["colour"] == "person"  # the result has other files: no AP is known
    for kind in ("markdown", "caption", "info", "error"):
        assert not any("<b>" in element.value for element in app.get(kind))
