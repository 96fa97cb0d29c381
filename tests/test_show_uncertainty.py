"""Figures of doubt: histograms add up, intervals and marks stand where they were put, differences keep their sign."""

import numpy as np
import pandas as pd
import pytest

from lab.show import uncertainty


def test_histograms_share_their_bins_and_hold_all_draws():
    samples = {"a": np.array([0.1, 0.2, 0.2, 0.3]), "b": np.array([0.2, 0.4])}
    figure = uncertainty.sampling_figure(samples, {"b": (0.2, 0.4)}, {"seen": 0.5}, "title")
    first, second, bar = figure.data
    assert list(first.x) == list(second.x)
    assert sum(first.y) == pytest.approx(100)
    assert sum(second.y) == pytest.approx(100)
    assert max(first.y) == pytest.approx(50)
    assert first.marker.color != second.marker.color
    assert first.marker.pattern.shape != second.marker.pattern.shape
    assert list(bar.x) == pytest.approx([20, 40])
    assert bar.line.color == second.marker.color
    assert bar.name == "95 %: 20.0 to 40.0"
    assert figure.layout.shapes[0].x0 == 50
    assert figure.layout.xaxis.title.text
    assert figure.layout.yaxis.title.text


def test_widths_are_in_points_on_logarithmic_axes():
    figure = uncertainty.width_figure({"seen": ([10, 40], [0.2, 0.1]), "rule": (np.arange(10, 90), np.ones(80))})
    assert list(figure.data[0].y) == pytest.approx([20, 10])
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == "log"
    assert figure.data[0].mode == "lines+markers"
    assert figure.data[1].line.dash == "dash"


def test_differences_have_their_sign_and_white_is_zero():
    matrix = pd.DataFrame([[np.nan, 0.05], [-0.1, np.nan]], index=[1, 2], columns=[1, 2])
    cells = uncertainty.difference_matrix_figure(matrix).data[0]
    assert cells.text.tolist() == [["", "+5.0"], ["-10.0", ""]]
    assert (cells.zmin, cells.zmax) == (-10, 10)
    assert cells.colorscale[1][1] == "#FFFFFF"
