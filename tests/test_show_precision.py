"""Figures of rank lists and metrics: what they draw is compared with `hit_metrics` and with results worked out by hand."""

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex

from lab.evaluate.metrics import hit_metrics
from lab.show import precision
from lab.show.figures import JUNK, QUERY, RIGHT, WRONG

CROP = np.full((64, 32, 3), 128, np.uint8)
RANKS = np.array([1, 4, 5])
MATCH = np.array([True, False, False, True, True, False])


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def frames(axes) -> list[str]:
    return [to_hex(patch.get_edgecolor()).upper() for patch in axes.patches]


def line(axes, label: str) -> np.ndarray:
    """(n, 2) x and y of the line with this label."""
    return next(one for one in axes.get_lines() if one.get_label().startswith(label)).get_xydata()


def score(ranks: np.ndarray, kind: str) -> float:
    return float(hit_metrics(ranks, np.zeros(len(ranks), np.int64), 1, kind)["ap"][0])


def smallest_font(figure) -> float:
    figure.canvas.draw()
    found = figure.findobj(lambda artist: isinstance(artist, matplotlib.text.Text) and artist.get_text())
    return min(text.get_fontsize() for text in found)


def test_the_dots_are_the_precisions_whose_mean_is_ap():
    figure = precision.precision_figure(MATCH, [CROP] * 6, CROP, captions=list("abcdef"), ap=score(RANKS, "step"))
    strip, panel = figure.axes
    dots = line(panel, "at a right one")
    np.testing.assert_array_equal(dots[:, 0], RANKS)
    np.testing.assert_allclose(dots[:, 1], [1, 2 / 4, 3 / 5])
    assert dots[:, 1].mean() == pytest.approx(score(RANKS, "step"))
    np.testing.assert_array_equal(line(panel, "at a wrong one")[:, 0], [2, 3, 6])
    assert line(panel, "mean of the dots: AP = 70.0 %")[0, 1] == pytest.approx(0.7)
    assert texts(panel) == ["1/1", "2/4", "3/5"]
    assert frames(strip) == [QUERY, RIGHT, WRONG, WRONG, RIGHT, RIGHT, WRONG]
    assert {"query", "1 \u2713", "2 \u2717", "4 \u2713", "f"} <= set(texts(strip))
    assert smallest_font(figure) >= 10


def test_a_removed_entry_is_grey_and_has_no_rank():
    removed = [True, False, False, False, False, False]
    strip, panel = precision.precision_figure(MATCH, [CROP, None] * 3, removed=removed).axes
    assert frames(strip) == [JUNK, WRONG, WRONG, RIGHT, RIGHT, WRONG]
    assert "out" in texts(strip)
    assert "1 \u2717" in texts(strip)
    dots = line(panel, "at a right one")
    np.testing.assert_array_equal(dots[:, 0], [4, 5])  # places in the strip
    np.testing.assert_allclose(dots[:, 1], [1 / 3, 2 / 4])
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["", "1", "2", "3", "4", "5"]
    assert not any(one.get_label().startswith("mean") for one in panel.get_lines())


def test_crops_stand_above_their_ranks():
    figure = precision.precision_figure(MATCH, [CROP] * 6)
    figure.canvas.draw()
    strip, panel = figure.axes
    for place in (1, 6):
        above, below = (axes.transData.transform((place, 0.5))[0] for axes in (strip, panel))
        assert above == pytest.approx(below, abs=0.5)


def test_steps_without_crops():
    figure = precision.steps_figure([2, 3], 40, 0.5, "two hits")
    (axes,) = figure.axes
    np.testing.assert_allclose(line(axes, "at a right one"), [[2, 1 / 2], [3, 2 / 3]])
    assert axes.get_title(loc="left") == "two hits"
    assert [tick.get_text() for tick in axes.get_xticklabels()][:3] == ["1", "5", "10"]


@pytest.mark.parametrize("ranks", [[1, 4, 5], [2], [1, 2, 3], [7, 9, 30]])
def test_areas_are_the_two_aps(ranks):
    ranks = np.array(ranks)
    scores = [score(ranks, kind) for kind in ("step", "trapezoid")]
    panels = precision.area_figure(ranks, *scores).axes
    for axes, expected in zip(panels, scores, strict=True):
        drawn = [
            one.get_xydata() for one in axes.get_lines() if len(one.get_xydata()) == 2 and one.get_marker() == "None"
        ]
        area = sum(np.trapezoid(points[:, 1], points[:, 0]) for points in drawn)
        assert area == pytest.approx(expected)
        assert f"{100 * expected:.1f} %" in axes.get_title()


def test_difference_of_the_two_aps_leaves_out_queries_without_a_match():
    step, trapezoid = np.array([1.0, 0.5, np.nan]), np.array([1.0, 0.25, np.nan])
    left, right = precision.two_ap_figure(step, trapezoid).axes
    np.testing.assert_allclose(left.get_lines()[0].get_xydata(), [[100, 0], [50, -25]])
    assert right.get_legend().get_texts()[0].get_text() == "mean -12.50"
    assert sum(bar.get_width() for bar in right.patches) == 2
