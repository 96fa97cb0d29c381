"""What re-ranking gains, drawn: over its parameters, and for each of several runs or data sets.

matplotlib Figures in the look of `figures`; colours never stand alone.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lab.show.axes import write
from lab.show.curves import LINE_COLOURS


def surface_figure(
    gain: np.ndarray, k1: Sequence[int], k2: Sequence[int], chosen: tuple[int, int] | None = None, title: str = ""
) -> Figure:
    """What re-ranking gains (len(k2), len(k1)), in points, as numbers on colours; `chosen` (k1, k2) is framed.

    Blue is better than without, orange worse.
    """
    most = float(np.nanmax(np.abs(gain))) or 1.0
    colours = LinearSegmentedColormap.from_list("gain", ["#E58A4E", "#FFFFFF", "#6FB1DC"])
    figure = Figure(
        figsize=(0.85 * len(k1) + 2.6, 0.52 * len(k2) + 1.6), dpi=100, facecolor="white", layout="constrained"
    )
    axes = figure.subplots()
    picture = axes.imshow(gain, cmap=colours, vmin=-most, vmax=most, aspect="auto", origin="lower")
    for (row, column), value in np.ndenumerate(gain):
        write(axes, column, row, "" if np.isnan(value) else f"{value:+.1f}", 10.5, va="center")
    if chosen is not None:
        corner = (list(k1).index(chosen[0]) - 0.5, list(k2).index(chosen[1]) - 0.5)
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="black", linewidth=3))
    axes.set_xticks(range(len(k1)), k1)
    axes.set_yticks(range(len(k2)), k2)
    axes.set_xlabel("k1: neighbours that make a neighbourhood", fontsize=11)
    axes.set_ylabel("k2: encodings averaged", fontsize=11)
    axes.tick_params(labelsize=10.5)
    axes.set_title(title, fontsize=13, fontweight="bold", loc="left", parse_math=False)
    bar = figure.colorbar(picture, ax=axes, fraction=0.05, pad=0.02)
    bar.set_label("gain (points)", fontsize=11)
    bar.ax.tick_params(labelsize=10.5)
    return figure


def before_after_figure(
    names: Sequence[str], before: Sequence[float], after: Sequence[float], label: str = "mAP (%)", title: str = ""
) -> Figure:
    """One row for each name: a hollow dot before, a full one after, and the difference in points."""
    figure = Figure(figsize=(9.5, 0.42 * len(names) + 1.5), dpi=100, facecolor="white", layout="constrained")
    axes = figure.subplots()
    for row, (old, new) in enumerate(zip(before, after, strict=True)):
        colour = LINE_COLOURS[0] if new >= old else LINE_COLOURS[1]
        axes.plot([old, new], [row, row], color=colour, linewidth=2.5, zorder=1)
        axes.plot(old, row, "o", color=colour, markerfacecolor="white", markersize=9, mew=2)
        axes.plot(new, row, "o" if new >= old else "X", color=colour, markersize=9)
        write(axes, max(old, new) + 2, row, f"{new - old:+.1f}", 10.5, colour, "left", "center", "bold")
    axes.set(xlim=(0, 108), ylim=(len(names) - 0.4, -0.6))
    axes.set_yticks(range(len(names)), names)
    axes.grid(axis="x", color="#DDDDDD")
    axes.set_axisbelow(True)
    axes.set_xlabel(f"{label}: hollow without, full with re-ranking", fontsize=11)
    axes.tick_params(labelsize=10.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, fontsize=13, fontweight="bold", loc="left", parse_math=False)
    return figure
