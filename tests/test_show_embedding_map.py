"""Maps to select in: every point knows its number, groups differ in colour and symbol, queries have a rim."""

import numpy as np
import pytest
from make_demo import tiny_result

from lab.errors import InputError
from lab.evaluate.map_points import MapPoints
from lab.runs import Features
from lab.show.embedding import REST, embedding_points, pca, tsne
from lab.show.embedding_map import axis_titles, grouped_map_figure, map_table, scaled_map_figure

RESULT = tiny_result()
QUERY = Features(np.zeros((2, 3)), RESULT.pid, RESULT.camid, RESULT.path)
GALLERY = Features(np.zeros((3, 3)), RESULT.gallery_pid, RESULT.gallery_camid, RESULT.gallery_path)
POINTS = MapPoints(np.array([0, 1, 3, 4]), np.array([[0, 1], [2, 3], [4, 5], [6, 7.0]]), np.array([0.5, 0.123]))
AXES = ("one", "two")


def table():
    return map_table(POINTS, QUERY, GALLERY, np.array([0, 1]), RESULT)


def test_the_table_has_every_point_with_what_is_known_of_its_crop():
    found = table()
    assert found["part"].tolist() == ["query", "query", "gallery", "gallery"]
    assert found["pid"].tolist() == [7, 9, 7, 7]
    assert found["camid"].tolist() == [1, 2, 3, 2]
    assert found["query"].tolist() == [0, 1, -1, -1]
    assert found["AP"].iloc[0] == pytest.approx(500 / 6)
    assert found["AP"].isna().tolist() == [False, True, True, True]
    assert found["file"].tolist()[2:] == ["g/0007_c3.jpg", "g/0007_c2.jpg"]
    alone = map_table(
        MapPoints(np.array([1, 2]), POINTS.points[:2], POINTS.share), None, GALLERY, np.array([0, 1]), RESULT
    )
    assert alone["file"].tolist() == ["g/0007_c3.jpg", "g/0007_c2.jpg"]
    assert alone["query"].tolist() == [-1, -1]


def test_each_group_is_named_and_each_point_knows_its_number():
    figure = grouped_map_figure(table(), ["person 10", "", "person 9", "person 10"], AXES, "<b>Map</b>")
    assert [trace.name for trace in figure.data if trace.showlegend] == ["person 9", "person 10"]
    rest, nine, ten = figure.data
    assert rest.marker.color == REST
    assert [custom[0] for custom in ten.customdata] == [0, 3]
    assert (list(ten.x), list(nine.y)) == ([0, 6], [5])
    assert (nine.marker.color, nine.marker.symbol) != (ten.marker.color, ten.marker.symbol)
    assert ten.marker.line.width[0] > ten.marker.line.width[1] == 0  # a query, and a gallery crop
    assert ten.marker.size[0] > ten.marker.size[1]
    assert "<b>" not in figure.layout.title.text
    assert not figure.layout.xaxis.showticklabels
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == AXES


def test_chosen_points_stand_out():
    figure = grouped_map_figure(table(), ["a", "", "b", "a"], AXES, chosen=[3, 1])
    assert [list(trace.selectedpoints) for trace in figure.data] == [[0], [1], []]
    assert figure.data[0].selectedpoints is not None
    assert grouped_map_figure(table(), ["a"] * 4, AXES).data[0].selectedpoints is None


def test_no_two_of_many_groups_look_alike():
    many = MapPoints(np.zeros(40, dtype=int), np.zeros((40, 2)), POINTS.share)
    figure = grouped_map_figure(
        map_table(many, QUERY, None, np.array([0, 1]), RESULT), [f"c{i}" for i in range(40)], AXES
    )
    assert len({(trace.marker.color, trace.marker.symbol) for trace in figure.data}) == 40


def test_queries_have_the_colour_of_their_ap():
    figure = scaled_map_figure(table(), AXES)
    rest, lost, scored = figure.data
    assert (len(rest.x), rest.marker.color) == (2, REST)
    assert (lost.marker.symbol, [custom[0] for custom in lost.customdata]) == ("x", [1])
    assert list(scored.marker.color) == [pytest.approx(500 / 6)]
    assert (scored.marker.cmin, scored.marker.cmax, scored.marker.showscale) == (0, 100, True)
    assert not rest.marker.showscale
    assert scored.marker.colorbar.title.text == "AP (%)"


def test_names_in_files_do_no_harm():
    import dataclasses

    bad = dataclasses.replace(QUERY, path=np.array(["a/<script>x.jpg", "b"]))
    found = map_table(MapPoints(np.array([0]), POINTS.points[:1], POINTS.share), bad, None, np.array([-1, -1]), RESULT)
    assert grouped_map_figure(found, ["a"], AXES).data[0].customdata[0][4] == "&lt;script&gt;x.jpg"


def test_axes_say_the_variance_or_that_there_is_no_unit():
    assert axis_titles("PCA", np.array([0.257, 0.1])) == (
        "direction 1: 25.7 % of the variance",
        "direction 2: 10.0 % of the variance",
    )
    assert all("no unit" in axis for axis in axis_titles("t-SNE", np.full(2, np.nan)))


def test_a_large_pca_is_that_of_all_directions():
    """More than 200 rows and numbers take another way, which has to end in the same place."""
    random = np.random.default_rng(0)
    values = random.standard_normal((300, 250)) * np.linspace(3, 0.1, 250)
    found, share = pca(values)
    left, size, _ = np.linalg.svd(values - values.mean(axis=0), full_matrices=False)
    assert np.allclose(np.abs(found), np.abs(left[:, :2] * size[:2]))
    assert np.allclose(share, size[:2] ** 2 / (size**2).sum())
    assert np.array_equal(found, pca(values)[0])
    assert np.array_equal(pca(np.ones((300, 250)))[0], np.zeros((300, 2)))


def test_points_are_those_of_the_method():
    values = np.random.default_rng(0).standard_normal((20, 6))
    found, share = embedding_points(values, "PCA")
    assert np.allclose(found, pca(values)[0], atol=1e-5)
    assert np.allclose(share, pca(values)[1])
    found, share = embedding_points(values, "t-SNE", seed=3)
    assert np.array_equal(found, tsne(values, seed=3).astype(np.float32))
    assert np.isnan(share).all()


@pytest.mark.parametrize(
    "values",
    [np.zeros((3, 5)), np.zeros((9, 1)), np.full((9, 5), np.nan), np.full((9, 5), np.inf), np.full((9, 5), 0.1)],
)
def test_features_that_make_no_map_are_refused(values):
    for method in ("PCA", "t-SNE"):
        with pytest.raises(InputError, match="expected"):
            embedding_points(values, method)
