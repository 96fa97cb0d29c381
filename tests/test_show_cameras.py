"""Figures of frames, masks and cameras: what they draw is compared with the numbers that went in."""

import numpy as np
import pytest

from lab.errors import InputError
from lab.show.cameras import boxes_figure, distances_figure, ground_truth_figure, sensor_figure
from lab.show.figures import CROSS, RIGHT, TICK, WRONG


def test_boxes_say_what_became_of_them():
    boxes = np.array([[10, 20, 30, 60.0], [50, 5, 20, 50]])
    figure = boxes_figure(np.zeros((100, 200, 3), np.uint8), boxes, [None, "too narrow"], "Frame 1", [0.9, 0.8])
    axes = figure.axes[0]
    first, second = axes.patches
    assert (*first.get_xy(), first.get_width(), first.get_height()) == (10, 20, 30, 60)
    assert (first.get_linestyle(), second.get_linestyle()) == ("-", "--")
    words = [text.get_text() for text in axes.texts]
    assert words[:2] == [f"{TICK} 0.90", f"{CROSS} too narrow 0.80"]
    assert "becomes a crop (1)" in words[2]
    assert "dropped (1)" in words[2]
    colours = [text.get_bbox_patch().get_facecolor()[:3] for text in axes.texts[:2]]
    expected = [tuple(int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)) for colour in (RIGHT, WRONG)]
    assert np.allclose(colours, expected)


def test_every_box_needs_a_reason_or_none():
    with pytest.raises(InputError, match="2 boxes and 1 reasons"):
        boxes_figure(np.zeros((10, 10, 3), np.uint8), np.ones((2, 4)), [None])


def test_truth_is_drawn_where_it_is():
    mask = np.zeros((40, 20), bool)
    mask[10:30, 5:15] = True
    parts = {"head": (6, 10, 14, 15.0), "torso": (5, 15, 15, 22.0), "legs": (5, 22, 15, 30.0)}
    empty = np.zeros_like(mask)
    figure = ground_truth_figure([np.zeros((40, 20, 3), np.uint8)] * 2, [mask, empty], [parts] * 2, ["one", "two"])
    one, two = figure.axes
    assert [(*p.get_xy(), p.get_width(), p.get_height()) for p in one.patches] == [
        (6, 10, 8, 5), (5, 15, 10, 7), (5, 22, 10, 8),
    ]  # fmt: skip
    assert len({(p.get_edgecolor(), p.get_linestyle()) for p in one.patches}) == 3
    assert len(one.collections) == 2  # black and white
    assert not two.collections  # nobody is there
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["head", "torso", "legs"]


def test_sensors_have_three_lines_beside_the_faithful_one():
    answer = np.stack([np.arange(256), np.arange(256) / 2, np.zeros(256)], axis=1)
    figure = sensor_figure({"camera 1": answer, "camera 2": answer[::-1]})
    first = figure.axes[0]
    assert np.array_equal(first.lines[2].get_ydata(), -np.arange(256) / 2)
    assert not first.lines[1].get_ydata().any()  # red is stored as it is
    assert len({line.get_linestyle() for line in first.lines[1:]}) == 3
    assert [axes.get_title() for axes in figure.axes] == ["camera 1", "camera 2"]


def test_distances_are_shares_with_their_medians():
    figure = distances_figure({"near": np.array([0.0, 0.1, 0.2]), "far": np.linspace(0.5, 1, 11)}, label="distance")
    near, far = figure.axes
    assert np.isclose(near.patches[0].get_data().values.sum(), 1)
    assert [axes.lines[0].get_xdata()[0] for axes in (near, far)] == pytest.approx([0.1, 0.75])
    assert near.texts[0].get_text() == "near: 3 pairs, median 0.100"
    assert near.get_xlim() == far.get_xlim()
