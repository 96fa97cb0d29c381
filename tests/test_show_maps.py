"""Figures of maps: what they draw is what they were given, in the places that a reader will look at."""

import numpy as np
import pandas as pd
import pytest

from lab.show import maps
from lab.show.figures import to_png

GREY = np.full((64, 32, 3), 128, np.uint8)
HEADS = {"b1": ("b1", 1, 0), "b2": ("b2", 1, 0), "b21": ("b2", 2, 0), "b22": ("b2", 2, 1), "b31": ("b3", 3, 0),
         "b32": ("b3", 3, 1), "b33": ("b3", 3, 2)}  # fmt: skip


def words(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_places_show_their_numbers_beside_the_crop_and_the_overlay():
    cam, enlarged = np.array([[0.0, 1.0], [2.0, 30.5]]), np.zeros((64, 32), np.float32)
    figure = maps.places_figure(GREY, cam, enlarged, "a map")
    grid, numbers, overlay = figure.axes
    assert words(numbers) == ["0.0", "1.0", "2.0", "30.5"]
    assert numbers.get_title() == "2 x 2 places"
    assert len(grid.lines) == 2  # one line between two rows, one between two columns
    assert (overlay.images[0].get_array() == GREY).all()  # a map of 0 covers nothing


def test_too_many_places_have_no_numbers():
    assert not words(maps.places_figure(GREY, np.zeros((24, 8)), np.zeros((64, 32))).axes[1])


def test_shares_of_places_are_in_per_cent():
    assert words(maps.place_shares_figure(np.array([[0.25], [1.0]])).axes[0]) == ["25 %", "100 %"]


def test_sheet_has_a_row_per_crop_and_a_column_per_map():
    low, high = np.zeros((64, 32)), np.ones((64, 32))
    figure = maps.overlay_sheet(
        [GREY, GREY], {"a": [low, high], "b": [high, low]}, ["one", "two"], [high > 0, high > 0]
    )
    panels = figure.axes[:6]
    assert [axes.get_title() for axes in panels] == ["crop", "a", "b", "", "", ""]
    assert [words(axes) for axes in panels[::3]] == [["one"], ["two"]]
    plain = [(axes.images[0].get_array() == GREY).all() for axes in panels]
    assert plain == [True, True, False, True, False, True]
    assert to_png(figure).startswith(b"\x89PNG")


def test_stripes_give_the_upper_ones_what_does_not_divide():
    assert maps.stripe_edges(4, 3).tolist() == [0, 2, 3, 4]
    assert maps.stripe_edges(24, 3).tolist() == [0, 8, 16, 24]


def test_bars_of_parts_stand_beside_their_stripes():
    parts = {head: 0.01 * number for number, head in enumerate(HEADS, start=1)}
    figure = maps.parts_figure((GREY, GREY), parts, HEADS, map_rows=4, limit=0.1)
    bars = {
        text.split(":")[0]: bar for axes in figure.axes for text, bar in zip(words(axes), axes.patches, strict=True)
    }
    assert {head: bar.get_width() for head, bar in bars.items()} == pytest.approx(parts)
    centres = {head: bar.get_y() + bar.get_height() / 2 for head, bar in bars.items()}
    assert centres["b21"] == pytest.approx(0.25)
    assert centres["b31"] == pytest.approx(0.25)  # two of four rows
    assert centres["b33"] == pytest.approx(0.875)
    assert all(axes.get_xlim() == (0, 0.1) for axes in figure.axes[2::3])
    assert all(axes.get_xlabel() for axes in figure.axes[2::3])


def test_scores_are_in_per_cent_beside_the_chance():
    rows = [("cam", "b1", 0.4, 0.35, 0.5), ("cam", "b2", 0.6, 0.5, 0.65), ("other", "b1", 0.3, 0.2, 0.4)]
    figure = maps.score_figure(pd.DataFrame(rows, columns=["kind", "layer", "mean", "low", "high"]), 0.36, "scores")
    first, second = figure.data
    assert list(first.x) == pytest.approx([40, 60])
    assert list(first.error_x.array) == pytest.approx([10, 5])
    assert list(first.error_x.arrayminus) == pytest.approx([5, 10])
    assert next(iter(second.y)) < first.y[0] < 0.5  # both belong to b1, the first above
    assert first.marker.symbol != second.marker.symbol
    assert figure.layout.shapes[0].x0 == 36
    assert figure.layout.yaxis.ticktext == ("b1", "b2")


def test_cascade_has_a_line_per_kind_over_the_stages():
    rows = [("cam", "nothing", 1.0, 1.0, 1.0), ("cam", "all", 0.1, -0.1, 0.3), ("energy", "nothing", 1.0, 1.0, 1.0),
            ("energy", "all", 0.5, 0.4, 0.6)]  # fmt: skip
    figure = maps.cascade_figure(pd.DataFrame(rows, columns=["kind", "stage", "mean", "low", "high"]))
    assert [line.name for line in figure.data] == ["cam", "energy"]
    assert list(figure.data[0].y) == [1.0, 0.1]
    assert list(figure.data[0].error_y.array) == pytest.approx([0, 0.2])
    assert figure.layout.xaxis.ticktext == ("nothing", "all")
    assert "correlation" in figure.layout.yaxis.title.text
