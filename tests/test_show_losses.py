"""Figures of the losses: the numbers in the cells are those that were given, and the frames stand where they should."""

import io

import numpy as np
import pytest
from matplotlib.colors import to_hex

from lab.show.figures import RIGHT, WRONG
from lab.show.losses import NUMBERS, class_cosines_figure, margin_figure, mining_figure

CROP = np.zeros((20, 10, 3), np.uint8)
DISTANCE = np.array([[0.0, 3.0, 2.0, 9.0], [3.0, 0.0, 5.0, 1.0], [2.0, 5.0, 0.0, 4.0], [9.0, 1.0, 4.0, 0.0]])
NAMES = ["pid 1 · cam 1", "pid 1 · cam 2", "pid 2 · cam 1", "pid 2 · cam 2"]


def drawn(figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def frames(axes, colour: str) -> set[tuple[int, int]]:
    """Row and column of the cells with a frame of this colour."""
    found = [patch for patch in axes.patches if to_hex(patch.get_edgecolor()).upper() == colour]
    return {
        (round(patch.get_y() + patch.get_height() / 2), round(patch.get_x() + patch.get_width() / 2)) for patch in found
    }


def test_mining_frames_the_given_pairs_and_writes_all_distances():
    figure = mining_figure(DISTANCE, [CROP] * 4, NAMES, [1, 0, 3, 2], [2, 3, 0, 0])
    axes = figure.axes[0]
    assert frames(axes, RIGHT) == {(0, 1), (1, 0), (2, 3), (3, 2)}
    assert frames(axes, WRONG) == {(0, 2), (1, 3), (2, 0), (3, 0)}
    signs = [text.get_text() for text in axes.texts]
    assert signs[:16] == [f"{value:.1f}" for value in DISTANCE.ravel()]
    assert signs[16:] == ["+"] * 4 + ["\N{MINUS SIGN}"] * 4, "not by colour alone"
    assert [label.get_text() for label in axes.get_yticklabels()] == NAMES
    assert axes.get_xticklabels()[1].get_text() == "pid 1\ncam 2"
    assert "anchor: a row" in axes.get_xlabel()
    assert len(figure.axes) == 1 + 1 + 4, "matrix, colour bar, a crop for each row"
    assert drawn(figure)


def test_cosines_name_people_and_leave_numbers_out_where_there_is_no_room():
    cosine = np.linspace(-1, 1, 6).reshape(2, 3)
    axes = class_cosines_figure(cosine, [CROP, None], NAMES[:2], [7, 9, 11], "A $title").axes[0]
    assert np.asarray(axes.images[0].get_array()) == pytest.approx(cosine)
    assert axes.images[0].get_clim() == (-1, 1)
    assert [text.get_text() for text in axes.texts] == ["-1.00", "-0.60", "-0.20", "0.20", "0.60", "1.00"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["7", "9", "11"]
    wide = class_cosines_figure(np.zeros((1, NUMBERS + 1)), [CROP], NAMES[:1], range(NUMBERS + 1))
    assert not wide.axes[0].texts
    assert drawn(wide)


def test_numbers_can_be_read_on_their_colours():
    axes = class_cosines_figure(np.array([[-1.0, 1.0]]), [CROP], ["x"], [1, 2]).axes[0]
    assert [text.get_color() for text in axes.texts] == ["white", "black"]


def test_margins_have_a_panel_each_on_one_scale():
    cosine = np.linspace(-1, 1, 5)
    figure = margin_figure(cosine, {"m = 0": (cosine, -cosine, 2 * cosine), "m = 1": (cosine, cosine, cosine)})
    left, right = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["m = 0", "m = 1"]
    assert [line.get_label() for line in left.lines[:3]] == ["right person", "wrong person", "plain"]
    assert [line.get_linestyle() for line in left.lines[:3]] == ["-", "--", ":"]
    assert left.lines[1].get_ydata() == pytest.approx(-cosine)
    assert left.get_ylim() == right.get_ylim()
    assert left.get_legend() is not None
    assert (left.get_xlabel(), left.get_ylabel()) == ("cosine to the class direction", "logit")
    assert drawn(figure)
