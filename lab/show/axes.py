"""What figures of `precision`, `lines`, `bars`, `circle` and `neighbours` have in common: crops as tiles, words, labels."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from lab.show.figures import TILE_HEIGHT

TILE = 0.9  # a tile's width, where the next one begins at 1
INCHES = 0.8  # from one tile to the next


def draw_tile(axes: Axes, x: float, y: float, image: np.ndarray | None, colour: str, faded: bool = False) -> None:
    """A crop, stretched into the tile whose upper left corner is (x, y), in a frame; None is a grey tile."""
    height = TILE * TILE_HEIGHT
    if image is not None:
        box = (x, x + TILE, y + height, y)
        axes.imshow(image, extent=box, aspect="auto", interpolation="antialiased", alpha=0.35 if faded else 1)
    face = "none" if image is not None else "#E6E6E6"
    axes.add_patch(Rectangle((x, y), TILE, height, facecolor=face, edgecolor=colour, linewidth=3))


def write(axes: Axes, x, y, text, size, colour="black", ha="center", va="top", weight="normal", box=False) -> None:
    """Text that is no formula, at a place of the axes; with `box` on white."""
    style = {"color": colour, "ha": ha, "va": va, "fontweight": weight, "linespacing": 1.15}
    white = {"facecolor": "white", "edgecolor": "none", "pad": 1} if box else None
    axes.text(x, y, text, fontsize=size, parse_math=False, bbox=white, **style)


def label(axes: Axes, x: str = "", y: str = "") -> None:
    """Names of the axes, and a frame that is open above and to the right."""
    if x:
        axes.set_xlabel(x, fontsize=11)
    if y:
        axes.set_ylabel(y, fontsize=11)
    axes.tick_params(labelsize=10.5)
    axes.spines[["top", "right"]].set_visible(False)


def head(axes: Axes, title: str, pad: float = 6) -> None:
    """A title at the left, `pad` points above the axes."""
    axes.set_title(title, fontsize=13, fontweight="bold", loc="left", pad=pad, parse_math=False)
