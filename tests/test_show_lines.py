"""Lines over one axis: what they draw is what went in, and no two look alike."""

import numpy as np
import pytest

from lab.show.lines import MANY, lines_figure


def test_lines_differ_in_colour_dash_and_marker():
    (axes,) = lines_figure({"a": ([1, 2], [3, 4]), "b": ([1], [0])}, "x", "y", "title").axes
    a, b = axes.get_lines()
    np.testing.assert_array_equal(a.get_xydata(), [[1, 3], [2, 4]])
    for what in ("color", "linestyle", "marker"):
        assert getattr(a, f"get_{what}")() != getattr(b, f"get_{what}")()
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title(loc="left")) == ("x", "y", "title")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]


def test_a_line_of_many_points_has_no_markers_and_a_single_one_no_legend():
    (axes,) = lines_figure({"a": (range(MANY + 1), range(MANY + 1))}, "x", "y").axes
    assert axes.get_lines()[0].get_marker() == "None"
    assert axes.get_legend() is None


def test_a_level_and_marks_run_through():
    (axes,) = lines_figure({"a": ([1, 2], [3, 4])}, "step", "loss", level=("chance", 4.5), marks={"full": 2}).axes
    _, level, mark = axes.get_lines()
    assert list(level.get_ydata()) == [4.5, 4.5]
    assert list(mark.get_xdata()) == [2, 2]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "chance"]
    assert [text.get_text() for text in axes.texts] == ["full"]


def test_zero_is_in_sight_where_it_is_asked_for():
    values = {"a": ([1, 2], [30, 40])}
    assert lines_figure(values, "x", "y").axes[0].get_ylim()[0] > 0
    (axes,) = lines_figure(values, "x", "y", zero=True).axes
    assert axes.get_ylim()[0] <= 0
    assert set(axes.get_lines()[-1].get_ydata()) == {0}


@pytest.mark.parametrize(("places", "whole"), [(range(1, 15), True), (np.linspace(0, 1, 11), False)])
def test_whole_numbers_have_whole_ticks(places, whole):
    (axes,) = lines_figure({"a": (places, places)}, "x", "y").axes
    assert all(float(tick).is_integer() for tick in axes.get_xticks()) is whole


def test_a_logarithmic_axis_says_its_numbers_in_full():
    figure = lines_figure({"a": ([100, 1000], [1, 2])}, "crops", "mAP", log_x=True)
    figure.canvas.draw()
    assert figure.axes[0].get_xscale() == "log"
    assert {"100", "200", "500", "1,000"} <= {tick.get_text() for tick in figure.axes[0].get_xticklabels()}
