"""A pair under its maps: every map is drawn once, in the place where a reader looks for it."""

import numpy as np
import pytest

from lab.show.figures import QUERY, RIGHT, to_png
from lab.show.pair_maps import Explained, explained_figure

GREY = np.full((64, 32, 3), 128, np.uint8)
NONE, ALL = np.zeros((64, 32)), np.ones((64, 32))


def pair() -> list[Explained]:
    mask = np.zeros((64, 32), bool)
    mask[10:50, 8:24] = True
    return [
        Explained("query", GREY, {"b1": NONE, "b2": ALL}, QUERY, {"": "pid 5", "b1": "person 0 %"}, mask),
        Explained("rank 1", GREY, {"b1": ALL, "b2": NONE}, RIGHT, {"b2": "$a$ person"}),
    ]


def corners(figure) -> list[tuple[float, float]]:
    """Left and top of each tile, without the scale of colours."""
    return [(image.get_extent()[0], image.get_extent()[3]) for image in figure.axes[0].images[:-1]]


@pytest.mark.parametrize("stacked", [False, True])
def test_each_crop_is_followed_by_its_maps(stacked):
    figure = explained_figure(pair(), 1.0, "a $title$", "files", stacked)
    places = corners(figure)
    assert len(places) == 6
    assert len({y for _, y in places}) == (2 if stacked else 1)
    assert len({round(x, 6) for x, _ in places}) == (3 if stacked else 6)
    plain = [(np.asarray(image.get_array()) == GREY).all() for image in figure.axes[0].images[:-1]]
    assert plain == [True, True, False, True, False, True]  # a map of 0 covers nothing
    words = {text.get_text(): text.get_position() for text in figure.axes[0].texts}
    assert {"query", "rank 1", "b1", "b2", "pid 5", "person 0 %", "$a$ person", "high", "low"} <= set(words)
    assert words["person 0 %"][0] == pytest.approx(places[1][0] + 0.5)
    assert words["$a$ person"][0] == pytest.approx(places[5][0] + 0.5)
    assert to_png(figure).startswith(b"\x89PNG")


def test_strength_0_shows_the_crops_and_the_true_person_is_outlined():
    figure = explained_figure(pair(), 0.0)
    assert all((np.asarray(image.get_array()) == GREY).all() for image in figure.axes[0].images[:-1])
    assert len(figure.axes[0].collections) == 3 * 2  # black and white around the query and its two maps


def test_a_crop_of_other_proportions_keeps_them():
    wide = Explained("query", np.zeros((30, 60, 3), np.uint8), {})
    left, right, bottom, top = explained_figure([wide]).axes[0].images[0].get_extent()
    assert (right - left) / (bottom - top) == pytest.approx(2)
