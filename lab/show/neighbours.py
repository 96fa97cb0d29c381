"""k-reciprocal re-ranking, drawn: who has whom among the neighbours, how sets grow, how encodings overlap, what it gains.

matplotlib Figures in the look of `figures`; colours never stand alone. Legend: n neighbours of a crop, M members of two
encodings, R runs or data sets.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lab.show.curves import LINE_COLOURS
from lab.show.figures import CROSS, JUNK, QUERY, RIGHT, TICK, TILE_HEIGHT, WRONG
from lab.show.precision import INCHES, TILE, draw_tile, write

MUTUAL, ONE_SIDED = "\u21c4", "\u2192"


def reciprocal_figure(
    images: Sequence[np.ndarray | None],
    mutual: Sequence[bool],
    right: Sequence[bool],
    back: Sequence[int],
    query_image: np.ndarray | None,
    title: str = "",
    columns: int = 10,
) -> Figure:
    """A crop and its n nearest others; a double arrow and a blue frame where the crop is also among *their* neighbours.

    `back` (n,) says as which neighbour they have it (1 = nearest), and `right` (n,) whether they show the same person.
    """
    rows, row_height = -(-len(images) // columns), TILE * TILE_HEIGHT + 1.2
    left, top = -1.6, 0.55
    figure, axes = _page(left, min(columns, len(images)) + 0.05, top + rows * row_height + 0.35)
    write(axes, left + 0.1, 0.05, title, 13, ha="left", weight="bold")
    draw_tile(axes, left + 0.1, top + 0.4, query_image, "black")
    write(axes, left + 0.1 + TILE / 2, top + 0.36, "query", 11, va="bottom", weight="bold")
    for place, image in enumerate(images):
        row, column = divmod(place, columns)
        y = top + row * row_height + 0.4
        colour, arrow = (QUERY, MUTUAL) if mutual[place] else (JUNK, ONE_SIDED)
        draw_tile(axes, column, y, image, colour, faded=not mutual[place])
        write(axes, column + TILE / 2, y - 0.04, f"{arrow} {place + 1}", 11.5, colour, va="bottom", weight="bold")
        below = y + TILE * TILE_HEIGHT + 0.06
        symbol, shade = (TICK, RIGHT) if right[place] else (CROSS, WRONG)
        write(axes, column + TILE / 2, below, f"{symbol}\nits no. {back[place]}", 10, shade)
    legend = (
        f"{MUTUAL} mutual: the query is among its neighbours too    {ONE_SIDED} one-sided    "
        f"{TICK} same person    {CROSS} another    its no.: where it ranks the query"
    )
    write(axes, left + 0.1, top + rows * row_height + 0.05, legend, 10, "#444444", ha="left")
    return figure


def expansion_figure(
    images: Sequence[np.ndarray | None],
    common: Sequence[int],
    size: Sequence[int],
    added: Sequence[Sequence[np.ndarray | None]],
    title: str = "",
    most: int = 8,
) -> Figure:
    """How a set of mutual neighbours grows: one row for each member, up to `most`.

    Of the member's own half-size set (`size`) so many are `common` with the set; where they are more than two thirds, the
    others (`added`, crops) join.
    """
    count, row_height = min(len(images), most), 0.5 * TILE_HEIGHT + 0.22
    figure, axes = _page(-0.1, 12.2, 1.4 + count * row_height)
    write(axes, 0, 0.05, title, 13, ha="left", weight="bold")
    for x, text in ((0.0, "member"), (1.0, "share of its half-size set that is in the set already"), (7.6, "joins")):
        write(axes, x, 0.55, text, 10.5, "#444444", ha="left")
    for row in range(count):
        y = 1.0 + row * row_height
        share, accepted = common[row] / size[row], 3 * common[row] > 2 * size[row]
        _small_tile(axes, 0.1, y, images[row], QUERY)
        colour = QUERY if accepted else JUNK
        axes.add_patch(Rectangle((1, y + 0.25), 5, 0.5, facecolor="#EEEEEE", edgecolor="none"))
        axes.add_patch(
            Rectangle((1, y + 0.25), 5 * share, 0.5, facecolor=colour, alpha=0.6, hatch="" if accepted else "//")
        )
        write(axes, 6.1, y + 0.5, f"{common[row]}/{size[row]}", 11, colour, "left", "center", "bold")
        if not accepted:
            write(axes, 7.6, y + 0.5, "nobody: too few in common", 10.5, JUNK, "left", "center")
        elif not len(added[row]):
            write(axes, 7.6, y + 0.5, "nobody new", 10.5, JUNK, "left", "center")
        for place, image in enumerate(added[row][:7] if accepted else ()):
            _small_tile(axes, 7.6 + 0.62 * place, y, image, LINE_COLOURS[3])
    bottom = 1.0 + count * row_height
    axes.plot([1 + 10 / 3] * 2, [0.95, bottom - 0.1], color="black", linestyle="--", linewidth=2)
    write(axes, 1 + 10 / 3, bottom - 0.1, "two thirds", 10.5)
    return figure


def overlap_figure(
    a: Sequence[float],
    b: Sequence[float],
    images: Sequence[np.ndarray | None],
    names: tuple[str, str],
    title: str = "",
) -> Figure:
    """Two encodings (M,) side by side over the members that either has; what both have, the smaller weight, is hatched."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    figure = Figure(figsize=(max(8.0, 0.62 * len(a) + 1.6), 4.2), dpi=100, facecolor="white")
    axes = figure.add_axes((0.09, 0.34, 0.89, 0.54))
    place = np.arange(len(a))
    axes.bar(place - 0.2, a, 0.38, color=LINE_COLOURS[0], alpha=0.6, label=names[0])
    axes.bar(place + 0.2, b, 0.38, color=LINE_COLOURS[1], alpha=0.6, label=names[1])
    least = np.minimum(a, b)
    axes.bar(place, least, 0.78, facecolor="none", edgecolor="black", hatch="///", linewidth=0, label="smaller of both")
    axes.set(xlim=(-0.6, len(a) - 0.4), ylim=(0, 1.32 * max(a.max(), b.max())))
    axes.set_xticks([])
    axes.set_ylabel("weight", fontsize=11)
    axes.tick_params(labelsize=10.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=10.5, ncols=3, loc="upper right", frameon=False)
    axes.set_title(title, fontsize=13, fontweight="bold", loc="left", parse_math=False)
    strip = figure.add_axes((0.09, 0.04, 0.89, 0.29))
    strip.set(xlim=axes.get_xlim(), ylim=(1, 0))
    strip.set_axis_off()
    for x, image in zip(place, images, strict=True):
        if image is not None:
            strip.imshow(image, extent=(x - 0.42, x + 0.42, 0.98, 0.02), aspect="auto", interpolation="antialiased")
        strip.add_patch(Rectangle((x - 0.42, 0.02), 0.84, 0.96, facecolor="#E6E6E6", zorder=-1))
    return figure


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


def _page(left: float, right: float, height: float) -> tuple[Figure, Axes]:
    """An empty page in tile widths, y downwards."""
    figure = Figure(figsize=(INCHES * (right - left), INCHES * height), dpi=100, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(left, right), ylim=(height, 0))
    axes.set_autoscale_on(False)
    axes.set_axis_off()
    return figure, axes


def _small_tile(axes: Axes, x: float, y: float, image: np.ndarray | None, colour: str) -> None:
    if image is not None:
        axes.imshow(image, extent=(x, x + 0.5, y + 1, y), aspect="auto", interpolation="antialiased")
    face = "none" if image is not None else "#E6E6E6"
    axes.add_patch(Rectangle((x, y), 0.5, 1, facecolor=face, edgecolor=colour, linewidth=2))
