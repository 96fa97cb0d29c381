"""Figures and tables: counted, read and compared with results that were worked out by hand."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from make_demo import finetune_log, make_run, pretrain_log, tiny_result
from matplotlib.colors import to_hex
from PIL import Image

from lab.data import load
from lab.runs import Run
from lab.show import curves, figures, tables
from lab.show.images import MAX_HEIGHT, find_image, read_picture

GREY = np.full((64, 32, 3), 128, np.uint8)


def texts(figure) -> dict[str, str]:
    """Every text of a matplotlib figure with its colour."""
    found = [text for axes in figure.axes for text in axes.texts]
    return {text.get_text(): to_hex(text.get_color()).upper() for text in found}


def frames(figure) -> list[str]:
    """Colours of the frames around tiles, from left to right."""
    patches = [patch for patch in figure.axes[0].patches if not patch.get_fill()]
    return [to_hex(patch.get_edgecolor()).upper() for patch in sorted(patches, key=lambda patch: patch.get_x())]


def test_show_needs_neither_torch_nor_pyplot_nor_streamlit():
    heavy = "('torch', 'matplotlib.pyplot', 'streamlit')"
    code = f"import sys, lab.show.curves; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_rank_list_tells_right_from_wrong_by_colour_and_symbol():
    figure = figures.rank_list_figure(tiny_result(), 0, 10, lambda path: GREY, "a run")
    assert frames(figure) == [figures.QUERY, figures.RIGHT, figures.WRONG, figures.RIGHT]
    found = texts(figure)
    assert found["1 \u2713"] == found["3 \u2713"] == figures.RIGHT
    assert found["2 \u2717"] == figures.WRONG
    assert len(figure.axes[0].images) == 4


def test_rank_list_says_distance_pid_camera_and_ap():
    found = texts(figures.rank_list_figure(tiny_result(), 0, 10, lambda path: GREY, "a run"))
    assert "0.125\npid 7\ncam 2" in found
    assert "0.250\npid 8\ncam 1" in found
    assert "pid 7\ncam 1" in found
    assert "AP 83.3 % · right at rank 1 · 0007_c1.jpg" in found


def test_rank_list_is_cut_at_top_k():
    figure = figures.rank_list_figure(tiny_result(), 0, 2, lambda path: GREY)
    assert frames(figure) == [figures.QUERY, figures.RIGHT, figures.WRONG]


def test_rank_list_wraps_into_rows():
    figure = figures.rank_list_figure(tiny_result(), 0, 3, lambda path: GREY, columns=2)
    corners = [patch.get_xy() for patch in figure.axes[0].patches if not patch.get_fill()]
    assert len({y for _, y in corners}) == 2


def test_query_without_match_says_so():
    found = texts(figures.rank_list_figure(tiny_result(), 1, 10, lambda path: GREY))
    assert any("no valid match" in text for text in found)


def test_missing_images_become_grey_tiles_with_their_name():
    figure = figures.rank_list_figure(tiny_result(), 0, 10, lambda path: None)
    assert not figure.axes[0].images
    assert "no image\n0008_c1.jpg" in texts(figure)
    assert figures.to_png(figure).startswith(b"\x89PNG")


def test_rank_list_without_a_known_gallery_shows_what_it_has():
    result = tiny_result(gallery_path=None, gallery_pid=None, gallery_camid=None)
    found = texts(figures.rank_list_figure(result, 0, 10, lambda path: GREY))
    assert "0.125" in found
    assert "no image\ngallery #2" in found
    assert list(tables.rank_list_table(result, 0).columns) == ["rank", "match", "distance", "gallery index"]


def test_dollar_signs_in_names_are_no_formula():
    result = tiny_result(gallery_path=np.array(["$x_{.jpg", "a$b.jpg", "\\frac$.jpg"]))
    figures.to_png(figures.rank_list_figure(result, 0, 10, lambda path: None, "$run"))
    figures.to_png(figures.contact_sheet([None, GREY], ["$a", "$b$"], title="$"))


def test_contact_sheet_has_a_tile_and_a_title_for_each_crop():
    figure = figures.contact_sheet([GREY, GREY, None], ["one", "two", "three"], 2, "Crops", ["row 1", "row 2"])
    assert len(figure.axes[0].images) == 2
    assert {"one", "two", "three", "Crops", "row 1", "row 2", "no image\nthree"} <= set(texts(figure))


def test_tall_and_wide_crops_keep_their_proportions():
    wide = np.zeros((10, 40, 3), np.uint8)
    image = figures.contact_sheet([wide]).axes[0].images[0]
    left, right, bottom, top = image.get_extent()
    assert (right - left) / (bottom - top) == pytest.approx(4)


def test_attention_overlay_covers_only_where_the_map_is_high():
    attention = np.zeros((64, 32), np.float32)
    attention[:10] = 1
    blended = figures.blend(GREY, attention, 1.0)
    assert (blended[10:] == GREY[10:]).all()
    assert (np.abs(blended[:10].astype(int) - 128).max(axis=2) > 50).all()
    assert (figures.blend(GREY, attention, 0.0) == GREY).all()
    figure = figures.attention_overlay(GREY, {"b1": attention, "b2": attention}, attention > 0)
    assert [axes.get_title() for axes in figure.axes[:3]] == ["crop", "b1", "b2"]
    assert figure.axes[3].get_ylabel()


def test_attention_of_another_size_is_refused():
    with pytest.raises(ValueError, match="one size"):
        figures.attention_overlay(GREY, np.zeros((8, 8)))


def test_cmc_figure_is_in_per_cent_with_labelled_axes():
    cmc = np.linspace(0.5, 1, 50)
    figure = curves.cmc_figure({"a": tiny_result(cmc=cmc), "<b>": tiny_result()}, max_rank=10)
    assert figure.data[0].x.tolist() == list(range(1, 11))
    assert figure.data[0].y == pytest.approx(100 * cmc[:10])
    assert "rank" in figure.layout.xaxis.title.text
    assert "%" in figure.layout.yaxis.title.text
    assert "<b>" not in figure.data[1].name
    first, second = figure.data
    assert first.line.color != second.line.color
    assert first.marker.symbol != second.marker.symbol


def test_loss_curves_show_chance_probe_and_units():
    log = pretrain_log(queue_size=1023)
    figure = curves.loss_curves(log)
    lines = {line.name: line for line in figure.data}
    assert lines["chance: log(K + 1)"].y == pytest.approx(np.full(len(log), np.log(1024)))
    assert len(lines["mAP"].x) == log["probe_mAP"].notna().sum()
    titles = [axis.title.text for axis in figure.select_yaxes()]
    assert "images per second" in titles
    assert all(titles)
    assert all(axis.title.text == "step" for axis in figure.select_xaxes())


def test_loss_curves_leave_out_what_was_not_logged():
    names = {curve.name for curve in curves.loss_curves(finetune_log()).data}
    assert {"loss", "loss cls", "loss triplet", "accuracy", "lr"} <= names
    assert "mAP" not in names
    assert not curves.loss_curves(pd.DataFrame()).data


def test_initialisation_figure_groups_bars_by_share():
    rows = [
        ("scratch", "10 %", 20.0),
        ("scratch", "100 %", 60.0),
        ("shipped", "10 %", 40.0),
        ("shipped", "100 %", 65.0),
    ]
    figure = curves.initialisation_figure(pd.DataFrame(rows, columns=["initialised from", "identities used", "mAP"]))
    assert {bar.name: list(bar.y) for bar in figure.data} == {"scratch": [20.0, 60.0], "shipped": [40.0, 65.0]}
    assert list(figure.data[0].x) == ["10 % of the identities", "100 % of the identities"]


def test_metrics_table_has_a_row_for_each_evaluation(market, tmp_path):
    config = {"stage": "finetune", "settings": {"fraction": 0.1}, "init": {"weights": "/x/runs/pre/checkpoint.pt"}}
    run = make_run(tmp_path / "a", load("market1501", market), 0.5, config)
    table = tables.metrics_table([run, Run(tmp_path / "nothing")])
    assert table["re-ranking"].tolist() == ["no", "yes"]
    row, result = table.iloc[0], run.result("market1501")
    assert row["initialised from"] == "pre"
    assert row["identities used"] == "10 %"
    assert row["mAP"] == pytest.approx(100 * result.mAP)
    assert row["rank-5"] == pytest.approx(100 * result.cmc[4])
    assert row["queries counted"] == row["queries"] == 15


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"stage": "finetune", "init": None}, "scratch"),
        ({"stage": "finetune", "init": {"weights": "shipped"}}, "shipped"),
        ({"stage": "finetune", "init": {"weights": "runs/pre/"}}, "pre"),
        ({"stage": "finetune", "init": "D:\\weights\\lup.pth"}, "lup.pth"),
        ({"stage": "baseline"}, ""),
        ({}, ""),
    ],
)
def test_initialisation_in_words(config, expected):
    assert tables.initialisation(config) == expected


def test_rank_list_table_names_the_files():
    table = tables.rank_list_table(tiny_result(), 0)
    assert table["file"].tolist() == ["g/0007_c2.jpg", "g/0008_c1.jpg", "g/0007_c3.jpg"]
    assert table["match"].tolist() == ["right", "wrong", "right"]
    assert table["rank"].tolist() == [1, 2, 3]
    assert len(tables.rank_list_table(tiny_result(), 0, 2)) == 2


def test_query_table_is_in_per_cent():
    table = tables.query_table(tiny_result())
    assert table["AP"].iloc[0] == pytest.approx(500 / 6)
    assert table["first match"].tolist() == [1, 0]


def test_image_is_found_under_another_root(tmp_path):
    file = tmp_path / "query" / "a.png"
    file.parent.mkdir()
    Image.fromarray(GREY).save(file)
    assert find_image(str(file)) == file
    for path in ("/elsewhere/market/query/a.png", "query/a.png", "C:\\market\\query\\a.png", "../../query/a.png"):
        assert find_image(path, tmp_path) == file
    assert find_image("/elsewhere/gallery/b.png", tmp_path) is None
    assert find_image("", tmp_path) is None


def test_pictures_are_rgb_and_bounded_and_bad_ones_are_none(tmp_path):
    Image.new("L", (100, 2000), 7).save(tmp_path / "grey.png")
    assert read_picture(str(tmp_path / "grey.png")).shape == (MAX_HEIGHT, 26, 3)
    (tmp_path / "text.jpg").write_text("no picture")
    Image.fromarray(GREY).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:300])
    assert read_picture(str(tmp_path / "text.jpg")) is None
    assert read_picture(str(tmp_path / "cut.jpg")) is None
    assert read_picture(str(tmp_path)) is None


def test_queries_without_a_match_are_described_as_the_result_counts_them():
    plain, over_all = tiny_result(), tiny_result(settings={"denominator": "all"})
    assert tables.describe_query(plain, 1).endswith("counts in no mean")
    assert tables.describe_query(over_all, 1).endswith("counts as 0 in every mean")
    assert [tables.metrics(result)["queries counted"] for result in (plain, over_all)] == [1, 2]


def test_expanded_features_are_shown_as_a_data_set_of_their_own():
    assert tables.describe_eval("market1501-aqe-rerank") == {"data set": "market1501-aqe", "re-ranking": "yes"}
