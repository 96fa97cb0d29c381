"""k-reciprocal re-ranking, drawn: who has whom among the neighbours, how sets grow, how encodings overlap.

matplotlib Figures in the look of `figures`; colours never stand alone. Legend: n neighbours of a crop, M members of two
encodings.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lab.show.axes import INCHES, TILE, draw_tile, write
from lab.show.curves import LINE_COLOURS
from lab.show.figures import CROSS, JUNK, QUERY, RIGHT, TICK, TILE_HEIGHT, WRONG

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
