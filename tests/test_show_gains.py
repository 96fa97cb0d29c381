"""What re-ranking gains: the numbers in the figures are those that went in."""

import numpy as np
from matplotlib.colors import to_hex

from lab.show import gains


def texts(axes) -> dict[str, str]:
    return {text.get_text(): to_hex(text.get_color()).upper() for text in axes.texts}


def test_surface_shows_every_gain_and_frames_the_chosen_one():
    gain = np.array([[1.0, -2.0, 0.0], [3.25, np.nan, 4.0]])
    axes = gains.surface_figure(gain, (5, 10, 20), (1, 6), (20, 6), "gain").axes[0]
    assert list(texts(axes)) == ["+1.0", "-2.0", "+0.0", "+3.2", "", "+4.0"]
    picture = axes.images[0]
    assert picture.get_clim() == (-4, 4)  # no gain is white
    (frame,) = axes.patches
    assert frame.get_xy() == (1.5, 0.5)
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["5", "10", "20"]


def test_a_surface_without_any_gain_can_be_drawn():
    axes = gains.surface_figure(np.zeros((1, 2)), (1, 2), (1,)).axes[0]
    assert axes.images[0].get_clim() == (-1, 1)


def test_before_and_after():
    (axes,) = gains.before_after_figure(["up", "down"], [60, 20], [70.5, 18], title="runs").axes
    lines = [line.get_xdata().tolist() for line in axes.get_lines() if len(line.get_xdata()) == 2]
    assert lines == [[60, 70.5], [20, 18]]
    found = texts(axes)
    assert found["+10.5"] != found["-2.0"]
    after = [line.get_marker() for line in axes.get_lines() if line.get_marker() != "None"][1::2]
    assert after == ["o", "X"]  # a loss is told by its mark too
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["up", "down"]
