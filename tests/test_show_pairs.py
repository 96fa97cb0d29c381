"""Figures of pairs: what they draw is compared with counts and matrices made by hand."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from lab.errors import InputError
from lab.evaluate.error_rates import COARSE_BINS, PairCounts, Verification
from lab.show.figures import RIGHT, WRONG
from lab.show.pairs import (
    BARS,
    camera_error_figure,
    camera_matrix_figure,
    distance_histogram_figure,
    roc_figure,
)


def made_up(true: dict[int, int], false: dict[int, int], cameras: int = 1) -> Verification:
    """Pairs by coarse bin (of 512 over 0..2), the last pair of cameras having all of them; distances end the bins."""
    fine = np.zeros((2, 2 * COARSE_BINS + 1), np.int64)
    coarse = np.zeros((2, cameras, cameras, COARSE_BINS), np.int64)
    for kind, counts in enumerate((true, false)):
        for place, count in counts.items():
            fine[kind, 2 * (place + 1)] = count
            coarse[kind, -1, -1, place] = count
    camids = np.arange(1, cameras + 1)
    return Verification.of(PairCounts(*fine, 1 / COARSE_BINS, *coarse, camids, camids))


def test_show_pairs_needs_neither_torch_nor_pyplot():
    code = "import sys, lab.show.pairs; print([name for name in ('torch', 'matplotlib.pyplot') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_histogram_shows_shares_of_either_kind_and_the_threshold():
    found = made_up({10: 30, 11: 10}, {11: 30, 40: 70})
    figure = distance_histogram_figure(found, "a <run>")
    two, same = figure.data
    assert two.name == "two persons: 100 pairs"
    assert same.name == "same person, two cameras: 40 pairs"
    assert (two.marker.color, same.marker.color) == (WRONG, RIGHT)
    assert same.y[:3] == pytest.approx([75, 25, 0])
    assert two.y[[0, 1, 30]] == pytest.approx([0, 30, 70])
    assert same.customdata[0] == pytest.approx([10 / 256, 11 / 256])
    assert same.x[0] == pytest.approx(10.5 / 256)
    assert len(same.y) == 31, "the empty ends are left out"
    line = figure.layout.shapes[0]
    assert line.x0 == line.x1 == found.eer_threshold == 11 / 256
    assert f"{100 * found.eer:.1f} %" in figure.layout.annotations[0].text
    assert "distance" in figure.layout.xaxis.title.text
    assert "<run>" not in figure.layout.title.text


def test_histogram_joins_bins_and_loses_no_pair():
    rng = np.random.default_rng(0)
    true, false = ({place: int(rng.integers(1, 9)) for place in range(*ends)} for ends in ((3, 400), (100, 500)))
    two, same = distance_histogram_figure(made_up(true, false)).data
    assert BARS / 2 < len(two.y) <= BARS
    assert sum(two.y) == pytest.approx(100)
    assert sum(same.y) == pytest.approx(100)
    edges = same.customdata  # 497 bins, five to a bar
    assert edges[0] == pytest.approx([3 / 256, 8 / 256])
    assert edges[-1][1] == pytest.approx(500 / 256)
    assert same.y[0] == pytest.approx(100 * sum(true[place] for place in range(3, 8)) / sum(true.values()))


@pytest.mark.parametrize(("threshold", "sides"), [(5 / 256, ("top right", "left")), (30 / 256, ("top left", "right"))])
def test_a_chosen_threshold_is_a_second_line_beside_that_of_equal_errors(threshold, sides):
    found = made_up({10: 30, 11: 10}, {11: 30, 40: 70})
    figure = distance_histogram_figure(found, threshold=threshold)
    equal, chosen = figure.layout.shapes
    assert (equal.x0, chosen.x0) == (found.eer_threshold, threshold)
    assert equal.line.dash != chosen.line.dash
    assert figure.layout.xaxis.range[0] <= threshold <= figure.layout.xaxis.range[1]
    words = figure.layout.annotations
    assert f"{threshold:.3f}" in words[1].text
    assert {note.xanchor for note in words} == {"left", "right"}, "the two stand on either side"
    assert words[0].align == sides[1]


def test_histogram_of_one_pair_of_cameras():
    found = made_up({10: 30}, {20: 50}, cameras=2)
    assert distance_histogram_figure(found, "", 2, 2).data[1].name.endswith(" 30 pairs")
    empty = distance_histogram_figure(found, "", 1, 2)
    assert empty.data[1].name.endswith(" 0 pairs")
    assert not np.any(empty.data[0].y)
    with pytest.raises(InputError, match="no gallery camera 3"):
        distance_histogram_figure(found, "", 1, 3)


def test_roc_is_drawn_over_a_logarithmic_fpr_with_the_equal_error_marked():
    found = made_up({10: 60, 30: 30, 50: 10}, {20: 2, 40: 9_998, 60: 90_000})
    figure = roc_figure({"a <b>": found, "other": found})
    curve, mark, other, _ = figure.data
    points = {(round(x, 9), round(y, 9)) for x, y in zip(curve.x, curve.y, strict=True)}
    assert {(0.001, 60.0), (0.002, 90.0), (10.0, 90.0), (10.0, 100.0), (100.0, 100.0)} <= points
    assert min(curve.x) == 0.001, "an FPR of 0 has no place on the axis: it stands at its left end"
    assert curve.line.shape == "hv"
    assert (mark.x[0], mark.y[0]) == pytest.approx((100 * found.eer, 100 - 100 * found.eer)) == (10, 90)
    assert mark.name == "a &lt;b&gt; (equal error 10.0 %)"
    assert curve.line.color == mark.line.color != other.line.color
    assert figure.layout.xaxis.type == "log"
    assert list(figure.layout.xaxis.range) == [-3, 2]
    assert figure.layout.xaxis.ticktext[0] == "0.001 %"
    assert "%" in figure.layout.yaxis.title.text


def test_roc_marks_a_chosen_threshold():
    found = made_up({10: 60, 30: 30, 50: 10}, {20: 2, 40: 9_998, 60: 90_000})
    ring = roc_figure({"a": found, "b": found}, at={"b": 41 / 256}).data[-1]
    assert (ring.x[0], ring.y[0]) == pytest.approx((10, 90))
    assert ring.name == "threshold 0.160 for b"
    assert roc_figure({"a": found}, at={"a": 0.0}).data[-1].x[0] == 0.001, "an FPR of 0 stands at the axis' left end"


def test_error_matrix_ends_its_colours_at_the_largest_error():
    cells = camera_error_figure(pd.DataFrame([[np.nan, 0.25], [0.125, np.nan]], index=[1, 2], columns=[1, 2])).data[0]
    assert cells.text.tolist() == [["", "25.0"], ["12.5", ""]]
    assert (cells.zmin, cells.zmax) == (0, 25)
    blank = camera_error_figure(pd.DataFrame([[np.nan]], index=[1], columns=[1])).data[0]
    assert blank.zmax == 1


def test_camera_matrix_is_in_per_cent_with_blank_cells():
    matrix = pd.DataFrame([[np.nan, 0.5, 0.125], [1.0, np.nan, np.nan]], index=[1, 12], columns=[1, 12, 3])
    figure = camera_matrix_figure(matrix, "mAP")
    (cells,) = figure.data
    np.testing.assert_array_equal(cells.z, [[np.nan, 50, 12.5], [100, np.nan, np.nan]])
    assert cells.text.tolist() == [["", "50.0", "12.5"], ["100.0", "", ""]]
    assert (cells.zmin, cells.zmax) == (0, 100)
    assert list(cells.x) == ["1", "12", "3"]
    assert list(cells.y) == ["1", "12"]
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == ("gallery camera", "query camera")
    assert (figure.layout.xaxis.type, figure.layout.yaxis.autorange) == ("category", "reversed")
