"""Figures for planning: the schedule that was given is drawn, and so is what is frozen."""

import io

import numpy as np
import pytest

from lab.finetune.train import FinetuneConfig, frozen_steps, learning_rate
from lab.show.planning import precision_figure, schedule_figure


def drawn(figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def test_a_schedule_shows_the_rates_and_hatches_the_frozen_steps():
    config, steps = FinetuneConfig(), 60
    rates = np.array([learning_rate(step, steps, config) for step in range(steps)])
    frozen = frozen_steps(steps, config.freeze, True)
    figure = schedule_figure({"published": (rates, frozen), "scratch": (rates, 0)})
    first, second = figure.axes
    assert first.lines[0].get_ydata() == pytest.approx(rates)
    assert first.get_title() == "published: 60 steps, 11 of them frozen"
    (span,) = first.patches
    assert (span.get_x(), span.get_width(), span.get_hatch()) == (0, 11, "//")
    assert [text.get_text() for text in first.texts] == ["heads\nonly"]
    assert not second.patches
    assert not second.texts
    assert (first.get_xlabel(), first.get_ylabel()) == ("step", "learning rate")
    assert drawn(figure)


def test_precision_shows_each_width_and_the_measured_test():
    people, half = np.array([10, 100, 1000]), np.array([30.0, 9.5, 3.0])
    axes = precision_figure(people, half, (60, 12.0)).axes[0]
    expected, measured = axes.lines
    assert expected.get_ydata() == pytest.approx(half)
    assert (measured.get_xdata()[0], measured.get_ydata()[0]) == (60, 12.0)
    assert [text.get_text() for text in axes.texts] == ["± 30.0", "± 9.5", "± 3.0"]
    assert [label.get_text() for label in axes.get_legend().texts] == ["expected", "this test, by bootstrap: ± 12.0"]
    assert "points" in axes.get_ylabel()
    assert len(precision_figure(people, half).axes[0].lines) == 1
    assert drawn(precision_figure(people, half))
