"""Figures of re-ranking: what they draw is compared with what goes in, worked out by hand."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_hex

from lab.show import neighbours
from lab.show.figures import JUNK, QUERY, RIGHT, WRONG

CROP = np.full((64, 32, 3), 128, np.uint8)


def texts(axes) -> dict[str, str]:
    return {text.get_text(): to_hex(text.get_color()).upper() for text in axes.texts}


def test_mutual_neighbours_have_a_double_arrow_and_a_blue_frame():
    figure = neighbours.reciprocal_figure(
        [CROP, None, CROP], [True, False, True], [True, True, False], [1, 14, 3], CROP, "three", columns=2
    )
    (axes,) = figure.axes
    frames = [to_hex(patch.get_edgecolor()).upper() for patch in axes.patches]
    assert frames == ["#000000", QUERY, JUNK, QUERY]
    found = texts(axes)
    assert found["\u21c4 1"] == found["\u21c4 3"] == QUERY
    assert found["\u2192 2"] == JUNK
    assert found["\u2713\nits no. 14"] == RIGHT
    assert found["\u2717\nits no. 3"] == WRONG
    ys = [patch.get_y() for patch in axes.patches[1:]]
    assert ys[0] == ys[1] < ys[2]  # two columns
    assert min(text.get_fontsize() for text in axes.texts) >= 10


def test_a_set_grows_where_more_than_two_thirds_are_common():
    added = [[CROP, CROP], [], [CROP]]
    (axes,) = neighbours.expansion_figure([CROP] * 3, [3, 4, 2], [4, 4, 3], added, "growth").axes
    widths = [patch.get_width() / 5 for patch in axes.patches if patch.get_alpha() == 0.6]
    np.testing.assert_allclose(widths, [3 / 4, 1, 2 / 3])
    found = texts(axes)
    assert found["3/4"] == found["4/4"] == QUERY
    assert found["2/3"] == JUNK  # exactly two thirds are not more
    assert "nobody new" in found
    assert "nobody: too few in common" in found
    assert len(axes.images) == 3 + 2  # the members, and the two that join


def test_only_so_many_members_are_drawn():
    (axes,) = neighbours.expansion_figure([CROP] * 9, [1] * 9, [1] * 9, [[]] * 9, most=4).axes
    assert len(axes.images) == 4


def test_overlap_hatches_the_smaller_weights():
    a, b = [0.5, 0.5, 0.0], [0.25, 0.0, 0.75]
    bars, strip = neighbours.overlap_figure(a, b, [CROP] * 3, ("query", "other"), "d = 0.857").axes
    hatched = [bar.get_height() for bar in bars.patches if bar.get_hatch()]
    assert hatched == [0.25, 0, 0]
    plain = [bar.get_height() for bar in bars.patches if not bar.get_hatch()]
    assert plain == [*a, *b]
    assert [text.get_text() for text in bars.get_legend().get_texts()] == ["query", "other", "smaller of both"]
    assert len(strip.images) == 3
    assert bars.get_xlim() == strip.get_xlim()


MODULES = [f"lab.show.{name}" for name in ("precision", "neighbours", "lines", "bars", "circle", "gains")]


@pytest.mark.parametrize("module", MODULES)
def test_needs_neither_torch_nor_pyplot(module):
    code = f"import sys, {module}; print([name for name in ('torch', 'matplotlib.pyplot') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
