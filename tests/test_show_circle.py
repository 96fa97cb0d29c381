"""The circle of features: its angles and its chord are those of the cosines that went in."""

import numpy as np
import pytest

from lab.show.circle import circle_figure


def test_circle_keeps_the_angle_to_the_query_and_labels_apart():
    cosines = [0.5, -1.0, 0.5, 0.5]
    (axes,) = circle_figure(cosines, ["a", "b", "c", "d"]).axes
    points = [one.get_xydata()[0] for one in axes.get_lines() if one.get_marker() == "o"]
    np.testing.assert_allclose([x for x, _ in points], cosines, atol=1e-12)
    chord = next(one for one in axes.get_lines() if one.get_label().startswith("chord")).get_xydata()
    assert np.square(chord[1] - chord[0]).sum() == pytest.approx(2 * (1 - -1.0))  # |q - g|^2 = 2 (1 - cos)
    places = [text.get_position() for text in axes.texts if text.get_text() in "abcd"]
    distances = [np.hypot(*np.subtract(a, b)) for i, a in enumerate(places) for b in places[:i]]
    assert min(distances) > 0.15
