"""Bars of named numbers: what they show is what went in."""

from lab.show import bars


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_memory_against_the_budget():
    (axes,) = bars.memory_figure({"small": 0.0005, "fits": 0.2, "large": 3.83, "huge": 4000}, 0.25).axes
    assert [bar.get_width() for bar in axes.patches] == [0.0005, 0.2, 3.83, 4000]
    assert [bar.get_hatch() or "" for bar in axes.patches] == ["", "", "//", "//"]
    assert [text.strip() for text in texts(axes)] == ["0.5 MB", "0.2 GB", "3.83 GB", "4,000 GB", "budget 0.25 GB"]
    assert axes.get_xscale() == "log"


def test_bars_say_what_they_differ_by():
    (axes,) = bars.bars_figure({"rules": 40.0, "without": 55.5, "other": 38}, title="mAP").axes
    assert texts(axes) == ["40.0", "55.5 (+15.5)", "38.0 (-2.0)"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["rules", "without", "other"]
