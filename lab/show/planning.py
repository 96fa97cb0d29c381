"""Before a training or a test: what the schedule will do, and how sure a number of test people makes a mean."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from lab.show.curves import LINE_COLOURS
from lab.show.figures import JUNK


def schedule_figure(
    schedules: Mapping[str, tuple[np.ndarray, int]], title: str = "Learning rate and freezing"
) -> Figure:
    """The learning rate over the steps of a training, one panel each; where only the heads learn is hatched.

    `schedules` name -> learning rate of each step (S,) and how many of the first steps leave the trunk as it is.
    """
    figure = Figure(figsize=(max(5.4, 4.8 * len(schedules)), 3.7), dpi=100, facecolor="white", layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold", parse_math=False)
    all_axes = figure.subplots(1, len(schedules), squeeze=False)[0]
    for axes, (name, (rates, frozen)) in zip(all_axes, schedules.items(), strict=True):
        axes.plot(np.arange(len(rates)), rates, color=LINE_COLOURS[0], linewidth=2.5)
        top = 1.28 * max(rates)
        if frozen:
            axes.axvspan(0, frozen, facecolor="#EEEEEE", edgecolor=JUNK, hatch="//", linewidth=0)
            plate = {"facecolor": "white", "edgecolor": "none", "pad": 2}
            where = frozen / 2, 0.9 * top
            axes.text(*where, "heads\nonly", fontsize=10.5, ha="center", va="center", bbox=plate)
        axes.set(xlim=(0, len(rates)), ylim=(0, top))
        axes.set_title(f"{name}: {len(rates):,} steps, {frozen:,} of them frozen", fontsize=11, parse_math=False)
        axes.set_xlabel("step", fontsize=11)
        axes.tick_params(labelsize=10)
        axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=True)
        axes.grid(alpha=0.25)
    all_axes[0].set_ylabel("learning rate", fontsize=11)
    return figure


def precision_figure(
    people: np.ndarray,
    half_width: np.ndarray,
    measured: tuple[int, float] | None = None,
    title: str = "How sure is a mean?",
) -> Figure:
    """Half of the 95 % interval of a mean, in points of per cent, against the number of test people, both logarithmic.

    `measured` is one test: its number of people and the half width that a bootstrap of these gave.
    """
    figure = Figure(figsize=(7.4, 4.0), dpi=100, facecolor="white", layout="constrained")
    axes = figure.subplots()
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold", parse_math=False)
    axes.plot(people, half_width, "-o", color=LINE_COLOURS[0], linewidth=2, markersize=6, label="expected")
    for count, width in zip(people, half_width, strict=True):
        axes.annotate(f"± {width:.1f}", (count, width), (4, 5), textcoords="offset points", fontsize=10)
    if measured is not None:
        label = f"this test, by bootstrap: ± {measured[1]:.1f}"
        axes.plot(*measured, "D", color=LINE_COLOURS[1], markersize=10, label=label)
    axes.set(xscale="log", yscale="log")
    axes.margins(0.09, 0.14)
    axes.set_xticks(people, [f"{count:g}" for count in people])
    axes.set_xticks([], minor=True)
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(ScalarFormatter())
    axes.tick_params(which="both", labelsize=10)
    axes.set_xlabel("people in the test", fontsize=11)
    axes.set_ylabel("half of the 95 % interval (points)", fontsize=11)
    axes.grid(alpha=0.25, which="both")
    axes.legend(fontsize=10.5, frameon=False)
    return figure
