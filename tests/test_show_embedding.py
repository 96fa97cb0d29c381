"""Maps of features: PCA against numpy's covariance, t-SNE on clusters that cannot be missed, labels in the figures."""

import numpy as np
import pandas as pd
import pytest

from lab.errors import InputError
from lab.show.embedding import REST, alignment_uniformity_figure, bars_figure, map_figure, pca, picture_map, tsne


def clusters(sizes: tuple[int, ...], dims: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit-norm crowds around random directions, far tighter than they lie apart."""
    random = np.random.default_rng(seed)
    label = np.repeat(np.arange(len(sizes)), sizes)
    values = random.standard_normal((len(sizes), dims))[label] + 0.05 * random.standard_normal((len(label), dims))
    return values / np.linalg.norm(values, axis=1, keepdims=True), label


def test_pca_is_what_the_covariance_says():
    values, _ = clusters((9, 4, 12))
    points, share = pca(values)
    variance, directions = np.linalg.eigh(np.cov(values.T))
    expected = (values - values.mean(axis=0)) @ directions[:, [-1, -2]]
    assert np.allclose(np.abs(points), np.abs(expected))
    assert np.allclose(share, variance[[-1, -2]] / variance.sum())
    again = pca(values[:, ::-1])[0]  # the same crops, features in another order
    assert np.allclose(points, again)


def test_tsne_keeps_clusters_together_and_repeats_itself():
    values, label = clusters((12, 12, 12))
    points = tsne(values, neighbours=5)
    near = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(near, np.inf)
    assert (label[near.argmin(axis=1)] == label).all()
    assert np.array_equal(points, tsne(values, neighbours=5))


@pytest.mark.parametrize("values", [np.zeros((3, 5)), np.zeros(7)])
def test_too_few_crops_are_refused(values):
    for method in (pca, tsne):
        with pytest.raises(InputError, match="at least 4"):
            method(values)


def test_a_map_draws_every_point_once_and_says_which_group():
    points = np.array([[0, 0], [1, 0], [2, 0], [3, 1.0]])
    groups = {"who": ["person 10", "person 9", "", "person 10"], "where": ["a", "a", "b", "b"]}
    figure = map_figure({"one": points, "two": points[::-1]}, groups, "Maps", "by ")
    panels = np.array(figure.axes).reshape(2, 2)
    assert [axes.get_title("left") for axes in panels[0]] == ["one, by who", "one, by where"]
    drawn = {part.get_label(): part for part in panels[0, 0].collections}
    assert np.array_equal(drawn["person 10"].get_offsets(), points[[0, 3]])
    assert np.array_equal(panels[0, 0].collections[0].get_offsets(), points[[2]])  # the rest, without a name
    grey = panels[0, 0].collections[0].get_facecolors()[0, :3]
    assert np.allclose(grey * 255, [int(REST[at : at + 2], 16) for at in (1, 3, 5)])
    assert [text.get_text() for text in panels[1, 0].get_legend().get_texts()] == ["person 9", "person 10"]
    assert np.array_equal(panels[1, 1].collections[1].get_offsets(), points[::-1][:2])


def test_groups_differ_in_symbol_and_colour():
    """Also when there are more than colours: no two look alike."""
    count = 30
    figure = map_figure({"map": np.random.default_rng(0).random((count, 2))}, {"": [f"c{i}" for i in range(count)]})
    parts = figure.axes[0].collections[1:]
    looks = {(tuple(part.get_facecolors()[0]), part.get_paths()[0].vertices.tobytes()) for part in parts}
    assert len(looks) == count


def test_pictures_stand_at_their_points():
    points = np.array([[0, 0], [1, 2], [3, 4.0]])
    images = [np.full((20, 10, 3), 50, np.uint8), None, np.full((20, 10, 3), 99, np.uint8)]
    axes = picture_map(points, images, "Map").axes[0]
    assert [tuple(box.xyann) for box in axes.artists] == [(0, 0), (3, 4)]
    assert axes.artists[1].offsetbox.get_data()[0, 0, 0] == 99


def test_alignment_and_uniformity_are_where_the_table_says():
    table = pd.DataFrame({"alignment": [0.1, 0.6], "uniformity": [-0.2, -3.0]}, index=["a", "b"])
    axes = alignment_uniformity_figure(table).axes[0]
    assert [tuple(part.get_offsets()[0]) for part in axes.collections] == [(0.1, -0.2), (0.6, -3.0)]
    assert [part.get_label() for part in axes.collections] == ["a", "b"]
    assert "alignment" in axes.get_xlabel()
    assert "uniformity" in axes.get_ylabel()


def test_bars_have_the_numbers_of_the_table():
    table = pd.DataFrame({"as they are": [10.0, 45.26], "person alone": [25.0, 60.0]}, index=["one", "two"])
    axes = bars_figure(table, "mAP (%)").axes[0]
    assert [[bar.get_height() for bar in bars] for bars in axes.containers] == [[10.0, 45.26], [25.0, 60.0]]
    assert [text.get_text() for text in axes.texts] == ["10.0", "45.3", "25.0", "60.0"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["one", "two"]
