"""Named numbers as horizontal bars: the memory of matrices beside a budget, and one metric counted in several ways.

matplotlib Figures in the look of `figures`; colours never stand alone.
"""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from lab.show.axes import head, label, write
from lab.show.curves import LINE_COLOURS
from lab.show.figures import QUERY, WRONG


def memory_figure(sizes: Mapping[str, float], budget: float, title: str = "") -> Figure:
    """Gigabytes of some matrices as bars on a logarithmic scale, and the `budget` that the lab works with."""
    figure = Figure(figsize=(9.5, 0.5 * len(sizes) + 1.5), dpi=100, facecolor="white", layout="constrained")
    axes = figure.subplots()
    most = max(max(sizes.values()), budget)
    for place, size in enumerate(sizes.values()):
        axes.barh(
            place, size, color=QUERY if size <= budget else WRONG, hatch="" if size <= budget else "//", alpha=0.6
        )
        text = f"{1000 * size:.2g} MB" if size < 0.01 else f"{size:,.3g} GB" if size < 1000 else f"{size:,.0f} GB"
        write(axes, size * 1.1, place, text, 10.5, ha="left", va="center", box=True)
    axes.axvline(budget, color="black", linestyle="--", linewidth=2)
    write(axes, budget, -0.62, f" budget {budget:g} GB", 10.5, ha="left", va="bottom")
    axes.set(xscale="log", xlim=(min(min(sizes.values()), budget) / 3, most * 8), ylim=(len(sizes) - 0.4, -1.1))
    axes.set_yticks(range(len(sizes)), list(sizes))
    label(axes, "memory of one float32 matrix (GB, logarithmic)")
    head(axes, title)
    return figure


def bars_figure(values: Mapping[str, float], quantity: str = "mAP (%)", title: str = "") -> Figure:
    """Named values as horizontal bars with their numbers; the first is the reference, the others show what they differ by."""
    names, numbers = list(values), np.array(list(values.values()), float)
    figure = Figure(figsize=(9.5, 0.5 * len(names) + 1.3), dpi=100, facecolor="white", layout="constrained")
    axes = figure.subplots()
    for place, value in enumerate(numbers):
        style = {"color": QUERY} if place == 0 else {"color": LINE_COLOURS[4], "hatch": "//"}
        axes.barh(place, value, alpha=0.6, **style)
        change = "" if place == 0 else f" ({value - numbers[0]:+.1f})"
        write(axes, value + 0.01 * numbers.max(), place, f"{value:.1f}{change}", 10.5, ha="left", va="center", box=True)
    axes.axvline(numbers[0], color=QUERY, linestyle="--", linewidth=1.5)
    axes.set(xlim=(0, max(100.0, 1.15 * numbers.max())) if numbers.max() > 80 else (0, 1.3 * numbers.max()))
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(range(len(names)), names)
    label(axes, quantity)
    head(axes, title)
    return figure
