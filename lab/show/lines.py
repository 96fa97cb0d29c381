"""Lines over one axis, for printed pages: a matplotlib Figure in the look of `figures`. For hovering there is `curves`."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from lab.show.axes import head, label
from lab.show.curves import LINE_COLOURS
from lab.show.figures import JUNK

DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "D", "^", "v", "X", "P")
MANY = 32  # points of a line that has no markers


def lines_figure(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x: str,
    y: str,
    title: str = "",
    level: tuple[str, float] | None = None,
    marks: Mapping[str, float] | None = None,
    zero: bool = False,
    log_x: bool = False,
) -> Figure:
    """Named lines (x values, y values) that differ in colour, in dash and, where points are few, in their markers.

    `level` is a name and a height at which a grey line runs through, such as chance; `marks` are names at places on the
    x axis, each with a vertical line; `zero` keeps 0 on the y axis, with a line where nothing is or nothing changes.
    """
    figure = Figure(figsize=(9, 3.8), dpi=100, facecolor="white", layout="constrained")
    axes = figure.subplots()
    for number, (name, (places, values)) in enumerate(lines.items()):
        style = {"color": LINE_COLOURS[number % len(LINE_COLOURS)], "linestyle": DASHES[number % len(DASHES)]}
        if len(places) <= MANY:
            style |= {"marker": MARKERS[number % len(MARKERS)], "markersize": 7}
        axes.plot(places, values, label=name, linewidth=2.2, **style)
    if zero:
        axes.axhline(0, color=JUNK, linestyle="--", linewidth=1.5, zorder=1)
    if level:
        axes.axhline(level[1], color=JUNK, linestyle=(0, (6, 3)), linewidth=2, label=level[0], zorder=1)
    for name, place in (marks or {}).items():
        axes.axvline(place, color="black", linestyle=":", linewidth=1.8, zorder=2)
        axes.text(place, 1.01, name, transform=axes.get_xaxis_transform(), ha="center", va="bottom", fontsize=10.5)
    if log_x:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    elif all(np.equal(np.mod(places, 1), 0).all() for places, _ in lines.values()):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    if len(lines) > 1 or level:
        axes.legend(fontsize=10.5)
    axes.grid(color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    label(axes, x, y)
    head(axes, title, pad=20 if marks else 6)
    return figure
