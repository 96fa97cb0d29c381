"""Crops of a pair, each beside what a network made of it: one map after the other, in one row or one under the other.

Pictures are matplotlib Figures that pyplot does not know. Lengths are in tile widths. Legend: H, W size of a crop.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lab.show.figures import QUERY, blend

HEIGHT = 2.0  # of a tile: a person's crop
STEP, GAP, SCALE = 1.12, 0.4, 0.95  # from tile to tile, between two crops in a row, room for the scale of colours
ABOVE, HEAD, BELOW = 0.62, 0.62, 0.52  # the title; words above a row of tiles, and below it
INCHES = 0.88  # a tile's width: small, so that the words are large on a projector


@dataclass(frozen=True, eq=False)
class Explained:
    """A crop (H, W, 3) uint8 and its maps, name -> (H, W) of 0..1, with what stands above the crop and below each map.

    `words` and `colour` are the crop's own, as "query" and blue; `below` has the words below it, and by the name of a map
    those below that. `mask` (H, W) bool is the true person of a drawn crop, outlined in white.
    """

    words: str
    image: np.ndarray
    maps: Mapping[str, np.ndarray]
    colour: str = QUERY
    below: Mapping[str, str] = field(default_factory=dict)
    mask: np.ndarray | None = None


def explained_figure(
    crops: Sequence[Explained], strength: float = 0.65, title: str = "", subtitle: str = "", stacked: bool = False
) -> Figure:
    """Each crop in its frame and then under each of its maps: side by side, or `stacked`, a row for each crop.

    `strength` 0 shows the crops alone, 1 the maps alone where they are high.
    """
    counts = [1 + len(crop.maps) for crop in crops]
    columns = max(counts) * STEP if stacked else sum(counts) * STEP + GAP * (len(crops) - 1)
    rows, row_height = len(crops) if stacked else 1, HEAD + HEIGHT + BELOW
    width, height = max(columns + SCALE, 7.0), ABOVE + rows * row_height
    figure = Figure(figsize=((width + 0.2) * INCHES, (height + 0.2) * INCHES), dpi=100, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-0.1, width + 0.1), ylim=(height + 0.1, -0.1))
    axes.set_autoscale_on(False)
    axes.set_axis_off()
    _write(axes, 0, 0, title, 12, weight="bold")
    _write(axes, 0, 0.31, subtitle, 10)
    x, y = 0.0, ABOVE + HEAD
    for crop, count in zip(crops, counts, strict=True):
        _draw_crop(axes, x, y, crop, strength)
        x, y = (x, y + row_height) if stacked else (x + count * STEP + GAP, y)
    _draw_scale(axes, columns + 0.12, ABOVE + HEAD)
    return figure


def _draw_crop(axes: Axes, x: float, y: float, crop: Explained, strength: float) -> None:
    for place, name in enumerate(["", *crop.maps]):
        left = x + place * STEP
        image = crop.image if not place else blend(crop.image, crop.maps[name], strength)
        _draw_tile(axes, left, y, image, crop.mask)
        _write(axes, left + 0.5, y - 0.05, name, 11, ha="center", va="bottom")
        _write(axes, left + 0.5, y + HEIGHT + 0.06, crop.below.get(name, ""), 9, ha="center")
    axes.add_patch(Rectangle((x, y), 1, HEIGHT, fill=False, edgecolor=crop.colour, linewidth=3.5, zorder=4))
    _write(axes, x, y - 0.3, crop.words, 11, crop.colour, va="bottom", weight="bold")


def _draw_tile(axes: Axes, x: float, y: float, image: np.ndarray, mask: np.ndarray | None) -> None:
    """A picture, whole and in its own proportions, in the tile whose upper left corner is (x, y)."""
    axes.add_patch(Rectangle((x, y), 1, HEIGHT, facecolor="#E6E6E6", edgecolor="none", zorder=-1))
    rows, columns = image.shape[:2]
    width = min(1.0, HEIGHT * columns / rows)
    height = width * rows / columns
    left, top = x + (1 - width) / 2, y + (HEIGHT - height) / 2
    extent = (left, left + width, top + height, top)
    axes.imshow(image, extent=extent, aspect="auto", interpolation="antialiased")
    if mask is not None:
        places = left + (np.arange(columns) + 0.5) * width / columns, top + (np.arange(rows) + 0.5) * height / rows
        for colour, line in (("black", 2.2), ("white", 1.0)):
            axes.contour(*places, mask.astype(float), levels=[0.5], colors=colour, linewidths=line)


def _draw_scale(axes: Axes, x: float, y: float) -> None:
    """Which colours are high, as they stand on mid grey."""
    steps = np.linspace(1, 0, 64)[:, None]
    axes.imshow(
        blend(np.full((64, 1, 3), 128, np.uint8), steps, 1.0), extent=(x, x + 0.16, y + HEIGHT, y), aspect="auto"
    )
    _write(axes, x + 0.22, y, "high", 9.5)
    _write(axes, x + 0.22, y + HEIGHT, "low", 9.5, va="bottom")


def _write(axes, x, y, text, size, colour="black", ha="left", va="top", weight="normal") -> None:
    if text:  # names may hold a dollar sign, which is no formula here
        axes.text(
            x, y, text, fontsize=size, color=colour, ha=ha, va=va, fontweight=weight, parse_math=False, linespacing=1.15
        )
